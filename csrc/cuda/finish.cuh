// The END of a segment: what its threads left in shared memory becomes a record; the last block of a group to come folds
// the records of all its segments into the running state. The same for all activations, and kept out of the kernels.
//
// May include: plan.h, storage.cuh, reduce.cuh, segment.cuh, ops/.
#pragma once

#include "segment.cuh"

namespace geoact::cuda {

// --- the slots of a block ------------------------------------------------------------------------------------------------

template <class Statistics, class V, bool Columns>
struct Shared {
  using Exact = typename Statistics::template Lanes<double, ops::Level::moments>;
  static constexpr Shape shape = shape_of<Statistics>;
  static constexpr int seen = shape.fields(), weight = seen + 1, fields = weight + 1;  // after those of the lanes
  static constexpr int rare_fields = shape.fields() + 3;  // after them: non-finite of the first and second, how many
  static constexpr int width = Columns ? warp_size : 1;
  static constexpr int most(int a, int b) { return a > b ? a : b; }

  double total[most(most(rare_fields, fields), Statistics::size) * width];
  V shift[2][width];
  bool rarely[most_threads];  // a thread measured something in float64
  unsigned word;
  alignas(16) V value[shape.values() + 1][most_threads];  // and the weight's
  int counter[shape.counts + 1][most_threads];            // and how many were seen
  double cell[2 * width * Statistics::size];              // two records per group
  __device__ double shift_of(int k, int column) const {
    if constexpr (shape.lowest > 0) return double(shift[k][column]);
    return 0;
  }
  // When the slots are done with: for over_block, and lanes in float64 per group.
  __device__ double* room() { return reinterpret_cast<double*>(value); }
  __device__ Exact* exact() { return reinterpret_cast<Exact*>(value); }
};

// --- the beginning of a segment ------------------------------------------------------------------------------------------

// Sums of x, of y and how many they are, per thread in the room of slots, to a value near the mean of each.
template <class Statistics, class V, bool Columns>
__device__ __noinline__ void means(Shared<Statistics, V, Columns>& shared) {
  constexpr int width = Columns ? warp_size : 1;
  const int t = threadIdx.x;
  __syncthreads();
  const double* const room = shared.room();
  totals<Columns>(Shape{3}, 3, [&](int field, int thread) { return room[field * most_threads + thread]; }, shared.total);
  __syncthreads();
  if (t < 2 * width) {
    const V mean = V(shared.total[t] / shared.total[2 * width + t % width]);
    shared.shift[t / width][t % width] = mean - mean == V(0) ? mean : V(0);
  }
  __syncthreads();
}

// --- the end of a segment, of a group, of the call -----------------------------------------------------------------------
// Kept out of the kernels: it is the same for all activations, and its registers are not theirs.

// What a thread keeps in float64 adds nothing where nothing was measured so.
template <class Statistics>
__device__ __forceinline__ void leave_rare_empty(double* place, int64_t step, int fields) {
  typename Statistics::template Lanes<double, ops::Level::moments> none;
  none.clear();
  AddInDouble add{place, step, true};
  decltype(none)::visit(add, none);
  for (int k = 0; k < fields; ++k) add.sum(0);
}

// Slots of all threads to the record of each group.
template <class Statistics, class V, bool Columns>
__device__ __noinline__ void make_record(Shared<Statistics, V, Columns>& shared, ops::Shortcuts known, bool on) {
  using Slots = Shared<Statistics, V, Columns>;
  constexpr int width = Slots::width;
  constexpr Shape shape = Slots::shape;
  const int t = threadIdx.x;
  // Values, their weight last; counters, how many were seen last: as one list.
  const auto read = [&](int field, int thread) {
    if (field < shape.values()) return double(shared.value[field][thread]);
    if (field == Slots::weight) return double(shared.value[shape.values()][thread]);
    return double(shared.counter[field - shape.values()][thread]);
  };
  __syncthreads();
  totals<Columns>(shape, Slots::fields, read, shared.total);
  __syncthreads();
  double* const cell = shared.cell + t * Statistics::size;
  // By way of memory, or its registers would be those of the kernel.
  if (t < width) Slots::Exact::visit(Load{shared.total + t, width}, shared.exact()[t]);
  __syncthreads();
  if (t >= width) return;
  Statistics::init(cell);
  const double n = shared.total[Slots::seen * width + t];
  if (!on || !(n > 0)) return;
  shared.exact()[t].template finish<double>(cell, n, ops::Itself{}, known, shared.shift_of(0, t), shared.shift_of(1, t));
  // A mark that `finish` leaves for `suspicious`: here everything was looked at before.
  if constexpr (shape.lowest > 0) cell[ops::Geometry::nonfinite_x] = cell[ops::Geometry::nonfinite_y] = 0;
}

// And what threads have measured in float64, [fields][step].
template <class Statistics, class V, bool Columns>
__device__ __noinline__ void add_rare(Shared<Statistics, V, Columns>& shared, double* rare, int64_t step) {
  using Slots = Shared<Statistics, V, Columns>;
  constexpr int width = Slots::width, fields = Slots::shape.fields(), last = Slots::rare_fields - 1;
  const int t = threadIdx.x;
  if (!shared.rarely[t]) leave_rare_empty<Statistics>(rare + t, step, Slots::rare_fields - fields);
  __syncthreads();
  totals<Columns>(Slots::shape, Slots::rare_fields, [&](int field, int thread) { return rare[field * step + thread]; },
                  shared.total);
  __syncthreads();
  const double* const total = shared.total + t;
  if (t < width) Slots::Exact::visit(Load{total, width}, shared.exact()[t]);
  __syncthreads();
  if (t >= width || !(total[last * width] > 0)) return;
  double* const exact = shared.cell + (width + t) * Statistics::size;
  Statistics::init(exact);
  shared.exact()[t].settle(exact, total[last * width], total[fields * width], total[(fields + 1) * width],
                           shared.shift_of(0, t), shared.shift_of(1, t));
  Statistics::template combine<ops::Level::moments>(shared.cell + t * Statistics::size, exact);
}

// The records of a set of groups into the running state, by the last block that added to them.
template <class Statistics, bool Columns>
__device__ __noinline__ void fold_into_state(const Plan& plan, int set, double* result, double* room) {
  constexpr int width = Columns ? warp_size : 1;
  const int64_t stride = plan.record_stride;
  if (plan.one_record) {
    const Records all{plan.records, plan.append ? nullptr : plan.state, stride, 1, plan.state_groups, int64_t(plan.segments) * width};
    fold_records<Statistics, false>(all, plan.cells, result, room);
    for (int k = threadIdx.x; k < plan.cells; k += blockDim.x) plan.state[k * plan.state_groups] = result[k];
    return;
  }
  const int lane = threadIdx.x % width;
  const int outer = set / plan.strips;
  const int64_t column = int64_t(set - outer * plan.strips) * width + lane;
  const bool valid = !Columns || column < plan.column.size;
  double* const state = plan.state + group_of<Columns>(plan, outer, valid ? column : 0);
  const Records all{plan.records + int64_t(set) * plan.parts * width + lane, plan.append ? nullptr : state, stride, width,
                    plan.state_groups, plan.parts};
  fold_records<Statistics, Columns>(all, plan.cells, result, room);
  if (valid && threadIdx.x < width)
    for (int k = 0; k < plan.cells; ++k) state[k * plan.state_groups] = result[k * width + lane];
}

// The weight's gradient, by the last block of all: one sum, or one per group.
template <class S, bool Columns>
__device__ __noinline__ void fold_weight(const Plan& plan, double* room) {
  using V = typename compute<S>::type;
  const int width = Columns ? warp_size : 1;
  const auto put = [&](int64_t i, double v) {
    if (plan.gradient_in_double)
      static_cast<double*>(plan.gradient)[i] = v;
    else
      narrow(V(v), static_cast<S*>(plan.gradient)[i]);
  };
  if (plan.gradients == 1) {
    double sum[1] = {0};
    for (int64_t i = threadIdx.x; i < int64_t(plan.segments) * width; i += blockDim.x) sum[0] += __ldcg(plan.weight_records + i);
    over_block<false>({Kind::sum}, sum, room);
    if (threadIdx.x == 0) put(0, sum[0]);
    return;
  }
  for (int64_t i = threadIdx.x; i < plan.gradients; i += blockDim.x) {
    const int64_t outer = Columns ? i / plan.column.size : i, column = Columns ? i - outer * plan.column.size : 0;
    const int64_t set = Columns ? outer * plan.strips + column / warp_size : i;
    double sum = 0;
    for (int64_t p = 0; p < plan.parts; ++p)
      sum += __ldcg(plan.weight_records + (set * plan.parts + p) * width + column % width);
    put(group_of<Columns>(plan, outer, column), sum);
  }
}

template <class Statistics, class S, bool Columns>
__device__ __noinline__ void finish(const Plan& plan, int index,
                                    Shared<Statistics, typename compute<S>::type, Columns>& shared, ops::Shortcuts known,
                                    bool on) {
  constexpr int width = Columns ? warp_size : 1;
  const int t = threadIdx.x;
  const int64_t slot = int64_t(index) * width + t;
  make_record(shared, known, on);
  if (plan.gradient && t < width) plan.weight_records[slot] = shared.total[shared.weight * width + t];
  if (__syncthreads_or(on && shared.rarely[t]))
    add_rare(shared, plan.rare + int64_t(blockIdx.x) * blockDim.x, int64_t(gridDim.x) * blockDim.x);
  if (on) {
    if (t < width)
      for (int k = 0; k < plan.cells; ++k)
        plan.records[k * plan.record_stride + slot] = shared.cell[t * Statistics::size + k];
    const int set = plan.one_record ? 0 : index / plan.parts;
    if (comes_last(plan.tickets + 1 + set, unsigned(plan.one_record ? plan.segments : plan.parts), &shared.word))
      fold_into_state<Statistics, Columns>(plan, set, shared.total, shared.room());
  }
  if (plan.gradient && comes_last(plan.tickets, unsigned(plan.segments), &shared.word))
    fold_weight<S, Columns>(plan, shared.room());
  __syncthreads();  // before the slots are cleared
}

}  // namespace geoact::cuda
