#include "mask.h"

namespace geoact {

int mask_axes(const Call& call, MaskAxis* axes) {
  if (call.rank == 0) {
    axes[0] = {1, 0, 0, 1};
    return 1;
  }
  int64_t step = 1;
  for (int i = call.rank - 1; i >= 0; --i) {
    const bool last = i == call.rank - 1;
    axes[i] = {call.shape[i], call.in[0].stride[i], call.out[0].stride[i], step};
    step *= last ? (call.shape[i] + 7) / 8 : call.shape[i];
  }
  return call.rank;
}

int64_t mask_bytes(const Call& call) {
  MaskAxis axes[max_rank];
  const int rank = mask_axes(call, axes);
  return rank == 1 ? (axes[0].size + 7) / 8 : axes[0].size * axes[0].mask;
}

int merge(MaskAxis* axes, int rank) {
  int kept = 0;
  for (int i = 0; i < rank; ++i)
    if (i == rank - 1 || axes[i].size != 1) axes[kept++] = axes[i];
  MaskAxis last = axes[--kept];
  for (; kept > 0 && last.size % 8 == 0; --kept) {
    const MaskAxis& outer = axes[kept - 1];
    if (outer.in != last.size * last.in || outer.out != last.size * last.out || outer.mask != last.size / 8) break;
    last.size *= outer.size;
  }
  axes[kept] = last;
  return kept + 1;
}

}  // namespace geoact
