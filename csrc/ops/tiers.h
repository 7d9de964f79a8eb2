// WHAT the opt-in tiers measure between samples (docs/tiers.md): buckets of values, distances of pairs of rows,
// sketches of rows. One record of float64 for all data, whatever the groups of the other statistics.
//
//   row       the channels of one sample; rows are numbered in C order of the other axes, within one call
//   pair      rows 2i and 2i + 1: a function of the shape alone, so that every backend takes the same ones
//   sketch    k numbers per row, whose squared distances are unbiased for those of the rows
//
// May include: vocabulary.h. Knows nothing of loops over data, memory, instruction sets or Python.
#pragma once

#include <cstdint>

#include "vocabulary.h"

namespace geoact::GEOACT_ISA {

// --- buckets ---------------------------------------------------------------------------------------------------------

// By sign, exponent and two bits of the significand: four buckets per octave of [2^-32, 2^32), one below (with zero),
// one above (with infinity), and one for NaN. The relative width is at most 1/4.
struct Buckets {
  static constexpr int least = -32, octaves = 64, of_size = octaves * 4 + 2, nan = 2 * of_size, size = nan + 1;

  // For |v| as its bits, and the exponent's bias and the bits of the significand of the format.
  template <class U>
  static GEOACT_HD int of_magnitude(U bits, int bias, int significand) {
    const int64_t at = int64_t(bits >> (significand - 2)) - ((int64_t(bias + least) << 2) - 1);
    return int(at < 0 ? 0 : at > of_size - 1 ? of_size - 1 : at);
  }
  static GEOACT_HD int of_nonnegative(double v) {
    uint64_t u;
    __builtin_memcpy(&u, &v, sizeof u);
    return of_magnitude(u, 1023, 52);
  }
  static GEOACT_HD int of(float v) {
    uint32_t u;
    __builtin_memcpy(&u, &v, sizeof u);
    if (v != v) return nan;
    return of_magnitude(u & 0x7fffffffu, 127, 23) + (u >> 31 ? of_size : 0);
  }
  static GEOACT_HD int of(double v) {
    if (v != v) return nan;
    const double size = __builtin_fabs(v);
    return of_nonnegative(size) + (__builtin_signbit(v) ? of_size : 0);
  }
};

// Which elements a histogram that samples looks at: of every row one run of 16 in 32, a run further on in the next row.
struct SampledRuns {
  static constexpr int run = 16, every = 32;
  static GEOACT_HD int64_t first(int64_t row) { return (every - row % every) % every * run; }
  static GEOACT_HD bool holds(int64_t row, int64_t column) { return (column / run + row) % every == 0; }
};

// --- distances of pairs ----------------------------------------------------------------------------------------------

struct Pairs {
  enum : int {
    count,
    identical,
    collisions,
    nonfinite,
    sum_sq_x,
    sum_sq_y,
    least_ratio,
    greatest_ratio,
    ratio,
    size = ratio + Buckets::of_size
  };

  static GEOACT_HD void init(double* record) {
    for (int i = 0; i < size; ++i) record[i] = 0;
    record[least_ratio] = __builtin_inf();
    record[greatest_ratio] = -__builtin_inf();
  }
  // One pair by its squared distances before and after.
  static GEOACT_HD void add(double* record, double sq_x, double sq_y) {
    record[count] += 1;
    if (!(sq_x - sq_x == 0 && sq_y - sq_y == 0)) {
      record[nonfinite] += 1;
      return;
    }
    record[sum_sq_x] += sq_x;
    record[sum_sq_y] += sq_y;
    if (sq_x == 0) {
      record[identical] += 1;
      return;
    }
    if (sq_y == 0) record[collisions] += 1;
    const double r = __builtin_sqrt(sq_y / sq_x);
    if (r < record[least_ratio]) record[least_ratio] = r;
    if (r > record[greatest_ratio]) record[greatest_ratio] = r;
    record[ratio + Buckets::of_nonnegative(r)] += 1;
  }
  static GEOACT_HD void combine(double* a, const double* b) {
    for (int i = 0; i < size; ++i)
      if (i != least_ratio && i != greatest_ratio) a[i] += b[i];
    if (b[least_ratio] < a[least_ratio]) a[least_ratio] = b[least_ratio];
    if (b[greatest_ratio] > a[greatest_ratio]) a[greatest_ratio] = b[greatest_ratio];
  }
};

// --- sketches --------------------------------------------------------------------------------------------------------

// A CountSketch that folds: channel block * k + lane goes to bucket lane ^ turn(block) with a random sign, so that
// lanes stay side by side in memory and yet no structure of the data falls on the fold (Charikar, Chen, Farach-Colton
// 2004, "Finding frequent items in data streams"; Weinberger et al. 2009, "Feature hashing"). Two sets of signs, S and
// T, make two sketches whose products are unbiased, because no sign is squared in them.
struct SketchFold {
  static constexpr uint64_t seed = 0x67656f616374;  // fixed: sketches of different calls and ranks must agree
  static constexpr int most = 128;

  static GEOACT_HD uint64_t mix(uint64_t v) {  // SplitMix64 (Steele, Lea, Flood 2014)
    v += 0x9e3779b97f4a7c15u;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
  }
  static GEOACT_HD uint64_t word(int64_t block, int which) { return mix(seed + uint64_t(block) * 8 + uint64_t(which)); }
  // A turn for each set: with one for both, S and T would put the same channels together, and their products vary more.
  static GEOACT_HD int turn(int64_t block, int k, int set) { return int(word(block, 5 * set) & uint64_t(k - 1)); }
  // Of the lane a value comes from; set 0 is S, set 1 is T.
  static GEOACT_HD bool negative(int64_t block, int lane, int set) {
    return word(block, 1 + 2 * set + lane / 64) >> (lane % 64) & 1;
  }
};

// Rows are summed as differences from a row of their block, in the way of Chan, Golub, LeVeque: means, squared
// deviations per bucket, and the deviations' products S^T C T of x with x, y with y, x with y.
struct Sketches {
  int k;
  enum Side : int { s_of_x, t_of_x, s_of_y, t_of_y, sides };
  enum Product : int { xx, yy, xy, products };

  // Offsets in the record.
  static constexpr int rows = 0, nonfinite = 1;
  GEOACT_HD int mean(int side) const { return 2 + side * k; }
  GEOACT_HD int deviation(int side) const { return 2 + (sides + side) * k; }
  GEOACT_HD int product(int which) const { return 2 + 2 * sides * k + which * k * k; }
  GEOACT_HD int pairs() const { return product(products); }
  GEOACT_HD int size() const { return pairs() + Pairs::size; }

  static GEOACT_HD int first_of(int product) { return product == yy ? s_of_y : s_of_x; }
  static GEOACT_HD int second_of(int product) { return product == xx ? t_of_x : t_of_y; }

  // Chan's formula for vectors; also what adds a block of rows, which is then the record `b` of that block.
  GEOACT_HD void combine(double* a, const double* b) const {
    const double na = a[rows], nb = b[rows], total = na + nb;
    a[nonfinite] += b[nonfinite];
    Pairs::combine(a + pairs(), b + pairs());
    if (nb == 0) return;
    const double share = nb / total, weight = na * share;
    for (int which = 0; which < products; ++which) {
      const double *ma = a + mean(first_of(which)), *mb = b + mean(first_of(which));
      const double *ta = a + mean(second_of(which)), *tb = b + mean(second_of(which));
      for (int i = 0; i < k; ++i) {
        const double move = (mb[i] - ma[i]) * weight;
        double* into = a + product(which) + i * k;
        const double* from = b + product(which) + i * k;
        for (int j = 0; j < k; ++j) into[j] += from[j] + move * (tb[j] - ta[j]);
      }
    }
    for (int i = 0; i < sides * k; ++i) {
      const double move = b[mean(0) + i] - a[mean(0) + i];
      a[deviation(0) + i] += b[deviation(0) + i] + move * move * weight;
      a[mean(0) + i] += move * share;
    }
    a[rows] = total;
  }
};

// --- all of them -----------------------------------------------------------------------------------------------------

// Where each tier begins in the record; -1 where it was not asked for.
struct TierLayout {
  int histogram_x = -1, histogram_y = -1, pairs = -1, sketch = -1, size = 0;
  Sketches sketches{0};

  GEOACT_HD TierLayout(bool histogram, bool with_pairs, int k) : sketches{k} {
    if (histogram) {
      histogram_x = size, histogram_y = size + Buckets::size;
      size += 2 * Buckets::size;
    }
    if (with_pairs) pairs = size, size += Pairs::size;
    if (k) sketch = size, size += sketches.size();
  }
  GEOACT_HD void init(double* record) const {
    for (int i = 0; i < size; ++i) record[i] = 0;
    if (pairs >= 0) Pairs::init(record + pairs);
    if (sketch >= 0) Pairs::init(record + sketch + sketches.pairs());
  }
  GEOACT_HD void combine(double* a, const double* b) const {
    if (histogram_x >= 0)
      for (int i = 0; i < 2 * Buckets::size; ++i) a[histogram_x + i] += b[histogram_x + i];
    if (pairs >= 0) Pairs::combine(a + pairs, b + pairs);
    if (sketch >= 0) sketches.combine(a + sketch, b + sketch);
  }
};

}  // namespace geoact::GEOACT_ISA
