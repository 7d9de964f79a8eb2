#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#if defined(__linux__)
#include <unistd.h>
#endif

#define GEOACT_ISA scalar
#include "../ops/gates.h"
#include "../ops/statistics.h"
#include "pool.h"

namespace geoact {

#define GEOACT_DECLARE(isa) extern const Kernels isa##_float16, isa##_bfloat16, isa##_float32, isa##_float64
#define GEOACT_KERNELS(isa) {&isa##_float16, &isa##_bfloat16, &isa##_float32, &isa##_float64}
#if defined(__x86_64__)
GEOACT_DECLARE(avx512);
GEOACT_DECLARE(avx2);
GEOACT_DECLARE(baseline);
#elif defined(__aarch64__)
GEOACT_DECLARE(neon);
#else
GEOACT_DECLARE(baseline);
#endif

namespace {

bool always() { return true; }
#if defined(__x86_64__)
// Everything -march=x86-64-v4 (or -mavx2 -mfma -mf16c) lets the compiler use; the builtin also asks the operating
// system whether it saves the registers.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#endif

std::atomic<const Isa*> active{nullptr};

template <template <class> class... A>
std::vector<ActivationRow> rows_of(scalar::list<A...>) {
  return {ActivationRow{A<double>::name, A<double>::parameters, A<double>::saves == scalar::Saves::y,
                        A<double>::trainable}...};
}

template <class Statistics>
std::vector<FieldRow> fields_of() {
  std::vector<FieldRow> rows;
  for (const scalar::Field& field : Statistics::fields) rows.push_back({field.name, int(field.merge)});
  return rows;
}

}  // namespace

const std::vector<Isa>& isas() {
  static const std::vector<Isa> list = {
#if defined(__x86_64__)
      {"avx512", has_avx512, GEOACT_KERNELS(avx512)},
      {"avx2", has_avx2, GEOACT_KERNELS(avx2)},
      {"baseline", always, GEOACT_KERNELS(baseline)},
#elif defined(__aarch64__)
      {"neon", always, GEOACT_KERNELS(neon)},
#else
      {"baseline", always, GEOACT_KERNELS(baseline)},
#endif
  };
  return list;
}

const Isa& active_isa() {
  if (const Isa* chosen = active.load(std::memory_order_relaxed)) return *chosen;
  const auto& list = isas();
  const Isa& best = *std::find_if(list.begin(), list.end(), [](const Isa& isa) { return isa.supported(); });
  active.store(&best);
  return best;
}

bool set_active_isa(const char* name) {
  for (const Isa& isa : isas())
    if (std::strcmp(isa.name, name) == 0 && isa.supported()) {
      active.store(&isa);
      return true;
    }
  return false;
}

const std::vector<ActivationRow>& activation_rows() {
  static const auto rows = rows_of(scalar::activations{});
  return rows;
}

const std::vector<ActivationRow>& gate_rows() {
  static const auto rows = rows_of(scalar::gates{});
  return rows;
}

const std::vector<FieldRow>& fields(Direction direction) {
  static const auto geometry = fields_of<scalar::Geometry>(), gradient = fields_of<scalar::Gradient>();
  return direction == Direction::forward ? geometry : gradient;
}

int cells_per_group(Direction direction, int level) {
  if (direction == Direction::backward) return scalar::Gradient::size;
  return level == int(scalar::Level::counts) ? scalar::Geometry::counts_size : scalar::Geometry::size;
}

void init_cells(Direction direction, int level, double* cells, int64_t groups) {
  double record[std::max<int>(scalar::Geometry::size, scalar::Gradient::size)];
  if (direction == Direction::forward)
    scalar::Geometry::init(record);
  else
    scalar::Gradient::init(record);
  for (int k = 0; k < cells_per_group(direction, level); ++k) std::fill_n(cells + k * groups, groups, record[k]);
}

int64_t last_level_cache_bytes() {
  static const int64_t bytes = [] {
#if defined(__linux__)
    // sysfs first: in a virtual machine sysconf may report the cache of the whole host.
    for (int index : {3, 2}) {
      std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
      int64_t size = 0;
      char unit = 0;
      if (file >> size >> unit && size > 0) return size << (unit == 'M' ? 20 : 10);
    }
#endif
#if defined(_SC_LEVEL3_CACHE_SIZE)
    for (int level : {_SC_LEVEL3_CACHE_SIZE, _SC_LEVEL2_CACHE_SIZE})
      if (const long size = sysconf(level); size > 0) return int64_t(size);
#endif
    return int64_t(8) << 20;
  }();
  return bytes;
}

namespace {

// Bytes of all arrays from which the output goes past the cache: beyond the last-level cache. One of more than 64 MiB
// belongs to many cores, and reading the lines that are overwritten costs more than it keeps; measuring leaves less of
// the memory's speed to be gained (docs/tuning.md).
int64_t streamed_from(bool measured) {
  const int64_t cache = last_level_cache_bytes(), mebibyte = 1 << 20;
  return cache > 64 * mebibyte ? (measured ? 48 : 24) * mebibyte : cache;
}

constexpr int64_t elements_per_part = 65536, elements_per_partial_record = 1024, most_parts = 4096, flat_unit = 4096,
                  short_run = 512;

// Images of small maps (N, C, H, W): a channel comes in many short runs, and a run costs a record. Walking all runs of
// a channel together, gathered into whole tiles, costs one record per tile.
void join_short_runs(Task& task) {
  const auto tagged = [](const Axis& axis) { return axis.group != 0 || axis.parameter != 0; };
  int64_t run = 1;
  int inner = task.rank;
  while (inner > 0 && !tagged(task.axis[inner - 1])) run *= task.axis[--inner].size;
  if (inner == task.rank || run >= short_run) return;
  std::stable_partition(task.axis, task.axis + inner, tagged);
}

struct Split {
  int axis = 0;
  int64_t parts = 1, step = 0;
  bool disjoint = true;  // no two parts share a group
};

// A function of the shape alone: the same call gives the same parts, whatever the number of threads.
Split split(const Task& task, int64_t groups, int64_t total) {
  Split s;
  if (task.rank == 0) return s;
  if (groups > 1)
    for (int i = 0; i + 1 < task.rank; ++i)
      if (task.axis[i].group && (task.axis[s.axis].group == 0 || task.axis[i].size > task.axis[s.axis].size))
        s.axis = i;
  const Axis& axis = task.axis[s.axis];
  s.disjoint = groups > 1 && axis.group != 0;
  int64_t parts = (total + elements_per_part - 1) / elements_per_part;
  if (groups > 1 && !s.disjoint)
    parts = std::min(parts, std::max<int64_t>(1, total / (elements_per_partial_record * groups)));
  parts = std::min({parts, axis.size, most_parts});
  const bool is_run = s.axis == task.rank - 1;
  const int64_t unit = is_run ? flat_unit : 1;
  s.step = (axis.size + parts - 1) / parts;
  s.step = (s.step + unit - 1) / unit * unit;
  s.parts = (axis.size + s.step - 1) / s.step;
  return s;
}

struct Job {
  const Task* task;
  const Kernels* kernels;
  Split split;
  double *cells, *parameter_gradient;
  int64_t record;  // doubles per part
};

void run_part(void* context, int64_t i) {
  const Job& job = *static_cast<const Job*>(context);
  Task task = *job.task;
  if (task.rank) {
    Axis& axis = task.axis[job.split.axis];
    const int64_t begin = i * job.split.step;
    axis.size = std::min(job.split.step, axis.size - begin);
    for (int k = 0; k < task.inputs; ++k) task.in[k] += begin * axis.stride[k];
    for (int k = 0; k < task.outputs; ++k) task.out[k] += begin * axis.stride[task.inputs + k];
    if (task.cells) task.cells += job.split.disjoint ? begin * axis.group : 0;
    for (int k = 0; k < max_parameters; ++k)
      if (task.parameter_varies[k])
        task.parameter[k] = static_cast<const char*>(task.parameter[k]) +
                            begin * axis.parameter * (job.kernels->item_size == 8 ? 8 : 4);
    if (job.parameter_gradient)
      task.parameter_gradient = job.parameter_gradient + i * task.trained * task.parameters + begin * axis.parameter;
  }
  if (job.cells) task.cells = job.cells + i * job.record;
  task.scratch = thread_scratch();
  job.kernels->run(task);
}

}  // namespace

Task task_of(const Call& call, double* cells) {
  const int item = item_size_of(call.dtype);
  Task task{};
  task.direction = call.direction;
  task.activation = call.activation;
  task.level = cells ? call.level : 0;
  task.gated = call.gated;
  task.inputs = call.inputs;
  task.outputs = call.outputs;
  for (int k = 0; k < call.inputs; ++k) task.in[k] = call.in[k].data;
  for (int k = 0; k < call.outputs; ++k) task.out[k] = call.out[k].data;
  task.inputs_shadowed = call.in_place;
  task.stream =
      !call.in_place && call.outputs == 1 && elements_of(call) * item * (call.inputs + 1) > streamed_from(cells);
  std::copy_n(call.parameter, max_parameters, task.parameter);
  std::copy_n(call.parameter_varies, max_parameters, task.parameter_varies);
  task.saturation = call.saturation;
  task.cells = cells;
  task.groups = call.groups;
  task.rank = arrange(call, task.axis);
  return task;
}

void execute(const Call& call, double* cells, double* parameter_gradient) {
  const Kernels& kernels = *active_isa().kernels[int(call.dtype)];
  const int64_t total = elements_of(call);
  if (cells) init_cells(call.direction, call.level, cells, call.groups);
  const int trained = parameter_gradient ? activation_rows()[size_t(call.activation)].trainable : 0;
  if (parameter_gradient) std::fill_n(parameter_gradient, trained * call.parameters, 0.0);
  if (total == 0) return;

  Task task = task_of(call, cells);
  task.parameter_gradient = parameter_gradient;
  task.parameters = call.parameters;
  task.trained = trained;
  // The order in which a parameter's gradient is summed must not depend on whether statistics are asked for.
  if (cells && call.groups > 1 && !parameter_gradient) join_short_runs(task);

  Job job{&task,   &kernels, split(task, cells ? call.groups : 1, total),
          nullptr, nullptr,  cells ? cells_per_group(call.direction, call.level) * call.groups : 0};
  const int64_t parts = job.split.parts;
  if (parts == 1) {
    task.scratch = thread_scratch();
    kernels.run(task);
    return;
  }

  std::unique_ptr<double[]> records;  // not a vector: it would clear what init_cells fills
  std::vector<double> gradients;
  if (cells && !job.split.disjoint) {
    records.reset(new double[size_t(parts * job.record)]);
    for (int64_t i = 0; i < parts; ++i)
      init_cells(call.direction, call.level, records.get() + i * job.record, call.groups);
    job.cells = records.get();
  }
  if (parameter_gradient) {
    gradients.resize(size_t(parts * trained * call.parameters));
    job.parameter_gradient = gradients.data();
  }
  parallel_for(parts, run_part, &job);
  if (job.cells)
    for (int64_t i = 0; i < parts; ++i)
      kernels.combine(call.direction, call.level, cells, records.get() + i * job.record, call.groups);
  for (size_t i = 0; i < gradients.size(); ++i)
    parameter_gradient[i % size_t(trained * call.parameters)] += gradients[i];
}

bool streams(int64_t bytes) { return bytes > streamed_from(false); }

}  // namespace geoact
