// WHAT is called: the arrays of one call and how their axes belong to groups and parameters. Known to whoever checks
// arguments (bindings/) and to whoever computes (cpu/, cuda/); it knows none of them.
#pragma once

#include <cstdint>

namespace geoact {

inline constexpr int max_parameters = 4;
inline constexpr int max_rank = 64;  // NumPy's
inline constexpr int max_inputs = 3, max_outputs = 2, max_arrays = max_inputs + max_outputs;

enum class Direction : int { forward, backward };
enum class DType : int { float16, bfloat16, float32, float64 };

// One axis of the iteration space. `group` and `parameter` say how far one step moves in the statistics and in the
// parameter array; an axis with both 0 is "plain".
struct Axis {
  int64_t size;
  int64_t stride[max_arrays];  // bytes: inputs, then outputs
  int64_t group, parameter;
};

struct Array {
  char* data = nullptr;
  int64_t stride[max_rank];  // bytes; like every array of this length, only the first `rank` entries are set
};

// The opt-in measurements of a forward call (ops/tiers.h).
enum class Histogram : int { none, sampled, all };
struct Tiers {
  Histogram histogram = Histogram::none;
  bool pairs = false;
  int sketch = 0;  // buckets of a row's sketch, or 0
  int channel_axis = 0;
  bool any() const { return histogram != Histogram::none || pairs || sketch != 0; }
  bool of_rows() const { return pairs || sketch != 0; }
  bool operator==(const Tiers&) const = default;
};

struct Call {
  Direction direction;
  int activation, level;  // level: 0 none, 1 counts, 2 moments
  bool gated = false;     // `activation` is the number of a gate: (gate, up) -> y; (dy, gate, up) -> (dgate, dup)
  DType dtype;
  int rank = 0;
  int64_t shape[max_rank];
  int inputs, outputs = 1;
  Array in[max_inputs], out[max_outputs];
  int64_t group_stride[max_rank];  // 0 on the axes that are reduced
  int64_t groups = 1;
  int64_t parameter_step[max_rank];
  const void* parameter[max_parameters] = {};  // on the CPU: compute type, padded by one vector
  bool parameter_varies[max_parameters] = {};
  int64_t parameters = 0;  // how many gradients each trained parameter has: 1, or one per channel
  double saturation = 0;
  bool in_place = false;
  Tiers tiers;
};

inline constexpr int item_size_of(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
int64_t elements_of(const Call& call);

// The axes with the largest strides outermost, neighbours that step alike merged, axes of one element dropped. Returns
// how many are left of at most `call.rank`.
int arrange(const Call& call, Axis* axes);

}  // namespace geoact
