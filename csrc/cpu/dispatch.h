// Which instruction set runs, and how one call becomes parts: axes merged and ordered, one axis split into pieces whose
// number depends on the shape alone, partial records combined in order.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace geoact {

enum class DType : int { float16, bfloat16, float32, float64 };

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

struct Array {
  char* data = nullptr;
  int64_t stride[max_rank];  // bytes; like every array of this length, only the first `rank` entries are set
};

struct Call {
  Direction direction;
  int activation, level;
  DType dtype;
  int rank = 0;
  int64_t shape[max_rank];
  int inputs;
  Array in[2], out;
  int64_t group_stride[max_rank];  // 0 on the axes that are reduced
  int64_t groups = 1;
  int64_t parameter_step[max_rank];
  const void* parameter[max_parameters] = {};  // compute type, padded by one vector
  bool parameter_varies[max_parameters] = {};
  int64_t parameters = 0;  // how many gradients the trainable parameter has
  double saturation = 0;
  bool in_place = false;
};

// Runs the call. `cells` [cells_per_group][groups] and `parameter_gradient` [parameters] are overwritten with what this
// call saw; either may be null.
void execute(const Call& call, double* cells, double* parameter_gradient);

int64_t last_level_cache_bytes();

}  // namespace geoact
