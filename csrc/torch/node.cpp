#include "node.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <mutex>
#include <optional>

namespace geoact::torch_fast {

using torch::autograd::variable_list;

Derivative::Derivative(const Row& row, const Parameters& parameters, PyObject* accumulator)
    : row_(row), parameters_(parameters), accumulator_(accumulator) {
  Py_XINCREF(accumulator_);
}

Derivative::~Derivative() {
  if (!accumulator_ || !Py_IsInitialized()) return;
  py::gil_scoped_acquire lock;
  Py_DECREF(accumulator_);
}

void Derivative::save(const at::Tensor& tensor, bool is_output) {
  saved_ = torch::autograd::SavedVariable(tensor, is_output);
}

void Derivative::save_weight(const at::Tensor& weight) {
  weighted_ = true;
  weight_ = torch::autograd::SavedVariable(weight, /*is_output=*/false);
}

void Derivative::release_variables() {
  std::lock_guard lock(mutex_);  // torch's own, for this: backward passes of several threads may meet here
  saved_.reset_data();
  weight_.reset_data();
}

variable_list Derivative::apply(variable_list&& gradients) {
  std::lock_guard lock(mutex_);
  const at::Tensor& dy = gradients[0];
  const size_t outputs = weighted_ ? 2 : 1;
  if (!dy.defined()) return variable_list(outputs);
  const at::Tensor saved = saved_.unpack(row_.saves_y ? getptr() : nullptr);
  const at::Tensor weight = weighted_ ? weight_.unpack() : at::Tensor();
  if (c10::GradMode::is_enabled() || !is_plain_thread() || !is_plain(dy) || !is_plain(saved) ||
      (weighted_ && !is_plain(weight)) || dy.scalar_type() != saved.scalar_type() || dy.sizes() != saved.sizes())
    return by_python(dy, saved, weight);

  at::Tensor dx = new_like(dy);
  Request call = request(Direction::backward, row_, parameters_);
  describe(call.in[0], dy, dy.const_data_ptr());
  describe(call.in[1], saved, saved.const_data_ptr());
  describe(call.out, dx, dx.mutable_data_ptr());
  at::Tensor gradient;
  double of_number;  // the gradient of a trainable parameter that is a number: measured, and nobody's
  if (row_.trainable) call.parameter_gradient = &of_number;
  if (weighted_) {
    call.weighted = true;
    describe(call.weight, weight, weight.const_data_ptr());
    gradient = at::empty({weight.numel()}, at::TensorOptions(at::kDouble));
    call.parameter_gradient = gradient.mutable_data_ptr<double>();
  }
  Outcome outcome;
  {
    std::optional<py::gil_scoped_acquire> lock;
    if (accumulator_) {
      lock.emplace();
      call.accumulator = links.api->accumulator(accumulator_);
    }
    call.locked = lock.has_value();
    outcome = links.api->run(call);
    if (outcome == Outcome::failed && lock) throw python_error();
  }
  if (outcome == Outcome::refused) return by_python(dy, saved, weight);
  TORCH_CHECK(outcome == Outcome::done, "geoact: out of memory");
  if (!weighted_) return {std::move(dx)};
  return {std::move(dx), gradient.to(weight.scalar_type()).reshape(weight.sizes())};
}

// Through geoact.torch.autograd: a derivative that is to be differentiated again, a tensor that is not plain, or an
// error to explain.
variable_list Derivative::by_python(const at::Tensor& dy, const at::Tensor& saved, const at::Tensor& weight) {
  py::gil_scoped_acquire lock;
  const auto taken = [](PyObject* object) {
    if (!object) {
      python_error error;
      error.persist();
      throw error;
    }
    return py::reinterpret_steal<py::object>(object);
  };
  const auto wrapped = [&](const at::Tensor& t) { return t.defined() ? taken(THPVariable_Wrap(t)) : py::none(); };
  py::tuple values(size_t(parameters_.numbers));
  for (int k = 0; k < parameters_.numbers; ++k) values[size_t(k)] = py::float_(parameters_.number[k]);
  const py::object of_weight = wrapped(weight), of_dy = wrapped(dy), of_saved = wrapped(saved);
  if (weighted_) values = py::make_tuple(of_weight);
  const py::object axis = py::int_(parameters_.channel_axis);
  PyObject* none = Py_None;
  const py::object direct = taken(PyObject_CallFunctionObjArgs(
      links.direct, row_.object, values.ptr(), none, accumulator_ ? accumulator_ : none, axis.ptr(), nullptr));
  const py::object pair = taken(PyObject_CallFunctionObjArgs(links.derivative, of_dy.ptr(), of_saved.ptr(),
                                                             of_weight.ptr(), direct.ptr(), nullptr));
  variable_list result{THPVariable_Unpack(PyTuple_GetItem(pair.ptr(), 0))};
  if (weighted_) result.push_back(THPVariable_Unpack(PyTuple_GetItem(pair.ptr(), 1)));
  return result;
}

}  // namespace geoact::torch_fast
