// The opt-in tiers on a GPU. The kernels read x and y again after the ordinary pass has written y: a second reading of
// memory, for which they need no activation and are compiled once per storage type. Each block owns consecutive rows
// and writes a record of its own; one block then folds these in the order of their numbers, so that nothing depends on
// the order in which blocks run.
//
// May include: observe_launch.h, storage.cuh, ops/.
#pragma once

#include <type_traits>

#include "launch.h"
#include "observe_launch.h"
#include "storage.cuh"
// storage.cuh first: it brings what a device has
#include "../ops/tiers.h"

namespace geoact::cuda {

namespace ops = geoact::GEOACT_ISA;

#if defined(__CUDACC__)
#define GEOACT_SHARED(type, name) __shared__ std::type_identity_t<type> name
#endif

inline __device__ ops::TierLayout layout_of(const ObservePlan& plan) {
  return ops::TierLayout(plan.histogram != 0, plan.pairs != 0, plan.sketch);
}

template <class S>
struct DataRow {
  const char* at;
  int64_t step;
  __device__ __forceinline__ auto operator[](int64_t column) const {
    return widen(*reinterpret_cast<const S*>(at + column * step));
  }
};

template <class S>
__device__ DataRow<S> row_of(const ObservePlan& plan, int64_t row, int side, bool original) {
  if (side == 0 && plan.aside && !original)
    return {plan.aside + row * plan.columns * int64_t(sizeof(S)), int64_t(sizeof(S))};
  const char* at = plan.at[side];
  for (int i = plan.rank - 1; i >= 0; --i) {
    at += row % plan.size[i] * plan.step[side][i];
    row /= plan.size[i];
  }
  return {at, plan.column_step[side]};
}

template <class S>
__global__ void __launch_bounds__(observe_threads) copy_aside(const __grid_constant__ ObservePlan plan) {
  const int64_t first = int64_t(blockIdx.x) * plan.rows_per_block;
  const int64_t end = first + plan.rows_per_block < plan.rows ? first + plan.rows_per_block : plan.rows;
  for (int64_t r = first; r < end; ++r) {
    const DataRow<S> from = row_of<S>(plan, r, 0, true);
    S* const to = reinterpret_cast<S*>(plan.aside) + r * plan.columns;
    for (int64_t c = threadIdx.x; c < plan.columns; c += observe_threads)
      to[c] = *reinterpret_cast<const S*>(from.at + c * from.step);
  }
}

// The sum over the block, for all its threads.
inline __device__ double sum_of_block(double v, double* room) {
  const int t = int(threadIdx.x);
  __syncthreads();
  room[t] = v;
  __syncthreads();
  for (int half = observe_threads / 2; half > 0; half /= 2) {
    if (t < half) room[t] += room[t + half];
    __syncthreads();
  }
  return room[0];
}

template <class S>
__device__ double square_distance(const DataRow<S>& a, const DataRow<S>& b, int64_t columns, double* room) {
  using V = typename compute<S>::type;
  constexpr int short_sum = 64;  // float32 additions in a row
  double sum = 0;
  for (int64_t c = threadIdx.x; c < columns;) {
    V part = 0;
    for (int i = 0; i < short_sum && c < columns; ++i, c += observe_threads) {
      const V d = a[c] - b[c];
      part += d * d;
    }
    sum += double(part);
  }
  sum = sum_of_block(sum, room);
  // Squares of float32 that overflow, or are too small to keep their digits.
  if (sizeof(V) == 8 || (sum < 0x1p100 && sum > 0x1p-90)) return sum;
  sum = 0;
  for (int64_t c = threadIdx.x; c < columns; c += observe_threads) {
    const double d = double(a[c]) - double(b[c]);
    sum += d * d;
  }
  return sum_of_block(sum, room);
}

template <class S>
__global__ void __launch_bounds__(observe_threads) observe(const __grid_constant__ ObservePlan plan) {
  using V = typename compute<S>::type;
  using ops::Buckets, ops::SampledRuns, ops::SketchFold, ops::Sketches, ops::Pairs;
  constexpr int kept_rows = 4, most = Sketches::sides * SketchFold::most;
  GEOACT_SHARED(unsigned[2 * Buckets::size], counters);
  GEOACT_SHARED(double[observe_threads], room);
  GEOACT_SHARED(V[4 * observe_threads], parts);
  GEOACT_SHARED(V[2 * most], pair);
  GEOACT_SHARED(V[most], shift);
  GEOACT_SHARED(V[kept_rows * most], kept);
  if (!plan.state[0]) return;
  const int t = int(threadIdx.x), k = plan.sketch, numbers = Sketches::sides * k;
  const ops::TierLayout layout = layout_of(plan);
  const Sketches& s = layout.sketches;
  double* const record = plan.partials + int64_t(blockIdx.x) * layout.size;
  double* const sketch = record + layout.sketch;
  for (int i = t; i < layout.size; i += observe_threads) record[i] = 0;
  for (int i = t; i < 2 * Buckets::size; i += observe_threads) counters[i] = 0;
  __syncthreads();
  if (t == 0 && layout.pairs >= 0) Pairs::init(record + layout.pairs);
  if (t == 0 && k) Pairs::init(sketch + s.pairs());

  int64_t counted = 0;
  const auto add_counters = [&] {
    __syncthreads();
    for (int i = t; i < 2 * Buckets::size; i += observe_threads) {
      record[layout.histogram_x + i] += double(counters[i]);  // y's follow x's
      counters[i] = 0;
    }
    __syncthreads();
    counted = 0;
  };
  int filled = 0;
  bool shifted = false, finite[2] = {};
  const auto flush = [&] {
    __syncthreads();
    for (int i = t; i < Sketches::products * k * k; i += observe_threads) {
      const int which = i / (k * k), left = i / k % k, right = i % k;
      double sum = 0;
      for (int r = 0; r < filled; ++r)
        sum += double(kept[r * numbers + Sketches::first_of(which) * k + left]) *
               double(kept[r * numbers + Sketches::second_of(which) * k + right]);
      sketch[s.product(0) + i] += sum;
    }
    for (int i = t; i < numbers; i += observe_threads)
      for (int r = 0; r < filled; ++r) {
        const double v = double(kept[r * numbers + i]);
        sketch[s.mean(0) + i] += v;
        sketch[s.deviation(0) + i] += v * v;
      }
    if (t == 0) sketch[Sketches::rows] += filled;
    __syncthreads();
    filled = 0;
  };

  const int64_t first = int64_t(blockIdx.x) * plan.rows_per_block;
  const int64_t end = first + plan.rows_per_block < plan.rows ? first + plan.rows_per_block : plan.rows;
  for (int64_t r = first; r < end; ++r) {
    const int half = int(r & 1);
    const DataRow<S> rows[2] = {row_of<S>(plan, r, 0, false), row_of<S>(plan, r, 1, false)};
    if (plan.histogram) {
      constexpr int64_t span = int64_t(1) << 30;  // counters have 32 bits
      for (int64_t start = 0; start < plan.columns; start += span) {
        const int64_t stop = plan.columns - start < span ? plan.columns : start + span;
        for (int64_t c = start + t; c < stop; c += observe_threads)
          if (plan.histogram == int(Histogram::all) || SampledRuns::holds(r, c))
            for (int side = 0; side < 2; ++side)
              atomicAdd(&counters[side * Buckets::size + Buckets::of(rows[side][c])], 1u);
        counted += stop - start;
        if (counted > span) add_counters();
      }
    }
    if (plan.pairs && half) {
      double squares[2];
      for (int side = 0; side < 2; ++side)
        squares[side] = square_distance(row_of<S>(plan, r - 1, side, false), rows[side], plan.columns, room);
      if (t == 0) Pairs::add(record + layout.pairs, squares[0], squares[1]);
    }
    if (!k) continue;
    // Threads of one lane share the blocks of channels.
    V* const z = &pair[half * numbers];
    V sums[4] = {};
    const int lane = t % k;
    for (int64_t b = t / k; b * k < plan.columns; b += observe_threads / k) {
      for (int set = 0; set < 2; ++set) {
        const int from = lane ^ SketchFold::turn(b, k, set);
        if (b * k + from >= plan.columns) continue;
        const bool minus = SketchFold::negative(b, from, set);
        for (int side = 0; side < 2; ++side) {
          const V v = rows[side][b * k + from];
          sums[2 * side + set] += minus ? -v : v;
        }
      }
    }
    __syncthreads();
    for (int i = 0; i < 4; ++i) parts[i * observe_threads + t] = sums[i];
    __syncthreads();
    double bad = 0;
    for (int i = t; i < numbers; i += observe_threads) {
      V sum = 0;
      for (int p = i % k; p < observe_threads; p += k) sum += parts[i / k * observe_threads + p];
      z[i] = sum;
      bad += !(sum - sum == V(0));
    }
    finite[half] = sum_of_block(bad, room) == 0;
    if (half) {
      double squares[2] = {__builtin_inf(), __builtin_inf()};
      for (int side = 0; side < 2 && finite[0] && finite[1]; ++side) {
        const int at = side * 2 * k + t;
        const double d = t < k ? double(V(pair[at] - pair[numbers + at])) : 0;
        squares[side] = sum_of_block(d * d, room);
      }
      if (t == 0) Pairs::add(sketch + s.pairs(), squares[0], squares[1]);
    }
    if (!finite[half]) {
      if (t == 0) sketch[Sketches::nonfinite] += 1;
      continue;
    }
    for (int i = t; i < numbers; i += observe_threads) {
      if (!shifted) shift[i] = z[i];
      kept[filled * numbers + i] = z[i] - shift[i];
    }
    shifted = true;
    if (++filled == kept_rows) flush();
  }
  if (plan.histogram) add_counters();
  if (!k) return;
  flush();
  // Sums of differences from the shift to means and deviations.
  const double n = sketch[Sketches::rows];
  if (n == 0) return;
  for (int i = t; i < Sketches::products * k * k; i += observe_threads) {
    const int which = i / (k * k);
    sketch[s.product(0) + i] -=
        sketch[s.mean(Sketches::first_of(which)) + i / k % k] / n * sketch[s.mean(Sketches::second_of(which)) + i % k];
  }
  __syncthreads();
  for (int i = t; i < numbers; i += observe_threads) {
    double &sum = sketch[s.mean(0) + i], &squares = sketch[s.deviation(0) + i];
    squares = squares - sum * sum / n > 0 ? squares - sum * sum / n : 0;
    sum = double(shift[i]) + sum / n;
  }
}

// TierLayout::combine, by the threads of one block.
template <class S>
__global__ void __launch_bounds__(observe_threads) fold_observed(const __grid_constant__ ObservePlan plan) {
  using ops::Buckets, ops::Sketches, ops::Pairs;
  if (!plan.state[0]) return;
  const int t = int(threadIdx.x), k = plan.sketch;
  const ops::TierLayout layout = layout_of(plan);
  const Sketches& s = layout.sketches;
  double* const into = reinterpret_cast<double*>(plan.state + header_words);
  for (int64_t block = 0; block < plan.blocks; ++block) {
    const double* const from = plan.partials + block * layout.size;
    if (plan.histogram)
      for (int i = t; i < 2 * Buckets::size; i += observe_threads)
        into[layout.histogram_x + i] += from[layout.histogram_x + i];
    if (t == 0 && plan.pairs) Pairs::combine(into + layout.pairs, from + layout.pairs);
    if (!k) continue;
    double* const a = into + layout.sketch;
    const double* const b = from + layout.sketch;
    const double na = a[Sketches::rows], nb = b[Sketches::rows], share = nb > 0 ? nb / (na + nb) : 0;
    if (t == 0) a[Sketches::nonfinite] += b[Sketches::nonfinite], Pairs::combine(a + s.pairs(), b + s.pairs());
    if (nb > 0)
      for (int i = t; i < Sketches::products * k * k; i += observe_threads) {
        const int which = i / (k * k), left = s.mean(Sketches::first_of(which)) + i / k % k;
        const int right = s.mean(Sketches::second_of(which)) + i % k;
        a[s.product(0) + i] += b[s.product(0) + i] + (b[left] - a[left]) * (na * share) * (b[right] - a[right]);
      }
    __syncthreads();  // all have read the means and the number of rows
    if (nb > 0)
      for (int i = t; i < Sketches::sides * k; i += observe_threads) {
        const double move = b[s.mean(0) + i] - a[s.mean(0) + i];
        a[s.deviation(0) + i] += b[s.deviation(0) + i] + move * move * (na * share);
        a[s.mean(0) + i] += move * share;
      }
    if (t == 0) a[Sketches::rows] = na + nb;
    __syncthreads();
  }
  if (t == 0) plan.state[1] += 1;
}

}  // namespace geoact::cuda
