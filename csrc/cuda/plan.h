// WHERE a call runs: its arrays as groups of runs of elements, cut into segments, one block at a time. Made on the host
// from the shape alone, handed to the kernel by value.
//
//   group     what one record is about: everything, a channel, a row; or what shares the trained weights
//   run       elements that step alike in memory along one axis, `length` of them
//   unit      what a thread takes of a run at once: 16 bytes side by side, or in columns some rows, `team` apart
//   batch     one unit of every thread of a block
//   segment   some batches of a group, which one block measures before it makes a float64 record of them; in columns of
//             32 groups that lie side by side
//
// In columns the innermost axis is one of groups: a thread stays in its column, runs go down the rows, and all warps of
// a block, its team, walk down one run together. Otherwise the team is all threads, each with a unit of its own.
#pragma once

#include <cstdint>

namespace geoact::cuda {

inline constexpr int warp_size = 32, most_threads = 256, most_axes = 12, arrays = 5, parameters = 4;

// Division by a number that is known before the kernel starts (Granlund and Montgomery 1994, "Division by invariant
// integers using multiplication"), for dividends below 2^31: magic is ceil(2^(32 + shift) / value) - 2^32.
struct Divisor {
  uint32_t magic = 0, shift = 0;
};

struct Axis {
  int64_t size = 1;
  Divisor divisor;
  int64_t stride[arrays] = {};  // bytes: inputs, then outputs
  int64_t weight = 0;           // how far one step moves in the weights
  int64_t group = 0;            // how far one step moves in the records, or the gradient, of groups
};

struct Plan {
  void* data[arrays];  // inputs, then outputs
  bool in_place;       // an output overwrites an input: it may be written only when nothing is read again
  bool alike;          // all arrays step alike within a group
  bool weight_varies;  // within a group
  bool wide[arrays];   // whole units are one access of 16 bytes
  int group_rank, run_rank;
  Axis axis[most_axes];          // those of groups, then those of runs, outermost first
  int64_t groups, runs, length;  // where there are several runs, all units are less than 2^31
  Axis inner;                    // one step along a run
  int64_t gap[arrays];           // bytes between elements of a unit
  Divisor units_divisor;         // units of a run; in columns, of the team's
  int64_t units;
  int64_t whole;        // a unit that begins at element 0 to whole - 1 of its run is complete
  int lead;             // elements that the first unit lacks, so that units lie on 16 bytes
  Axis column;          // one step to the side, in columns; else of size 1
  int strips;           // of 32 columns; 1 where there are no columns
  int batches;          // of a group
  int parts, segments;  // of a group, of all
  int together;         // batches of a part that follow each other; 0: they are `parts` apart
  uint32_t step;        // units from one of a thread to its next

  // measuring
  int cells;        // fields that are kept
  bool one_record;  // all groups make one record
  double saturation;
  float saturation_in_float;
  int64_t* header;  // of the running state: enabled, calls
  double* state;    // [cells][state_groups]
  int64_t state_groups;
  bool append;  // the state holds nothing yet

  // parameters
  double number[parameters];
  float number_in_float[parameters];
  const void* weight[parameters];  // instead of the number
  int64_t weight_stride[parameters];
  int trained;                    // how many gradients there are
  void* gradient[parameters];     // of the weight, in the type of the data, or float64 where the weight is a number
  int64_t gradients[parameters];  // 1 or `groups`
  bool gradient_in_double[parameters];

  // workspace
  unsigned* tickets;       // one of the whole call, then one per set of 1 or 32 groups; zero between calls
  double* records;         // [cells][record_stride]
  double* weight_records;  // [trained][record_stride]
  double* rare;            // what was measured in float64, per thread of the grid
  int64_t record_stride;
};

// Elements of a unit: 16 bytes, in columns at most 8 of all inputs together.
constexpr int unit_size(bool columns, int item_size, int inputs) {
  const int wide = 16 / item_size, most = 8 / inputs;
  return columns && wide > most ? most : wide;
}

}  // namespace geoact::cuda
