// Calls on arrays that a backend computes on: where their memory comes from, where statistics stay meanwhile.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "../cuda/backend.h"

namespace geoact::bindings {

namespace py = pybind11;

struct Tensor;
class Parameters;
class Accumulator;

// A device as DLPack names it. The CPU has a backend only where a test gives it one.
struct Device {
  static constexpr int cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13;
  int type = cpu, id = 0;
  bool operator==(const Device& other) const { return type == other.type && id == other.id; }
};

// The backend of a device type, or null. Of a CUDA device it is loaded at the first call; if it cannot run, this raises
// and says why. `name` is the argument whose memory is there.
const cuda::Backend* backend_of(Device device, const char* name);

// Memory on the device of an array, from the allocator of its package; nothing is in it.
struct Memory {
  py::object owner;
  char* address = nullptr;
};
Memory allocate(const Tensor& like, int64_t bytes);

// Records that stay on a device until they are read.
class DeviceRecords {
 public:
  DeviceRecords(const Tensor& like, int cells, int64_t groups, const std::vector<double>& empty, bool rows);

  bool holds(const Tensor& x, int64_t groups) const;
  void* state() const { return memory_.address; }
  py::object owner() const { return memory_.owner; }
  int64_t groups() const { return groups_; }
  bool rows() const { return rows_; }
  // Cells [fields][groups]; adds the calls that were measured.
  std::vector<double> read(int cells, int64_t& calls) const;
  int64_t calls() const;
  void enable(bool on) const;
  void reset(const std::vector<double>& empty) const;
  // What is written from now on belongs behind the call on x.
  void follow(const Tensor& x);

 private:
  void write(const void* image, int64_t bytes) const;

  const cuda::Backend* backend_;
  Device device_;
  void* stream_;
  py::object stream_owner_;
  Memory memory_;
  int64_t groups_;
  bool rows_;
};

// Runs the call on x's device and adds its record to `stats` there. `gradient`, where there is one, gets the gradient
// of the weight: `call.parameters` values of the data's type, or one float64 where the weight is a number.
void run_on_device(Call& call, const Tensor& x, const Parameters& parameters, Accumulator* stats,
                   void* const (&gradient)[max_parameters]);

void register_device(py::module_& m);

}  // namespace geoact::bindings
