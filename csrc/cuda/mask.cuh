// ReLU with its bit mask on a GPU: a warp takes 32 elements of a row, whose bits are one vote. y and the bits are made
// of x in registers, dx of dy and the bits.
//
// May include: mask_launch.h, storage.cuh, ops/.
#pragma once

#include "../ops/activations.h"
#include "mask_launch.h"
#include "storage.cuh"

namespace geoact::cuda {

namespace ops = geoact::GEOACT_ISA;

template <class S, bool Forward>
__global__ void __launch_bounds__(most_threads) relu_mask(const __grid_constant__ MaskPlan plan) {
  using V = typename compute<S>::type;
  const int lane = int(threadIdx.x) % warp_size;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / warp_size);
  int64_t word = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / warp_size;
  for (; word < plan.rows * plan.words; word += warps) {  // all lanes of a warp, together
    int64_t row = plan.rows == 1 ? 0 : word / plan.words;
    const int64_t column = (word - row * plan.words) * warp_size + lane;
    int64_t in = column * plan.columns.in, out = column * plan.columns.out, byte = column / 8;
    for (int i = plan.rank - 1; row != 0 && i >= 0; --i) {
      const MaskAxis& axis = plan.axis[i];
      const int64_t step = row % axis.size;
      row /= axis.size;
      in += step * axis.in, out += step * axis.out, byte += step * axis.mask;
    }
    const bool inside = column < plan.columns.size;
    bool passes = false;
    if constexpr (Forward) {
      if (inside) {
        S to;
        narrow(ops::Relu<V>{}.value(V(widen(*reinterpret_cast<const S*>(plan.in + in)))), to);
        *reinterpret_cast<S*>(plan.out + out) = to;
        passes = !(V(widen(to)) <= V(0));
      }
      const unsigned bits = __ballot_sync(0xffffffffu, passes);
      if (inside && lane % 8 == 0) plan.mask[byte] = uint8_t(bits >> lane);
    } else if (inside) {
      passes = plan.mask[byte] >> lane % 8 & 1;
      const V dy = V(widen(*reinterpret_cast<const S*>(plan.in + in)));
      narrow(passes ? dy : V(0), *reinterpret_cast<S*>(plan.out + out));
    }
  }
}

}  // namespace geoact::cuda
