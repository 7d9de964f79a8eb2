// HOW many become one, always in the same order: threads of a block, then segments of a call, then calls.
//
// A thread owns one slot per sum, extreme and counter of its lanes, in shared memory. `totals` makes float64 of them
// field by field; `fold_records` merges the records of all segments of a group, and what was measured before, by the
// formulas of `combine` (ops/statistics.h) with all records at once.
//
// May include: plan.h, storage.cuh, ops/.
#pragma once

#include "../ops/statistics.h"
#include "plan.h"
#include "storage.cuh"

namespace geoact::cuda {

namespace ops = geoact::GEOACT_ISA;
using ops::Merge;

constexpr unsigned everyone = 0xffffffffu;

// How many fields of each kind lanes have, in the order of `visit`.
struct Shape {
  int sums = 0, lowest = 0, highest = 0, counts = 0;
  constexpr int values() const { return sums + lowest + highest; }
  constexpr int fields() const { return values() + counts; }
};
template <class Statistics>
inline constexpr Shape shape_of = {10, 2, 2, 5};
template <>
inline constexpr Shape shape_of<ops::Gradient> = {4, 0, 2, 3};

// Fails to compile where the numbers are not those of the struct: every member is one of them.
template <class Lanes, class Statistics>
constexpr bool shape_fits =
    sizeof(Lanes) == shape_of<Statistics>.values() * sizeof(float) + shape_of<Statistics>.counts * sizeof(int);

// --- lanes to and from places that lie `step` apart --------------------------------------------------------

template <class V>
struct Store {  // the lanes of an empty tile, for instance
  V* value;
  int* counter;
  int step;
  __device__ void put(V v) { *value = v, value += step; }
  __device__ void sum(const V& v) { put(v); }
  __device__ void lowest(const V& v) { put(v); }
  __device__ void highest(const V& v) { put(v); }
  __device__ void count(const int& n) { *counter = n, counter += step; }
};

template <class V>
struct AddTo {
  V* value;
  int* counter;
  int step;
  __device__ void put(V v) { *value = v, value += step; }
  __device__ void sum(const V& v) { put(*value + v); }
  __device__ void lowest(const V& v) { put(ops::min(v, *value)); }
  __device__ void highest(const V& v) { put(ops::max(v, *value)); }
  __device__ void count(const int& n) { *counter += n, counter += step; }
};

// Lanes in float64, counters too; `fresh` where the places hold nothing yet.
struct AddInDouble {
  double* place;
  int64_t step;
  bool fresh;
  __device__ void put(double v) { *place = v, place += step; }
  __device__ void sum(const double& v) { put(fresh ? v : *place + v); }
  __device__ void lowest(const double& v) { put(fresh ? v : ops::min(v, *place)); }
  __device__ void highest(const double& v) { put(fresh ? v : ops::max(v, *place)); }
  __device__ void count(const int& n) { put(fresh ? double(n) : *place + double(n)); }
};

struct Load {
  const double* place;
  int64_t step;
  __device__ double take() {
    const double v = *place;
    place += step;
    return v;
  }
  __device__ void sum(double& v) { v = take(); }
  __device__ void lowest(double& v) { v = take(); }
  __device__ void highest(double& v) { v = take(); }
  __device__ void count(int& n) { n = int(take()); }
};

// --- one field over threads --------------------------------------------------------------------------------

enum class Kind : int { sum, lowest, highest };

__device__ __forceinline__ double merge(Kind kind, double a, double b) {
  return kind == Kind::sum ? a + b : kind == Kind::lowest ? ops::min(b, a) : ops::max(b, a);
}
__device__ __forceinline__ Kind kind_of(Shape shape, int field) {
  if (field < shape.sums || field >= shape.values()) return Kind::sum;
  return field < shape.sums + shape.lowest ? Kind::lowest : Kind::highest;
}
__device__ __forceinline__ double over_warp(Kind kind, double v) {
#pragma unroll 1
  for (int distance = warp_size / 2; distance > 0; distance /= 2)
    v = merge(kind, v, __shfl_xor_sync(everyone, v, distance));
  return v;
}

// Slots of all threads, field by field, to float64: `total` gets [fields][width], one column per group of the block.
// Warps share the fields out among themselves. `read(field, thread)`. Needs a barrier before and after.
template <bool Columns, class Read>
__device__ void totals(Shape shape, int fields, const Read& read, double* total) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size, warps = blockDim.x / warp_size;
#pragma unroll 1
  for (int field = warp; field < fields; field += warps) {
    const Kind kind = kind_of(shape, field);
    double v = read(field, lane);
#pragma unroll 1
    for (int w = 1; w < warps; ++w) v = merge(kind, v, read(field, w * warp_size + lane));
    if constexpr (!Columns) v = over_warp(kind, v);
    if (Columns || lane == 0) total[field * (Columns ? warp_size : 1) + (Columns ? lane : 0)] = v;
  }
}

// Values of all threads to one, which every thread gets; in columns, of all warps to one per lane. `room` is shared
// memory for N * most_threads values. All threads must come.
template <bool Columns, int N>
__device__ void over_block(const Kind (&kind)[N], double (&v)[N], double* room) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size, warps = blockDim.x / warp_size;
  const int width = Columns ? warp_size : 1, mine = Columns ? lane : 0;
  for (int i = 0; i < N; ++i) {
    if constexpr (!Columns) v[i] = over_warp(kind[i], v[i]);
    if (Columns || lane == 0) room[(i * warps + warp) * width + mine] = v[i];
  }
  __syncthreads();
  for (int i = 0; i < N; ++i) {
    v[i] = room[i * warps * width + mine];
#pragma unroll 1
    for (int w = 1; w < warps; ++w) v[i] = merge(kind[i], v[i], room[(i * warps + w) * width + mine]);
  }
  __syncthreads();  // before the room is used again
}

// --- records -----------------------------------------------------------------------------------------------

// One field of record i: those of the call, then the running state.
struct Records {
  const double *first, *state;  // the latter null where there is none yet
  int64_t stride, state_stride;
  int step, count;
  __device__ int all() const { return count + (state != nullptr); }
  __device__ double operator()(int field, int i) const {
    return i < count ? __ldcg(first + field * stride + int64_t(i) * step) : __ldcg(state + field * state_stride);
  }
};

__device__ constexpr Kind kind_of(Merge merge) {
  return merge == Merge::minimum ? Kind::lowest : merge == Merge::maximum ? Kind::highest : Kind::sum;
}

// What is to be known of a field to merge it, readable by number at run time.
struct Rule {
  signed char merge, mean, other_mean;
};
template <class Statistics>
struct Rules {
  Rule rule[Statistics::size];
};
template <class Statistics>
__device__ constexpr Rules<Statistics> rules_of() {
  Rules<Statistics> rules{};
  for (int k = 0; k < Statistics::size; ++k) {
    const ops::Field field = Statistics::fields[k];
    const int other = field.other_mean < 0 ? field.mean : field.other_mean;
    rules.rule[k] = {static_cast<signed char>(field.merge), static_cast<signed char>(field.mean),
                     static_cast<signed char>(other)};
  }
  return rules;
}

// All records to one, in shared memory: result[field * width + lane]. The means first, then every deviation from them:
// n (mean_i - mean)^2 is what Chan's formula adds pair by pair. Empty records are passed over. Two fields at a time:
// one exchange between warps serves both. Loops stay rolled: every kernel carries a copy of this.
template <class Statistics, bool Columns>
__device__ void fold_records(const Records& record, int cells, double* result, double* room) {
  static constexpr Rules<Statistics> table = rules_of<Statistics>();
  constexpr int width = Columns ? warp_size : 1, together = 2;
  const int lane = Columns ? threadIdx.x % warp_size : 0;
  const int first = Columns ? threadIdx.x / warp_size : threadIdx.x;
  const int step = Columns ? blockDim.x / warp_size : blockDim.x;
  const int all = record.all();
  double count[1] = {0};
#pragma unroll 1
  for (int i = first; i < all; i += step) count[0] += record(0, i);
  over_block<Columns>({Kind::sum}, count, room);

#pragma unroll 1
  for (int k = 0; k < cells; ++k) {
    if (Merge(table.rule[k].merge) != Merge::mean) continue;
    const double mean = record(k, 0), base = mean - mean == 0 ? mean : 0;
    double part[1] = {0};
#pragma unroll 1
    for (int i = first; i < all; i += step) {
      const double share = record(0, i) / count[0];
      if (share > 0) part[0] += (record(k, i) - base) * share;
    }
    over_block<Columns>({Kind::sum}, part, room);
    if (threadIdx.x < width) result[k * width + lane] = base + part[0];
  }
  __syncthreads();
#pragma unroll 1
  for (int chunk = 0; chunk < cells; chunk += together) {
    double part[together];
    Kind kind[together];
#pragma unroll
    for (int j = 0; j < together; ++j) {
      const int k = chunk + j;
      const Rule rule = table.rule[k < cells ? k : 0];
      kind[j] = kind_of(Merge(rule.merge));
      part[j] = kind[j] == Kind::sum ? 0 : kind[j] == Kind::lowest ? __builtin_inf() : -__builtin_inf();
      if (k >= cells || Merge(rule.merge) == Merge::mean) continue;
#pragma unroll 1
      for (int i = first; i < all; i += step) {
        const double weight = record(0, i);
        if (!(weight > 0)) continue;
        double v = record(k, i);
        if (rule.mean >= 0)
          v += weight * (record(rule.mean, i) - result[rule.mean * width + lane]) *
               (record(rule.other_mean, i) - result[rule.other_mean * width + lane]);
        part[j] = merge(kind[j], part[j], v);
      }
    }
    over_block<Columns>(kind, part, room);
#pragma unroll
    for (int j = 0; j < together; ++j)
      if (threadIdx.x < width && chunk + j < cells && Merge(table.rule[chunk + j].merge) != Merge::mean)
        result[(chunk + j) * width + lane] = part[j];
  }
  __syncthreads();
}

// Whether this block is the last of `expected` to come; all threads get the answer, and see what the others wrote.
__device__ __forceinline__ bool comes_last(unsigned* ticket, unsigned expected, unsigned* shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    *shared = atomicAdd(ticket, 1u) + 1 == expected;
    if (*shared) atomicExch(ticket, 0u);  // as the next call expects it
  }
  __syncthreads();
  const bool last = *shared;
  if (last) __threadfence();
  __syncthreads();  // before the word is used again
  return last;
}

}  // namespace geoact::cuda
