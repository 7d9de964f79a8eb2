// Arrays of other packages, read through the DLPack C exchange table that their type carries: no package is linked or
// imported, and one build serves every version of it. Packages without the table pass a Borrowed description instead.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "api.h"
#include "tensor.h"

namespace geoact::bindings {

// An array described by its address, for packages whose tensors have no exchange table (torch before 2.10).
struct Borrowed {
  py::object owner;  // keeps the memory alive
  int64_t address;
  std::vector<int64_t> shape, stride;  // strides in elements
  DType dtype;
  Device device;
  int64_t stream = 0;
  py::object allocate;  // callable(bytes) -> (owner, address) on that device, or None
};

// Fills `tensor` and returns true where `object` is such an array on the CPU; false where it is something else.
// Raises where it is one that cannot be computed on, e.g. on another device.
bool foreign_view(py::handle object, const char* name, Tensor& tensor);
// A tensor of memory that is described by its address.
void describe(const Described& from, const char* name, Tensor& tensor);
// A new array of the package of `like`, laid out like it.
py::object foreign_empty_like(const Tensor& like);

Memory foreign_allocate(const Tensor& like, int64_t bytes);
// What keeps the stream of a call alive, or None: torch's streams live as long as the process.
py::object foreign_stream_owner(const Tensor& like);
// Whether memory allocated while a graph is captured belongs to that graph.
bool owned_by_graph(const Tensor& like);
// The array of one float64 at this address, as an array of the package of `like`.
py::object foreign_number(const Tensor& like, const Memory& memory);

void register_foreign(py::module_& m);

}  // namespace geoact::bindings
