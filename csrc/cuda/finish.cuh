// The END of a segment: what its threads left in shared memory becomes a record; the last block of a group to come
// folds the records of all its segments into the running state. The same for all activations.
//
// May include: plan.h, storage.cuh, reduce.cuh, segment.cuh, ops/.
#pragma once

#include "segment.cuh"

namespace geoact::cuda {

// --- the slots of a block ----------------------------------------------------------------------------------

template <class Statistics, class V, bool Columns, int Weights>
struct Shared {
  using Exact = typename Statistics::template Lanes<double, ops::Level::moments>;
  static constexpr Shape shape = shape_of<Statistics>;
  static constexpr int seen = shape.fields(), weight = seen + 1, fields = weight + Weights;  // after those of the lanes
  static constexpr int rare_fields = shape.fields() + 3;  // after them: non-finite of the first and second, how many
  static constexpr int width = Columns ? warp_size : 1;
  static constexpr int most(int a, int b) { return a > b ? a : b; }

  double total[most(most(rare_fields, fields), Statistics::size) * width];
  V shift[2][width];
  bool rarely[most_threads];  // a thread measured something in float64
  unsigned word;
  int index;                                                    // of the segment
  alignas(16) V value[shape.values() + Weights][most_threads];  // and the weights'
  int counter[shape.counts + 1][most_threads];                  // and how many were seen
  double cell[2 * width * Statistics::size];                    // two records per group
  __device__ double shift_of(int k, int column) const {
    if constexpr (shape.lowest > 0) return double(shift[k][column]);
    return 0;
  }
  // When the slots are done with: for over_block, and lanes in float64 per group.
  __device__ double* room() { return reinterpret_cast<double*>(value); }
  __device__ Exact* exact() { return reinterpret_cast<Exact*>(value); }
};

// --- the beginning of a segment ----------------------------------------------------------------------------

// Sums of x, of y and how many they are, per thread in the room of slots, to a value near the mean of each.
template <class Statistics, class V, bool Columns, int Weights>
__device__ __forceinline__ void means(Shared<Statistics, V, Columns, Weights>& shared) {
  constexpr int width = Columns ? warp_size : 1;
  const int t = computed_here(int(threadIdx.x));
  __syncthreads();
  const double* const room = shared.room();
  totals<Columns>(
      Shape{3}, 3, [&](int field, int thread) { return room[field * most_threads + thread]; }, shared.total);
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * width; i += blockDim.x) {  // there may be one warp
    const V mean = V(shared.total[i] / shared.total[2 * width + i % width]);
    shared.shift[i / width][i % width] = mean - mean == V(0) ? mean : V(0);
  }
  __syncthreads();
}

// --- the end of a segment, of a group, of the call ---------------------------------------------------------
// The same for all activations, and inlined all the same: a call would save registers on a stack. So that its own stay
// below those of the loop, it works from shared memory, in rolled loops.

// What a thread keeps in float64 adds nothing where nothing was measured so.
template <class Statistics>
__device__ __forceinline__ void leave_rare_empty(double* place, int64_t step, int fields) {
  typename Statistics::template Lanes<double, ops::Level::moments> none;
  none.clear();
  AddInDouble add{place, step, true};
  decltype(none)::visit(add, none);
#pragma unroll 1
  for (int k = 0; k < fields; ++k) add.sum(0);
}

// Slots of all threads to the record of each group.
template <class Statistics, class V, bool Columns, int Weights>
__device__ __forceinline__ void make_record(Shared<Statistics, V, Columns, Weights>& shared, ops::Shortcuts known,
                                            bool on) {
  using Slots = Shared<Statistics, V, Columns, Weights>;
  constexpr int width = Slots::width;
  constexpr Shape shape = Slots::shape;
  const int t = computed_here(int(threadIdx.x));
  // Values; counters, how many were seen last; weights, which lie behind the values: as one list.
  const auto read = [&](int field, int thread) {
    if (field < shape.values()) return double(shared.value[field][thread]);
    if constexpr (Weights > 0)
      if (field >= Slots::weight) return double(shared.value[shape.values() + field - Slots::weight][thread]);
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
  shared.exact()[t].template finish<double>(cell, n, ops::Itself{}, known, shared.shift_of(0, t),
                                            shared.shift_of(1, t));
  // A mark that `finish` leaves for `suspicious`: here everything was looked at before.
  if constexpr (shape.lowest > 0) cell[ops::Geometry::nonfinite_x] = cell[ops::Geometry::nonfinite_y] = 0;
}

// And what threads have measured in float64, [fields][step].
template <class Statistics, class V, bool Columns, int Weights>
__device__ __forceinline__ void add_rare(Shared<Statistics, V, Columns, Weights>& shared, double* rare, int64_t step) {
  using Slots = Shared<Statistics, V, Columns, Weights>;
  constexpr int width = Slots::width, fields = Slots::shape.fields(), last = Slots::rare_fields - 1;
  const int t = computed_here(int(threadIdx.x));
  if (!shared.rarely[t]) leave_rare_empty<Statistics>(rare + t, step, Slots::rare_fields - fields);
  __syncthreads();
  totals<Columns>(
      Slots::shape, Slots::rare_fields, [&](int field, int thread) { return rare[field * step + thread]; },
      shared.total);
  __syncthreads();
  const double* const total = shared.total + t;
  if (t < width) Slots::Exact::visit(Load{total, width}, shared.exact()[t]);
  __syncthreads();
  const bool some = t < width && total[last * width] > 0;
  double* const exact = shared.cell + (width + t) * Statistics::size;
  if (some) {
    Statistics::init(exact);
    shared.exact()[t].settle(exact, total[last * width], total[fields * width], total[(fields + 1) * width],
                             shared.shift_of(0, t), shared.shift_of(1, t));
  }
  __syncthreads();
  if (!some) return;
  double* const cell = shared.cell + computed_here(int(threadIdx.x)) * Statistics::size;
  Statistics::template combine<ops::Level::moments>(cell, cell + width * Statistics::size);
}

// The records of a set of groups into the running state, by the last block that added to them.
template <class Statistics, bool Columns>
__device__ __forceinline__ void fold_into_state(const Plan& plan, int set, double* result, double* room) {
  constexpr int width = Columns ? warp_size : 1;
  const int lane = threadIdx.x % width, outer = set / plan.strips;
  const int64_t column = int64_t(set - outer * plan.strips) * width + lane;
  const bool valid = !Columns || column < plan.column.size;
  double* const state = plan.state + group_of<Columns>(plan, outer, valid ? column : 0);
  const Records all{plan.records + int64_t(set) * plan.parts * width + lane,
                    plan.append || !valid ? nullptr : state,
                    plan.record_stride,
                    plan.state_groups,
                    width,
                    plan.parts};
  fold_records<Statistics, Columns>(all, plan.cells, result, room);
  if (valid && threadIdx.x < width)
#pragma unroll 1
    for (int k = 0; k < plan.cells; ++k) state[k * plan.state_groups] = result[k * width + lane];
}
// The same for one record of all groups.
template <class Statistics, bool Columns>
__device__ __forceinline__ void fold_all_into_state(const Plan& plan, double* result, double* room) {
  const Records all{plan.records,
                    plan.append ? nullptr : plan.state,
                    plan.record_stride,
                    plan.state_groups,
                    1,
                    plan.segments * (Columns ? warp_size : 1)};
  fold_records<Statistics, false>(all, plan.cells, result, room);
#pragma unroll 1
  for (int k = threadIdx.x; k < plan.cells; k += blockDim.x) plan.state[k * plan.state_groups] = result[k];
}

// The gradient of weight k, by the last block of all: one sum, or one per group.
template <class S, bool Columns>
__device__ __forceinline__ void fold_weight(const Plan& plan, int k, double* room) {
  using V = typename compute<S>::type;
  const int width = Columns ? warp_size : 1;
  const auto put = [&](int64_t i, double v) {
    if (plan.gradient_in_double[k])
      static_cast<double*>(plan.gradient[k])[i] = v;
    else
      narrow(V(v), static_cast<S*>(plan.gradient[k])[i]);
  };
  const double* const records = plan.weight_records + k * plan.record_stride;
  if (plan.gradients[k] == 1) {
    double sum[1] = {0};
#pragma unroll 1
    for (int i = threadIdx.x; i < plan.segments * width; i += blockDim.x) sum[0] += __ldcg(records + i);
    over_block<false>({Kind::sum}, sum, room);
    if (threadIdx.x == 0) put(0, sum[0]);
    return;
  }
  const int columns = int(plan.column.size);
#pragma unroll 1
  for (int i = threadIdx.x; i < int(plan.gradients[k]); i += blockDim.x) {
    const int outer = Columns ? i / columns : i, column = Columns ? i - outer * columns : 0;
    const int set = Columns ? outer * plan.strips + column / warp_size : i;
    const double* const first = records + int64_t(set) * plan.parts * width + column % width;
    double sum = 0;
#pragma unroll 1
    for (int p = 0; p < plan.parts; ++p) sum += __ldcg(first + p * width);
    put(group_of<Columns>(plan, outer, column), sum);
  }
}

// All of it; returns the segment that this block works on next.
template <class Statistics, class S, bool Columns, int Weights>
__device__ __forceinline__ int finish(const Plan& plan,
                                      Shared<Statistics, typename compute<S>::type, Columns, Weights>& shared,
                                      ops::Shortcuts known, bool on) {
  constexpr int width = Columns ? warp_size : 1;
  const int t = computed_here(int(threadIdx.x));
  make_record(shared, known, on);
  if (plan.trained && t < width)
#pragma unroll
    for (int k = 0; k < Weights; ++k)
      plan.weight_records[k * plan.record_stride + int64_t(shared.index) * width + t] =
          shared.total[(shared.weight + k) * width + t];
  if (__syncthreads_or(on && shared.rarely[t]))
    add_rare(shared, plan.rare + int64_t(blockIdx.x) * blockDim.x, int64_t(gridDim.x) * blockDim.x);
  if (on) {
    if (t < width)
#pragma unroll 1
      for (int k = 0; k < plan.cells; ++k)
        plan.records[k * plan.record_stride + int64_t(shared.index) * width + t] =
            shared.cell[t * Statistics::size + k];
    if (plan.one_record) {
      if (comes_last(plan.tickets + 1, unsigned(plan.segments), &shared.word))
        fold_all_into_state<Statistics, Columns>(plan, shared.total, shared.room());
    } else if (comes_last(plan.tickets + 1 + shared.index / plan.parts, unsigned(plan.parts), &shared.word)) {
      fold_into_state<Statistics, Columns>(plan, shared.index / plan.parts, shared.total, shared.room());
    }
  }
  if (plan.trained && comes_last(plan.tickets, unsigned(plan.segments), &shared.word))
#pragma unroll 1
    for (int k = 0; k < Weights; ++k) fold_weight<S, Columns>(plan, k, shared.room());
  const int next = shared.index + int(gridDim.x);
  __syncthreads();  // before the slots are cleared
  return next;
}

}  // namespace geoact::cuda
