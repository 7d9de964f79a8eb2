// The opt-in tiers (ops/tiers.h) of a forward call on a GPU: from a call to launches. Host code, but for the plan that
// the kernels are handed.
#pragma once

#include "../call/call.h"
#include "plan.h"

namespace geoact::cuda {

// Rows in C order of the axes other than the channels'. Steps are bytes.
struct ObservePlan {
  const char* at[2];  // x, y
  char* aside;        // where x is kept before a call in place overwrites it, rows side by side; or null
  int64_t rows, columns, rows_per_block, blocks;
  int64_t column_step[2];
  int rank;
  int64_t size[max_rank], step[2][max_rank];
  int histogram, pairs, sketch;  // as in Tiers
  int64_t* state;                // header and running record
  double* partials;              // a record per block
};

using ObserveKernel = void (*)(ObservePlan);
struct ObserveKernels {
  ObserveKernel copy, observe, fold;
};
const ObserveKernels (&observe_kernels())[4];  // by dtype

inline constexpr int observe_threads = 256;
int64_t tier_layout_size(const Tiers& tiers);     // cells of a record
int64_t observe_bytes(const Call& call, int id);  // of the partial records
// Before a call in place: x to `aside`.
void run_aside(const Call& call, void* aside, int id, void* stream);
// After the call has written y: adds to the record behind the header at `state`, where that is enabled.
void run_observe(const Call& call, void* aside, void* state, void* partials, int id, void* stream);

}  // namespace geoact::cuda
