// Every check a user can fail, in one place: arrays in, plain pointers and strides out. Raises TypeError or
// ValueError that names the argument, what came and what is accepted, before anything is written.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "../cpu/dispatch.h"
#include "device.h"

namespace geoact::bindings {

namespace py = pybind11;

void import_numpy();

// A borrowed view of one array argument.
struct Tensor {
  PyObject* object = nullptr;
  DType dtype = DType::float32;
  int item_size = 4;
  int rank = 0;
  const int64_t* shape = nullptr;
  Array array;
  int64_t size = 0;
  bool numpy = false;  // else of another package (foreign.h)
  bool writable = true;
  Device device;
  void* stream = nullptr;                  // of the device, current when the array was described
  const cuda::Backend* backend = nullptr;  // null: computed on by the CPU kernels
};

// `name` is the argument as the user knows it.
Tensor view(py::handle object, const char* name);
std::string device_text(const Tensor& tensor);
// What computes on the tensor; null for the CPU kernels.
const cuda::Backend* backend_for(const Tensor& tensor, const char* name);
void require_same(const Tensor& a, const char* a_name, const Tensor& b, const char* b_name);

// The output: a new array laid out like `like`, or the caller's, checked. `in_place` tells whether it is one of the
// inputs; memory shared in any other way is refused.
struct Output {
  py::object object;
  Tensor tensor;
  bool in_place = false;
};
Output output(py::handle out, const char* name, const Tensor& like, std::initializer_list<const Tensor*> inputs,
              std::initializer_list<const char*> input_names);

// Parameters in the compute type, padded so that a kernel may load a whole vector at the last one.
class Parameters {
 public:
  Parameters() = default;
  Parameters(const Parameters&) = delete;  // `data` points into it
  Parameters& operator=(const Parameters&) = delete;

  void put(int k, DType dtype_of_x, const double* from, int64_t n);
  void put_array(int k, const std::string& name, const Tensor& value, const Tensor& x, int64_t channels);

  const void* data[max_parameters] = {};
  int64_t size[max_parameters] = {};  // 1, or one per channel
  // The same as they came, for a device: numbers, or arrays that lie there.
  double number[max_parameters] = {};
  bool weighted[max_parameters] = {};
  Tensor weight[max_parameters];

 private:
  static constexpr int padding = 16;
  double single_[max_parameters][1 + padding];   // a number needs no allocation
  std::vector<double> storage_[max_parameters];  // float32 or float64 values, as bytes
};
void read_parameters(Parameters& result, py::tuple values, py::tuple names, const Tensor& x, int64_t channels);

// Refuses two outputs that share memory.
void require_apart(const Tensor& a, const char* a_name, const Tensor& b, const char* b_name);

py::object new_float64(const std::vector<int64_t>& shape);
double* float64_data(const py::object& array);

std::string shape_text(const int64_t* shape, int rank);
const char* dtype_name(DType dtype);

}  // namespace geoact::bindings
