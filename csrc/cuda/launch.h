// From a call to a launch: which kernel, how it is cut up, what workspace it needs. Host code; the few things that
// differ between a GPU and its simulation (sim.h) are in runtime.h.
#pragma once

#include <stdexcept>

#include "../call/call.h"
#include "plan.h"

namespace geoact::cuda {

using Kernel = void (*)(Plan);

struct Entry {
  Kernel kernel = nullptr;
  int shared_bytes = 0, rare_fields = 0;
};
// The kernels of one activation, or gate, and storage type: [columns][measured].
struct Row {
  Entry forward[2][2], backward[2][2];
};
using Table = const Row* (*)(bool gates);  // by number of the activation, or gate

// What the caller wants done, all memory being on the device `id`.
struct Request {
  Call call;  // parameters are below
  int id = 0;
  void* stream = nullptr;
  double number[max_parameters] = {};
  const void* weight[max_parameters] = {};     // instead of the number, in the type of the data
  int64_t weight_stride[max_parameters] = {};  // in elements; 0 where there is one value
  int trained = 0;                             // how many gradients are wanted, of the first parameters
  void* gradient[max_parameters] = {};         // as many values as the parameter has
  bool gradient_in_double[max_parameters] = {};
  void* state = nullptr;  // header and records; null where nothing is measured
  int cells = 0;          // fields of a record
  int64_t state_groups = 0;
  bool append = false;
};

// A launch that is ready but for its workspace.
struct Launch {
  Plan plan;
  Entry entry;
  int threads = 0;
  int64_t grid = 0;
  int id = 0;
  void* stream = nullptr;
  int64_t tickets_bytes = 0, workspace_bytes = 0;  // tickets are zero before a call, and after it
  // The gradients of weights, where they belong to other groups than the statistics: a launch of its own.
  bool again = false;
};

inline constexpr int header_words = 4;  // of a running state, before its records: enabled, calls, two in reserve

Launch prepare(const Request& request, bool again = false);
void run(Launch& launch, void* tickets, void* workspace);

}  // namespace geoact::cuda
