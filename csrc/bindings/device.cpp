#include "device.h"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL geoact_numpy
#define NO_IMPORT_ARRAY
#include <numpy/arrayobject.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "accumulator.h"
#include "foreign.h"
#include "tensor.h"

namespace geoact::bindings {
namespace {

constexpr int most_types = 16;
const cuda::Backend* backends[most_types] = {};  // by type of device; the interpreter lock guards it

constexpr int64_t header_bytes = cuda::header_words * int64_t(sizeof(int64_t));

// Workspaces live as long as the process: calls on one stream follow each other and may share one.
struct Workspace {
  Memory tickets, rest;
  int64_t tickets_bytes = 0, rest_bytes = 0;
};
using Key = std::tuple<int, int, void*>;
std::map<Key, Workspace>& workspaces() {
  static auto* const all = new std::map<Key, Workspace>;  // not destroyed after the interpreter
  return *all;
}

void grow(Memory& memory, int64_t& bytes, int64_t wanted, const Tensor& like) {
  if (wanted <= bytes) return;
  memory = allocate(like, wanted);
  bytes = wanted;
}

void run_in_workspace(const cuda::Backend& backend, cuda::Launch& launch, const Tensor& x) {
  if (launch.tickets_bytes == 0) {
    backend.run(launch, nullptr, nullptr);
    return;
  }
  // A graph is replayed beside other work: it gets a workspace of its own, from the memory of the graph.
  Workspace captured;
  const bool capturing = backend.capturing(x.device.id, x.stream);
  Workspace& w = capturing ? captured : workspaces()[Key(x.device.type, x.device.id, x.stream)];
  const int64_t before = w.tickets_bytes;
  grow(w.tickets, w.tickets_bytes, capturing ? launch.tickets_bytes : std::max<int64_t>(launch.tickets_bytes, 4096), x);
  grow(w.rest, w.rest_bytes, launch.workspace_bytes, x);
  if (w.tickets_bytes != before) backend.fill(w.tickets.address, 0, w.tickets_bytes, x.device.id, x.stream);
  backend.run(launch, w.tickets.address, w.rest.address);
  if (capturing && !owned_by_graph(x)) {
    static auto* const kept = new std::vector<Workspace>;
    kept->push_back(captured);
  }
}

// Memory that only a Python package can reach: records are kept there, but the core has no kernels for it.
class PythonMemory final : public cuda::Backend {
 public:
  explicit PythonMemory(py::object memory) : memory_(std::move(memory)) {}
  std::string why_unavailable() const override { return "this installation has no CUDA kernels"; }
  cuda::Launch prepare(const cuda::Request&, bool) const override { throw std::invalid_argument(why_unavailable()); }
  void run(cuda::Launch&, void*, void*) const override { throw std::invalid_argument(why_unavailable()); }
  void mask(const Call&, uint8_t*, int, void*) const override { throw std::invalid_argument(why_unavailable()); }
  bool observes() const override { return false; }
  int64_t observe_bytes(const Call&, int) const override { throw std::invalid_argument(why_unavailable()); }
  void aside(const Call&, void*, int, void*) const override { throw std::invalid_argument(why_unavailable()); }
  void observe(const Call&, void*, void*, void*, int, void*) const override {
    throw std::invalid_argument(why_unavailable());
  }
  bool capturing(int id, void*) const override { return memory_.attr("capturing")(id).cast<bool>(); }
  void fill(void* to, int byte, int64_t bytes, int id, void*) const override {
    memory_.attr("fill")(reinterpret_cast<uintptr_t>(to), byte, bytes, id);
  }
  void upload(void* to, const void* from, int64_t bytes, int id, void*) const override {
    memory_.attr("upload")(reinterpret_cast<uintptr_t>(to), py::bytes(static_cast<const char*>(from), size_t(bytes)),
                           id);
  }
  void download(void* to, const void* from, int64_t bytes, int id) const override {
    const py::bytes data = memory_.attr("download")(reinterpret_cast<uintptr_t>(from), bytes, id);
    const std::string_view seen = data;
    std::copy_n(seen.data(), std::min(seen.size(), size_t(bytes)), static_cast<char*>(to));
  }

 private:
  py::object memory_;
};

void register_types(const cuda::Backend* backend, const std::vector<int>& types) {
  for (int type : types)
    if (type < 0 || type >= most_types) throw py::value_error("types must be DLPack device types");
  for (int type : types) backends[type] = backend;
}

}  // namespace

const cuda::Backend* backend_of(Device device, const char* name) {
  if (device.type < 0 || device.type >= most_types) return nullptr;
  const bool gpu = device.type == Device::cuda || device.type == Device::cuda_managed;
  if (!gpu || backends[device.type]) return backends[device.type];
  const std::string why = py::module_::import("geoact.backends").attr("load_cuda")().cast<std::string>();
  if (!why.empty())
    throw py::value_error(std::string(name) + " is on the device cuda:" + std::to_string(device.id) +
                          ", where geoact cannot compute: " + why + " (see geoact.info())");
  return backends[device.type];
}

Memory allocate(const Tensor& like, int64_t bytes) {
  if (like.object && !like.numpy) return foreign_allocate(like, bytes);
  npy_intp size = bytes;
  auto array = py::reinterpret_steal<py::object>(PyArray_SimpleNew(1, &size, NPY_UINT8));
  if (!array) throw py::error_already_set();
  auto* data = static_cast<char*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.ptr())));
  return {std::move(array), data};
}

// --- records -----------------------------------------------------------------------------------------------

DeviceRecords::DeviceRecords(const Tensor& like, int cells, int64_t groups, const std::vector<double>& empty, bool rows)
    : backend_(like.backend), device_(like.device), groups_(groups), rows_(rows) {
  follow(like);
  if (backend_->capturing(device_.id, stream_))
    throw py::value_error(
        rows ? "stats was made with per='row', which appends at every call, and a captured graph can only repeat "
               "itself; use per='tensor' or per='channel' there"
             : "stats meets its first data on this device while a graph is captured, and would start anew at every "
               "replay; call once before the capture, as for warming up");
  memory_ = allocate(like, header_bytes + cells * groups * int64_t(sizeof(double)));
  if (empty.empty()) {  // rows that are written as a whole by the call
    const int64_t header[cuda::header_words] = {1};
    write(header, header_bytes);
  } else {
    reset(empty);
  }
}

void DeviceRecords::follow(const Tensor& x) {
  stream_ = x.stream;
  stream_owner_ = foreign_stream_owner(x);
}

void DeviceRecords::write(const void* image, int64_t bytes) const {
  // A graph would read the image again at every replay, when it is long gone.
  if (backend_->capturing(device_.id, stream_))
    throw py::value_error("statistics cannot be reset or switched while a graph is captured; do it before or after");
  backend_->upload(memory_.address, image, bytes, device_.id, stream_);
}

bool DeviceRecords::holds(const Tensor& x, int64_t groups) const {
  return !rows_ && backend_ == x.backend && device_ == x.device && groups == groups_;
}

void DeviceRecords::reset(const std::vector<double>& empty) const {
  std::vector<char> image(header_bytes + empty.size() * sizeof(double));
  const int64_t header[cuda::header_words] = {1};
  std::copy_n(reinterpret_cast<const char*>(header), header_bytes, image.data());
  std::copy_n(reinterpret_cast<const char*>(empty.data()), empty.size() * sizeof(double), image.data() + header_bytes);
  write(image.data(), int64_t(image.size()));
}

std::vector<double> DeviceRecords::read(int cells, int64_t& calls) const {
  std::vector<double> image(size_t(cuda::header_words + cells * groups_));
  backend_->download(image.data(), memory_.address, int64_t(image.size() * sizeof(double)), device_.id);
  int64_t header[cuda::header_words];
  std::copy_n(reinterpret_cast<const char*>(image.data()), header_bytes, reinterpret_cast<char*>(header));
  calls += header[1];
  image.erase(image.begin(), image.begin() + cuda::header_words);
  return image;
}

int64_t DeviceRecords::calls() const {
  int64_t header[cuda::header_words];
  backend_->download(header, memory_.address, header_bytes, device_.id);
  return header[1];
}

void DeviceRecords::enable(bool on) const {
  const int64_t word = on;
  write(&word, sizeof word);
}

namespace {

// Another place for the output of a call, in C order.
Memory aside(Call& call, const Tensor& x) {
  const Memory memory = allocate(x, x.size * x.item_size);
  call.out[0].data = memory.address;
  int64_t stride = x.item_size;
  for (int i = call.rank - 1; i >= 0; --i) {
    call.out[0].stride[i] = stride;
    stride *= call.shape[i];
  }
  call.in_place = false;
  return memory;
}

}  // namespace

// --- calls -------------------------------------------------------------------------------------------------

void run_on_device(Call& call, const Tensor& x, const Parameters& parameters, Accumulator* stats,
                   void* const (&gradient)[max_parameters]) {
  const py::gil_scoped_acquire lock;  // memory comes from Python
  const cuda::Backend& backend = *x.backend;
  // Rows are new memory at every call: of one that is not measured there is none.
  if (stats && stats->per() == Per::row && !stats->enabled()) stats = nullptr;
  cuda::Request request;
  request.id = x.device.id;
  request.stream = x.stream;
  for (int k = 0; k < max_parameters; ++k) {
    request.number[k] = parameters.number[k];
    if (parameters.weighted[k]) {
      const Tensor& weight = parameters.weight[k];
      request.weight[k] = weight.array.data;
      request.weight_stride[k] = weight.size > 1 ? weight.array.stride[0] / x.item_size : 0;
    }
    request.gradient[k] = gradient[k];
    request.gradient_in_double[k] = !parameters.weighted[k];
    request.trained += gradient[k] != nullptr;
  }
  std::shared_ptr<DeviceRecords> records;
  Grouping grouping;
  if (stats) {
    grouping = stats->grouping(x, "stats");
    call.level = stats->level();
    call.saturation = stats->saturation();
    call.groups = grouping.groups;
    std::copy_n(grouping.stride, x.rank, call.group_stride);
    records = stats->records_on(x, grouping);
    request.state = records->state();
    request.cells = stats->cells_per_group();
    request.state_groups = grouping.groups;
    request.append = records->rows();
  }
  // The tiers read x once more after y is written: of a call in place, from a copy.
  std::shared_ptr<DeviceRecords> tiers;
  Memory original, partials;
  if (stats && stats->tiers().any()) {
    tiers = stats->tiers_on(x);
    call.tiers = stats->tiers_of(x);
    partials = allocate(x, backend.observe_bytes(call, x.device.id));
    if (call.in_place) original = allocate(x, x.size * x.item_size);
    if (backend.capturing(x.device.id, x.stream) && !owned_by_graph(x)) {
      static auto* const kept = new std::vector<Memory>;
      kept->insert(kept->end(), {original, partials});
    }
  }
  request.call = call;
  try {
    cuda::Launch launch = backend.prepare(request, false);
    if (original.address) backend.aside(call, original.address, x.device.id, x.stream);
    if (launch.again) {
      // First, while what it reads is whole. Both write dx: where that overwrites an input, this one has a place aside.
      Memory dx;
      if (call.in_place) dx = aside(request.call, x);
      cuda::Launch again = backend.prepare(request, true);
      run_in_workspace(backend, again, x);
    }
    run_in_workspace(backend, launch, x);
    if (tiers) backend.observe(call, original.address, tiers->state(), partials.address, x.device.id, x.stream);
  } catch (const std::invalid_argument& error) {
    throw py::value_error(error.what());
  }
  if (stats) stats->measured_on(x, grouping, records, tiers);
}

void register_device(py::module_& m) {
  m.def(
      "register_backend",
      [](py::object backend, const std::vector<int>& types) {
        register_types(backend.is_none() ? nullptr : py::capsule(backend).get_pointer<const cuda::Backend>(), types);
      },
      py::arg("backend").none(true), py::arg("types"),
      "Let a backend compute on these DLPack device types; None: none.");
  m.def(
      "register_memory",
      [](py::object memory, const std::vector<int>& types) {
        register_types(new PythonMemory(std::move(memory)), types);
      },
      py::arg("memory"), py::arg("types"), "Keep records on these DLPack device types through a Python object.");
  py::class_<DeviceRecords, std::shared_ptr<DeviceRecords>>(m, "DeviceRecords", "Records that lie on a device.")
      .def_property_readonly("owner", &DeviceRecords::owner, "The array of bytes that holds header and records.");
}

}  // namespace geoact::bindings
