// HOW memory is passed over once on a GPU: one kernel, forward or backward, for every activation, storage type and
// grouping, with and without measuring.
//
// A thread takes units of 16 bytes, computes, and adds to lanes in its registers: float32 sums of differences from a
// value near the mean. After `batches_per_fold` batches the lanes go to the thread's slot in shared memory, so no sum has
// more than a few dozen roundings in a row, and start anew; a thread whose lanes cannot be trusted then (NaN, overflow,
// squares too small for float32) measures the same units again in float64. At the end of a segment a block makes one
// record of its slots; the last block of a group to finish folds the records of all segments, in their order, into the
// running state. So one launch is one call, nothing is allocated, and the result does not depend on who comes first.
//
// Nothing here is launched here, and no library of kernels is used: the same source runs on the host (sim.h).
//
// May include: plan.h, storage.cuh, reduce.cuh, ops/.
#pragma once

#include "../ops/activations.h"
#include "reduce.cuh"

namespace geoact::cuda {

using ops::Level;
using ops::Shortcuts;

template <class S>
inline constexpr bool is_half = false;
template <>
inline constexpr bool is_half<float16> = true;

// Deviations below it have squares that lose digits; sums above the other could overflow when they are added up.
template <class V>
inline constexpr double deviation_floor = sizeof(V) == 4 ? 0x1p-50 : 0x1p-500;
template <class V>
inline constexpr double sum_bound = sizeof(V) == 4 ? 0x1p100 : 0x1p900;

struct Always {
  template <class V>
  __device__ V value(V v, V) const {
    return v;
  }
  __device__ bool test(bool m) const { return m; }
};
struct Only {
  bool valid;
  template <class V>
  __device__ V value(V v, V otherwise) const {
    return valid ? v : otherwise;
  }
  __device__ bool test(bool m) const { return m & valid; }
};

// --- what is computed of one element -------------------------------------------------------------------------------------

template <class V>
struct Element {
  V out, slope, weight;  // the latter: the element's share of the weight's gradient
};

template <template <class> class A, class S>
struct Forward {
  using Storage = S;
  using V = typename compute<S>::type;
  using Activation = A<V>;
  using Statistics = ops::Geometry;
  static constexpr int inputs = 1;
  static constexpr bool reduces_weight = false;
  static __device__ Element<V> evaluate(const Activation& a, const V (&in)[2]) { return {a.value(in[0]), V(0), V(0)}; }
  static __device__ V slope(const Activation& a, const V (&in)[2], V out, const Element<V>&) {
    return a.slope(in[0], out);
  }
};

template <template <class> class A, class S>
struct Backward {
  using Storage = S;
  using V = typename compute<S>::type;
  using Activation = A<V>;
  using Statistics = ops::Gradient;
  static constexpr int inputs = 2;
  static constexpr bool reduces_weight = Activation::trainable;
  static __device__ Element<V> evaluate(const Activation& a, const V (&in)[2]) {
    const V dy = in[0], saved = in[1];
    const V y = Activation::saves == ops::Saves::y ? saved : stored<S>(a.value(saved));
    Element<V> e{V(0), a.slope(saved, y), V(0)};
    if constexpr (requires { a.gradient(dy, saved, y); })
      e.out = a.gradient(dy, saved, y);
    else
      e.out = dy * e.slope;
    if constexpr (reduces_weight) e.weight = dy * a.param_slope(saved, y);
    return e;
  }
  static __device__ V slope(const Activation&, const V (&)[2], V, const Element<V>& e) { return e.slope; }
};

// --- where a unit lies ---------------------------------------------------------------------------------------------------

struct Place {
  int64_t at[arrays];  // elements from the start of each array
  int64_t weight, group;
  __device__ void move(const Axis& axis, int64_t steps) {
    for (int k = 0; k < arrays; ++k) at[k] += steps * axis.stride[k];
    weight += steps * axis.weight;
    group += steps * axis.group;
  }
};

__device__ __forceinline__ int64_t divide(const Plan& plan, int64_t a, const Divisor& by, int64_t value) {
  if (plan.narrow) return int64_t((uint64_t(__umulhi(uint32_t(a), by.magic)) + uint32_t(a)) >> by.shift);
  return a / value;
}

// `index` of the axes, the last of them stepping fastest.
__device__ __forceinline__ void move(const Plan& plan, int first, int rank, int64_t index, Place& place) {
  for (int i = first + rank - 1; i > first; --i) {
    const int64_t above = divide(plan, index, plan.axis[i].divisor, plan.axis[i].size);
    place.move(plan.axis[i], index - above * plan.axis[i].size);
    index = above;
  }
  if (rank > 0) place.move(plan.axis[first], index);
}

// A unit of this thread: elements [from, to) of its N, the place being that of element 0.
struct Unit {
  Place place;
  int from, to;
};

// The part of a group that this thread works on.
template <class Pass, bool Columns>
struct Segment {
  static constexpr int N = Columns ? 1 : int(16 / sizeof(typename Pass::Storage));
  static constexpr int units_per_batch = cuda::units_per_batch(Columns, sizeof(typename Pass::Storage), Pass::inputs);
  static constexpr int batches_per_fold = 64 / (N * units_per_batch);

  const Plan& plan;
  Place group;
  int64_t part, column;
  bool outside = false;

  __device__ Segment(const Plan& plan, int64_t index) : plan(plan), group{} {
    int64_t set = index / plan.parts;
    part = index - set * plan.parts;
    int64_t strip = 0;
    if constexpr (Columns) {
      const int64_t whole = set / plan.strips;
      strip = set - whole * plan.strips;
      set = whole;
    }
    column = strip * warp_size + threadIdx.x % warp_size;
    outside = Columns && column >= plan.length;
    move(plan, 0, plan.group_rank, set, group);
    if (Columns && !outside) group.move(plan.inner, column);
  }

  static __device__ int team() { return Columns ? blockDim.x / warp_size : blockDim.x; }
  static __device__ int member() { return Columns ? threadIdx.x / warp_size : threadIdx.x; }
  __device__ int64_t units() const { return Columns ? plan.runs : plan.runs * plan.units; }
  __device__ int64_t batches() const {
    const int64_t per_batch = int64_t(units_per_batch) * team();
    const int64_t all = (units() + per_batch - 1) / per_batch;
    return all > part ? (all - part + plan.parts - 1) / plan.parts : 0;
  }

  __device__ Unit unit(int64_t batch, int j) const {
    const int64_t index = ((part + batch * plan.parts) * units_per_batch + j) * team() + member();
    Unit u{group, 0, 0};
    if (outside || index >= units()) return u;
    int64_t run = index;
    if constexpr (Columns) {
      u.to = 1;
    } else {
      run = plan.runs == 1 ? 0 : divide(plan, index, plan.units_divisor, plan.units);
      const int64_t first = (index - run * plan.units) * N - plan.lead;
      u.place.move(plan.inner, first);
      u.from = first < 0 ? int(-first) : 0;
      u.to = plan.length - first < N ? int(plan.length - first) : N;
    }
    move(plan, plan.group_rank, plan.run_rank, run, u.place);
    return u;
  }
};

// --- parameters ----------------------------------------------------------------------------------------------------------

template <class Pass>
__device__ __forceinline__ typename Pass::Activation activation_at(const Plan& plan, int64_t weight) {
  using A = typename Pass::Activation;
  using V = typename Pass::V;
  if constexpr (A::parameters == 0)
    return A{};
  else if constexpr (A::parameters == 2)
    return A(V(plan.number[0]), V(plan.number[1]));
  else if constexpr (A::trainable)
    return A(plan.weight ? widen(static_cast<const typename Pass::Storage*>(plan.weight)[weight])
                         : V(plan.number[0]));
  else
    return A(V(plan.number[0]));
}

// --- the slots of a block ------------------------------------------------------------------------------------------------

template <class Statistics, class V, bool Columns>
struct Shared {
  static constexpr Shape shape = shape_of<Statistics>;
  static constexpr int seen = shape.fields(), weight = seen + 1, fields = weight + 1;  // after those of the lanes
  static constexpr int rare_fields = shape.fields() + 3;  // after them: non-finite of the first and second, how many
  static constexpr int width = Columns ? warp_size : 1;
  static constexpr int most(int a, int b) { return a > b ? a : b; }

  double total[most(most(rare_fields, fields), Statistics::size) * width];
  V shift[2][width];
  unsigned word;
  alignas(16) V value[shape.values() + 1][most_threads];  // and the weight's
  int counter[shape.counts + 1][most_threads];            // and how many were seen
  double cell[2 * width * Statistics::size];              // two records per group
  // For over_block, when the slots are done with.
  __device__ double* room() { return reinterpret_cast<double*>(value); }
};

// --- one segment ---------------------------------------------------------------------------------------------------------

template <class Pass, bool Columns, bool Measured>
struct Work {
  using S = typename Pass::Storage;
  using V = typename Pass::V;
  using Statistics = typename Pass::Statistics;
  using Part = Segment<Pass, Columns>;
  using Lanes = typename Statistics::template Lanes<V, Level::moments>;
  using Exact = typename Statistics::template Lanes<double, Level::moments>;
  using Limits = typename Statistics::template Limits<V>;
  using Slots = Shared<Statistics, V, Columns>;
  static constexpr int N = Part::N, U = Part::units_per_batch;
  static constexpr Shortcuts known{Pass::Activation::nonnegative, Pass::Activation::positive && !is_half<S>,
                                   Pass::Activation::increasing, Pass::Activation::rectifier};
  static constexpr bool shifted = Measured && Pass::inputs == 1;

  const Plan& plan;
  const bool on;  // measuring
  Lanes lanes;
  int seen = 0;
  V weight = V(0);
  bool rarely = false;  // something was measured in float64
  V shift_x = V(0), shift_y = V(0);

  __device__ Work(const Plan& plan, bool on) : plan(plan), on(on) {}

  __device__ const S* input(int k) const { return static_cast<const S*>(plan.in[k]); }
  __device__ Limits limits() const { return {V(plan.saturation), V(smallest_normal<S>)}; }

  __device__ void read(const Unit& u, int k, Pack<S, N>& to) const {
    const S* const from = input(k) + u.place.at[k];
    if (N == 1 ? u.to : u.to - u.from == N && plan.wide[k]) {
      to = *reinterpret_cast<const Pack<S, N>*>(from);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) to.v[i] = i >= u.from && i < u.to ? from[i * plan.inner.stride[k]] : S{};
    }
  }
  __device__ void write(const Unit& u, const Pack<S, N>& out) const {
    S* const to = static_cast<S*>(plan.out) + u.place.at[Pass::inputs];
    if (N == 1 ? u.to : u.to - u.from == N && plan.wide[Pass::inputs]) {
      *reinterpret_cast<Pack<S, N>*>(to) = out;
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (i >= u.from && i < u.to) to[i * plan.inner.stride[Pass::inputs]] = out.v[i];
    }
  }

  // Every element of a unit; with `Whole` there is no question which of them are.
  template <bool Whole>
  __device__ void compute(const Unit& u, const Pack<S, N> (&in)[Pass::inputs], Pack<S, N>& out) {
    const auto keep = [&](int i) {
      if constexpr (Whole)
        return Always{};
      else
        return Only{i >= u.from && i < u.to};
    };
    typename Pass::Activation a = activation_at<Pass>(plan, Whole ? u.place.weight : u.place.weight + u.from * plan.inner.weight);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if constexpr (!Whole && Pass::Activation::trainable)
        if (plan.inner.weight != 0 && keep(i).test(true)) a = activation_at<Pass>(plan, u.place.weight + i * plan.inner.weight);
      V value[2] = {widen(in[0].v[i]), V(0)};
      if constexpr (Pass::inputs == 2) value[1] = widen(in[1].v[i]);
      const Element<V> e = Pass::evaluate(a, value);
      narrow(e.out, out.v[i]);
      if constexpr (Pass::reduces_weight) weight += keep(i).value(e.weight, V(0));
      if constexpr (Measured)
        if (on) {
          const V result = widen(out.v[i]);
          lanes.template add<known>(value[0], result, Pass::slope(a, value, result, e), keep(i), shift(), limits());
        }
    }
  }
  __device__ auto shift() const {
    if constexpr (shifted)
      return typename Statistics::template Shift<V>{shift_x, shift_y};
    else
      return typename Statistics::template Shift<V>{};
  }

  __device__ void run_batch(const Part& part, int64_t batch, bool fold, int64_t since, Slots* shared,
                            double* rare) {
    Unit unit[U];
    Pack<S, N> in[U][Pass::inputs], out[U];
#pragma unroll
    for (int j = 0; j < U; ++j) {
      unit[j] = part.unit(batch, j);
#pragma unroll
      for (int k = 0; k < Pass::inputs; ++k) read(unit[j], k, in[j][k]);
    }
#pragma unroll
    for (int j = 0; j < U; ++j) {
      // A weight that varies within a unit is looked up element by element.
      const bool whole = unit[j].to - unit[j].from == N && (Columns || !Pass::Activation::trainable || !plan.inner.weight);
      if (whole)
        compute<true>(unit[j], in[j], out[j]);
      else if (!Columns && unit[j].to > unit[j].from)
        compute<false>(unit[j], in[j], out[j]);
      if constexpr (Measured) seen += unit[j].to - unit[j].from;
    }
    if constexpr (Measured)
      if (on && fold) settle(part, since, batch, *shared, rare);
    // Only now: what is measured again may be what is overwritten here.
#pragma unroll
    for (int j = 0; j < U; ++j) write(unit[j], out[j]);
  }

  // The lanes of batches [since, batch] to the thread's slot, or the same units in float64 to its rare one.
  __device__ void settle(const Part& part, int64_t since, int64_t batch, Slots& shared, double* rare) {
    const int t = threadIdx.x;
    if (lanes.template doubtful<known>(V(seen), V(deviation_floor<V>), V(sum_bound<V>), V(smallest_normal<S>))) {
      measure_again(part, since, batch, rare);
    } else {
      Lanes::visit(AddTo<V>{&shared.value[0][t], &shared.counter[0][t], most_threads}, lanes);
      shared.counter[Slots::shape.counts][t] += seen;
    }
    lanes.clear();
    seen = 0;
  }

  __device__ void measure_again(const Part& part, int64_t since, int64_t batch, double* rare) {
    Exact exact;
    exact.clear();
    double first = 0, second = 0;
    const typename Statistics::template Limits<double> limit{double(V(plan.saturation)), smallest_normal<S>};
    typename Statistics::template Shift<double> offset{};
    if constexpr (shifted) offset = {double(shift_x), double(shift_y)};
#pragma unroll 1
    for (int64_t step = since * U; step < (batch + 1) * U; ++step) {
      const Unit u = part.unit(step / U, int(step % U));
#pragma unroll 1
      for (int i = u.from; i < u.to; ++i) {
        V value[2] = {V(0), V(0)};
#pragma unroll
        for (int k = 0; k < Pass::inputs; ++k) value[k] = widen(input(k)[u.place.at[k] + i * plan.inner.stride[k]]);
        const auto a = activation_at<Pass>(plan, u.place.weight + i * plan.inner.weight);
        const Element<V> e = Pass::evaluate(a, value);
        const V result = stored<S>(e.out);
        const double x = double(value[0]), y = double(result);
        exact.template add<Shortcuts{}>(x, y, double(Pass::slope(a, value, result, e)), Always{}, offset, limit);
        first += !(x - x == 0);
        second += !(y - y == 0);
      }
    }
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    AddInDouble add{rare + int64_t(blockIdx.x) * blockDim.x + threadIdx.x, step, !rarely};
    Exact::visit(add, exact);
    add.sum(first), add.sum(second), add.sum(double(seen));
    rarely = true;
  }

  // The mean of the block's first batch; in columns of each column's. An outlier moves it by a small part of itself only.
  __device__ void choose_shift(const Part& part, Slots& shared) {
    double sum[3] = {};
#pragma unroll 1
    for (int j = 0; j < (Columns ? U : 1); ++j) {
      const Unit u = part.unit(0, j);
#pragma unroll 1
      for (int i = u.from; i < u.to; ++i) {
        const V value[2] = {widen(input(0)[u.place.at[0] + i * plan.inner.stride[0]]), V(0)};
        const auto a = activation_at<Pass>(plan, u.place.weight + i * plan.inner.weight);
        sum[0] += double(value[0]);
        sum[1] += double(stored<S>(a.value(value[0])));
        sum[2] += 1;
      }
    }
    over_block<Columns>({Kind::sum, Kind::sum, Kind::sum}, sum, shared.room());
    shift_x = usable(sum[0] / sum[2]);
    shift_y = usable(sum[1] / sum[2]);
  }
  static __device__ V usable(double mean) {
    const V v = V(mean);
    return v - v == V(0) ? v : V(0);
  }

  // --- the end of a segment: slots to a record -------------------------------------------------------------------------

  __device__ void clear(Slots& shared) {
    const int t = threadIdx.x;
    lanes.clear();
    seen = 0;
    weight = V(0);
    rarely = false;
    Lanes::visit(Store<V>{&shared.value[0][t], &shared.counter[0][t], most_threads}, lanes);
    shared.counter[Slots::shape.counts][t] = 0;
  }
};

// --- the end of a segment, of a group, of the call -----------------------------------------------------------------------
// Kept out of the kernels: it is the same for all activations, and its registers are not theirs.

// Slots to the record of segment `index`.
template <class Statistics, class V, bool Columns>
__device__ void make_record(const Plan& plan, int64_t index, Shared<Statistics, V, Columns>& shared, Shortcuts known,
                            bool on, bool rarely) {
  using Slots = Shared<Statistics, V, Columns>;
  using Exact = typename Statistics::template Lanes<double, Level::moments>;
  constexpr int width = Slots::width;
  constexpr Shape shape = Slots::shape;
  const int t = threadIdx.x;
  const int64_t slot = index * width + t;
  const bool any = __syncthreads_or(on && rarely);
  // Values, their weight last; counters, how many were seen last: as one list.
  const auto read = [&](int field, int thread) {
    if (field < shape.values()) return double(shared.value[field][thread]);
    if (field == Slots::weight) return double(shared.value[shape.values()][thread]);
    return double(shared.counter[field - shape.values()][thread]);
  };
  totals<Columns>(shape, Slots::fields, read, shared.total);
  __syncthreads();
  double* const cell = shared.cell + t * Statistics::size;
  const double shift_x = t < width ? double(shared.shift[0][t]) : 0, shift_y = t < width ? double(shared.shift[1][t]) : 0;
  if (t < width) {
    if (plan.gradient) plan.weight_records[slot] = shared.total[Slots::weight * width + t];
    const double n = shared.total[Slots::seen * width + t];
    Statistics::init(cell);
    if (on && n > 0) {
      Exact all;
      Exact::visit(Load{shared.total + t, width}, all);
      all.template finish<double>(cell, n, ops::Itself{}, known, shift_x, shift_y);
      // A mark that `finish` leaves for `suspicious`: here everything was looked at before.
      if constexpr (shape.lowest > 0) cell[ops::Geometry::nonfinite_x] = cell[ops::Geometry::nonfinite_y] = 0;
    }
  }
  if (any) {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    double* const mine = plan.rare + int64_t(blockIdx.x) * blockDim.x;
    if (!rarely) {
      Exact none;
      none.clear();
      AddInDouble add{mine + t, step, true};
      Exact::visit(add, none);
      for (int k = 0; k < 3; ++k) add.sum(0);
    }
    __syncthreads();
    totals<Columns>(shape, Slots::rare_fields, [&](int field, int thread) { return mine[field * step + thread]; },
                    shared.total);
    __syncthreads();
    const double* const total = shared.total + t;
    if (t < width && total[(Slots::rare_fields - 1) * width] > 0) {
      Exact all;
      Exact::visit(Load{total, width}, all);
      double* const exact = shared.cell + (width + t) * Statistics::size;
      Statistics::init(exact);
      all.settle(exact, total[(Slots::rare_fields - 1) * width], total[shape.fields() * width],
                 total[(shape.fields() + 1) * width], shift_x, shift_y);
      Statistics::template combine<Level::moments>(cell, exact);
    }
  }
  if (on && t < width)
    for (int k = 0; k < plan.cells; ++k) plan.records[k * plan.record_stride + slot] = cell[k];
}

// The number of a group in the statistics, or of the weight's gradient.
template <bool Columns>
__device__ int64_t group_of(const Plan& plan, int64_t outer, int64_t column) {
  Place place{};
  move(plan, 0, plan.group_rank, outer, place);
  return place.group + (Columns ? column * plan.inner.group : 0);
}

// The records of a set of groups into the running state, by the last block that added to them.
template <class Statistics, bool Columns>
__device__ void fold_into_state(const Plan& plan, int64_t set, double* result, double* room) {
  constexpr int width = Columns ? warp_size : 1;
  const int64_t stride = plan.record_stride;
  if (plan.one_record) {
    const Records all{plan.records, plan.append ? nullptr : plan.state, stride, 1, plan.state_groups, plan.segments * width};
    fold_records<Statistics, false>(all, plan.cells, result, room);
    for (int k = threadIdx.x; k < plan.cells; k += blockDim.x) plan.state[k * plan.state_groups] = result[k];
    return;
  }
  const int lane = threadIdx.x % width;
  const int64_t outer = set / plan.strips, column = (set - outer * plan.strips) * width + lane;
  const bool valid = !Columns || column < plan.length;
  double* const state = plan.state + group_of<Columns>(plan, outer, valid ? column : 0);
  const Records all{plan.records + set * plan.parts * width + lane, plan.append ? nullptr : state, stride, width,
                    plan.state_groups, plan.parts};
  fold_records<Statistics, Columns>(all, plan.cells, result, room);
  if (valid && threadIdx.x < width)
    for (int k = 0; k < plan.cells; ++k) state[k * plan.state_groups] = result[k * width + lane];
}

// The weight's gradient, by the last block of all: one sum, or one per group.
template <class S, bool Columns>
__device__ void fold_weight(const Plan& plan, double* room) {
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
    for (int64_t i = threadIdx.x; i < plan.segments * width; i += blockDim.x) sum[0] += __ldcg(plan.weight_records + i);
    over_block<false>({Kind::sum}, sum, room);
    if (threadIdx.x == 0) put(0, sum[0]);
    return;
  }
  for (int64_t i = threadIdx.x; i < plan.gradients; i += blockDim.x) {
    const int64_t outer = Columns ? i / plan.length : i, column = Columns ? i - outer * plan.length : 0;
    const int64_t set = Columns ? outer * plan.strips + column / warp_size : i;
    double sum = 0;
    for (int64_t p = 0; p < plan.parts; ++p)
      sum += __ldcg(plan.weight_records + (set * plan.parts + p) * width + column % width);
    put(group_of<Columns>(plan, outer, column), sum);
  }
}

template <class Statistics, class S, bool Columns>
__device__ __noinline__ void finish(const Plan& plan, int64_t index,
                                    Shared<Statistics, typename compute<S>::type, Columns>& shared, Shortcuts known,
                                    bool on, bool rarely) {
  make_record(plan, index, shared, known, on, rarely);
  if (on) {
    const int64_t set = plan.one_record ? 0 : index / plan.parts;
    if (comes_last(plan.tickets + 1 + set, unsigned(plan.one_record ? plan.segments : plan.parts), &shared.word))
      fold_into_state<Statistics, Columns>(plan, set, shared.total, shared.room());
  }
  if (plan.gradient && comes_last(plan.tickets, unsigned(plan.segments), &shared.word))
    fold_weight<S, Columns>(plan, shared.room());
  __syncthreads();  // before the slots are cleared
}

template <class Pass, bool Columns, bool Measured>
__global__ void __launch_bounds__(most_threads) pass(const __grid_constant__ Plan plan) {
  using Part = Segment<Pass, Columns>;
  constexpr bool reduces = Measured || Pass::reduces_weight;
  using Slots = typename Work<Pass, Columns, Measured>::Slots;
  GEOACT_DYNAMIC_SHARED(Slots, shared);
  Work<Pass, Columns, Measured> work(plan, Measured && plan.header[0] != 0);
  for (int64_t index = blockIdx.x; index < plan.segments; index += gridDim.x) {
    const Part part(plan, index);
    const int64_t batches = part.batches();
    if constexpr (Work<Pass, Columns, Measured>::shifted)
      if (work.on) work.choose_shift(part, *shared);
    if constexpr (reduces) work.clear(*shared);
    const int64_t per_fold = plan.in_place ? 1 : Part::batches_per_fold;
    int64_t since = 0;
    for (int64_t batch = 0; batch < batches; ++batch) {
      const bool fold = batch + 1 == batches || batch + 1 - since == per_fold;
      work.run_batch(part, batch, fold, since, shared, plan.rare);
      if (fold) since = batch + 1;
    }
    if constexpr (reduces) {
      shared->value[Slots::shape.values()][threadIdx.x] = work.weight;
      if (threadIdx.x < Slots::width) shared->shift[0][threadIdx.x] = work.shift_x, shared->shift[1][threadIdx.x] = work.shift_y;
      finish<typename Pass::Statistics, typename Pass::Storage, Columns>(plan, index, *shared, work.known, work.on, work.rarely);
    }
  }
  if constexpr (Measured)
    if (work.on && blockIdx.x == 0 && threadIdx.x == 0) ++plan.header[1];
}

}  // namespace geoact::cuda
