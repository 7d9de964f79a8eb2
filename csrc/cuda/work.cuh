// WHAT one thread does with its units: read, compute, measure in registers, write; and where its float32 sums cannot be
// trusted, measure the same units again in float64.
//
// May include: plan.h, storage.cuh, reduce.cuh, segment.cuh, finish.cuh, ops/.
#pragma once

#include "../ops/gates.h"
#include "finish.cuh"

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

// --- what is computed of one element -----------------------------------------------------------------------

template <class V, int Weights>
struct Element {
  V out, slope;
  ops::Slopes<V, Weights> weight;  // the element's share of the weights' gradients
  V other = V(0);                  // the second output
  V inner = V(0);                  // of a gate: what its f gives, or what arrives at it
};

template <template <class> class A, class S>
struct Forward {
  using Storage = S;
  using V = typename compute<S>::type;
  using Activation = A<V>;
  using Statistics = ops::Geometry;
  static constexpr int inputs = 1, outputs = 1, weights = 0;
  using Element = cuda::Element<V, weights>;
  static __device__ __forceinline__ Element evaluate(const Activation& a, const V (&in)[inputs]) {
    return {a.value(in[0]), V(0), {}};
  }
  static __device__ __forceinline__ V slope(const Activation& a, const V (&in)[inputs], V out, const Element&) {
    return a.slope(in[0], out);
  }
  // What is measured: (x, y), or (dy, dx).
  static __device__ __forceinline__ V first(const V (&in)[inputs], const Element&) { return in[0]; }
  static __device__ __forceinline__ V second(V out, const Element&) { return out; }
};

template <template <class> class A, class S>
struct Backward {
  using Storage = S;
  using V = typename compute<S>::type;
  using Activation = A<V>;
  using Statistics = ops::Gradient;
  static constexpr int inputs = 2, outputs = 1, weights = Activation::trainable;
  using Element = cuda::Element<V, weights>;
  static __device__ __forceinline__ Element evaluate(const Activation& a, const V (&in)[inputs]) {
    const V dy = in[0], saved = in[1];
    const V y = Activation::saves == ops::Saves::y ? saved : stored<S>(a.value(saved));
    Element e{V(0), a.slope(saved, y), {}};
    if constexpr (requires { a.gradient(dy, saved, y); })
      e.out = a.gradient(dy, saved, y);
    else
      e.out = dy * e.slope;
    if constexpr (weights > 0) {
      e.weight = a.param_slope(saved, y);
#pragma unroll
      for (int k = 0; k < weights; ++k) e.weight.of[k] = dy * e.weight.of[k];
    }
    return e;
  }
  static __device__ __forceinline__ V slope(const Activation&, const V (&)[inputs], V, const Element& e) {
    return e.slope;
  }
  static __device__ __forceinline__ V first(const V (&in)[inputs], const Element&) { return in[0]; }
  static __device__ __forceinline__ V second(V out, const Element&) { return out; }
};

// y = f(gate) h(up); measured as if f stood alone.
template <template <class> class G, class S>
struct GatedForward {
  using Storage = S;
  using V = typename compute<S>::type;
  using Activation = G<V>;
  using Statistics = ops::Geometry;
  static constexpr int inputs = 2, outputs = 1, weights = 0;
  using Element = cuda::Element<V, weights>;
  static __device__ __forceinline__ Element evaluate(const Activation& g, const V (&in)[inputs]) {
    const V f = g.value(in[0]);
    return {f * g.factor(in[1]), V(0), {}, V(0), f};
  }
  static __device__ __forceinline__ V slope(const Activation& g, const V (&in)[inputs], V y, const Element&) {
    return g.slope(in[0], y);
  }
  static __device__ __forceinline__ V first(const V (&in)[inputs], const Element&) { return in[0]; }
  static __device__ __forceinline__ V second(V, const Element& e) { return stored<S>(e.inner); }
};

// (dgate, dup); what arrives at f is dy h(up), and is not rounded.
template <template <class> class G, class S>
struct GatedBackward {
  using Storage = S;
  using V = typename compute<S>::type;
  using Activation = G<V>;
  using Statistics = ops::Gradient;
  static constexpr int inputs = 3, outputs = 2, weights = 0;
  using Element = cuda::Element<V, weights>;
  static __device__ __forceinline__ Element evaluate(const Activation& g, const V (&in)[inputs]) {
    const V dy = in[0], gate = in[1], up = in[2], f = g.value(gate), y = stored<S>(f), df = dy * g.factor(up);
    Element e{V(0), g.slope(gate, y), {}, g.factor_gradient(dy * f, up), df};
    if constexpr (requires { g.gradient(df, gate, y); })
      e.out = g.gradient(df, gate, y);
    else
      e.out = df * e.slope;
    return e;
  }
  static __device__ __forceinline__ V slope(const Activation&, const V (&)[inputs], V, const Element& e) {
    return e.slope;
  }
  static __device__ __forceinline__ V first(const V (&)[inputs], const Element& e) { return e.inner; }
  static __device__ __forceinline__ V second(V out, const Element&) { return out; }
};

// --- numbers of the call -----------------------------------------------------------------------------------

template <class V>
__device__ __forceinline__ V parameter(const Plan& plan, int k) {
  if constexpr (sizeof(V) == sizeof(float))
    return plan.number_in_float[k];
  else
    return plan.number[k];
}
template <class V>
__device__ __forceinline__ V saturation(const Plan& plan) {
  if constexpr (sizeof(V) == sizeof(float))
    return plan.saturation_in_float;
  else
    return plan.saturation;
}

template <class Pass>
__device__ __forceinline__ typename Pass::Activation activation_at(const Plan& plan, int64_t weight) {
  using A = typename Pass::Activation;
  using V = typename Pass::V;
  return ops::with_parameters<A>([&](int k) -> V {
    if (k >= A::trainable || !plan.weight[k]) return parameter<V>(plan, k);
    return widen(static_cast<const typename Pass::Storage*>(plan.weight[k])[weight * plan.weight_stride[k]]);
  });
}

// Part of what lanes have, handed on to F.
template <class F>
struct OnlySums {
  F& f;
  __device__ void sum(const double& v) { f.sum(v); }
  __device__ void lowest(const double&) {}
  __device__ void highest(const double&) {}
  __device__ void count(const int&) {}
};
template <class F>
struct AllButSums {
  F& f;
  __device__ void sum(const double&) {}
  __device__ void lowest(const double& v) { f.lowest(v); }
  __device__ void highest(const double& v) { f.highest(v); }
  __device__ void count(const int& n) { f.count(n); }
};

// --- one thread in one segment -----------------------------------------------------------------------------

template <class Pass, bool Columns, bool Measured>
struct Work {
  using S = typename Pass::Storage;
  using V = typename Pass::V;
  using Activation = typename Pass::Activation;
  using Statistics = typename Pass::Statistics;
  static constexpr int inputs = Pass::inputs, outputs = Pass::outputs, N = unit_size(Columns, sizeof(S), inputs);
  // Units that are being read while another is computed. Where much is computed, registers are better spent on that:
  // other warps compute while one reads. Backward reads two arrays at once anyway, columns several rows.
  static constexpr int ahead = (!Columns && inputs == 1 && (!Measured || Activation::brief)) + !Measured;
  static constexpr int units_per_fold = 64 / N;
  using Part = Segment<N, inputs + outputs, Columns>;
  using Lanes = typename Statistics::template Lanes<V, Level::moments>;
  using Exact = typename Statistics::template Lanes<double, Level::moments>;
  using Element = typename Pass::Element;
  using Slots = Shared<Statistics, V, Columns, Pass::weights>;
  static constexpr Shortcuts known{Activation::nonnegative, Activation::positive && !is_half<S>, Activation::increasing,
                                   Activation::rectifier};
  static constexpr bool shifted = Measured && Slots::shape.lowest > 0;

  struct Unit {
    int64_t offset = apart;  // of the first array
    Pack<S, N> in[inputs];
    // A unit that is not whole is read elsewhere; no offset is so low.
    static constexpr int64_t apart = int64_t(1) << 63;
    __device__ __forceinline__ bool whole() const { return int(offset >> 32) != int(apart >> 32); }
  };
  struct To {
    S* v[outputs];
  };
  struct Output {
    Pack<S, N> v[outputs];
  };

  const Plan& plan;
  const bool on;  // measuring
  Lanes lanes;
  int seen = 0;
  ops::Slopes<V, Pass::weights> weight{};
  V shift_x = V(0), shift_y = V(0);

  __device__ __forceinline__ Work(const Plan& plan, bool on) : plan(plan), on(on) {}

  // Asks memory for unit i; an incomplete one is left to `edge`.
  __device__ __forceinline__ void read(const Part& part, int i, Unit& u) const {
    const Spot spot = part.spot(i);
    u.offset = Unit::apart;
    if (!part.whole(spot)) return;
    u.offset = part.offset(0, spot);
#pragma unroll
    for (int k = 0; k < inputs; ++k) {
      const char* const from = part.base[k] + (k == 0 || plan.alike ? u.offset : part.offset(k, spot));
      if (!Columns && plan.wide[k]) {
        u.in[k] = *reinterpret_cast<const Pack<S, N>*>(from);
      } else {
#pragma unroll
        for (int e = 0; e < N; e += 2) {
          const char* const here = from + e * plan.gap[k];
          u.in[k].put(e, *reinterpret_cast<const S*>(here), *reinterpret_cast<const S*>(here + plan.gap[k]));
        }
      }
    }
  }
  __device__ __forceinline__ void write(const Part& part, int i, const Unit& u, const Output& out) const {
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
      const int k = inputs + o;
      char* const to = part.base[k] + (plan.alike ? u.offset : part.offset(k, part.spot(i)));
      if (!Columns && plan.wide[k]) {
        *reinterpret_cast<Pack<S, N>*>(to) = out.v[o];
      } else {
#pragma unroll
        for (int e = 0; e < N; ++e) *reinterpret_cast<S*>(to + e * plan.gap[k]) = out.v[o][e];
      }
    }
  }

  __device__ __forceinline__ auto shift() const {
    if constexpr (shifted)
      return typename Statistics::template Shift<V>{shift_x, shift_y};
    else
      return typename Statistics::template Shift<V>{};
  }
  __device__ __forceinline__ void measure(const Activation& a, const V (&in)[inputs], V out, const Element& e) {
    const V second = Pass::second(out, e);
    lanes.template add<known>(Pass::first(in, e), second, Pass::slope(a, in, second, e), Always{}, shift(),
                              {saturation<V>(plan), V(smallest_normal<S>)});
  }

  __device__ __forceinline__ void weigh(const Element& e) {
    if constexpr (Pass::weights > 0) {
#pragma unroll
      for (int k = 0; k < Pass::weights; ++k) weight.of[k] += e.weight.of[k];
    }
  }

  // Every element of a whole unit, two by two: narrow types are rounded in pairs.
  __device__ __forceinline__ void compute(const Activation& a, const Unit& u, Output& out) {
    static_assert(N % 2 == 0);
#pragma unroll
    for (int e = 0; e < N; e += 2) {
      V in[2][inputs] = {};
      Element element[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int k = 0; k < inputs; ++k) in[h][k] = widen(u.in[k][e + h]);
        element[h] = Pass::evaluate(a, in[h]);
        weigh(element[h]);
      }
      S narrowed[2];
      narrow(element[0].out, element[1].out, narrowed[0], narrowed[1]);
      out.v[0].put(e, narrowed[0], narrowed[1]);
      if constexpr (outputs == 2) {
        S other[2];
        narrow(element[0].other, element[1].other, other[0], other[1]);
        out.v[1].put(e, other[0], other[1]);
      }
      if constexpr (Measured) {
#pragma unroll
        for (int h = 0; h < 2; ++h) measure(a, in[h], widen(narrowed[h]), element[h]);
      }
    }
    if constexpr (Measured) seen += N;
  }

  // The elements of a unit that exist, one by one: f(activation, inputs, where outputs go). Seldom used, so
  // nothing for it may be kept in registers meanwhile.
  template <class F>
  __device__ __forceinline__ void each(const Part& part, const Activation& same, int i, int step, const F& f) const {
#pragma unroll 1
    for (int e = 0; e < N; e += step) {
      const Spot spot = part.spot(computed_here(i));
      if (!part.has(spot, e)) continue;
      const auto at = [&](int k) { return part.base[k] + (part.offset(k, spot) + e * plan.gap[k]); };
      V in[inputs] = {};
#pragma unroll
      for (int k = 0; k < inputs; ++k) in[k] = widen(*reinterpret_cast<const S*>(at(k)));
      To to;
#pragma unroll
      for (int o = 0; o < outputs; ++o) to.v[o] = reinterpret_cast<S*>(at(inputs + o));
      if constexpr (Activation::trainable)
        f(plan.weight_varies ? activation_at<Pass>(plan, part.weight_of(spot, e)) : same, in, to);
      else
        f(same, in, to);
    }
  }

  static __device__ __forceinline__ void put(const Element& e, S out, const To& to) {
    *to.v[0] = out;
    if constexpr (outputs == 2) narrow(e.other, *to.v[1]);
  }

  // A unit that is not whole.
  __device__ __forceinline__ void edge(const Part& part, const Activation& same, int i) {
    each(part, same, i, 1, [&](const Activation& a, const V(&in)[inputs], const To& to) {
      const Element e = Pass::evaluate(a, in);
      S out;
      narrow(e.out, out);
      put(e, out, to);
      weigh(e);
      if constexpr (Measured) {
        measure(a, in, widen(out), e);
        ++seen;
      }
    });
  }

  __device__ __forceinline__ void unit(const Part& part, const Activation& a, int i, const Unit& u, Slots* shared) {
    // What may be measured again must not be overwritten before.
    const bool late = Measured && on && plan.in_place;
    Output out;
    if (u.whole()) {
      compute(a, u, out);
      if (!late) write(part, i, u, out);
    } else if (!late) {
      edge(part, a, i);
    }
    if constexpr (Measured) {
      if (!on || !(late || i + 1 == part.count || (i + 1) % units_per_fold == 0)) return;
      const bool edge_to_write = late && !u.whole();
      const int from = late ? i : i - i % units_per_fold;
      if (edge_to_write ||
          lanes.template doubtful<known>(V(seen), V(deviation_floor<V>), V(sum_bound<V>), V(smallest_normal<S>))) {
        measure_again(part, a, from, i, late, edge_to_write, *shared);
      } else {
        const int t = computed_here(int(threadIdx.x));
        Lanes::visit(AddTo<V>{&shared->value[0][t], &shared->counter[0][t], most_threads}, lanes);
        shared->counter[Slots::shape.counts][t] += seen;
        if (late) write(part, i, u, out);
      }
      lanes.clear();
      seen = 0;
    }
  }

  // Units [from, to] in float64, to the thread's rare slot: first the sums, then the rest, for fewer registers.
  __device__ __forceinline__ void measure_again(const Part& part, const Activation& same, int from, int to, bool write,
                                                bool weighs, Slots& shared) {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    double* const place = plan.rare + int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const bool fresh = !shared.rarely[threadIdx.x];
    AddInDouble add{place, step, fresh};
    sweep<true>(part, same, from, to, false, false, add);
    sweep<false>(part, same, from, to, write, weighs, add);
    shared.rarely[threadIdx.x] = true;
  }
  template <bool Sums>
  __device__ __forceinline__ void sweep(const Part& part, const Activation& same, int from, int to, bool write,
                                        bool weighs, AddInDouble& add) {
    Exact exact;
    exact.clear();
    int first = 0, second = 0, all = 0;
    typename Statistics::template Shift<double> offset{};
    if constexpr (shifted) offset = {double(shift_x), double(shift_y)};
#pragma unroll 1
    for (int i = from; i <= to; ++i)
      each(part, same, i, 1, [&](const Activation& a, const V(&in)[inputs], const To& place) {
        const Element e = Pass::evaluate(a, in);
        S out;
        narrow(e.out, out);
        if (!Sums && write) put(e, out, place);
        if (!Sums && weighs) weigh(e);
        const V result = Pass::second(widen(out), e);
        const double x = double(Pass::first(in, e)), y = double(result);
        exact.template add<Shortcuts{}>(x, y, double(Pass::slope(a, in, result, e)), Always{}, offset,
                                        {double(saturation<V>(plan)), smallest_normal<S>});
        first += !(x - x == 0);
        second += !(y - y == 0);
        ++all;
      });
    if constexpr (Sums) {
      Exact::visit(OnlySums<AddInDouble>{add}, exact);
    } else {
      Exact::visit(AllButSums<AddInDouble>{add}, exact);
      add.sum(double(first)), add.sum(double(second)), add.sum(double(all));
    }
  }

  // The mean of some elements of the block's first batch; in columns of each column's. An outlier among them moves it
  // by a small part of what it adds to the spread.
  __device__ __forceinline__ void choose_shift(const Part& part, const Activation& same, Slots& shared) {
    double x = 0, y = 0;
    int all = 0;
    each(part, same, 0, N > 4 ? 2 : 1, [&](const Activation& a, const V(&in)[inputs], const To&) {
      x += double(in[0]);
      y += double(stored<S>(a.value(in[0])));
      ++all;
    });
    double* const mine = shared.room() + computed_here(int(threadIdx.x));
    mine[0] = x, mine[most_threads] = y, mine[2 * most_threads] = all;
    means(shared);
    const int lane = Columns ? threadIdx.x % warp_size : 0;
    shift_x = shared.shift[0][lane];
    shift_y = shared.shift[1][lane];
  }

  __device__ __forceinline__ void clear(Slots& shared) {
    const int t = computed_here(int(threadIdx.x));
    lanes.clear();
    seen = 0;
    weight = {};
    Lanes::visit(Store<V>{&shared.value[0][t], &shared.counter[0][t], most_threads}, lanes);
    shared.counter[Slots::shape.counts][t] = 0;
    shared.rarely[t] = false;
  }
};

}  // namespace geoact::cuda
