// HOW memory is passed over once on a GPU: one kernel, forward or backward, for every activation, storage type and
// grouping, with and without measuring.
//
// A thread takes units of 16 bytes, computes, and adds to lanes in its registers: float32 sums of differences from a
// value near the mean. After 64 elements the lanes go to the thread's slot in shared memory, so no sum has more than a
// few dozen roundings in a row, and start anew; a thread whose lanes cannot be trusted then (NaN, overflow, squares too
// small for float32) measures the same units again in float64. At the end of a segment a block makes one record of its
// slots; the last block of a group to finish folds the records of all segments, in their order, into the running state.
// So one launch is one call, nothing is allocated, and the result does not depend on who comes first.
//
// The work lies in four files: segment.cuh (where), work.cuh (what a thread does), reduce.cuh (many to one), finish.cuh
// (the end of a segment). Nothing is launched here, and no library of kernels is used: the same source runs on the host
// (sim.h).
//
// May include: everything of kernels.
#pragma once

#include "work.cuh"

namespace geoact::cuda {

// What the registers of a kernel must leave room for.
template <class Pass, bool Measured>
inline constexpr int blocks_per_multiprocessor = sizeof(typename Pass::V) == 8 ? 2
                                                 : Measured                    ? 3
                                                                               : 4;

template <class Pass, bool Columns, bool Measured>
__global__ void __launch_bounds__(most_threads, blocks_per_multiprocessor<Pass, Measured>)
    pass(const __grid_constant__ Plan plan) {
  using Work = cuda::Work<Pass, Columns, Measured>;
  using Slots = typename Work::Slots;
  constexpr bool reduces = Measured || Pass::weights > 0;
  constexpr int ahead = Work::ahead;
  GEOACT_DYNAMIC_SHARED(Slots, shared);
  Work work(plan, Measured && plan.header[0] != 0);
  int index = blockIdx.x;
  while (index < plan.segments) {
    const typename Work::Part part(plan, index);
    const auto activation = activation_at<Pass>(plan, part.outside ? 0 : part.weight);
    if constexpr (Work::shifted)
      if (work.on) work.choose_shift(part, activation, *shared);
    if constexpr (reduces) {
      if (threadIdx.x == 0) shared->index = index;
      work.clear(*shared);
    }
    typename Work::Unit unit[ahead + 1];
#pragma unroll 1
    for (int i = -ahead; i < part.count; ++i) {
      if (i + ahead < part.count) work.read(part, i + ahead, unit[ahead]);
      if (i >= 0) work.unit(part, activation, i, unit[0], shared);
#pragma unroll
      for (int k = 0; k < ahead; ++k) unit[k] = unit[k + 1];
    }
    if constexpr (reduces) {
      if constexpr (Pass::weights > 0) {
#pragma unroll
        for (int k = 0; k < Pass::weights; ++k)
          shared->value[Slots::shape.values() + k][threadIdx.x] = work.weight.of[k];
      }
      index = finish<typename Pass::Statistics, typename Pass::Storage, Columns>(plan, *shared, work.known, work.on);
    } else {
      index += int(gridDim.x);
    }
  }
  if constexpr (Measured)
    if (work.on && blockIdx.x == 0 && threadIdx.x == 0) ++plan.header[1];
}

}  // namespace geoact::cuda
