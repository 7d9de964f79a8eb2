// One call of a kernel, from described arrays to a measured result: what the Python functions of module.cpp and the
// table of api.h share.
#pragma once

#include "../cpu/dispatch.h"
#include "accumulator.h"
#include "tensor.h"

namespace geoact::bindings {

// torch's rule: the channel of prelu is axis 1, and data of fewer than two axes has one channel.
int channel_axis_of(const Tensor& x, int64_t channel_axis);
inline int64_t channels_of(const Tensor& x, int axis) { return x.rank < 2 ? 1 : x.shape[axis]; }

Call begin(Direction direction, int activation, const Tensor* const* inputs, int count, const Array& out,
           bool in_place);
void place_parameters(Call& call, const Parameters& parameters, int channel_axis);

// Refuses statistics that do not fit the call, before anything is written.
void require(const Accumulator* stats, Direction direction, const Tensor& x);

// Runs the call and adds its record to `stats`. `locked` tells whether the caller holds the interpreter lock, which it
// must where there are statistics; long calls let go of it.
// `mask`: of ReLU on the CPU, its bits (cpu/mask_call.h).
// Where the gradients of trained parameters go: [trained][call.parameters] on the CPU; on a device see run_on_device.
struct GradientRoom {
  double* host = nullptr;
  void* device[max_parameters] = {};
};
void finish(Call& call, const Tensor& x, const Parameters& parameters, Accumulator* stats, const GradientRoom& room,
            bool locked = true, uint8_t* mask = nullptr);

void register_api(py::module_& m);   // api.h
void register_mask(py::module_& m);  // mask.cpp

}  // namespace geoact::bindings
