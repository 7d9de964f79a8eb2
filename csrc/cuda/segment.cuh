// WHERE the elements of a thread lie: groups, runs and units (plan.h) as addresses.
//
// May include: plan.h, reduce.cuh.
#pragma once

#include "reduce.cuh"

namespace geoact::cuda {

__device__ __forceinline__ uint32_t divide(uint32_t a, const Divisor& by) {
  return (__umulhi(a, by.magic) + a) >> by.shift;
}

// Calls add(axis, steps) for every axis, the last of which steps fastest with `index`.
template <class F>
__device__ __forceinline__ void over_axes(const Plan& plan, int first, int rank, uint32_t index, const F& add) {
  if (rank == 0) return;
#pragma unroll 1
  for (int i = first + rank - 1; i > first; --i) {
    const Axis& axis = plan.axis[i];
    const uint32_t above = divide(index, axis.divisor);
    add(axis, index - above * uint32_t(axis.size));
    index = above;
  }
  add(plan.axis[first], index);
}

// The number of a group in the statistics, or of the weights' gradients.
template <bool Columns>
__device__ int64_t group_of(const Plan& plan, uint32_t outer, int64_t column) {
  int64_t group = Columns ? column * plan.column.group : 0;
  over_axes(plan, 0, plan.group_rank, outer, [&](const Axis& axis, uint32_t steps) { group += steps * axis.group; });
  return group;
}

// A unit's place in its group: which run, and which element of it is the unit's element 0, which may not exist.
struct Spot {
  uint32_t run;
  int64_t first;
};

// The part of a group that this thread works on: units 0 to count - 1.
template <int N, int Arrays, bool Columns>
struct Segment {
  const Plan& plan;
  char* base[Arrays];  // the group in each array, in columns the thread's column of it
  int64_t weight = 0;  // number of the group's weights
  int64_t start;
  int count;
  bool outside = false;  // this thread's column does not exist

  static __device__ int team() { return Columns ? blockDim.x / warp_size : blockDim.x; }
  static __device__ int member() { return Columns ? threadIdx.x / warp_size : threadIdx.x; }

  __device__ __forceinline__ Segment(const Plan& plan, int index) : plan(plan) {
    int set = index / plan.parts;
    const int part = index - set * plan.parts;
    for (int k = 0; k < Arrays; ++k) base[k] = static_cast<char*>(plan.data[k]);
    const auto add = [&](const Axis& axis, int64_t steps) {
#pragma unroll
      for (int k = 0; k < Arrays; ++k) base[k] += steps * axis.stride[k];
      weight += steps * axis.weight;
    };
    if constexpr (Columns) {
      const int whole = set / plan.strips;
      const int64_t column = int64_t(set - whole * plan.strips) * warp_size + threadIdx.x % warp_size;
      set = whole;
      outside = column >= plan.column.size;
      if (!outside) add(plan.column, column);
    }
    over_axes(plan, 0, plan.group_rank, set, add);
    const int batch = plan.together ? part * plan.together : part;
    count = plan.together ? plan.batches - batch : (plan.batches - part + plan.parts - 1) / plan.parts;
    if (plan.together && count > plan.together) count = plan.together;
    start = Columns ? batch : int64_t(batch) * team() + member();
  }

  __device__ __forceinline__ Spot spot(int unit) const {
    int64_t in_run = start + int64_t(uint64_t(unsigned(unit)) * plan.step);
    uint32_t run = 0;
    if (plan.runs > 1) {
      run = divide(uint32_t(in_run), plan.units_divisor);
      in_run = uint32_t(in_run) - run * uint32_t(plan.units);
    }
    return {run, Columns ? in_run * (N * team()) + member() : in_run * N - plan.lead};
  }
  __device__ __forceinline__ bool whole(const Spot& s) const {
    return uint64_t(s.first) < uint64_t(plan.whole) && s.run < uint32_t(plan.runs) && !outside;
  }
  // Whether element i of a unit exists.
  __device__ __forceinline__ bool has(const Spot& s, int i) const {
    return uint64_t(s.first + i * (Columns ? team() : 1)) < uint64_t(plan.length) && s.run < uint32_t(plan.runs) &&
           !outside;
  }
  // Bytes from the group to the unit's element 0.
  __device__ __forceinline__ int64_t offset(int k, const Spot& s) const {
    int64_t at = s.first * plan.inner.stride[k];
    if (plan.runs > 1)
      over_axes(plan, plan.group_rank, plan.run_rank, s.run,
                [&](const Axis& axis, uint32_t steps) { at += steps * axis.stride[k]; });
    return at;
  }
  // The number of the weights of element i.
  __device__ __forceinline__ int64_t weight_of(const Spot& s, int i) const {
    if (!plan.weight_varies) return weight;
    int64_t at = weight + (s.first + i * (Columns ? team() : 1)) * plan.inner.weight;
    over_axes(plan, plan.group_rank, plan.run_rank, s.run,
              [&](const Axis& axis, uint32_t steps) { at += steps * axis.weight; });
    return at;
  }
};

}  // namespace geoact::cuda
