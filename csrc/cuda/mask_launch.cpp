#include "mask_launch.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "runtime.h"

namespace geoact::cuda {

void run_mask(const Call& call, uint8_t* mask, int id, void* stream) {
  MaskAxis axes[max_rank];
  const int rank = merge(axes, mask_axes(call, axes)) - 1;
  if (rank > most_axes)
    throw std::invalid_argument("the arrays have more than " + std::to_string(most_axes + 1) +
                                " axes that cannot be merged; pass contiguous ones");
  MaskPlan plan{
      call.in[0].data, call.out[0].data, mask, 1, (axes[rank].size + warp_size - 1) / warp_size, axes[rank], rank, {}};
  std::copy_n(axes, rank, plan.axis);
  for (int i = 0; i < rank; ++i) plan.rows *= axes[i].size;
  const int64_t warps = plan.rows * plan.words, most_blocks = int64_t(1) << 20;
  const int64_t blocks = (warps * warp_size + most_threads - 1) / most_threads;
  if (warps == 0) return;
  launch(mask_kernels()[int(call.dtype)][int(call.direction)], std::min(blocks, most_blocks), most_threads, id, stream,
         plan);
}

}  // namespace geoact::cuda
