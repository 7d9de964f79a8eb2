// WHERE a call runs: its arrays as groups of runs of elements, cut into segments, one block at a time. Made on the host
// from the shape alone, handed to the kernel by value.
//
//   group     what one record is about: everything, a channel, a row; or what shares one trained weight
//   run       elements that step alike in memory along the innermost axis, `length` of them
//   unit      the part of a run that one thread takes at once: 16 bytes where memory allows, in columns one element
//   batch     what a block takes at once: `units_per_batch` units of each thread
//   segment   what is measured before it becomes a float64 record: the batches part, part + parts, part + 2 parts, ... of
//             a group, or in columns of 32 groups that lie side by side
//
// In columns the innermost axis is one of groups: a thread stays in its column and walks down the rows.
#pragma once

#include <cstdint>

namespace geoact::cuda {

inline constexpr int warp_size = 32, most_threads = 256, most_axes = 12, arrays = 3, parameters = 2;

// Division by a number that is known before the kernel starts (Granlund and Montgomery 1994, "Division by invariant
// integers using multiplication"), for dividends below 2^31.
// (The magic number is ceil(2^(32 + shift) / value) - 2^32.)
struct Divisor {
  uint32_t value = 1, magic = 0, shift = 0;
};

struct Axis {
  int64_t size = 1;
  Divisor divisor;
  int64_t stride[arrays] = {};  // elements: inputs, then the output
  int64_t weight = 0;           // elements of the weight that one step moves
  int64_t group = 0;            // how far one step moves in the records, or the gradient, of groups
};

struct Plan {
  const void* in[2];
  void* out;
  bool in_place;    // the output overwrites an input: it may be written only when nothing is read again
  bool narrow;      // every index of a run or unit is below 2^31
  bool wide[arrays];  // whole units are one access of 16 bytes
  int group_rank, run_rank;
  Axis axis[most_axes];  // those of groups, then those of runs, outermost first
  int64_t groups, runs, length;
  Axis inner;             // one step along a run
  Divisor units_divisor;  // units of a run
  int64_t units;
  int lead;             // elements that the first unit lacks, so that units lie on 16 bytes
  int64_t strips;       // of 32 columns; 1 where there are no columns
  int64_t parts, segments;

  // measuring
  int cells;             // fields that are kept
  bool one_record;       // all groups make one record
  double saturation;
  int64_t* header;       // of the running state: enabled, calls
  double* state;         // [cells][state_groups]
  int64_t state_groups;
  bool append;           // the state holds nothing yet

  // parameters
  double number[parameters];
  const void* weight;  // instead of number[0]
  void* gradient;      // of the weight, in the type of the data, or float64 where the weight is a number
  int64_t gradients;   // 1 or `groups`
  bool gradient_in_double;

  // workspace
  unsigned* tickets;       // one of the whole call, then one per set of 1 or 32 groups; zero between calls
  double* records;         // [cells][record_stride]
  double* weight_records;  // [record_stride]
  double* rare;            // what was measured in float64, per thread of the grid
  int64_t record_stride;
};

// How many units of each input a thread loads before it computes: 32 bytes in runs; in columns, where a load is one
// element, as many rows as pay.
constexpr int units_per_batch(bool columns, int item_size, int inputs) {
  return columns ? (item_size == 2 ? 16 : 8) / inputs : 2;
}

}  // namespace geoact::cuda
