// Which instruction set runs, and how one call becomes parts: axes merged and ordered, one axis split into pieces whose
// number depends on the shape alone, partial records combined in order.
#pragma once

#include <cstdint>
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
const std::vector<FieldRow>& fields(Direction direction);
int cells_per_group(Direction direction, int level);
void init_cells(Direction direction, int level, double* cells, int64_t groups);

// Runs the call. `cells` [cells_per_group][groups] and `parameter_gradient` [trained][parameters] are overwritten with
// what this call saw; either may be null.
void execute(const Call& call, double* cells, double* parameter_gradient);

int64_t last_level_cache_bytes();

}  // namespace geoact
