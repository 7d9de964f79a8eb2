#include "launch.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "runtime.h"

namespace geoact::cuda {

const Row* rows_float16(bool gates);
const Row* rows_bfloat16(bool gates);
const Row* rows_float32(bool gates);
const Row* rows_float64(bool gates);

namespace {

constexpr Table tables[] = {rows_float16, rows_bfloat16, rows_float32, rows_float64};

constexpr int64_t below_2_31 = int64_t(1) << 31;
constexpr int64_t elements_per_thread = 2048;  // of a segment: its float32 sums are added up this far
constexpr int64_t unmeasured_elements = 32;    // of a thread of a block that leaves nothing behind
constexpr int access_bytes = 16;

Divisor divisor_of(int64_t value) {
  Divisor d;
  if (value <= 0 || value >= below_2_31) return d;
  while ((uint64_t(1) << d.shift) < uint64_t(value)) ++d.shift;
  d.magic = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << d.shift) - uint64_t(value))) / uint64_t(value) + 1);
  return d;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t next_power_of_two(int64_t n) {
  int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

enum class Tag { none, group, parameter };

// Which groups the launch is cut into: those of the statistics, or those that share a weight.
struct Grouping {
  Tag tag = Tag::none;
  bool one_record = false;
  int64_t of(const geoact::Axis& axis) const {
    return tag == Tag::group ? axis.group : tag == Tag::parameter ? axis.parameter : 0;
  }
};

bool weights_vary(const Request& r) {
  const bool* const varies = r.call.parameter_varies;
  return std::find(varies, varies + max_parameters, true) != varies + max_parameters;
}

Grouping grouping_of(const Request& r, const geoact::Axis* axes, int rank, bool& apart) {
  const bool measured = r.state != nullptr, grouped = measured && r.call.groups > 1, varies = weights_vary(r);
  apart = false;
  if (!varies) return {grouped ? Tag::group : Tag::none, false};
  bool same = true;
  for (int i = 0; i < rank; ++i) same &= (axes[i].group != 0) == (axes[i].parameter != 0);
  if (!grouped) return {Tag::parameter, measured};
  if (same) return {Tag::group, false};
  apart = r.trained != 0;
  return {Tag::group, false};
}

cuda::Axis converted(const geoact::Axis& from, const Grouping& grouping, int count) {
  cuda::Axis to;
  to.size = from.size;
  to.divisor = divisor_of(from.size);
  for (int k = 0; k < count; ++k) to.stride[k] = from.stride[k];
  to.weight = from.parameter;
  to.group = grouping.of(from);
  return to;
}

// Whether units can be read or written as a whole: every run must start alike within 16 bytes.
bool steps_whole(const geoact::Axis* axes, int rank, int inner, int k) {
  for (int i = 0; i < rank; ++i)
    if (i != inner && axes[i].stride[k] % access_bytes != 0) return false;
  return true;
}

}  // namespace

Launch prepare(const Request& request, bool again) {
  Request r = request;
  const Call& call = r.call;
  const int item = item_size_of(call.dtype), inputs = call.inputs, count = inputs + call.outputs;
  Launch launch;
  Plan& plan = launch.plan;
  plan = Plan{};
  launch.id = r.id;
  launch.stream = r.stream;

  geoact::Axis axes[max_rank];
  const int rank = arrange(call, axes);
  bool apart = false;
  Grouping grouping = grouping_of(r, axes, rank, apart);
  if (again) {  // the gradient alone
    r.state = nullptr;
    grouping = {Tag::parameter, false};
  } else if (apart) {
    launch.again = true;
    r.trained = 0;
  }
  for (int k = 0; k < count; ++k) plan.data[k] = k < inputs ? call.in[k].data : call.out[k - inputs].data;
  plan.in_place = call.in_place;
  plan.one_record = grouping.one_record;

  // The innermost axis becomes the run or, where it is one of groups, the columns, and the next one the run. The others
  // belong to groups or to runs.
  const geoact::Axis single{1, {item, item, item, item, item}, 0, 0};
  const bool columns = rank > 0 && grouping.of(axes[rank - 1]) != 0;
  int inner = rank - 1;
  if (columns)
    while (--inner >= 0 && grouping.of(axes[inner])) {
    }
  plan.column = converted(columns ? axes[rank - 1] : single, grouping, count);
  plan.inner = converted(inner >= 0 ? axes[inner] : single, grouping, count);
  plan.length = plan.inner.size;
  int group_axes[max_rank], run_axes[max_rank], groups = 0, runs = 0;
  for (int i = 0; i < rank - columns; ++i)
    if (i != inner) (grouping.of(axes[i]) ? group_axes[groups++] : run_axes[runs++]) = i;
  if (groups + runs > most_axes)
    throw std::invalid_argument("the arrays have more than " + std::to_string(most_axes + 1) +
                                " axes that cannot be merged; pass contiguous ones");
  plan.group_rank = groups;
  plan.run_rank = runs;
  plan.groups = plan.runs = 1;
  plan.alike = true;
  const auto note = [&](const cuda::Axis& axis) {  // of an axis of runs
    for (int k = 1; k < count; ++k) plan.alike &= axis.stride[k] == axis.stride[0];
    plan.weight_varies |= axis.weight != 0;
  };
  note(plan.inner);
  for (int i = 0; i < groups + runs; ++i) {
    plan.axis[i] = converted(axes[i < groups ? group_axes[i] : run_axes[i - groups]], grouping, count);
    (i < groups ? plan.groups : plan.runs) *= plan.axis[i].size;
    if (i >= groups) note(plan.axis[i]);
  }
  plan.strips = columns ? int(ceil_div(plan.column.size, warp_size)) : 1;
  const int64_t sets = plan.groups * plan.strips;

  // Units, and how many threads share them.
  const int per_unit = unit_size(columns, item, inputs), width = columns ? warp_size : 1;
  if (!columns) {
    const auto misplaced = [&](const void* p) { return int(reinterpret_cast<uintptr_t>(p) % access_bytes) / item; };
    bool whole[arrays] = {};
    for (int k = count - 1; k >= 0; --k) {
      whole[k] = plan.inner.stride[k] == item && steps_whole(axes, rank, inner, k);
      if (whole[k] && plan.lead == 0) plan.lead = misplaced(plan.data[k]);
    }
    for (int k = 0; k < count; ++k) plan.wide[k] = whole[k] && misplaced(plan.data[k]) == plan.lead;
  }
  const int64_t units_of_run = columns ? ceil_div(plan.length, per_unit) : ceil_div(plan.length + plan.lead, per_unit);
  launch.threads =
      int(std::clamp<int64_t>(next_power_of_two(plan.runs * units_of_run) * width, warp_size, most_threads));
  const int64_t team = launch.threads / width;
  plan.units = columns ? ceil_div(units_of_run, team) : units_of_run;
  plan.units_divisor = divisor_of(plan.units);
  const int64_t units = plan.runs * plan.units, batches = columns ? units : ceil_div(units, team);
  const int64_t missing = columns ? (per_unit - 1) * team : per_unit - 1;
  plan.whole = plan.weight_varies ? 0 : std::max<int64_t>(0, plan.length - missing);
  for (int k = 0; k < count; ++k) plan.gap[k] = plan.inner.stride[k] * (columns ? team : 1);
  if (sets >= below_2_31 || batches >= below_2_31 || (plan.runs > 1 && units >= below_2_31))
    throw std::invalid_argument("the arrays are too large for one call; split it, or make them contiguous");
  plan.batches = int(batches);

  const bool measured = r.state != nullptr, reduces = measured || r.trained;
  const Row& row = tables[int(call.dtype)](call.gated)[call.activation];
  launch.entry = (call.direction == Direction::forward ? row.forward : row.backward)[columns][measured];
  if (!launch.entry.kernel) throw std::logic_error("there is no kernel for this grouping");

  int64_t segments;
  if (reduces) {
    const int64_t resident = resident_blocks(launch.entry, launch.threads, r.id);
    const int64_t longest = elements_per_thread / per_unit;
    const int64_t parts = std::clamp<int64_t>(std::max(resident / sets, ceil_div(batches, longest)), 1, batches);
    segments = sets * parts;
    plan.parts = int(parts);
    plan.step = uint32_t(parts * (columns ? 1 : team));
    launch.grid = std::min(segments, resident);
  } else {
    plan.together = int(unmeasured_elements / per_unit);
    plan.parts = int(ceil_div(batches, plan.together));
    plan.step = uint32_t(columns ? 1 : team);
    segments = launch.grid = sets * plan.parts;
  }
  // A block counts on from its last segment by the size of the grid.
  if (segments * width >= below_2_31 / 2)
    throw std::invalid_argument("the arrays have too many groups for one call; split it");
  plan.segments = int(segments);

  plan.trained = r.trained;
  for (int k = 0; k < parameters; ++k) {
    plan.number[k] = r.number[k], plan.number_in_float[k] = float(r.number[k]);
    plan.weight[k] = r.weight[k];
    plan.weight_stride[k] = r.weight_stride[k];
    plan.gradient[k] = r.gradient[k];
    plan.gradients[k] = call.parameter_varies[k] ? plan.groups * plan.column.size : 1;
    plan.gradient_in_double[k] = r.gradient_in_double[k];
  }
  if (!reduces) return launch;

  plan.record_stride = segments * width;
  int64_t doubles = 0;
  if (measured) {
    plan.cells = r.cells;
    plan.header = static_cast<int64_t*>(r.state);
    plan.state = reinterpret_cast<double*>(plan.header + header_words);
    plan.state_groups = r.state_groups;
    plan.append = r.append;
    plan.saturation = call.saturation;
    plan.saturation_in_float = float(call.saturation);
    doubles += plan.cells * plan.record_stride + int64_t(launch.entry.rare_fields) * launch.grid * launch.threads;
  }
  doubles += r.trained * plan.record_stride;
  launch.tickets_bytes = int64_t(sizeof(unsigned)) * (1 + (plan.one_record ? 1 : sets));
  launch.workspace_bytes = doubles * int64_t(sizeof(double));
  return launch;
}

void run(Launch& launch, void* tickets, void* workspace) {
  Plan& plan = launch.plan;
  plan.tickets = static_cast<unsigned*>(tickets);
  plan.weight_records = static_cast<double*>(workspace);
  plan.records = plan.weight_records + plan.trained * plan.record_stride;
  plan.rare = plan.records + plan.cells * plan.record_stride;
  cuda::launch(launch.entry, launch.grid, launch.threads, launch.id, launch.stream, plan);
}

}  // namespace geoact::cuda
