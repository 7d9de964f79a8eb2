// HOW a block of memory is passed over once: one forward loop and one backward loop, for every activation, storage
// type and level of measurement.
//
// A block is a matrix of `rows` rows of `columns` adjacent elements. It is walked in strips one vector wide, a few rows
// at a time, so that a strip's accumulators live in registers; a flat run is the matrix whose rows are one vector long.
// Strips either share one set of lanes (the block belongs to one group) or own one each (a column is a channel).
//
// May include: vec.h, ops/. Knows nothing of threads, strides beyond the block, or Python.
#pragma once

#include "vec.h"
// vec.h first: the verbs of ops/ are found by overload
#include "../ops/gates.h"
#include "../ops/statistics.h"
#include "kernels.h"
#include "stage.h"

namespace geoact::GEOACT_ISA {

template <class S>
struct compute {
  using type = float;
};
template <>
struct compute<double> {
  using type = double;
};

// Smallest normal number of a storage type, in the compute type.
template <class S>
inline constexpr double smallest_normal = 0x1p-126;
template <>
inline constexpr double smallest_normal<half> = 0x1p-14;
template <>
inline constexpr double smallest_normal<double> = 0x1p-1022;

struct Everything {
  template <class V>
  GEOACT_INLINE V value(V v, V) const {
    return v;
  }
  template <class M>
  GEOACT_INLINE M test(M m) const {
    return m;
  }
};
template <class V>
struct FirstFew {
  typename V::mask_type m;
  GEOACT_INLINE V value(V v, V otherwise) const { return select(m, v, otherwise); }
  GEOACT_INLINE typename V::mask_type test(typename V::mask_type t) const { return t & m; }
};

// The parameters of an activation at one strip: the same in every lane, or one per column.
template <class V, template <class> class A>
GEOACT_INLINE A<V> activation_at(const Block& block, int64_t column) {
  using T = typename V::scalar;
  return with_parameters<A<V>>([&](int k) -> V {
    const T* p = static_cast<const T*>(block.parameter[k]);
    return block.parameter_stride[k] ? storage<V, T>::load(p + column) : V(*p);
  });
}

// Whole or partial vectors between memory and registers. A partial one goes through a buffer: no byte outside the
// array is touched.
template <class V, class S>
GEOACT_INLINE V load_some(const S* p, int count) {
  if (count == V::W) return storage<V, S>::load(p);
  S buffer[V::W] = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  return storage<V, S>::load(buffer);
}
template <class V, class S>
GEOACT_INLINE void store_some(S* p, V rounded, int count) {
  if (count == V::W) return storage<V, S>::store(p, rounded);
  S buffer[V::W];
  storage<V, S>::store(buffer, rounded);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}

template <class S>
inline constexpr bool is_half = false;
template <>
inline constexpr bool is_half<half> = true;

// float16 reaches its subnormals too easily for them to count as rare.
template <class A, class S>
inline constexpr Shortcuts shortcuts_of{A::nonnegative, A::positive && !is_half<S>, A::increasing, A::rectifier};

// A row further down, asked for while this one is computed: the hardware follows a run of memory, but not the columns
// of a matrix. Past the end of the array it does nothing.
template <class S>
GEOACT_INLINE const S* at_row(const Block& block, int input, int64_t row, int64_t column) {
  const S* p = static_cast<const S*>(block.in[input]) + row * block.in_stride[input] + column;
  __builtin_prefetch(p + block.ahead * block.in_stride[input], 0, 2);  // into L2: rows may share one set of L1
  return p;
}

template <class S>
GEOACT_INLINE S* at_output(const Block& block, int output, int64_t row, int64_t column) {
  return static_cast<S*>(block.out[output]) + row * block.out_stride[output] + column;
}

// f'(x), with x := y where y is all that is known (the derivative then reads no more of x than its sign).
template <class V, template <class> class A>
GEOACT_INLINE V gradient(const A<V>& a, V dy, V x, V y, V slope) {
  if constexpr (requires { a.gradient(dy, x, y); })
    return a.gradient(dy, x, y);
  else
    return dy * slope;
}

template <template <class> class A, class S>
struct Forward {
  using Statistics = Geometry;
  using V = widest<typename compute<S>::type>;
  static constexpr int item_size = sizeof(S);
  static constexpr Shortcuts shortcuts = shortcuts_of<A<V>, S>;
  static constexpr bool slope_from_second = A<V>::saves == Saves::y;  // cheap there: no need to keep it
  static constexpr int trained = 0;

  // One vector of elements: `y` is stored, (x, y, f) is what the statistics see.
  template <bool Stored, bool Measured, class Sink>
  static GEOACT_INLINE void element(const A<V>& a, const Block& block, int64_t row, int64_t column, int count,
                                    const Sink& sink) {
    const V x = load_some<V>(at_row<S>(block, 0, row, column), count), y = storage<V, S>::round(a.value(x));
    if constexpr (Stored) store_some(at_output<S>(block, 0, row, column), y, count);
    if constexpr (Measured) sink(x, y, a.slope(x, y), Slopes<V, 0>{});
  }
};

template <template <class> class A, class S>
struct Backward {
  using Statistics = Gradient;
  using V = widest<typename compute<S>::type>;
  static constexpr int item_size = sizeof(S);
  static constexpr Shortcuts shortcuts = shortcuts_of<A<V>, S>;
  static constexpr bool slope_from_second = false;
  static constexpr int trained = A<V>::trainable;

  template <bool Stored, bool Measured, class Sink>
  static GEOACT_INLINE void element(const A<V>& a, const Block& block, int64_t row, int64_t column, int count,
                                    const Sink& sink) {
    const V dy = load_some<V>(at_row<S>(block, 0, row, column), count);
    const V saved = load_some<V>(at_row<S>(block, 1, row, column), count);
    const V y = A<V>::saves == Saves::y ? saved : storage<V, S>::round(a.value(saved));
    const V f = a.slope(saved, y), dx = storage<V, S>::round(gradient<V, A>(a, dy, saved, y, f));
    if constexpr (Stored) store_some(at_output<S>(block, 0, row, column), dx, count);
    Slopes<V, trained> dp{};
    if constexpr (trained > 0) {
      dp = a.param_slope(saved, y);
      for (int k = 0; k < trained; ++k) dp.of[k] = dy * dp.of[k];
    }
    if constexpr (Measured || trained > 0) sink(dy, dx, f, dp);
  }
};

// y = f(gate) h(up): the statistics see the gate as if f stood alone.
template <template <class> class G, class S>
struct GatedForward : Forward<G, S> {
  using typename Forward<G, S>::V;

  template <bool Stored, bool Measured, class Sink>
  static GEOACT_INLINE void element(const G<V>& g, const Block& block, int64_t row, int64_t column, int count,
                                    const Sink& sink) {
    const V gate = load_some<V>(at_row<S>(block, 0, row, column), count);
    const V up = load_some<V>(at_row<S>(block, 1, row, column), count), f = g.value(gate);
    if constexpr (Stored)
      store_some(at_output<S>(block, 0, row, column), storage<V, S>::round(f * g.factor(up)), count);
    if constexpr (Measured) {
      const V y = storage<V, S>::round(f);
      sink(gate, y, g.slope(gate, y), Slopes<V, 0>{});
    }
  }
};

// (dgate, dup); what arrives at f is dy h(up), and is not rounded.
template <template <class> class G, class S>
struct GatedBackward : Backward<G, S> {
  using typename Backward<G, S>::V;

  template <bool Stored, bool Measured, class Sink>
  static GEOACT_INLINE void element(const G<V>& g, const Block& block, int64_t row, int64_t column, int count,
                                    const Sink& sink) {
    const V dy = load_some<V>(at_row<S>(block, 0, row, column), count);
    const V gate = load_some<V>(at_row<S>(block, 1, row, column), count);
    const V up = load_some<V>(at_row<S>(block, 2, row, column), count);
    const V f = g.value(gate), y = storage<V, S>::round(f), slope = g.slope(gate, y), df = dy * g.factor(up);
    const V dgate = storage<V, S>::round(gradient<V, G>(g, df, gate, y, slope));
    if constexpr (Stored) {
      const V dup = storage<V, S>::round(g.factor_gradient(dy * f, up));
      store_some(at_output<S>(block, 0, row, column), dgate, count);
      store_some(at_output<S>(block, 1, row, column), dup, count);
    }
    if constexpr (Measured) sink(df, dgate, slope, Slopes<V, 0>{});
  }
};

// `rows` <= rows_per_fold vectors, one below the other, into registers, then into the strip's lanes.
template <class Pass, template <class> class A, Level L, bool Partial>
GEOACT_INLINE void strip(const Block& block, int64_t row, int rows, int64_t column, int count, int64_t index) {
  using V = typename Pass::V;
  using Statistics = typename Pass::Statistics;
  constexpr bool measured = L != Level::none;
  const A<V> a = activation_at<V, A>(block, column);
  if constexpr (!measured && Pass::trained == 0) {
    for (int r = 0; r < rows; ++r)
      Pass::template element<true, false>(a, block, row + r, column, Partial ? count : V::W, [](auto...) {});
  } else {
    using Lanes = typename Statistics::template Lanes<V, L>;
    const typename Statistics::template Limits<V> limits{V(typename V::scalar(block.saturation)),
                                                         V(typename V::scalar(block.smallest_normal))};
    typename Statistics::template Shift<V> shift{};
    if constexpr (measured)
      std::memcpy(&shift, static_cast<const char*>(block.shift) + index * sizeof shift, sizeof shift);
    const auto keep = [&] {
      if constexpr (Partial)
        return FirstFew<V>{V::mask_type::first(count)};
      else
        return Everything{};
    }();
    Lanes local;
    using Terms = Slopes<V, Pass::trained>;
    Terms sum{};
    if constexpr (measured) local.clear();
    const auto take = [&](V u, V v, V f, const Terms& dp) __attribute__((always_inline)) {
      if constexpr (measured) local.template add<Pass::shortcuts>(u, v, f, keep, shift, limits);
      if constexpr (Pass::trained > 0)
        for (int k = 0; k < Pass::trained; ++k) sum.of[k] += keep.value(dp.of[k], V(0));
    };
    if constexpr (A<V>::brief) {
      for (int r = 0; r < rows; ++r)
        Pass::template element<true, true>(a, block, row + r, column, Partial ? count : V::W, take);
    } else {
      // Two short loops over values that stay in L1, not one long one: the sums wait for y, and together with the long
      // chain of operations behind y they would fill the scheduler before the next vector's chain can start.
      V first[rows_per_fold], second[rows_per_fold], slope[rows_per_fold];
      Terms terms[rows_per_fold];
#pragma GCC unroll 2
      for (int r = 0; r < rows; ++r)
        Pass::template element<true, true>(a, block, row + r, column, Partial ? count : V::W,
                                           [&](V u, V v, V f, const Terms& dp) __attribute__((always_inline)) {
                                             first[r] = u;
                                             second[r] = v;
                                             if constexpr (!Pass::slope_from_second) slope[r] = f;
                                             if constexpr (Pass::trained > 0) terms[r] = dp;
                                           });
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r)
        take(first[r], second[r], Pass::slope_from_second ? a.slope(first[r], second[r]) : slope[r], terms[r]);
    }
    if constexpr (measured) static_cast<Lanes*>(block.lanes)[index].fold(local);
    if constexpr (Pass::trained > 0) {
      V* const lanes = static_cast<V*>(block.parameter_lanes) + column / V::W * max_parameters;
      for (int k = 0; k < Pass::trained; ++k) lanes[k] += sum.of[k];
    }
  }
}

// The one loop.
template <class Pass, template <class> class A, Level L>
void run_block(const Block& source) {
  Block block = source;  // a copy nothing else points to: the stores below could otherwise change it
  PastCache* past_cache = static_cast<PastCache*>(block.past_cache);
  constexpr int W = Pass::V::W;
  const int64_t whole = block.columns / W * W;
  const int rest = int(block.columns - whole);
  for (int64_t row = 0; row < block.rows; row += rows_per_fold) {
    const int rows = int(block.rows - row < rows_per_fold ? block.rows - row : rows_per_fold);
    int64_t index = 0;
    if (past_cache) block.out[0] = past_cache->next() - row * block.out_stride[0] * int64_t(Pass::item_size);
    for (int64_t column = 0; column < whole; column += W, index += block.lanes_step)
      strip<Pass, A, L, false>(block, row, rows, column, W, index);
    if (rest) strip<Pass, A, L, true>(block, row, rows, whole, rest, index);
    if (past_cache) past_cache->advance(rows * block.columns * int64_t(Pass::item_size));
  }
}

// The same elements once more, one by one in float64: for the rare tile whose float32 sums cannot be trusted, and to
// find the first shift. Writes nothing but the three arrays of rows x columns.
template <class Pass, template <class> class A>
void examine_block(const Block& block, double* first, double* second, double* slope) {
  using V = typename Pass::V;
  for (int64_t row = 0; row < block.rows; ++row)
    for (int64_t column = 0; column < block.columns; column += V::W) {
      const int count = int(block.columns - column < V::W ? block.columns - column : V::W);
      const int64_t at = row * block.columns + column;
      Pass::template element<false, true>(activation_at<V, A>(block, column), block, row, column, count,
                                          [&](V a, V b, V f, auto) {
                                            for (int i = 0; i < count; ++i) {
                                              first[at + i] = double(a.v[i]);
                                              second[at + i] = double(b.v[i]);
                                              slope[at + i] = double(f.v[i]);
                                            }
                                          });
    }
}

}  // namespace geoact::GEOACT_ISA
