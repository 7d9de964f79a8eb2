// The running state behind geoact.GeometryStats and geoact.GradientStats: records of all groups, field by field.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "../cpu/dispatch.h"
#include "tensor.h"

namespace geoact::bindings {

enum class Per : int { tensor, channel, row };

// The part of the iteration space that belongs to each group.
struct Grouping {
  int64_t groups = 1;
  int64_t stride[max_rank];  // per axis of x
};

class Accumulator {
 public:
  Accumulator(Direction direction, Per per, int64_t channel_axis, int level, double saturation,
              const Tiers& tiers = {});

  // What a call on x would add to; raises where x does not fit what was accumulated before. `name` is the argument
  // that carries the accumulator.
  Grouping grouping(const Tensor& x, const char* name) const;
  // Adds the records of one call, all or nothing. Rows are appended, everything else is combined.
  void absorb(const Grouping& grouping, DType dtype, const std::vector<double>& cells,
              const std::vector<double>& tier_cells);
  void merge(const Accumulator& other);
  void reset();

  int cells_per_group() const { return geoact::cells_per_group(direction_, level_); }
  Direction direction() const { return direction_; }
  int level() const { return level_; }
  double saturation() const { return saturation_; }
  // The opt-in tiers, with the channel axis counted as x has it.
  Tiers tiers_of(const Tensor& x) const;
  const Tiers& tiers() const { return tiers_; }
  Per per() const { return per_; }
  int64_t channel_axis() const { return channel_axis_; }
  int64_t groups() const;
  std::string dtype() const { return seen_ ? dtype_name(dtype_) : ""; }
  // Calls measured, and the place of the first of them among the first calls of all accumulators: the order of layers.
  int64_t calls() const;
  int64_t order() const { return order_; }
  // Changes whenever the record does, so that what was derived from it can be kept until then.
  // A record on a device may change without being asked, by the replay of a graph: then every look is a new one.
  int64_t version() { return records_.empty() ? version_ : ++version_; }

  // Where a call on a device adds its record; nothing of this one changes until `measured_on` says that it has.
  // Rows are written as a whole by the CUDA kernels; other kernels want them `cleared` first.
  std::shared_ptr<DeviceRecords> records_on(const Tensor& x, const Grouping& grouping, bool cleared = false) const;
  void measured_on(const Tensor& x, const Grouping& grouping, const std::shared_ptr<DeviceRecords>& records,
                   const std::shared_ptr<DeviceRecords>& tiers = nullptr);
  // The same for the record of the opt-in tiers, which is one for all groups.
  std::shared_ptr<DeviceRecords> tiers_on(const Tensor& x) const;
  // Whether calls are measured: on devices a word that kernels read, so that it works inside a captured graph.
  bool enabled() const { return enabled_; }
  void enable(bool on);
  // This one with what lies on devices, and nothing there.
  Accumulator gathered() const;

  py::object cells() const;  // (fields, groups) float64, a copy
  void set_cells(py::object cells, const std::string& dtype, int64_t calls);
  py::object tier_cells() const;  // float64, a copy
  void set_tier_cells(py::object cells);

 private:
  void append(const double* cells, int64_t groups);
  std::vector<double> empty(int64_t groups) const;
  std::vector<double> empty_tiers() const;
  void reset_tiers();
  void settle(DType dtype);  // at every call

  Direction direction_;
  Per per_;
  int64_t channel_axis_;
  int level_;
  double saturation_;
  Tiers tiers_;
  bool seen_ = false;  // whether dtype_ is settled
  DType dtype_ = DType::float32;
  int64_t groups_ = 0, calls_ = 0, order_ = 0, version_ = 0;
  bool enabled_ = true;
  std::vector<double> cells_;  // [field][group]
  std::vector<double> tier_cells_;
  std::vector<std::shared_ptr<DeviceRecords>> records_, tier_records_;
};

void register_accumulator(py::module_& m);

}  // namespace geoact::bindings
