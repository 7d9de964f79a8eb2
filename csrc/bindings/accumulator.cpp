#include "accumulator.h"

#include <algorithm>
#include <cstring>

namespace geoact::bindings {

Accumulator::Accumulator(Direction direction, Per per, int64_t channel_axis, int level, double saturation,
                         const Tiers& tiers)
    : direction_(direction),
      per_(per),
      channel_axis_(channel_axis),
      level_(level),
      saturation_(saturation),
      tiers_(tiers) {
  reset();
}

void Accumulator::reset() {
  // Graphs that were captured go on adding where they did.
  for (const auto& records : records_) {
    if (records->rows()) continue;
    records->reset(empty(records->groups()));
    if (!enabled_) records->enable(false);
  }
  std::erase_if(records_, [](const auto& records) { return records->rows(); });
  seen_ = false;
  ++version_;
  calls_ = order_ = 0;
  groups_ = per_ == Per::tensor ? 1 : 0;
  cells_ = empty(groups_);
  reset_tiers();
}

void Accumulator::reset_tiers() {
  tier_cells_ = empty_tiers();
  for (const auto& records : tier_records_) {
    records->reset(tier_cells_);
    if (!enabled_) records->enable(false);
  }
}

Tiers Accumulator::tiers_of(const Tensor& x) const {
  Tiers tiers = tiers_;
  tiers.channel_axis = x.rank ? int(channel_axis_ < 0 ? channel_axis_ + x.rank : channel_axis_) : 0;
  return tiers;
}

std::vector<double> Accumulator::empty(int64_t groups) const {
  std::vector<double> cells(size_t(groups * cells_per_group()));
  init_cells(direction_, level_, cells.data(), groups);
  return cells;
}

std::vector<double> Accumulator::empty_tiers() const {
  std::vector<double> cells(size_t(tier_cells_of(tiers_)));
  init_tiers(tiers_, cells.data());
  return cells;
}

Grouping Accumulator::grouping(const Tensor& x, const char* name) const {
  if (seen_ && x.dtype != dtype_)
    throw py::value_error(std::string(name) + " holds statistics of " + dtype_name(dtype_) + " data, but x is " +
                          dtype_name(x.dtype) + "; use a separate accumulator or reset() it");
  Grouping grouping;
  std::fill_n(grouping.stride, x.rank, 0);
  if (tiers_.of_rows() && x.rank < 2)
    throw py::value_error(std::string(name) + " was made with " + (tiers_.pairs ? "pairs=True" : "sketch=") +
                          (tiers_.pairs ? "" : std::to_string(tiers_.sketch)) +
                          ", which compares rows, but x has shape " + shape_text(x.shape, x.rank) +
                          " (accepted: two axes or more)");
  const bool outside = channel_axis_ >= x.rank || channel_axis_ < -x.rank;
  if (tiers_.any() && x.rank > 0 && outside)
    throw py::value_error(std::string(name) + " was made with channel_axis=" + std::to_string(channel_axis_) +
                          ", but x has shape " + shape_text(x.shape, x.rank));
  if (per_ == Per::tensor) return grouping;
  const std::string per = per_ == Per::channel ? "channel" : "row";
  if (outside)
    throw py::value_error(std::string(name) + " was made with per='" + per + "', channel_axis=" +
                          std::to_string(channel_axis_) + ", but x has shape " + shape_text(x.shape, x.rank));
  const int axis = int(channel_axis_ < 0 ? channel_axis_ + x.rank : channel_axis_);
  if (per_ == Per::channel) {
    grouping.groups = x.shape[axis];
    grouping.stride[axis] = 1;
    if (seen_ && grouping.groups != groups_)
      throw py::value_error(std::string(name) + " holds " + std::to_string(groups_) + " channels, but axis " +
                            std::to_string(axis) + " of x has " + std::to_string(grouping.groups));
    return grouping;
  }
  for (int i = x.rank - 1; i >= 0; --i)
    if (i != axis) {
      grouping.stride[i] = grouping.groups;
      grouping.groups *= x.shape[i];
    }
  return grouping;
}

void Accumulator::append(const double* cells, int64_t groups) {
  const int64_t fields = cells_per_group(), total = groups_ + groups;
  std::vector<double> joined(size_t(fields * total));
  for (int64_t k = 0; k < fields; ++k) {
    std::copy_n(cells_.data() + k * groups_, groups_, joined.data() + k * total);
    std::copy_n(cells + k * groups, groups, joined.data() + k * total + groups_);
  }
  cells_.swap(joined);
  groups_ = total;
}

void Accumulator::settle(DType dtype) {
  static int64_t order_of_firsts = 0;  // guarded by the interpreter lock
  if (!order_) order_ = ++order_of_firsts;
  ++version_;
  seen_ = true;
  dtype_ = dtype;
}

// --- on devices --------------------------------------------------------------------------------------------

std::shared_ptr<DeviceRecords> Accumulator::records_on(const Tensor& x, const Grouping& grouping, bool cleared) const {
  const bool rows = per_ == Per::row;
  for (const auto& records : records_)
    if (records->holds(x, grouping.groups)) return records;
  auto records = std::make_shared<DeviceRecords>(
      x, cells_per_group(), grouping.groups, rows && !cleared ? std::vector<double>() : empty(grouping.groups), rows);
  if (!enabled_) records->enable(false);
  return records;
}

std::shared_ptr<DeviceRecords> Accumulator::tiers_on(const Tensor& x) const {
  for (const auto& records : tier_records_)
    if (records->holds(x, 1)) return records;
  const std::vector<double> cells = empty_tiers();
  auto records = std::make_shared<DeviceRecords>(x, int(cells.size()), 1, cells, false);
  if (!enabled_) records->enable(false);
  return records;
}

void Accumulator::measured_on(const Tensor& x, const Grouping& grouping, const std::shared_ptr<DeviceRecords>& records,
                              const std::shared_ptr<DeviceRecords>& tiers) {
  const auto keep = [&x](auto& all, const auto& one) {
    if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(one);
    one->follow(x);
  };
  keep(records_, records);
  if (tiers) keep(tier_records_, tiers);
  if (per_ == Per::channel && groups_ == 0) {
    groups_ = grouping.groups;
    cells_ = empty(groups_);
  }
  settle(x.dtype);
}

void Accumulator::enable(bool on) {
  for (const auto& records : records_) records->enable(on);
  for (const auto& records : tier_records_) records->enable(on);
  enabled_ = on;
}

int64_t Accumulator::groups() const {
  int64_t groups = groups_;
  for (const auto& records : records_) groups += records->rows() ? records->groups() : 0;
  return groups;
}

int64_t Accumulator::calls() const {
  int64_t calls = calls_;
  for (const auto& records : records_) calls += records->calls();
  return calls;
}

Accumulator Accumulator::gathered() const {
  Accumulator whole = *this;
  whole.records_.clear();
  whole.tier_records_.clear();
  int64_t counted = 0;  // with the records of groups
  for (const auto& records : tier_records_) {
    const std::vector<double> cells = records->read(int(tier_cells_.size()), counted);
    combine_tiers(tiers_, whole.tier_cells_.data(), cells.data());
  }
  for (const auto& records : records_) {
    // Of another number of channels, from before a reset: nothing was added there since, but by old graphs.
    if (per_ == Per::channel && records->groups() != groups_) continue;
    const std::vector<double> cells = records->read(cells_per_group(), whole.calls_);
    if (records->rows())
      whole.append(cells.data(), records->groups());
    else
      active_isa().kernels[int(DType::float64)]->combine(direction_, level_, whole.cells_.data(), cells.data(),
                                                         groups_);
  }
  return whole;
}

void Accumulator::absorb(const Grouping& grouping, DType dtype, const std::vector<double>& cells,
                         const std::vector<double>& tier_cells) {
  const bool first = per_ == Per::channel && groups_ == 0;
  // Another thread may have used the accumulator while this call computed.
  if (seen_ && dtype != dtype_) throw py::value_error("stats was given data of two dtypes by two threads at once");
  if (!first && per_ == Per::channel && grouping.groups != groups_)
    throw py::value_error("stats was given two numbers of channels by two threads at once");
  if (per_ == Per::row && !records_.empty()) *this = gathered();  // rows are in the order of their calls
  if (per_ == Per::row || first) {
    append(cells.data(), grouping.groups);
  } else {
    active_isa().kernels[int(DType::float64)]->combine(direction_, level_, cells_.data(), cells.data(), groups_);
  }
  if (!tier_cells.empty()) combine_tiers(tiers_, tier_cells_.data(), tier_cells.data());
  ++calls_;
  settle(dtype);
}

void Accumulator::merge(const Accumulator& from) {
  const Accumulator other = from.gathered();  // it may be this one
  if (other.direction_ != direction_) throw py::type_error("other is not the same kind of statistics");
  const auto differ = [](const char* what) {
    throw py::value_error(std::string("other has a different ") + what + "; only like statistics merge");
  };
  if (other.per_ != per_) differ("per");
  if (other.level_ != level_) differ("level");
  if (other.saturation_ != saturation_) differ("saturation");
  if (other.tiers_.histogram != tiers_.histogram) differ("histogram");
  if (other.tiers_.pairs != tiers_.pairs) differ("pairs");
  if (other.tiers_.sketch != tiers_.sketch) differ("sketch");
  if ((per_ != Per::tensor || tiers_.any()) && other.channel_axis_ != channel_axis_) differ("channel_axis");
  if (!other.seen_) return;
  if (seen_ && other.dtype_ != dtype_) differ("dtype");
  if (per_ == Per::channel && seen_ && other.groups_ != groups_) differ("number of channels");
  Grouping grouping;
  grouping.groups = other.groups_;
  const int64_t calls = other.calls_;
  absorb(grouping, other.dtype_, other.cells_, other.tier_cells_);
  calls_ += calls - 1;
}

py::object Accumulator::cells() const {
  const Accumulator whole = gathered();
  auto array = new_float64({cells_per_group(), whole.groups_});
  std::copy(whole.cells_.begin(), whole.cells_.end(), float64_data(array));
  return array;
}

void Accumulator::set_cells(py::object cells, const std::string& dtype, int64_t calls) {
  const Tensor tensor = view(cells, "cells");
  const int64_t groups = tensor.rank == 2 ? tensor.shape[1] : 0;
  if (tensor.dtype != DType::float64 || tensor.rank != 2 || tensor.shape[0] != cells_per_group() ||
      (per_ == Per::tensor && groups != 1))
    throw py::value_error("cells must be float64 of shape (" + std::to_string(cells_per_group()) +
                          ", groups), got shape " + shape_text(tensor.shape, tensor.rank));
  const int none = 4;
  int found = none;
  for (int i = 0; i < none; ++i)
    if (dtype == dtype_name(DType(i))) found = i;
  if (found == none && !dtype.empty()) throw py::value_error("dtype is unknown: " + dtype);
  std::vector<double> fresh(size_t(tensor.size));
  for (int64_t k = 0; k < tensor.shape[0]; ++k)
    for (int64_t g = 0; g < groups; ++g)
      std::memcpy(&fresh[size_t(k * groups + g)],
                  tensor.array.data + k * tensor.array.stride[0] + g * tensor.array.stride[1], sizeof(double));
  reset();
  cells_.swap(fresh);
  groups_ = groups;
  seen_ = found != none;
  calls_ = calls;
  ++version_;
  if (seen_) dtype_ = DType(found);
}

py::object Accumulator::tier_cells() const {
  const Accumulator whole = gathered();
  auto array = new_float64({int64_t(whole.tier_cells_.size())});
  std::copy(whole.tier_cells_.begin(), whole.tier_cells_.end(), float64_data(array));
  return array;
}

void Accumulator::set_tier_cells(py::object cells) {
  const Tensor tensor = view(cells, "cells");
  if (tensor.dtype != DType::float64 || tensor.rank != 1 || tensor.shape[0] != int64_t(tier_cells_.size()))
    throw py::value_error("cells must be float64 of shape (" + std::to_string(tier_cells_.size()) + ",), got shape " +
                          shape_text(tensor.shape, tensor.rank));
  reset_tiers();
  for (int64_t i = 0; i < tensor.shape[0]; ++i)
    std::memcpy(&tier_cells_[size_t(i)], tensor.array.data + i * tensor.array.stride[0], sizeof(double));
  ++version_;
}

void register_accumulator(py::module_& m) {
  py::class_<Accumulator>(m, "Accumulator", "Running records of all groups; the state of geoact.GeometryStats.")
      .def(py::init([](const std::string& direction, const std::string& per, int64_t axis, const std::string& level,
                       double saturation, const std::string& histogram, bool pairs, int sketch) {
             const auto one_of = [](const std::string& value, const char* name, std::vector<const char*> names) {
               std::string list;
               for (size_t i = 0; i < names.size(); ++i) {
                 if (value == names[i]) return int(i);
                 list += std::string(i ? ", '" : "'") + names[i] + "'";
               }
               throw py::value_error(std::string(name) + " is '" + value + "' (accepted: " + list + ")");
             };
             if (!(saturation > 0 && saturation < 1))
               throw py::value_error("saturation must lie strictly between 0 and 1, got " + std::to_string(saturation));
             Tiers tiers;
             tiers.histogram = Histogram(one_of(histogram, "histogram", {"none", "sampled", "all"}));
             tiers.pairs = pairs;
             if (sketch != 0 && sketch != 32 && sketch != 64 && sketch != 128)
               throw py::value_error("sketch is " + std::to_string(sketch) + " (accepted: 0, 32, 64, 128)");
             tiers.sketch = sketch;
             return Accumulator(Direction(one_of(direction, "direction", {"forward", "backward"})),
                                Per(one_of(per, "per", {"tensor", "channel", "row"})), axis,
                                1 + one_of(level, "level", {"counts", "moments"}), saturation, tiers);
           }),
           py::arg("direction"), py::arg("per"), py::arg("channel_axis"), py::arg("level"), py::arg("saturation"),
           py::arg("histogram") = "none", py::arg("pairs") = false, py::arg("sketch") = 0)
      .def("merge", &Accumulator::merge, py::arg("other"))
      .def("reset", &Accumulator::reset)
      .def("copy", &Accumulator::gathered)
      .def("cells", &Accumulator::cells, "Records as (fields, groups) float64: a copy.")
      .def("set_cells", &Accumulator::set_cells, py::arg("cells"), py::arg("dtype"), py::arg("calls") = 0)
      .def("tier_cells", &Accumulator::tier_cells, "The record of the opt-in tiers: a copy.")
      .def("set_tier_cells", &Accumulator::set_tier_cells, py::arg("cells"))
      .def(
          "tier_fields",
          [](const Accumulator& self) {
            py::list rows;
            for (const TierField& field : tier_fields(self.tiers()))
              rows.append(py::make_tuple(field.name, field.offset, field.size));
            return rows;
          },
          "Name, first cell and number of cells of what the opt-in tiers keep.")
      .def_property_readonly("calls", &Accumulator::calls, "Calls measured.")
      .def_property_readonly(
          "version", [](Accumulator& self) { return self.version(); }, "Changes whenever the record does.")
      .def(
          "records_on",
          [](const Accumulator& self, py::handle x) {
            const Tensor tensor = view(x, "x");
            if (!tensor.backend) throw py::value_error("x is on no device that keeps records");
            return self.records_on(tensor, self.grouping(tensor, "stats"), true);
          },
          py::arg("x"), "Where a kernel from elsewhere adds the record of a call on x; then tell measured_on.")
      .def(
          "measured_on",
          [](Accumulator& self, py::handle x, const std::shared_ptr<DeviceRecords>& records,
             const std::shared_ptr<DeviceRecords>& tiers) {
            const Tensor tensor = view(x, "x");
            self.measured_on(tensor, self.grouping(tensor, "stats"), records, tiers);
          },
          py::arg("x"), py::arg("records"), py::arg("tiers") = nullptr)
      .def(
          "tiers_on",
          [](const Accumulator& self, py::handle x) {
            const Tensor tensor = view(x, "x");
            if (!tensor.backend) throw py::value_error("x is on no device that keeps records");
            self.grouping(tensor, "stats");
            return self.tiers_on(tensor);
          },
          py::arg("x"), "The same as records_on for the record of the opt-in tiers.")
      .def_property_readonly(
          "tiers",
          [](const Accumulator& self) {
            constexpr const char* names[] = {"none", "sampled", "all"};
            const Tiers& tiers = self.tiers();
            return py::make_tuple(names[int(tiers.histogram)], tiers.pairs, tiers.sketch);
          },
          "The opt-in tiers: histogram, pairs, sketch.")
      .def_property_readonly("per",
                             [](const Accumulator& self) {
                               constexpr const char* names[] = {"tensor", "channel", "row"};
                               return names[int(self.per())];
                             })
      .def_property_readonly("level", [](const Accumulator& self) { return self.level() == 1 ? "counts" : "moments"; })
      .def_property_readonly("channel_axis", &Accumulator::channel_axis)
      .def_property_readonly("saturation", &Accumulator::saturation)
      .def_property("enabled", &Accumulator::enabled, &Accumulator::enable, "Whether calls are measured.")
      .def_property_readonly("order", &Accumulator::order, "Place among the first calls of all accumulators, or 0.")
      .def_property_readonly("groups", &Accumulator::groups)
      .def_property_readonly("dtype", &Accumulator::dtype, "Name of the dtype measured so far, or ''.");
}

}  // namespace geoact::bindings
