// The Python module geoact._core: checks its arguments (tensor.h), runs the call (dispatch.h), hands back arrays.
// No arithmetic lives here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../cpu/dispatch.h"
#include "../cpu/pool.h"
#include "accumulator.h"
#include "foreign.h"
#include "tensor.h"

namespace geoact::bindings {
namespace {

// Parameter arrays run along one axis of x.
void place_parameters(Call& call, const Parameters& parameters, int channel_axis) {
  for (int k = 0; k < max_parameters; ++k) {
    call.parameter[k] = parameters.data[k];
    call.parameter_varies[k] = parameters.size[k] > 1;
    if (call.parameter_varies[k]) call.parameter_step[channel_axis] = 1;
  }
}

// torch's rule: the channel of prelu is axis 1, and data of fewer than two axes has one channel.
int channel_axis_of(const Tensor& x, int64_t channel_axis) {
  if (x.rank < 2) return 0;
  if (channel_axis >= x.rank || channel_axis < -x.rank)
    throw py::value_error("channel_axis is " + std::to_string(channel_axis) + ", but x has " + std::to_string(x.rank) +
                          " axes");
  return int(channel_axis < 0 ? channel_axis + x.rank : channel_axis);
}

Call begin(Direction direction, int activation, std::initializer_list<const Tensor*> inputs, const Output& out) {
  const Tensor& x = **inputs.begin();
  Call call;
  call.direction = direction;
  call.activation = activation;
  call.level = 0;
  call.dtype = x.dtype;
  call.rank = x.rank;
  std::copy_n(x.shape, x.rank, call.shape);
  std::fill_n(call.group_stride, x.rank, 0);
  std::fill_n(call.parameter_step, x.rank, 0);
  call.inputs = int(inputs.size());
  for (int k = 0; k < call.inputs; ++k) call.in[k] = inputs.begin()[k]->array;
  call.out = out.tensor.array;
  call.in_place = out.in_place;
  return call;
}

constexpr int64_t worth_releasing = 8192;  // elements; below, handing the lock over costs more than it frees

// Runs without the interpreter lock; the accumulator changes only afterwards, so a failure leaves it as it was.
void finish(Call& call, const Tensor& x, Accumulator* stats, double* parameter_gradient) {
  Grouping grouping;
  std::vector<double> cells;
  if (stats) {
    grouping = stats->grouping(x, "stats");
    call.level = stats->level();
    call.saturation = stats->saturation();
    call.groups = grouping.groups;
    std::copy_n(grouping.stride, x.rank, call.group_stride);
    cells.resize(size_t(stats->cells_per_group() * grouping.groups));
  }
  double* into = stats ? cells.data() : nullptr;
  if (x.size < worth_releasing) {
    execute(call, into, parameter_gradient);
  } else {
    py::gil_scoped_release release;
    execute(call, into, parameter_gradient);
  }
  if (stats) stats->absorb(grouping, x.dtype, cells);
}

void require(const Accumulator* stats, Direction direction, const Tensor& x) {
  if (!stats) return;
  if (stats->direction() != direction)
    throw py::type_error(direction == Direction::forward ? "stats must be a GeometryStats, got a GradientStats"
                                                         : "stats must be a GradientStats, got a GeometryStats");
  stats->grouping(x, "stats");
}

py::object forward(int activation, py::handle x_object, py::tuple values, py::tuple names, py::handle out_object,
                   Accumulator* stats, int64_t channel_axis) {
  const Tensor x = view(x_object, "x");
  Parameters held;
  int axis = 0;
  if (values.size()) {
    axis = channel_axis_of(x, channel_axis);
    held = parameters(values, names, x, x.rank < 2 ? 1 : x.shape[axis]);
  }
  require(stats, Direction::forward, x);
  Output out = output(out_object, "out", x, {&x}, {"x"});
  Call call = begin(Direction::forward, activation, {&x}, out);
  if (values.size()) place_parameters(call, held, axis);
  finish(call, x, stats, nullptr);
  return std::move(out.object);
}

py::object backward(int activation, py::handle dy_object, py::handle saved_object, const std::string& saved_name,
                    py::tuple values, py::tuple names, py::handle out_object, Accumulator* stats,
                    int64_t channel_axis) {
  const Tensor dy = view(dy_object, "dy"), saved = view(saved_object, saved_name.c_str());
  require_same(saved, saved_name.c_str(), dy, "dy");
  const int axis = channel_axis_of(dy, channel_axis);
  const Parameters held = parameters(values, names, dy, dy.rank < 2 ? 1 : dy.shape[axis]);
  require(stats, Direction::backward, dy);
  Output out = output(out_object, "out", dy, {&dy, &saved}, {"dy", saved_name.c_str()});
  Call call = begin(Direction::backward, activation, {&dy, &saved}, out);
  place_parameters(call, held, axis);
  if (!activation_rows()[size_t(activation)].trainable) {
    finish(call, dy, stats, nullptr);
    return std::move(out.object);
  }
  call.parameters = held.size[0];
  py::object gradient = new_float64({held.size[0]});
  finish(call, dy, stats, float64_data(gradient));
  return py::make_tuple(std::move(out.object), gradient);
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

  m.def("forward", &forward, py::arg("activation"), py::arg("x"), py::arg("values"), py::arg("names"), py::arg("out"),
        py::arg("stats").none(true), py::arg("channel_axis"));
  m.def("backward", &backward, py::arg("activation"), py::arg("dy"), py::arg("saved"), py::arg("saved_name"),
        py::arg("values"), py::arg("names"), py::arg("out"), py::arg("stats").none(true), py::arg("channel_axis"));

  m.def("activations", [] {
    py::list rows;
    for (const ActivationRow& row : activation_rows())
      rows.append(py::make_tuple(row.name, row.parameters, row.saves_y ? "y" : "x", row.trainable));
    return rows;
  });
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
