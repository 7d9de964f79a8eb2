// geoact._torch: the common call on a torch tensor without a detour through Python. This folder may depend on torch's
// C++ headers and on ../bindings/api.h, through which it runs the kernels of geoact._core; nothing depends on it, and
// whatever it does not handle goes to the Python of geoact.frontends.torch, which decides every question of behaviour.
//
// kernel: tensors described for the kernels.   node: the derivative.   module: one call from Python.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/python_headers.h>

#include <string>

#include "../bindings/api.h"

namespace geoact::torch_fast {

using bindings::Outcome;
using bindings::Request;

// One row of the registry.
struct Row {
  PyObject* object;  // geoact.Activation
  int index;
  bool saves_y;
  int trainable;  // how many parameters are trained
  int parameters;
  std::string name, derivative;  // as the profiler and grad_fn show them
};

// What a call is handed to where this module does not do it, and whom it talks to. Set once, at import.
struct Links {
  const bindings::Api* api;
  PyObject* forward;                  // geoact.frontends.torch.forward
  PyObject* direct;                   // geoact.torch.autograd.Direct
  PyObject* derivative;               // geoact.torch.autograd.derivative
  PyTypeObject *geometry, *gradient;  // geoact.GeometryStats, geoact.GradientStats
};
extern Links links;

// The parameters of one call.
struct Parameters {
  int numbers = 0;
  double number[max_parameters];
  int64_t channel_axis = 1;
};

// A dense tensor on the CPU, of a dtype with kernels, that nobody wraps, negates or follows in forward mode.
bool is_plain(const at::Tensor& tensor);
// Nobody traces, transforms or intercepts what this thread does.
bool is_plain_thread();

// What torch.empty_like gives.
at::Tensor new_like(const at::Tensor& tensor);

// The tensors must be plain and outlive the request.
Request request(Direction direction, const Row& row, const Parameters& parameters);
void describe(bindings::Described& into, const at::Tensor& tensor, const void* data);

}  // namespace geoact::torch_fast
