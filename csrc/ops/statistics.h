// WHAT is measured: the records of STATISTICS (docs/statistics.md), each as a state with pure functions.
//
//   lanes    what one lane accumulates inside a tile: `add` one vector, `fold` another lane set in
//   record   what a group has after a tile, in float64: `finish` makes it from lanes, `combine` merges two
//
// `combine` is the only merge there is: tiles, threads, calls, batches and ranks all go through it. A record is a row
// of cells of one type, so that V = double merges one group and V = vec<double, W> merges W groups at once.
//
// May include: vocabulary.h. Knows nothing of loops, memory, instruction sets or Python.
#pragma once

#include "vocabulary.h"

namespace geoact::GEOACT_ISA {

// One counter per lane: a vector of integers where V is a vector, else an integer.
template <class V>
struct counter_type {
  using type = int32_t;
};
template <class V>
  requires requires { typename V::counter; }
struct counter_type<V> {
  using type = typename V::counter;
};
template <class V>
using counter_of = typename counter_type<V>::type;
GEOACT_HD int32_t tally(int32_t count, bool yes) {
#if defined(__CUDA_ARCH__)
  // One predicated addition; the compiler would add, and then choose.
  asm("{ .reg .pred p; setp.ne.s32 p, %1, 0; @p add.s32 %0, %0, 1; }" : "+r"(count) : "r"(int(yes)));
  return count;
#else
  return count + yes;
#endif
}

// How two cells of the same field merge.
enum class Merge { sum, minimum, maximum, mean, squared_deviation, co_deviation };
struct Field {
  const char* name;
  Merge merge;
  int mean = -1, other_mean = -1;  // deviations: the fields of the means they are from
};

enum class Level { none, counts, moments };

// What is known of an activation, so that some of a record follows from the rest of it (activations.h).
struct Shortcuts {
  bool nonnegative, positive, increasing, rectifier;
};

// What `visit` of lanes is asked to do.
template <class V>
struct Clear {
  V least;  // what nothing has as its maximum
  GEOACT_HD void sum(V& a) const { a = lit<V>(0); }
  GEOACT_HD void lowest(V& a) const { a = lit<V>(__builtin_inf()); }
  GEOACT_HD void highest(V& a) const { a = least; }
  template <class C>
  GEOACT_HD void count(C& a) const {
    a = C{};
  }
};
// The reducer of `finish` for lanes that are one already.
struct Itself {
  GEOACT_HD double sum(double v) const { return v; }
  GEOACT_HD double lowest(double v) const { return v; }
  GEOACT_HD double highest(double v) const { return v; }
  GEOACT_HD double count(double n) const { return n; }
};
struct Fold {
  template <class V>
  GEOACT_HD void sum(V& a, const V& b) const {
    a = a + b;
  }
  template <class V>
  GEOACT_HD void lowest(V& a, const V& b) const {
    a = min(b, a);
  }
  template <class V>
  GEOACT_HD void highest(V& a, const V& b) const {
    a = max(b, a);
  }
  template <class C>
  GEOACT_HD void count(C& a, const C& b) const {
    a += b;
  }
};

// --- forward: what an activation does to the geometry of its input -----------------------------------------

struct Geometry {
  enum : int {
    n,
    negative,
    positive,
    zero,
    saturated,
    subnormal,
    nonfinite_x,
    nonfinite_y,  // exact counts
    x_min,
    x_max,
    y_min,
    y_max,
    mean_x,
    mean_y,
    m2_x,
    m2_y,
    c_xy,  // n, mean, sum of squared deviations, co-deviation
    sum_abs_y,
    sum_pos_x,
    sum_sq_pos_x,
    sum_slope,
    sum_sq_slope,
    size
  };
  static constexpr int counts_size = mean_x;  // the cells that level="counts" fills
  static constexpr Field fields[size] = {{"n", Merge::sum},
                                         {"negative", Merge::sum},
                                         {"positive", Merge::sum},
                                         {"zero", Merge::sum},
                                         {"saturated", Merge::sum},
                                         {"subnormal", Merge::sum},
                                         {"nonfinite_x", Merge::sum},
                                         {"nonfinite_y", Merge::sum},
                                         {"x_min", Merge::minimum},
                                         {"x_max", Merge::maximum},
                                         {"y_min", Merge::minimum},
                                         {"y_max", Merge::maximum},
                                         {"mean_x", Merge::mean},
                                         {"mean_y", Merge::mean},
                                         {"m2_x", Merge::squared_deviation, mean_x},
                                         {"m2_y", Merge::squared_deviation, mean_y},
                                         {"c_xy", Merge::co_deviation, mean_x, mean_y},
                                         {"sum_abs_y", Merge::sum},
                                         {"sum_pos_x", Merge::sum},
                                         {"sum_sq_pos_x", Merge::sum},
                                         {"sum_slope", Merge::sum},
                                         {"sum_sq_slope", Merge::sum}};

  // x and y are summed as differences from a value near their mean: a float32 variance of data with mean 1000 and
  // standard deviation 1 is otherwise all cancellation.
  template <class V>
  struct Shift {
    V x, y;
  };
  template <class V>
  struct Limits {
    V saturation;       // |f'| below it counts as saturated
    V smallest_normal;  // of the storage type
  };

  template <class V, Level L>
  struct Lanes {
    using counter = counter_of<V>;
    V x1, x2, y1, y2, xy, abs_y, p1, p2, f1, f2;
    V x_min, x_max, y_min, y_max, finite;
    counter negative, positive, zero, saturated, small;

    // Every member, by how it merges; `f` is given the same one of all `lanes`.
    template <class F, class... Ls>
    static GEOACT_HD void visit(F&& f, Ls&... lanes) {
      if constexpr (L == Level::counts) {
        f.sum(lanes.finite...);
      } else {
        f.sum(lanes.x1...), f.sum(lanes.x2...), f.sum(lanes.y1...), f.sum(lanes.y2...), f.sum(lanes.xy...);
        f.sum(lanes.abs_y...), f.sum(lanes.p1...), f.sum(lanes.p2...), f.sum(lanes.f1...), f.sum(lanes.f2...);
      }
      f.lowest(lanes.x_min...), f.lowest(lanes.y_min...), f.highest(lanes.x_max...), f.highest(lanes.y_max...);
      f.count(lanes.negative...), f.count(lanes.positive...), f.count(lanes.zero...);
      f.count(lanes.saturated...), f.count(lanes.small...);
    }
    GEOACT_HD void clear() { visit(Clear<V>{lit<V>(-__builtin_inf())}, *this); }
    // Second level of the summation: short float32 sums are added into longer ones, so that no sum of a tile has
    // more than a few dozen roundings.
    GEOACT_HD void fold(const Lanes& b) { visit(Fold{}, *this, b); }

    // Lanes where `keep` is false hold no datum: they add nothing. M is a type with `value(v)` and `test(mask)`.
    template <Shortcuts K, class M>
    GEOACT_HD void add(V x, V y, V f, const M& keep, const Shift<V>& shift, const Limits<V>& limits) {
      const V o = lit<V>(0), size = K.nonnegative ? y : abs(y);
      negative = tally(negative, keep.test(x < o));
      positive = tally(positive, keep.test(x > o));
      if constexpr (!K.rectifier && !K.positive) zero = tally(zero, keep.test(y == o));
      if constexpr (!K.positive) small = tally(small, keep.test(size < limits.smallest_normal));
      if constexpr (!K.rectifier)
        saturated = tally(saturated, keep.test((K.increasing ? f : abs(f)) < limits.saturation));
      // The accumulator is the second operand: a NaN in x or y then leaves it as it was.
      x_min = lower(keep.value(x, x_min), x_min);
      x_max = higher(keep.value(x, x_max), x_max);
      y_min = lower(keep.value(y, y_min), y_min);
      y_max = higher(keep.value(y, y_max), y_max);
      if constexpr (L == Level::counts) {
        finite = fma(keep.value(x + y, o), o, finite);  // turns NaN, and stays so, at the first NaN or infinity
      } else {
        const V dx = keep.value(x - shift.x, o), dy = keep.value(y - shift.y, o);
        x1 += dx;
        x2 = fma(dx, dx, x2);
        y1 += dy;
        y2 = fma(dy, dy, y2);
        xy = fma(dx, dy, xy);
        if constexpr (!K.nonnegative) abs_y += keep.value(size, o);
        if constexpr (!K.rectifier) {
          const V p = keep.value(max(o, x), o), slope = keep.value(f, o);
          p1 += p;
          p2 = fma(p, p, p2);
          f1 += slope;
          f2 = fma(slope, slope, f2);
        }
      }
    }

    // Whether these lanes, of one thread that has nothing else to go by, must be measured again in float64: as
    // `suspicious`, but before sums from elsewhere are added. `bound` leaves room for those.
    template <Shortcuts K>
    GEOACT_HD bool doubtful(V seen, V floor, V bound, V smallest_normal) const {
      const V o = lit<V>(0), rx = x_max - x_min, ry = y_max - y_min;
      const V sum = K.rectifier ? x2 + y2 : (x2 + y2) + (p2 + f2);
      bool doubt = (!(sum < bound)) | ((rx > o) & (rx < floor)) | ((ry > o) & (ry < floor));
      if constexpr (!K.rectifier) doubt |= ((f1 > o) & (f1 < seen * floor)) | ((p1 > o) & (p1 < seen * floor));
      if constexpr (K.positive) doubt |= y_min < smallest_normal;
      return doubt;
    }

    // `finish` for lanes of float64 that counted everything: NaN and infinities have left their marks in the sums.
    GEOACT_HD void settle(double* cell, double total, double nonfinite_first, double nonfinite_second, double shift_x,
                          double shift_y) const {
      finish<double>(cell, total, Itself{}, Shortcuts{}, shift_x, shift_y);
      cell[nonfinite_x] = nonfinite_first;
      cell[nonfinite_y] = nonfinite_second;
      const double nan = __builtin_nan("");
      if (nonfinite_first > 0) cell[mean_x] = shift_x + x1 / total, cell[m2_x] = cell[c_xy] = nan;
      if (nonfinite_second > 0) cell[mean_y] = shift_y + y1 / total, cell[m2_y] = cell[c_xy] = nan;
    }

    // Lanes reduced, or widened, to the float64 type D by R: R.sum, R.lowest, R.highest, R.count.
    template <class D, class R>
    GEOACT_HD void finish(D* cell, D total, const R& reduce, const Shortcuts& known, D shift_x, D shift_y) const {
      const D o = lit<D>(0);
      cell[n] = total;
      cell[Geometry::negative] = reduce.count(negative);
      cell[Geometry::positive] = reduce.count(positive);
      cell[Geometry::zero] = known.positive || known.rectifier ? o : reduce.count(zero);
      cell[Geometry::saturated] = known.rectifier ? o : reduce.count(saturated);
      if (known.rectifier) cell[Geometry::zero] = cell[Geometry::saturated] = total - cell[Geometry::positive];
      cell[subnormal] = known.positive ? o : reduce.count(small) - cell[Geometry::zero];
      cell[nonfinite_x] = cell[nonfinite_y] = o;  // of a tile that is not suspicious
      cell[Geometry::x_min] = reduce.lowest(x_min);
      cell[Geometry::x_max] = reduce.highest(x_max);
      cell[Geometry::y_min] = reduce.lowest(y_min);
      cell[Geometry::y_max] = reduce.highest(y_max);
      if constexpr (L == Level::counts) {
        cell[mean_x] = reduce.sum(finite);
        return;
      }
      const D sx = reduce.sum(x1), sy = reduce.sum(y1), mx = sx / total, my = sy / total;
      cell[nonfinite_x] = (sx - sx) + (sy - sy);  // NaN if there is one among the values, which the next lines may hide
      // One value throughout has no spread, whatever the rounding of the shift says.
      const auto still_x = cell[Geometry::x_min] == cell[Geometry::x_max];
      const auto still_y = cell[Geometry::y_min] == cell[Geometry::y_max];
      cell[mean_x] = select(still_x, cell[Geometry::x_min], shift_x + mx);
      cell[mean_y] = select(still_y, cell[Geometry::y_min], shift_y + my);
      cell[m2_x] = select(still_x, o, max(o, reduce.sum(x2) - sx * mx));
      cell[m2_y] = select(still_y, o, max(o, reduce.sum(y2) - sy * my));
      cell[c_xy] = select(still_x, o, select(still_y, o, reduce.sum(xy) - sx * my));
      const D sum_y = total * cell[mean_y];
      cell[sum_abs_y] = known.nonnegative ? sum_y : reduce.sum(abs_y);
      if (known.rectifier) {
        cell[sum_pos_x] = sum_y;
        cell[sum_sq_pos_x] = cell[m2_y] + sum_y * cell[mean_y];
        cell[sum_slope] = cell[sum_sq_slope] = cell[Geometry::positive];
        return;
      }
      cell[sum_pos_x] = reduce.sum(p1);
      cell[sum_sq_pos_x] = reduce.sum(p2);
      cell[sum_slope] = reduce.sum(f1);
      cell[sum_sq_slope] = reduce.sum(f2);
    }
  };

  // Whether float32 sums may have overflowed, underflowed or met a NaN, so that the tile must be measured again in
  // float64 while it is still in cache. `floor` is the deviation whose square begins to leave the normal range.
  template <Level L, class D>
  static GEOACT_HD auto suspicious(const D* cell, const Shortcuts& known, D floor, D smallest_normal) {
    const D o = lit<D>(0);
    // A positive activation's zeros and subnormals are not counted on the way: they are rare, and the minimum tells.
    const auto uncounted = cell[y_min] < (known.positive ? smallest_normal : -lit<D>(__builtin_inf()));
    if constexpr (L == Level::counts) {
      return (cell[mean_x] != o) | uncounted;
    } else {
      const D rx = cell[x_max] - cell[x_min], ry = cell[y_max] - cell[y_min], few = cell[n] * floor;
      const D sum = cell[mean_x] + cell[mean_y] + cell[m2_x] + cell[m2_y] + cell[sum_sq_pos_x] + cell[sum_sq_slope];
      return uncounted | (cell[nonfinite_x] != o) | ((sum - sum) != o) | ((rx > o) & (rx < floor)) |
             ((ry > o) & (ry < floor)) | ((cell[sum_slope] > o) & (cell[sum_slope] < few)) |
             ((cell[sum_pos_x] > o) & (cell[sum_pos_x] < few));
    }
  }

  // Chan, Golub, LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample variances".
  template <Level L, class D>
  static GEOACT_HD void combine(D* a, const D* b) {
    const D na = a[n], nb = b[n], total = na + nb, o = lit<D>(0);
    for (int k = 0; k < x_min; ++k) a[k] = a[k] + b[k];
    a[x_min] = min(b[x_min], a[x_min]);
    a[x_max] = max(b[x_max], a[x_max]);
    a[y_min] = min(b[y_min], a[y_min]);
    a[y_max] = max(b[y_max], a[y_max]);
    if constexpr (L == Level::counts) return;
    // With one side empty the formula would turn a huge mean into 0 * infinity.
    const auto first = na == o, second = nb == o;
    const D share = nb / total, weight = na * share;
    const D dx = b[mean_x] - a[mean_x], dy = b[mean_y] - a[mean_y];
    const auto pick = [&](int k, D merged) { a[k] = select(second, a[k], select(first, b[k], merged)); };
    pick(m2_x, a[m2_x] + b[m2_x] + dx * (dx * weight));
    pick(m2_y, a[m2_y] + b[m2_y] + dy * (dy * weight));
    pick(c_xy, a[c_xy] + b[c_xy] + dx * (dy * weight));
    pick(mean_x, a[mean_x] + dx * share);
    pick(mean_y, a[mean_y] + dy * share);
    for (int k = sum_abs_y; k < size; ++k) a[k] = a[k] + b[k];
  }

  template <class D>
  static GEOACT_HD void init(D* a) {
    for (int k = 0; k < size; ++k) a[k] = lit<D>(0);
    a[x_min] = a[y_min] = lit<D>(__builtin_inf());
    a[x_max] = a[y_max] = -lit<D>(__builtin_inf());
  }
};

// --- backward: what the activation does to the gradient ----------------------------------------------------

struct Gradient {
  enum : int {
    n,
    zero,
    underflow,
    nonfinite_dy,
    nonfinite_dx,
    absmax_dy,
    absmax_dx,
    sum_sq_dy,
    sum_sq_dx,
    sum_slope,
    sum_sq_slope,
    size
  };
  static constexpr Field fields[size] = {{"n", Merge::sum},
                                         {"zero", Merge::sum},
                                         {"underflow", Merge::sum},
                                         {"nonfinite_dy", Merge::sum},
                                         {"nonfinite_dx", Merge::sum},
                                         {"absmax_dy", Merge::maximum},
                                         {"absmax_dx", Merge::maximum},
                                         {"sum_sq_dy", Merge::sum},
                                         {"sum_sq_dx", Merge::sum},
                                         {"sum_slope", Merge::sum},
                                         {"sum_sq_slope", Merge::sum}};

  template <class V>
  struct Shift {};
  template <class V>
  using Limits = Geometry::Limits<V>;

  template <class V, Level L>
  struct Lanes {
    using counter = counter_of<V>;
    V dy2, dx2, f1, f2, absmax_dy, absmax_dx;
    counter zero, small, silent;

    template <class F, class... Ls>
    static GEOACT_HD void visit(F&& f, Ls&... lanes) {
      f.sum(lanes.dy2...), f.sum(lanes.dx2...), f.sum(lanes.f1...), f.sum(lanes.f2...);
      f.highest(lanes.absmax_dy...), f.highest(lanes.absmax_dx...);
      f.count(lanes.zero...), f.count(lanes.small...), f.count(lanes.silent...);
    }
    GEOACT_HD void clear() { visit(Clear<V>{lit<V>(0)}, *this); }
    GEOACT_HD void fold(const Lanes& b) { visit(Fold{}, *this, b); }

    template <Shortcuts, class M>
    GEOACT_HD void add(V dy, V dx, V f, const M& keep, const Shift<V>&, const Limits<V>& limits) {
      const V o = lit<V>(0), size_dy = keep.value(abs(dy), o), size_dx = abs(dx), slope = keep.value(f, o);
      const auto is_zero = dx == o;
      zero = tally(zero, keep.test(is_zero));
      small = tally(small, keep.test(size_dx < limits.smallest_normal));
      silent = tally(silent, keep.test(is_zero & (size_dy > o) & (f != o)));
      absmax_dy = higher(size_dy, absmax_dy);
      absmax_dx = higher(keep.value(size_dx, o), absmax_dx);
      dy2 = fma(size_dy, size_dy, dy2);
      dx2 = fma(keep.value(dx, o), keep.value(dx, o), dx2);
      f1 += slope;
      f2 = fma(slope, slope, f2);
    }

    template <Shortcuts>
    GEOACT_HD bool doubtful(V seen, V floor, V bound, V) const {
      const V o = lit<V>(0);
      return (!((dy2 + dx2) + f2 < bound)) | ((absmax_dy > o) & (absmax_dy < floor)) |
             ((absmax_dx > o) & (absmax_dx < floor)) | ((f1 > o) & (f1 < seen * floor));
    }

    GEOACT_HD void settle(double* cell, double total, double nonfinite_first, double nonfinite_second, double,
                          double) const {
      finish<double>(cell, total, Itself{}, Shortcuts{}, 0.0, 0.0);
      cell[nonfinite_dy] = nonfinite_first;
      cell[nonfinite_dx] = nonfinite_second;
    }

    template <class D, class R>
    GEOACT_HD void finish(D* cell, D total, const R& reduce, const Shortcuts&, D, D) const {
      cell[n] = total;
      cell[Gradient::zero] = reduce.count(zero);
      cell[underflow] = reduce.count(small) - cell[Gradient::zero] + reduce.count(silent);
      cell[nonfinite_dy] = cell[nonfinite_dx] = lit<D>(0);
      cell[Gradient::absmax_dy] = reduce.highest(absmax_dy);
      cell[Gradient::absmax_dx] = reduce.highest(absmax_dx);
      cell[sum_sq_dy] = reduce.sum(dy2);
      cell[sum_sq_dx] = reduce.sum(dx2);
      cell[sum_slope] = reduce.sum(f1);
      cell[sum_sq_slope] = reduce.sum(f2);
    }
  };

  template <Level L, class D>
  static GEOACT_HD auto suspicious(const D* cell, const Shortcuts&, D floor, D) {
    const D o = lit<D>(0), dy = cell[absmax_dy], dx = cell[absmax_dx];
    const D sum = cell[sum_sq_dy] + cell[sum_sq_dx] + cell[sum_sq_slope];
    return ((sum - sum) != o) | ((dy > o) & (dy < floor)) | ((dx > o) & (dx < floor)) |
           ((cell[sum_slope] > o) & (cell[sum_slope] < cell[n] * floor));
  }

  template <Level L, class D>
  static GEOACT_HD void combine(D* a, const D* b) {
    for (int k = 0; k < size; ++k) a[k] = k == absmax_dy || k == absmax_dx ? max(b[k], a[k]) : a[k] + b[k];
  }

  template <class D>
  static GEOACT_HD void init(D* a) {
    for (int k = 0; k < size; ++k) a[k] = lit<D>(0);
  }
};

}  // namespace geoact::GEOACT_ISA
