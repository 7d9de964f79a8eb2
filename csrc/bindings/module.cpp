// The Python module geoact._core: checks its arguments (tensor.h), runs the call (dispatch.h), hands back arrays.
// No arithmetic lives here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>

#include "../cpu/dispatch.h"
#include "../cpu/pool.h"
#include "accumulator.h"
#include "foreign.h"
#include "run.h"
#include "tensor.h"

namespace geoact::bindings {
namespace {

// A backend that a test gave the CPU leaves arrays at odd addresses to the CPU kernels; then all of the call is theirs.
void agree_on_backend(Tensor& x, py::handle out, const char* name) {
  if (x.backend && !out.is_none() && !view(out, name).backend) x.backend = nullptr;
}

py::object forward(int activation, py::handle x_object, py::tuple values, py::tuple names, py::handle out_object,
                   Accumulator* stats, int64_t channel_axis) {
  Tensor x = view(x_object, "x");
  agree_on_backend(x, out_object, "out");
  Parameters held;
  int axis = 0;
  if (values.size()) {
    axis = channel_axis_of(x, channel_axis);
    read_parameters(held, values, names, x, channels_of(x, axis));
  }
  require(stats, Direction::forward, x);
  Output out = output(out_object, "out", x, {&x}, {"x"});
  const Tensor* inputs[] = {&x};
  Call call = begin(Direction::forward, activation, inputs, 1, out.tensor.array, out.in_place);
  if (values.size()) place_parameters(call, held, axis);
  finish(call, x, held, stats, {});
  return std::move(out.object);
}

// Where the gradient of parameter k goes on a device: an array like the parameter, or one float64 there if that is a
// number.
py::object new_gradient(const Tensor& dy, const Parameters& held, int k, py::handle given, void*& data) {
  if (!given.is_none()) {
    data = view(given, "gradient").array.data;
    return py::reinterpret_borrow<py::object>(given);
  }
  if (held.weighted[k]) {
    Output out = output(py::none(), "gradient", held.weight[k], {}, {});
    data = out.tensor.array.data;
    return std::move(out.object);
  }
  const Memory memory = allocate(dy, sizeof(double));
  data = memory.address;
  return dy.numpy ? memory.owner.attr("view")("f8") : foreign_number(dy, memory);
}

// Of `sums`, one per channel, as many as the parameter has values: those of one value are added up in their order.
py::object host_gradient(const double* sums, int64_t channels, int64_t values) {
  py::object array = new_float64({values});
  if (values == channels)
    std::copy_n(sums, values, float64_data(array));
  else if (values == 1)
    *float64_data(array) = std::accumulate(sums, sums + channels, 0.0);
  return array;
}

py::object backward(int activation, py::handle dy_object, py::handle saved_object, const std::string& saved_name,
                    py::tuple values, py::tuple names, py::handle out_object, Accumulator* stats, int64_t channel_axis,
                    py::handle gradient_objects) {
  Tensor dy = view(dy_object, "dy");
  const Tensor saved = view(saved_object, saved_name.c_str());
  if (!saved.backend) dy.backend = nullptr;
  agree_on_backend(dy, out_object, "out");
  require_same(saved, saved_name.c_str(), dy, "dy");
  const int axis = channel_axis_of(dy, channel_axis);
  Parameters held;
  read_parameters(held, values, names, dy, channels_of(dy, axis));
  require(stats, Direction::backward, dy);
  Output out = output(out_object, "out", dy, {&dy, &saved}, {"dy", saved_name.c_str()});
  const Tensor* inputs[] = {&dy, &saved};
  Call call = begin(Direction::backward, activation, inputs, 2, out.tensor.array, out.in_place);
  place_parameters(call, held, axis);
  const int trained = activation_rows()[size_t(activation)].trainable;
  if (!trained) {
    finish(call, dy, held, stats, {});
    return std::move(out.object);
  }
  py::tuple result(size_t(1 + trained));
  result[0] = std::move(out.object);
  call.parameters = *std::max_element(held.size, held.size + trained);
  GradientRoom room;
  std::vector<double> sums;
  const bool on_host = !dy.backend || dy.size == 0;
  if (on_host) {
    sums.resize(size_t(trained * call.parameters));
    room.host = sums.data();
  }
  const bool given = !gradient_objects.is_none();
  for (int k = 0; k < trained && !on_host; ++k)
    result[size_t(1 + k)] = new_gradient(
        dy, held, k, given ? py::object(gradient_objects[py::int_(k)]) : py::object(py::none()), room.device[k]);
  finish(call, dy, held, stats, room);
  for (int k = 0; k < trained && on_host; ++k)
    result[size_t(1 + k)] = host_gradient(sums.data() + k * call.parameters, call.parameters, held.size[k]);
  return result;
}

// As above, for any number of arrays: if one of them is the CPU kernels', all of the call is.
void agree_on_backend(std::initializer_list<Tensor*> inputs, std::initializer_list<py::handle> outs) {
  bool all = true;
  for (const Tensor* t : inputs) all &= t->backend != nullptr;
  for (py::handle out : outs) all &= out.is_none() || view(out, "out").backend;
  if (!all)
    for (Tensor* t : inputs) t->backend = nullptr;
}

py::object gated_forward(int gate_number, py::handle gate_object, py::handle up_object, py::tuple values,
                         py::tuple names, py::handle out_object, Accumulator* stats) {
  Tensor gate = view(gate_object, "gate"), up = view(up_object, "up");
  require_same(up, "up", gate, "gate");
  agree_on_backend({&gate, &up}, {out_object});
  Parameters held;
  read_parameters(held, values, names, gate, 1);
  require(stats, Direction::forward, gate);
  Output out = output(out_object, "out", gate, {&gate, &up}, {"gate", "up"});
  const Tensor* inputs[] = {&gate, &up};
  Call call = begin(Direction::forward, gate_number, inputs, 2, out.tensor.array, out.in_place);
  call.gated = true;
  place_parameters(call, held, 0);
  finish(call, gate, held, stats, {});
  return std::move(out.object);
}

py::object gated_backward(int gate_number, py::handle dy_object, py::handle gate_object, py::handle up_object,
                          py::tuple values, py::tuple names, py::handle dgate_object, py::handle dup_object,
                          Accumulator* stats) {
  Tensor dy = view(dy_object, "dy"), gate = view(gate_object, "gate"), up = view(up_object, "up");
  require_same(gate, "gate", dy, "dy");
  require_same(up, "up", dy, "dy");
  agree_on_backend({&dy, &gate, &up}, {dgate_object, dup_object});
  Parameters held;
  read_parameters(held, values, names, dy, 1);
  require(stats, Direction::backward, dy);
  const std::initializer_list<const Tensor*> inputs = {&dy, &gate, &up};
  const std::initializer_list<const char*> input_names = {"dy", "gate", "up"};
  Output dgate = output(dgate_object, "out[0]", dy, inputs, input_names);
  Output dup = output(dup_object, "out[1]", dy, inputs, input_names);
  require_apart(dgate.tensor, "out[0]", dup.tensor, "out[1]");
  Call call =
      begin(Direction::backward, gate_number, inputs.begin(), 3, dgate.tensor.array, dgate.in_place || dup.in_place);
  call.gated = true;
  call.outputs = 2;
  call.out[1] = dup.tensor.array;
  place_parameters(call, held, 0);
  finish(call, dy, held, stats, {});
  return py::make_tuple(std::move(dgate.object), std::move(dup.object));
}

py::list listed(const std::vector<ActivationRow>& rows) {
  py::list list;
  for (const ActivationRow& row : rows)
    list.append(py::make_tuple(row.name, row.parameters, row.saves_y ? "y" : "x", row.trainable));
  return list;
}

std::vector<std::string> isa_names(bool supported_only) {
  std::vector<std::string> names;
  for (const Isa& isa : isas())
    if (!supported_only || isa.supported()) names.push_back(isa.name);
  return names;
}

void choose_isa(const std::string& name, const std::string& origin) {
  if (set_active_isa(name.c_str())) return;
  std::string accepted;
  for (const auto& known : isa_names(true)) accepted += (accepted.empty() ? "'" : ", '") + known + "'";
  bool known = false;
  for (const auto& compiled : isa_names(false)) known |= compiled == name;
  throw py::value_error(origin + " is '" + name + "', " +
                        (known ? "which this processor cannot run" : "which is not an instruction set of this build") +
                        " (accepted: " + accepted + ")");
}

}  // namespace
}  // namespace geoact::bindings

PYBIND11_MODULE(_core, m) {
  using namespace geoact;
  using namespace geoact::bindings;
  m.doc() = "Compiled core of geoact: CPU kernels, accumulators, dispatch.";
  import_numpy();
  register_accumulator(m);
  register_foreign(m);
  register_device(m);
  register_api(m);
  register_mask(m);

  m.def("forward", &forward, py::arg("activation"), py::arg("x"), py::arg("values"), py::arg("names"), py::arg("out"),
        py::arg("stats").none(true), py::arg("channel_axis"));
  m.def("backward", &backward, py::arg("activation"), py::arg("dy"), py::arg("saved"), py::arg("saved_name"),
        py::arg("values"), py::arg("names"), py::arg("out"), py::arg("stats").none(true), py::arg("channel_axis"),
        py::arg("gradients") = py::none());

  m.def("gated_forward", &gated_forward, py::arg("number"), py::arg("gate"), py::arg("up"), py::arg("values"),
        py::arg("names"), py::arg("out"), py::arg("stats").none(true));
  m.def("gated_backward", &gated_backward, py::arg("number"), py::arg("dy"), py::arg("gate"), py::arg("up"),
        py::arg("values"), py::arg("names"), py::arg("dgate"), py::arg("dup"), py::arg("stats").none(true));

  m.def("activations", [] { return listed(activation_rows()); });
  m.def("gates", [] { return listed(gate_rows()); });
  m.def(
      "fields",
      [](const std::string& direction) {
        constexpr const char* merges[] = {"sum", "minimum", "maximum", "mean", "squared_deviation", "co_deviation"};
        py::list rows;
        for (const FieldRow& row : fields(direction == "forward" ? Direction::forward : Direction::backward))
          rows.append(py::make_tuple(row.name, merges[row.merge]));
        return rows;
      },
      py::arg("direction"));

  m.def("isas", [] { return isa_names(false); });
  m.def("supported_isas", [] { return isa_names(true); });
  m.def("isa", [] { return std::string(active_isa().name); });
  m.def("set_isa", [](const std::string& name) { choose_isa(name, "name"); }, py::arg("name"));
  m.def("num_threads", &num_threads);
  m.def(
      "set_num_threads",
      [](int n) {
        if (n < 1) throw py::value_error("n must be at least 1, got " + std::to_string(n));
        set_num_threads(n);
      },
      py::arg("n"));
  m.def("last_level_cache_bytes", &last_level_cache_bytes);

  if (const char* name = std::getenv("GEOACT_ISA")) choose_isa(name, "GEOACT_ISA");
  if (default_num_threads() < 1)
    throw py::value_error(std::string("GEOACT_NUM_THREADS is '") + std::getenv("GEOACT_NUM_THREADS") +
                          "' (accepted: a whole number of at least 1)");
}
