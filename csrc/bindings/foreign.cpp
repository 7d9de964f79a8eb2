#include "foreign.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>

namespace geoact::bindings {
namespace {

// The binary interface of DLPack 1.x (dmlc/dlpack, dlpack.h), as far as it is used here.
namespace dlpack {
struct Device {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct View {
  void* data;
  Device device;
  int32_t rank;
  DataType dtype;
  int64_t *shape, *stride;  // strides in elements
  uint64_t offset;          // bytes
};
struct Exchange {
  struct {
    uint32_t major, minor;
  } version;
  Exchange* older;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*view_of_object)(void* object, View* out);  // borrows; 0, or -1 with a Python error set
  int (*current_stream)(int32_t type, int32_t id, void** stream);
};
constexpr uint32_t version_understood = 1;
constexpr uint8_t code_float = 2, code_bfloat = 4;
constexpr const char* attribute = "__dlpack_c_exchange_api__";
constexpr const char* capsule = "dlpack_exchange_api";
}  // namespace dlpack

struct Package {
  PyTypeObject* type = nullptr;
  const dlpack::Exchange* exchange = nullptr;
  PyObject *empty_like = nullptr, *module = nullptr;
};

// A handful of types (torch.Tensor, torch.nn.Parameter) for the life of the process; the interpreter lock guards it.
constexpr int max_packages = 8;
Package packages[max_packages];
int package_count = 0;

const dlpack::Exchange* exchange_of(PyTypeObject* type) {
  PyObject* found = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), dlpack::attribute);
  if (!found) {
    PyErr_Clear();  // most types have none
    return nullptr;
  }
  const auto held = py::reinterpret_steal<py::object>(found);
  if (!PyCapsule_IsValid(found, dlpack::capsule)) return nullptr;
  auto* table = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(found, dlpack::capsule));
  while (table && table->version.major != dlpack::version_understood) table = table->older;
  return table && table->view_of_object ? table : nullptr;
}

const Package* package_of(PyTypeObject* type) {
  for (int i = 0; i < package_count; ++i)
    if (packages[i].type == type) return &packages[i];
  if (package_count == max_packages) return nullptr;
  const dlpack::Exchange* exchange = exchange_of(type);
  if (!exchange) return nullptr;
  // The package is loaded, since an array of it exists: its allocator is found under the name that NumPy gave it.
  for (const py::handle base : py::reinterpret_borrow<py::tuple>(type->tp_mro)) {
    const std::string module = py::str(py::getattr(base, "__module__", py::str("")));
    const std::string name = module.substr(0, module.find('.'));
    const py::object loaded = py::module_::import("sys").attr("modules").attr("get")(name);
    if (loaded.is_none() || !py::hasattr(loaded, "empty_like")) continue;
    Py_INCREF(type);
    packages[package_count] = {type, exchange, py::object(loaded.attr("empty_like")).release().ptr(),
                               py::object(loaded).release().ptr()};
    return &packages[package_count++];
  }
  return nullptr;
}

bool dtype_of(dlpack::DataType type, DType& dtype) {
  if (type.lanes != 1) return false;
  if (type.code == dlpack::code_bfloat && type.bits == 16) {
    dtype = DType::bfloat16;
  } else if (type.code == dlpack::code_float && (type.bits == 16 || type.bits == 32 || type.bits == 64)) {
    dtype = type.bits == 16 ? DType::float16 : type.bits == 32 ? DType::float32 : DType::float64;
  } else {
    return false;
  }
  return true;
}

constexpr int item_sizes[] = {2, 2, 4, 8};

void fill(Tensor& tensor, py::handle object, const char* name, char* data, const int64_t* shape, const int64_t* stride,
          int rank, DType dtype) {
  if (rank > max_rank)
    throw py::value_error(std::string(name) + " has more than " + std::to_string(max_rank) + " axes");
  tensor.object = object.ptr();
  tensor.dtype = dtype;
  tensor.item_size = item_sizes[int(dtype)];
  tensor.rank = rank;
  tensor.shape = shape;
  tensor.array.data = data;
  tensor.size = 1;
  for (int i = 0; i < rank; ++i) {
    tensor.array.stride[i] = stride[i] * tensor.item_size;
    tensor.size *= shape[i];
  }
}

}  // namespace

void describe(const Described& from, const char* name, Tensor& tensor) {
  fill(tensor, py::handle(), name, static_cast<char*>(from.data), from.shape, from.stride, from.rank, from.dtype);
  tensor.backend = backend_for(tensor, name);
}

bool foreign_view(py::handle object, const char* name, Tensor& tensor) {
  PyTypeObject* type = Py_TYPE(object.ptr());
  if (const Package* package = package_of(type)) {
    dlpack::View view;
    if (package->exchange->view_of_object(object.ptr(), &view) != 0) throw py::error_already_set();
    const Device device{view.device.type == Device::cuda_host ? Device::cpu : view.device.type, view.device.id};
    if (device.type != Device::cpu && !backend_of(device, name))
      throw py::value_error(std::string(name) + " is on the device " +
                            std::string(py::str(py::getattr(object, "device", py::str("unknown")))) +
                            "; geoact computes on the CPU and on CUDA devices (see geoact.info())");
    DType dtype;
    if (!dtype_of(view.dtype, dtype))
      throw py::type_error(std::string(name) + " has dtype " + std::string(py::str(object.attr("dtype"))) +
                           " (accepted: float16, bfloat16, float32, float64)");
    fill(tensor, object, name, static_cast<char*>(view.data) + view.offset, view.shape, view.stride, view.rank, dtype);
    tensor.device = device;
    if (device.type != Device::cpu && package->exchange->current_stream &&
        package->exchange->current_stream(device.type, device.id, &tensor.stream) != 0)
      throw py::error_already_set();
    tensor.backend = backend_for(tensor, name);
    return true;
  }
  if (!py::isinstance<Borrowed>(object)) return false;
  auto& borrowed = object.cast<Borrowed&>();
  fill(tensor, object, name, reinterpret_cast<char*>(borrowed.address), borrowed.shape.data(), borrowed.stride.data(),
       int(borrowed.shape.size()), borrowed.dtype);
  tensor.device = borrowed.device;
  tensor.stream = reinterpret_cast<void*>(borrowed.stream);
  tensor.backend = backend_for(tensor, name);
  if (!tensor.backend && tensor.device.type != Device::cpu)
    throw py::value_error(std::string(name) + " is on a device of the type " + std::to_string(tensor.device.type) +
                          " (DLPack); geoact computes on the CPU and on CUDA devices (see geoact.info())");
  return true;
}

py::object foreign_empty_like(const Tensor& like) {
  if (const Package* package = package_of(Py_TYPE(like.object))) {
    PyObject* made = PyObject_CallOneArg(package->empty_like, like.object);
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
  }
  throw py::type_error("out must be given where x is described by its address");
}

Memory foreign_allocate(const Tensor& like, int64_t bytes) {
  if (const Package* package = package_of(Py_TYPE(like.object))) {
    const py::handle module = package->module;
    py::object owner = module.attr("empty")(bytes, py::arg("dtype") = module.attr("uint8"),
                                            py::arg("device") = py::handle(like.object).attr("device"));
    auto* address = reinterpret_cast<char*>(owner.attr("data_ptr")().cast<uintptr_t>());
    return {std::move(owner), address};
  }
  const py::object allocate = py::handle(like.object).cast<Borrowed&>().allocate;
  const py::tuple made = allocate(bytes);
  return {made[0], reinterpret_cast<char*>(made[1].cast<uintptr_t>())};
}

py::object foreign_stream_owner(const Tensor& like) {
  if (!like.object || like.numpy || package_of(Py_TYPE(like.object))) return py::none();
  return py::handle(like.object).cast<Borrowed&>().allocate;  // which allocates on that stream
}

bool owned_by_graph(const Tensor& like) { return like.object && package_of(Py_TYPE(like.object)) != nullptr; }

py::object foreign_number(const Tensor& like, const Memory& memory) {
  const Package* package = package_of(Py_TYPE(like.object));
  if (!package) return memory.owner;
  return memory.owner.attr("view")(py::handle(package->module).attr("float64"));
}

void register_foreign(py::module_& m) {
  py::class_<Borrowed>(m, "Borrowed", "An array of another package, described by its address.")
      .def(py::init([](py::object owner, int64_t address, std::vector<int64_t> shape, std::vector<int64_t> stride,
                       const std::string& dtype, std::pair<int, int> device, int64_t stream, py::object allocate) {
             if (shape.size() != stride.size()) throw py::value_error("shape and stride must have the same length");
             for (DType known : {DType::float16, DType::bfloat16, DType::float32, DType::float64})
               if (dtype == dtype_name(known))
                 return Borrowed{std::move(owner),
                                 address,
                                 std::move(shape),
                                 std::move(stride),
                                 known,
                                 Device{device.first, device.second},
                                 stream,
                                 std::move(allocate)};
             throw py::type_error("x has dtype " + dtype + " (accepted: float16, bfloat16, float32, float64)");
           }),
           py::arg("owner"), py::arg("address"), py::arg("shape"), py::arg("stride"), py::arg("dtype"),
           py::arg("device") = std::pair<int, int>(Device::cpu, 0), py::arg("stream") = 0,
           py::arg("allocate") = py::none());
}

}  // namespace geoact::bindings
