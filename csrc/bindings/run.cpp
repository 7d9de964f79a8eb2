#include "run.h"

#include <algorithm>
#include <optional>

#include "../cpu/mask_call.h"

namespace geoact::bindings {

// Parameter arrays run along one axis of x.
void place_parameters(Call& call, const Parameters& parameters, int channel_axis) {
  for (int k = 0; k < max_parameters; ++k) {
    call.parameter[k] = parameters.data[k];
    call.parameter_varies[k] = parameters.size[k] > 1;
    if (call.parameter_varies[k]) call.parameter_step[channel_axis] = 1;
  }
}

int channel_axis_of(const Tensor& x, int64_t channel_axis) {
  if (x.rank < 2) return 0;
  if (channel_axis >= x.rank || channel_axis < -x.rank)
    throw py::value_error("channel_axis is " + std::to_string(channel_axis) + ", but x has " + std::to_string(x.rank) +
                          " axes");
  return int(channel_axis < 0 ? channel_axis + x.rank : channel_axis);
}

Call begin(Direction direction, int activation, const Tensor* const* inputs, int count, const Array& out,
           bool in_place) {
  const Tensor& x = *inputs[0];
  Call call;
  call.direction = direction;
  call.activation = activation;
  call.level = 0;
  call.dtype = x.dtype;
  call.rank = x.rank;
  std::copy_n(x.shape, x.rank, call.shape);
  std::fill_n(call.group_stride, x.rank, 0);
  std::fill_n(call.parameter_step, x.rank, 0);
  call.inputs = count;
  for (int k = 0; k < count; ++k) call.in[k] = inputs[k]->array;
  call.out[0] = out;
  call.in_place = in_place;
  return call;
}

namespace {

constexpr int64_t worth_releasing = 8192;  // elements; below, handing the lock over costs more than it frees

}  // namespace

// The accumulator changes only after the kernel has run, with the lock held again, so a failure leaves it as it was.
void finish(Call& call, const Tensor& x, const Parameters& parameters, Accumulator* stats, const GradientRoom& room,
            bool locked, uint8_t* mask) {
  if (stats && stats->tiers().any()) {
    if (mask)
      throw py::value_error("stats was made with histogram=, pairs= or sketch=, which no mask is measured with");
    if (call.gated)
      throw py::value_error("stats was made with histogram=, pairs= or sketch=, which gates do not measure");
    if (x.backend && x.size > 0 && !x.backend->observes())
      throw py::value_error("stats was made with histogram=, pairs= or sketch=, which this device does not measure");
  }
  if (x.backend && x.size > 0) return run_on_device(call, x, parameters, stats, room.device);
  if (stats && !stats->enabled()) stats = nullptr;
  Grouping grouping;
  std::vector<double> cells, tier_cells;
  if (stats) {
    grouping = stats->grouping(x, "stats");
    call.level = stats->level();
    call.saturation = stats->saturation();
    call.groups = grouping.groups;
    std::copy_n(grouping.stride, x.rank, call.group_stride);
    cells.resize(size_t(stats->cells_per_group() * grouping.groups));
    call.tiers = stats->tiers_of(x);
    tier_cells.resize(size_t(tier_cells_of(call.tiers)));
  }
  {
    std::optional<py::gil_scoped_release> release;
    if (locked && x.size >= worth_releasing) release.emplace();
    if (call.tiers.any())
      execute_tiered(call, cells.data(), tier_cells.data());
    else if (mask)
      execute_masked(call, mask, stats ? cells.data() : nullptr);
    else
      execute(call, stats ? cells.data() : nullptr, room.host);
  }
  if (stats) stats->absorb(grouping, x.dtype, cells, tier_cells);
}

void require(const Accumulator* stats, Direction direction, const Tensor& x) {
  if (!stats) return;
  if (stats->direction() != direction)
    throw py::type_error(direction == Direction::forward ? "stats must be a GeometryStats, got a GradientStats"
                                                         : "stats must be a GradientStats, got a GeometryStats");
  stats->grouping(x, "stats");
}

}  // namespace geoact::bindings
