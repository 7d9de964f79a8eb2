// The derivative of one call, as torch's own derivatives are: a node of the autograd graph that runs without Python.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "kernel.h"

namespace geoact::torch_fast {

class Derivative final : public torch::autograd::Node {
 public:
  Derivative(const Row& row, const Parameters& parameters, PyObject* accumulator);
  ~Derivative() override;

  void save(const at::Tensor& tensor, bool is_output);
  void save_weight(const at::Tensor& weight);

  std::string name() const override { return row_.derivative; }
  void release_variables() override;

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override;

 private:
  torch::autograd::variable_list by_python(const at::Tensor& dy, const at::Tensor& saved, const at::Tensor& weight);

  const Row& row_;
  const Parameters parameters_;
  PyObject* accumulator_;  // of gradient statistics, or null; alive as long as this node
  bool weighted_ = false;
  torch::autograd::SavedVariable saved_, weight_;
};

}  // namespace geoact::torch_fast
