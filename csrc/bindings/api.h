// What geoact._core offers to other compiled modules of the package: a table of functions in the capsule `_core._api`.
// It speaks of plain memory, so that no array package needs to be linked. Both sides are of one build.
#pragma once

#include <Python.h>

#include "../cpu/dispatch.h"

namespace geoact::bindings {

struct Described {
  void* data = nullptr;
  const int64_t *shape = nullptr, *stride = nullptr;  // strides in elements
  int rank = 0;
  DType dtype = DType::float32;
};

struct Request {
  Direction direction;
  int activation;
  int inputs;  // forward: x; backward: dy and what was saved
  Described in[2], out;
  bool in_place;    // `out` is one of the inputs; else it shares no memory with them
  int numbers = 0;  // parameters given as numbers
  double number[max_parameters];
  bool weighted = false;  // the first parameter is an array instead, of one value or one per channel
  Described weight;
  int64_t channel_axis = 1;
  double* parameter_gradient = nullptr;  // backward of an activation with one trained parameter: one per value of it
  void* accumulator = nullptr;           // as Api::accumulator gave it, or null: nothing is measured
  bool locked;                           // the caller holds the interpreter lock; it must where there is an accumulator
};

enum class Outcome : int {
  done,
  refused,  // the arguments do not fit; nothing was written, no error is set
  failed,   // out of memory, or statistics used by two threads at once; a Python error is set where `locked`
};

struct Api {
  void* (*accumulator)(PyObject* object);  // the record behind a _core.Accumulator; null where it is none
  Outcome (*run)(const Request& request);
};

inline constexpr const char* api_capsule = "geoact._core._api";

}  // namespace geoact::bindings
