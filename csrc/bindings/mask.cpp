// ReLU with its bit mask. The mask comes as an address: Python checked that it is uint8 in C order (geoact/masks.py).
#include "../call/mask.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "../cuda/backend.h"
#include "run.h"

namespace geoact::bindings {
namespace {

int relu() {
  static const int index = [] {
    const auto& rows = activation_rows();
    const auto named = [](const ActivationRow& row) { return std::strcmp(row.name, "relu") == 0; };
    return int(std::find_if(rows.begin(), rows.end(), named) - rows.begin());
  }();
  return index;
}

// What is to be written must not lie between the bits that are read, or be them.
void require_apart(const Tensor& out, const uint8_t* mask, int64_t bytes) {
  if (out.size == 0) return;
  const char *low = out.array.data, *high = low + out.item_size;
  for (int i = 0; i < out.rank; ++i) {
    const int64_t reach = out.array.stride[i] * (out.shape[i] - 1);
    (reach < 0 ? low : high) += reach;
  }
  const char* begin = reinterpret_cast<const char*>(mask);
  if (low < begin + bytes && begin < high) throw py::value_error("out overlaps mask in memory; pass a separate array");
}

py::object run(Direction direction, py::handle x_object, const char* x_name, uintptr_t address, int64_t bytes,
               py::handle out_object, Accumulator* stats) {
  Tensor x = view(x_object, x_name);
  // As in module.cpp: arrays at odd addresses are the CPU's, and then all of the call is.
  if (x.backend && !out_object.is_none() && !view(out_object, "out").backend) x.backend = nullptr;
  require(stats, direction, x);
  auto* mask = reinterpret_cast<uint8_t*>(address);
  const Tensor* inputs[] = {&x};
  const int64_t expected = mask_bytes(begin(direction, relu(), inputs, 1, x.array, false));
  if (bytes != expected)
    throw py::value_error("mask has " + std::to_string(bytes) + " bytes, but " + x_name + " needs " +
                          std::to_string(expected));
  if (!out_object.is_none()) require_apart(view(out_object, "out"), mask, bytes);
  Output out = output(out_object, "out", x, {&x}, {x_name});
  Call call = begin(direction, relu(), inputs, 1, out.tensor.array, out.in_place);
  const Parameters none{};
  if (!x.backend || x.size == 0) {
    finish(call, x, none, stats, {}, true, mask);
    return std::move(out.object);
  }
  if (stats) {  // a launch that measures, then one that makes the bits of y: relu(y) is y
    finish(call, x, none, stats, {});
    call.in[0] = call.out[0];
  }
  try {
    x.backend->mask(call, mask, x.device.id, x.stream);
  } catch (const std::invalid_argument& error) {
    throw py::value_error(error.what());
  }
  return std::move(out.object);
}

py::object forward(py::handle x, uintptr_t mask, int64_t bytes, py::handle out, Accumulator* stats) {
  return run(Direction::forward, x, "x", mask, bytes, out, stats);
}

py::object backward(py::handle dy, uintptr_t mask, int64_t bytes, py::handle out) {
  return run(Direction::backward, dy, "dy", mask, bytes, out, nullptr);
}

}  // namespace

void register_mask(py::module_& m) {
  m.def("relu_mask", &forward, py::arg("x"), py::arg("mask"), py::arg("bytes"), py::arg("out"),
        py::arg("stats").none(true));
  m.def("relu_mask_backward", &backward, py::arg("dy"), py::arg("mask"), py::arg("bytes"), py::arg("out"));
}

}  // namespace geoact::bindings
