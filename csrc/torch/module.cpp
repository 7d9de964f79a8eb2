// The Python module geoact._torch: `forward`, with the arguments of geoact.frontends.torch.forward.
#include <ATen/autocast_mode.h>
#include <ATen/ops/clone.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <deque>
#include <optional>

#include "node.h"

namespace geoact::torch_fast {
namespace {

std::deque<Row> rows;
PyObject* accumulator_name;  // "_accumulator", interned

// What Python passed, taken apart.
struct Arguments {
  const Row* row = nullptr;
  Parameters parameters;
  PyObject *accumulator = nullptr, *gradient_accumulator = nullptr;
  bool in_place = false;
  bool weighted = false;
};

const Row* find_row(PyObject* object) {
  const auto found = std::find_if(rows.begin(), rows.end(), [object](const Row& row) { return row.object == object; });
  return found == rows.end() ? nullptr : &*found;
}

// False where the statistics are of another type: Python says what is wrong.
bool read_statistics(PyObject* object, PyTypeObject* type, py::object& accumulator) {
  if (object == Py_None) return true;
  if (Py_TYPE(object) != type) return false;
  accumulator = py::reinterpret_steal<py::object>(PyObject_GetAttr(object, accumulator_name));
  if (!accumulator) throw python_error();
  return true;
}

bool read_number(PyObject* object, double& number) {
  if (PyFloat_CheckExact(object)) {
    number = PyFloat_AS_DOUBLE(object);
    return true;
  }
  if (!PyLong_CheckExact(object)) return false;  // a bool is no number here
  number = PyLong_AsDouble(object);
  if (number != -1 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

// The one tensor parameter, or numbers. `weight` is left undefined where there is none.
bool read_parameters(const Row& row, PyObject* values, PyObject* channel_axis, Parameters& parameters,
                     at::Tensor& weight) {
  if (!PyTuple_CheckExact(values) || PyTuple_GET_SIZE(values) != row.parameters) return false;
  if (row.trainable) {
    if (at::autocast::is_autocast_enabled(at::kCPU)) return false;
    parameters.channel_axis = PyLong_AsLongLong(channel_axis);
    if (parameters.channel_axis == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      return false;
    }
    PyObject* value = PyTuple_GET_ITEM(values, 0);
    if (THPVariable_CheckExact(value)) {
      weight = THPVariable_Unpack(value);
      return is_plain(weight);
    }
  }
  parameters.numbers = row.parameters;
  for (int k = 0; k < row.parameters; ++k)
    if (!read_number(PyTuple_GET_ITEM(values, k), parameters.number[k])) return false;
  return true;
}

// A node may be put over x: not where torch would have to regenerate the derivative of a view, or refuse.
bool may_rebase(const at::Tensor& x) { return !x.is_leaf() && !x.is_view(); }

void follow(const Row& row, const Parameters& parameters, PyObject* accumulator, const at::Tensor& x,
            const at::Tensor& weight, const at::Tensor& original, const at::Tensor& y, bool in_place) {
  using torch::autograd::collect_next_edges;
  auto node = c10::make_intrusive<Derivative>(row, parameters, accumulator);
  if (weight.defined()) {
    node->set_next_edges(collect_next_edges(x, weight));
    node->save_weight(weight);
  } else {
    node->set_next_edges(collect_next_edges(x));
  }
  if (!row.saves_y) node->save(original, /*is_output=*/false);
  if (in_place) {
    node->add_input_metadata(y);
    torch::autograd::impl::rebase_history(y, {node, 0});
  } else {
    torch::autograd::set_history(y, node);
  }
  if (row.saves_y) node->save(y, /*is_output=*/true);
}

// The result, or null where the call is not the common one (or, with a Python error set, went wrong half-way).
PyObject* common(PyObject* const* arguments) {
  PyObject *const x_object = arguments[1], *const out = arguments[3];
  if (!THPVariable_CheckExact(x_object) || !(out == Py_None || out == x_object) || !is_plain_thread()) return nullptr;
  const at::Tensor& x = THPVariable_Unpack(x_object);
  const Row* row = find_row(arguments[0]);
  // Several trained parameters are left to Python.
  if (!row || row->trainable > 1 || !is_plain(x)) return nullptr;
  Parameters parameters;
  at::Tensor weight;
  if (!read_parameters(*row, arguments[2], arguments[6], parameters, weight)) return nullptr;
  py::object accumulator, gradient_accumulator;
  if (!read_statistics(arguments[4], links.geometry, accumulator) ||
      !read_statistics(arguments[5], links.gradient, gradient_accumulator))
    return nullptr;

  // Checkpointing repeats a call that was measured: Python leaves it out.
  if (accumulator && torch::autograd::get_current_graph_task_id() != -1) return nullptr;
  const bool in_place = out != Py_None;
  const bool followed =
      c10::GradMode::is_enabled() && (x.requires_grad() || (weight.defined() && weight.requires_grad()));
  if (in_place && !x.is_non_overlapping_and_dense()) return nullptr;
  if (followed && (c10::InferenceMode::is_enabled() || x.is_inference() ||
                   (weight.defined() && weight.is_inference()) || (in_place && !may_rebase(x))))
    return nullptr;

  std::optional<at::RecordFunction> record;  // for a profiler
  if (auto callbacks = at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION); callbacks.has_value()) {
    record.emplace(std::move(*callbacks));
    record->before(row->name.c_str());
  }
  Request call = request(Direction::forward, *row, parameters);
  if (accumulator) call.accumulator = links.api->accumulator(accumulator.ptr());
  if (weight.defined()) {
    call.weighted = true;
    describe(call.weight, weight, weight.const_data_ptr());
  }
  at::Tensor y, original;
  if (in_place) {
    if (followed && !row->saves_y) original = x.clone();  // followed too: a second derivative reads it
    y = x;
    call.in_place = true;
    describe(call.in[0], x, x.mutable_data_ptr());
    call.out = call.in[0];
  } else {
    y = new_like(x);
    original = x;
    describe(call.in[0], x, x.const_data_ptr());
    describe(call.out, y, y.mutable_data_ptr());
  }
  if (links.api->run(call) != Outcome::done) return nullptr;

  if (in_place && !x.is_inference()) torch::autograd::impl::bump_version(x);
  if (followed) follow(*row, parameters, gradient_accumulator.ptr(), x, weight, original, y, in_place);
  if (in_place) return Py_NewRef(x_object);
  return THPVariable_Wrap(std::move(y));
}

PyObject* forward(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (count == 7) {
    if (PyObject* y = common(arguments)) return y;
    if (PyErr_Occurred()) return nullptr;
  }
  return PyObject_Vectorcall(links.forward, arguments, size_t(count), nullptr);
  END_HANDLE_TH_ERRORS
}

// connect(api, rows, forward, Direct, derivative, GeometryStats, GradientStats); rows are
// (row, index, whether y is saved, trainable, parameters, name).
PyObject* connect(PyObject*, PyObject* arguments) {
  PyObject *api, *list, *geometry, *gradient;
  Links given{};
  if (!PyArg_ParseTuple(arguments, "OO!OOOO!O!", &api, &PyTuple_Type, &list, &given.forward, &given.direct,
                        &given.derivative, &PyType_Type, &geometry, &PyType_Type, &gradient))
    return nullptr;
  given.api = static_cast<const bindings::Api*>(PyCapsule_GetPointer(api, bindings::api_capsule));
  if (!given.api) return nullptr;
  given.geometry = reinterpret_cast<PyTypeObject*>(geometry);
  given.gradient = reinterpret_cast<PyTypeObject*>(gradient);
  std::deque<Row> found;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(list); ++i) {
    Row row;
    const char* name;
    int saves_y, trainable;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(list, i), "Oipiis", &row.object, &row.index, &saves_y, &trainable,
                          &row.parameters, &name))
      return nullptr;
    row.saves_y = saves_y;
    row.trainable = trainable;
    row.name = std::string("geoact::") + name;
    row.derivative = row.name + "_backward";
    found.push_back(std::move(row));
  }
  if (!rows.empty()) Py_RETURN_NONE;  // nodes refer to the rows, for the life of the process
  for (PyObject* kept : {given.forward, given.direct, given.derivative, geometry, gradient, list}) Py_INCREF(kept);
  rows.swap(found);
  links = given;
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"forward", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&forward)), METH_FASTCALL,
     "forward(row, x, values, out, stats, gradient_stats, channel_axis, /)\n--\n\n"
     "As geoact.frontends.torch.forward."},
    {"connect", &connect, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_torch",
                          "The common call on torch tensors, without Python.",
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace
}  // namespace geoact::torch_fast

PyMODINIT_FUNC PyInit__torch() {
  using namespace geoact::torch_fast;
  accumulator_name = PyUnicode_InternFromString("_accumulator");
  if (!accumulator_name) return nullptr;
  return PyModule_Create(&definition);
}
