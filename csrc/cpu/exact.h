// The float64 way to measure a tile that is already in cache: two passes, scalar, no overflow, NaN counted. Used where
// the fast sums report that they cannot be trusted, and for the mean that the first tile is shifted by.
#pragma once

#include "vec.h"
// vec.h first
#include "../ops/statistics.h"

namespace geoact::GEOACT_ISA {

inline constexpr double infinity = __builtin_inf();

GEOACT_INLINE bool is_finite(double v) { return v - v == 0; }

// n values, `stride` apart, of the three arrays that examine_block fills.
struct Sample {
  const double *first, *second, *slope;
  int64_t n, stride;
};

GEOACT_INLINE double mean_of(const double* v, int64_t n, int64_t stride) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += v[i * stride];
  return sum / double(n);
}

template <Level L>
GEOACT_INLINE void measure(Geometry, const Sample& s, double saturation, double smallest_normal, double* cell) {
  Geometry::init(cell);
  cell[Geometry::n] = double(s.n);
  for (int64_t i = 0; i < s.n; ++i) {
    const double x = s.first[i * s.stride], y = s.second[i * s.stride], f = s.slope[i * s.stride];
    cell[Geometry::negative] += x < 0;
    cell[Geometry::positive] += x > 0;
    cell[Geometry::zero] += y == 0;
    cell[Geometry::saturated] += __builtin_fabs(f) < saturation;
    cell[Geometry::subnormal] += __builtin_fabs(y) < smallest_normal && y != 0;
    cell[Geometry::nonfinite_x] += !is_finite(x);
    cell[Geometry::nonfinite_y] += !is_finite(y);
    cell[Geometry::x_min] = x < cell[Geometry::x_min] ? x : cell[Geometry::x_min];
    cell[Geometry::x_max] = x > cell[Geometry::x_max] ? x : cell[Geometry::x_max];
    cell[Geometry::y_min] = y < cell[Geometry::y_min] ? y : cell[Geometry::y_min];
    cell[Geometry::y_max] = y > cell[Geometry::y_max] ? y : cell[Geometry::y_max];
    if constexpr (L == Level::moments) {
      const double p = x <= 0 ? 0 : x;  // NaN stays NaN
      cell[Geometry::sum_abs_y] += __builtin_fabs(y);
      cell[Geometry::sum_pos_x] += p;
      cell[Geometry::sum_sq_pos_x] += p * p;
      cell[Geometry::sum_slope] += f;
      cell[Geometry::sum_sq_slope] += f * f;
    }
  }
  if constexpr (L == Level::moments) {
    const double mx = mean_of(s.first, s.n, s.stride), my = mean_of(s.second, s.n, s.stride);
    cell[Geometry::mean_x] = mx;
    cell[Geometry::mean_y] = my;
    for (int64_t i = 0; i < s.n; ++i) {
      const double dx = s.first[i * s.stride] - mx, dy = s.second[i * s.stride] - my;
      cell[Geometry::m2_x] += dx * dx;
      cell[Geometry::m2_y] += dy * dy;
      cell[Geometry::c_xy] += dx * dy;
    }
    // One value throughout has no spread; its rounded mean would leave it a little.
    const bool still_x = cell[Geometry::nonfinite_x] == 0 && cell[Geometry::x_min] == cell[Geometry::x_max];
    const bool still_y = cell[Geometry::nonfinite_y] == 0 && cell[Geometry::y_min] == cell[Geometry::y_max];
    if (still_x) cell[Geometry::mean_x] = cell[Geometry::x_min], cell[Geometry::m2_x] = 0;
    if (still_y) cell[Geometry::mean_y] = cell[Geometry::y_min], cell[Geometry::m2_y] = 0;
    const bool finite = cell[Geometry::nonfinite_x] + cell[Geometry::nonfinite_y] == 0;
    if (finite && (still_x || still_y)) cell[Geometry::c_xy] = 0;
  }
}

template <Level L>
GEOACT_INLINE void measure(Gradient, const Sample& s, double, double smallest_normal, double* cell) {
  Gradient::init(cell);
  cell[Gradient::n] = double(s.n);
  for (int64_t i = 0; i < s.n; ++i) {
    const double dy = s.first[i * s.stride], dx = s.second[i * s.stride], f = s.slope[i * s.stride];
    const double size_dy = __builtin_fabs(dy), size_dx = __builtin_fabs(dx);
    cell[Gradient::zero] += dx == 0;
    cell[Gradient::underflow] += dx == 0 ? size_dy > 0 && f != 0 : size_dx < smallest_normal;
    cell[Gradient::nonfinite_dy] += !is_finite(dy);
    cell[Gradient::nonfinite_dx] += !is_finite(dx);
    cell[Gradient::absmax_dy] = size_dy > cell[Gradient::absmax_dy] ? size_dy : cell[Gradient::absmax_dy];
    cell[Gradient::absmax_dx] = size_dx > cell[Gradient::absmax_dx] ? size_dx : cell[Gradient::absmax_dx];
    cell[Gradient::sum_sq_dy] += dy * dy;
    cell[Gradient::sum_sq_dx] += dx * dx;
    cell[Gradient::sum_slope] += f;
    cell[Gradient::sum_sq_slope] += f * f;
  }
}

}  // namespace geoact::GEOACT_ISA
