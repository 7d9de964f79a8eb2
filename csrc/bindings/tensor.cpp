#include "tensor.h"

#include "foreign.h"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL geoact_numpy
#include <numpy/arrayobject.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace geoact::bindings {
namespace {

constexpr const char* accepted =
    "accepted: arrays of NumPy or CuPy and tensors of torch, of float16, bfloat16 (ml_dtypes for NumPy), float32 or "
    "float64";

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

int bfloat16_number = -1;  // NumPy gives user dtypes their number when ml_dtypes registers them

bool dtype_of(PyArray_Descr* descr, DType& dtype) {
  switch (descr->type_num) {
    case NPY_HALF:
      dtype = DType::float16;
      return true;
    case NPY_FLOAT:
      dtype = DType::float32;
      return true;
    case NPY_DOUBLE:
      dtype = DType::float64;
      return true;
    default:
      break;
  }
  if (descr->type_num < NPY_USERDEF) return false;
  if (descr->type_num != bfloat16_number) {
    if (std::strcmp(descr->typeobj->tp_name, "ml_dtypes.bfloat16") != 0 &&
        std::strcmp(descr->typeobj->tp_name, "bfloat16") != 0)
      return false;
    bfloat16_number = descr->type_num;
  }
  dtype = DType::bfloat16;
  return true;
}

// A stride smaller than what lies inside it means that two indices share an element.
bool overlaps_itself(const Tensor& t) {
  if (t.size < 2) return false;
  std::pair<int64_t, int64_t> axis[max_rank];  // |stride|, size
  int rank = 0;
  for (int i = 0; i < t.rank; ++i)
    if (t.shape[i] > 1) axis[rank++] = {std::abs(t.array.stride[i]), t.shape[i]};
  std::sort(axis, axis + rank);
  int64_t extent = t.item_size;
  for (int i = 0; i < rank; ++i) {
    if (axis[i].first < extent) return true;
    extent = axis[i].first * (axis[i].second - 1) + extent;
  }
  return false;
}

bool same_memory(const Tensor& a, const Tensor& b) {
  return a.array.data == b.array.data && a.rank == b.rank &&
         std::equal(a.array.stride, a.array.stride + a.rank, b.array.stride);
}

// The memory of a tensor as a NumPy array of raw items: what numpy.shares_memory understands, whoever owns it.
py::object raw_items(const Tensor& t) {
  PyArray_Descr* item = PyArray_DescrNewFromType(NPY_VOID);
  if (!item) throw py::error_already_set();
  PyDataType_SET_ELSIZE(item, t.item_size);
  npy_intp shape[max_rank], stride[max_rank];
  std::copy_n(t.shape, t.rank, shape);
  std::copy_n(t.array.stride, t.rank, stride);
  auto array = py::reinterpret_steal<py::object>(
      PyArray_NewFromDescr(&PyArray_Type, item, t.rank, shape, stride, t.array.data, 0, nullptr));
  if (!array) throw py::error_already_set();
  return array;
}

bool shares_memory(const Tensor& a, const Tensor& b) {
  const auto bounds = [](const Tensor& t) {
    const char *low = t.array.data, *high = t.array.data + t.item_size;
    for (int i = 0; i < t.rank; ++i) {
      const int64_t reach = t.array.stride[i] * (t.shape[i] - 1);
      (reach < 0 ? low : high) += reach;
    }
    return std::make_pair(low, high);
  };
  if (a.size == 0 || b.size == 0) return false;
  const auto [a_low, a_high] = bounds(a);
  const auto [b_low, b_high] = bounds(b);
  if (a_high <= b_low || b_high <= a_low) return false;
  return py::module_::import("numpy").attr("shares_memory")(raw_items(a), raw_items(b)).cast<bool>();
}

}  // namespace

void import_numpy() {
  if (_import_array() < 0) throw py::error_already_set();
}

const char* dtype_name(DType dtype) {
  constexpr const char* names[] = {"float16", "bfloat16", "float32", "float64"};
  return names[int(dtype)];
}

std::string shape_text(const int64_t* shape, int rank) {
  std::string text = "(";
  for (int i = 0; i < rank; ++i) text += std::to_string(shape[i]) + (rank == 1 ? "," : i + 1 < rank ? ", " : "");
  return text + ")";
}

Tensor view(py::handle object, const char* name) {
  Tensor tensor;
  if (!PyArray_Check(object.ptr())) {
    if (foreign_view(object, name, tensor)) return tensor;
    throw py::type_error(std::string(name) + " must be an array, got " + type_name(object) + " (" + accepted + ")");
  }
  auto* array = reinterpret_cast<PyArrayObject*>(object.ptr());
  if (!PyArray_CheckExact(object.ptr()) && py::hasattr(object, "mask"))
    throw py::type_error(std::string(name) + " is a masked array, whose mask would be ignored; pass " + name +
                         ".filled(...) or " + name + ".compressed()");
  tensor.object = object.ptr();
  if (!dtype_of(PyArray_DESCR(array), tensor.dtype))
    throw py::type_error(std::string(name) + " has dtype " +
                         py::str(reinterpret_cast<PyObject*>(PyArray_DESCR(array))).cast<std::string>() + " (" +
                         accepted + ")");
  if (!PyArray_ISNOTSWAPPED(array))
    throw py::type_error(std::string(name) + " is not in the byte order of this machine; pass " + name + ".astype(" +
                         name + ".dtype.newbyteorder('='))");
  tensor.item_size = int(PyArray_ITEMSIZE(array));
  tensor.rank = PyArray_NDIM(array);
  if (tensor.rank > max_rank)
    throw py::value_error(std::string(name) + " has more than " + std::to_string(max_rank) + " axes");
  static_assert(sizeof(npy_intp) == sizeof(int64_t));
  tensor.shape = reinterpret_cast<const int64_t*>(PyArray_DIMS(array));
  tensor.array.data = static_cast<char*>(PyArray_DATA(array));
  std::copy_n(PyArray_STRIDES(array), tensor.rank, tensor.array.stride);
  tensor.size = PyArray_SIZE(array);
  tensor.numpy = true;
  tensor.writable = PyArray_ISWRITEABLE(array);
  tensor.backend = backend_for(tensor, name);
  return tensor;
}

const cuda::Backend* backend_for(const Tensor& tensor, const char* name) {
  const cuda::Backend* backend = backend_of(tensor.device, name);
  if (!backend) return nullptr;
  bool aligned = reinterpret_cast<uintptr_t>(tensor.array.data) % uintptr_t(tensor.item_size) == 0;
  for (int i = 0; i < tensor.rank; ++i) aligned &= tensor.array.stride[i] % tensor.item_size == 0;
  if (aligned) return backend;
  if (tensor.device.type == Device::cpu) return nullptr;
  throw py::value_error(std::string(name) + " lies at odd addresses, where the device cannot read it; pass a copy");
}

void require_same(const Tensor& a, const char* a_name, const Tensor& b, const char* b_name) {
  if (a.rank != b.rank || !std::equal(a.shape, a.shape + a.rank, b.shape))
    throw py::value_error(std::string(a_name) + " has shape " + shape_text(a.shape, a.rank) + ", but " + b_name +
                          " has shape " + shape_text(b.shape, b.rank) + "; they must be equal");
  if (a.dtype != b.dtype)
    throw py::type_error(std::string(a_name) + " is " + dtype_name(a.dtype) + ", but " + b_name + " is " +
                         dtype_name(b.dtype) + "; they must be equal");
  if (!(a.device == b.device))
    throw py::value_error(std::string(a_name) + " is on the device " + device_text(a) + ", but " + b_name + " is on " +
                          device_text(b) + "; they must be equal");
}

std::string device_text(const Tensor& tensor) {
  if (tensor.device.type == Device::cpu || tensor.device.type == Device::cuda_host) return "cpu";
  return "cuda:" + std::to_string(tensor.device.id);
}

Output output(py::handle out, const char* name, const Tensor& like, std::initializer_list<const Tensor*> inputs,
              std::initializer_list<const char*> input_names) {
  Output result;
  if (out.is_none()) {
    if (like.numpy) {
      auto* model = reinterpret_cast<PyArrayObject*>(like.object);
      result.object = py::reinterpret_steal<py::object>(PyArray_NewLikeArray(model, NPY_KEEPORDER, nullptr, 0));
      if (!result.object) throw py::error_already_set();
    } else {
      result.object = foreign_empty_like(like);
    }
    result.tensor = view(result.object, name);
    return result;
  }
  result.object = py::reinterpret_borrow<py::object>(out);
  result.tensor = view(out, name);
  require_same(result.tensor, name, like, *input_names.begin());
  if (result.tensor.numpy != like.numpy)
    throw py::type_error(std::string(name) + " is a " + type_name(out) + ", but " + *input_names.begin() + " is a " +
                         type_name(like.object) + "; they must be of one package");
  if (!result.tensor.writable) throw py::value_error(std::string(name) + " is read-only");
  if (overlaps_itself(result.tensor))
    throw py::value_error(std::string(name) + " overlaps itself: some of its elements share memory");
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (same_memory(result.tensor, *inputs.begin()[i]))
      result.in_place = true;
    else if (shares_memory(result.tensor, *inputs.begin()[i]))
      throw py::value_error(std::string(name) + " overlaps " + input_names.begin()[i] +
                            " in memory without being the same view; pass the same array or a separate one");
  }
  return result;
}

void require_apart(const Tensor& a, const char* a_name, const Tensor& b, const char* b_name) {
  if (shares_memory(a, b))
    throw py::value_error(std::string(a_name) + " and " + b_name + " share memory; both are written");
}

namespace {

double widen(DType dtype, const char* item) {
  const auto load = [item](auto value) {
    std::memcpy(&value, item, sizeof value);
    return value;
  };
  if (dtype == DType::float64) return load(double());
  if (dtype == DType::float32) return double(load(float()));
  const uint16_t bits = load(uint16_t());
  if (dtype == DType::bfloat16) return double(std::bit_cast<float>(uint32_t(bits) << 16));
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                      : exponent     ? std::ldexp(1024 + fraction, exponent - 25)
                                     : std::ldexp(fraction, -24);
  return bits >> 15 ? -size : size;
}

}  // namespace

void Parameters::put(int k, DType dtype_of_x, const double* from, int64_t n) {
  double* into = single_[k];
  number[k] = n == 1 ? *from : 0;
  if (n > 1) {
    storage_[k].resize(size_t(n + padding));
    into = storage_[k].data();
  }
  for (int64_t i = 0; i < n + padding; ++i) {
    // A NaN of odd payload could lose itself when it is rounded to bfloat16: use the default one.
    double v = n == 0 ? 0 : from[i < n ? i : n - 1];
    if (v != v) v = std::numeric_limits<double>::quiet_NaN();
    if (dtype_of_x == DType::float64)
      into[i] = v;
    else
      reinterpret_cast<float*>(into)[i] = float(v);
  }
  size[k] = n;
  data[k] = into;
}

void Parameters::put_array(int k, const std::string& name, const Tensor& value, const Tensor& x, int64_t channels) {
  if (value.dtype != x.dtype)
    throw py::type_error(name + " is " + dtype_name(value.dtype) + ", but x is " + dtype_name(x.dtype) +
                         "; they must be equal");
  if (value.rank > 1 || (value.size != 1 && value.size != channels))
    throw py::value_error(name + " has shape " + shape_text(value.shape, value.rank) +
                          "; accepted: one value, or one per channel, here (" + std::to_string(channels) + ",)");
  if (!(value.device == x.device))
    throw py::value_error(name + " is on the device " + device_text(value) + ", but x is on " + device_text(x) +
                          "; they must be equal");
  if (x.backend) {
    weighted[k] = true;
    weight[k] = value;
    size[k] = value.size;
    return;
  }
  std::vector<double> doubles(size_t(std::max<int64_t>(value.size, 1)));
  for (int64_t i = 0; i < value.size; ++i)
    doubles[size_t(i)] = widen(value.dtype, value.array.data + i * (value.rank ? value.array.stride[0] : 0));
  put(k, x.dtype, doubles.data(), value.size);
}

void read_parameters(Parameters& result, py::tuple values, py::tuple names, const Tensor& x, int64_t channels) {
  for (int k = 0; k < int(values.size()); ++k) {
    const std::string name = names[size_t(k)].cast<std::string>();
    const py::object value = values[size_t(k)];
    if (PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr())) {
      if (PyBool_Check(value.ptr())) throw py::type_error(name + " must be a number, got bool");
      const double number = PyFloat_AsDouble(value.ptr());
      if (PyErr_Occurred()) {
        PyErr_Clear();
        throw py::value_error(name + " is a whole number that no float can hold");
      }
      result.put(k, x.dtype, &number, 1);
      continue;
    }
    if (!PyArray_Check(value.ptr()) && PyArray_IsScalar(value.ptr(), Floating)) {
      const double number = PyFloat_AsDouble(value.ptr());
      result.put(k, x.dtype, &number, 1);
      continue;
    }
    Tensor tensor;
    if (PyArray_Check(value.ptr()))
      tensor = view(value, name.c_str());
    else if (!foreign_view(value, name.c_str(), tensor))
      throw py::type_error(name + " must be a number or an array of the dtype of x, got " + type_name(value));
    result.put_array(k, name, tensor, x, channels);
  }
}

py::object new_float64(const std::vector<int64_t>& shape) {
  npy_intp dims[2] = {};
  std::copy(shape.begin(), shape.end(), dims);
  auto array = py::reinterpret_steal<py::object>(PyArray_SimpleNew(int(shape.size()), dims, NPY_DOUBLE));
  if (!array) throw py::error_already_set();
  return array;
}

double* float64_data(const py::object& array) {
  return static_cast<double*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.ptr())));
}

}  // namespace geoact::bindings
