// Which instruction set runs, and how one call becomes parts: axes merged and ordered, one axis split into pieces whose
// number depends on the shape alone, partial records combined in order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace geoact {

struct Isa {
  const char* name;
  bool (*supported)();
  const Kernels* kernels[4];  // by DType
};

const std::vector<Isa>& isas();  // compiled in, best first
const Isa& active_isa();
bool set_active_isa(const char* name);  // false: unknown, or this machine cannot run it

const std::vector<ActivationRow>& activation_rows();
const std::vector<ActivationRow>& gate_rows();
const std::vector<FieldRow>& fields(Direction direction);
int cells_per_group(Direction direction, int level);
void init_cells(Direction direction, int level, double* cells, int64_t groups);

// Runs the call. `cells` [cells_per_group][groups] and `parameter_gradient` [trained][parameters] are overwritten with
// what this call saw; either may be null.
void execute(const Call& call, double* cells, double* parameter_gradient);

// A forward call with opt-in tiers; `tier_cells` [tier_cells_of] likewise. One pass over memory.
void execute_tiered(const Call& call, double* cells, double* tier_cells);
int64_t tier_cells_of(const Tiers& tiers);
void init_tiers(const Tiers& tiers, double* cells);
void combine_tiers(const Tiers& tiers, double* into, const double* from);
struct TierField {
  std::string name;
  int64_t offset, size;
};
std::vector<TierField> tier_fields(const Tiers& tiers);

// The call as one part, on the calling thread's own terms: without scratch, gradient or split.
Task task_of(const Call& call, double* cells);

int64_t last_level_cache_bytes();
bool streams(int64_t bytes);  // whether the output of an unmeasured call over so many goes past the cache

}  // namespace geoact
