// The boundary between code compiled once per instruction set and code compiled once: plain structs and tables of
// function pointers, no templates, no inline functions.
#pragma once

#include <cstdint>

#include "../call/call.h"

namespace geoact {

// A matrix of adjacent columns: what one kernel call passes over. Strides count elements.
struct Block {
  const void* in[max_inputs];
  void* out[max_outputs];
  int64_t rows, columns;
  int64_t in_stride[max_inputs], out_stride[max_outputs];
  int64_t ahead;                          // rows to prefetch ahead of the one being read
  const void* parameter[max_parameters];  // compute type; stride 0 (one value) or 1 (one per column)
  int64_t parameter_stride[max_parameters];
  double saturation, smallest_normal;
  void* lanes;            // accumulators; strip k uses lanes[k * lanes_step]
  const void* shift;      // likewise
  int64_t lanes_step;     // 0: all strips share one set, 1: one each
  void* parameter_lanes;  // max_parameters vectors per strip
  void* past_cache;       // where a flat block's output goes instead of `out[0]`, or null
};

// Everything a worker needs to run one part of a call.
struct Task {
  Direction direction;
  int activation, level;  // level: 0 none, 1 counts, 2 moments
  bool gated;             // `activation` is the number of a gate
  int rank, inputs, outputs;
  Axis axis[max_rank];
  const char* in[max_inputs];
  char* out[max_outputs];
  bool stream;           // the only output does not fit in cache: bypass it
  bool inputs_shadowed;  // an output overwrites an input, which is then read through a copy
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

// A matrix of ReLU's elements and their bits (call/mask.h). Steps count bytes; `mask` goes one byte every 8 columns.
struct MaskBlock {
  const char* in;
  char* out;
  uint8_t* mask;
  int64_t rows, columns;
  int64_t in_row, out_row, mask_row;  // from one row to the next
  int64_t in_step, out_step;          // from one column to the next
  bool past_cache;                    // the output does not fit in cache
};

inline constexpr int64_t scratch_bytes = 1 << 21;

// Rows of x and y that a pass has just gone over, as the opt-in tiers look at them (ops/tiers.h). Axes of rows in C
// order, outermost first; strides count bytes, [0] of x, [1] of y.
struct RowBlock {
  int rank = 0;
  int64_t size[max_rank], stride[2][max_rank];
  int64_t rows = 1, first_row = 0;
  int64_t columns = 1, column_stride[2];
  const char* at[2];
};

// What one job keeps while it looks at its blocks, one after the other. All memory is the caller's.
struct TierJob {
  static constexpr int buffer_rows = 64, tables = 4;
  const Tiers* tiers;
  double* record;         // of sums of differences from `shift` until the job is settled
  const void* signs[2];   // compute type, per lane of a sketch
  const uint32_t* turns;  // per block of a row: of S, then of T
  double* shift;          // one per number of a row's sketches
  void* buffer;           // buffer_rows rows of them, the two of a pair, and the shift; compute type
  void* room;             // four rows of `room_columns` elements, for rows that are not adjacent in memory
  void* counters;         // `tables` of buckets for x and as many for y, zero
  int64_t room_columns = 0;
  int filled = 0;  // rows in the buffer
  bool shifted = false;
  bool finite[2] = {};  // whether the sketches of the pair are
};

// One instruction set x storage type.
struct Kernels {
  int item_size;
  void (*run)(const Task&);  // one part, on the calling thread
  void (*combine)(Direction, int level, double* into, const double* from, int64_t groups);
  void (*observe)(const RowBlock&, TierJob&);
  void (*settle)(TierJob&);
  void (*mask)(Direction, const MaskBlock&);  // y and the bits of x, or dx of dy and the bits
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
