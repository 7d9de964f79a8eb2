// The boundary between code compiled once per instruction set and code compiled once: plain structs and tables of
// function pointers, no templates, no inline functions.
#pragma once

#include <cstdint>

#include "../call/call.h"

namespace geoact {

// A matrix of adjacent columns: what one kernel call passes over. Strides count elements.
struct Block {
  const void* in[2];
  void* out;
  int64_t rows, columns;
  int64_t in_stride[2], out_stride;
  int64_t ahead;                          // rows to prefetch ahead of the one being read
  const void* parameter[max_parameters];  // compute type; stride 0 (one value) or 1 (one per column)
  int64_t parameter_stride[max_parameters];
  double saturation, smallest_normal;
  void* lanes;            // accumulators; strip k uses lanes[k * lanes_step]
  const void* shift;      // likewise
  int64_t lanes_step;     // 0: all strips share one set, 1: one each
  void* parameter_lanes;  // max_parameters vectors per strip
  void* past_cache;       // where a flat block's output goes instead of `out`, or null
};

// Everything a worker needs to run one part of a call.
struct Task {
  Direction direction;
  int activation, level;  // level: 0 none, 1 counts, 2 moments
  int rank, inputs;
  Axis axis[max_rank];
  const char* in[2];
  char* out;
  bool stream;           // the output does not fit in cache: bypass it
  bool inputs_shadowed;  // the output overwrites an input, which is then read through a copy
  const void* parameter[max_parameters];
  bool parameter_varies[max_parameters];
  double saturation;
  double* cells;  // [field][groups]
  int64_t groups;
  double* parameter_gradient;  // [trained][parameters], or null
  int64_t parameters;
  int trained;    // how many parameters have a gradient
  void* scratch;  // scratch_bytes of the running thread's own, 64-byte aligned
};

inline constexpr int64_t scratch_bytes = 1 << 20;

// One instruction set x storage type.
struct Kernels {
  int item_size;
  void (*run)(const Task&);  // one part, on the calling thread
  void (*combine)(Direction, int level, double* into, const double* from, int64_t groups);
};

struct FieldRow {
  const char* name;
  int merge;
};
struct ActivationRow {
  const char* name;
  int parameters;
  bool saves_y;
  int trainable;  // so many of the parameters, from the first on
};

}  // namespace geoact
