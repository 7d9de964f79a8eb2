// A call with opt-in tiers: blocks of rows small enough to stay in a core's cache, each passed over by the ordinary
// kernel and then looked at. Where blocks begin, and which of them make a job, depends on the shape alone.
#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>

#include "dispatch.h"

#define GEOACT_ISA scalar
#include "../ops/tiers.h"
#include "pool.h"

namespace geoact {
namespace {

// Elements of x in a block: x and y of it share a level 2 cache. Of channels the kernel makes records per block, which
// ought to be few.
constexpr int64_t block_elements = 65536, block_elements_of_channels = 262144, most_jobs = 32, padding = 128;

scalar::TierLayout layout_of(const Tiers& tiers) {
  return {tiers.histogram != Histogram::none, tiers.pairs, tiers.sketch};
}

// How a call is cut into blocks: of the axes of rows, in C order, everything below axes[at], `step` of that one, one of
// those above it. Where nothing needs whole rows, a row that is too long is cut as well.
struct Cut {
  int axes[max_rank];
  int rank = 0;
  int at = 0;                          // in `axes`
  int64_t step = 1, pieces = 1;        // of axes[at]
  int64_t blocks = 1, rows_below = 1;  // rows of one step
  int64_t columns, column_pieces = 1;  // of a block; of a row
};

Cut cut_of(const Call& call) {
  Cut cut;
  for (int i = 0; i < call.rank; ++i)
    if (i != call.tiers.channel_axis) {
      cut.axes[cut.rank++] = i;
      cut.rows_below *= call.shape[i];
    }
  const int64_t budget = call.groups > 1 ? block_elements_of_channels : block_elements;
  const int64_t whole_row = call.rank ? call.shape[call.tiers.channel_axis] : 1;
  static_assert(block_elements % (scalar::SampledRuns::run * scalar::SampledRuns::every) == 0);
  cut.columns = call.tiers.of_rows() ? whole_row : std::min(whole_row, budget);
  cut.column_pieces = (whole_row + cut.columns - 1) / cut.columns;
  if (cut.rank) {
    for (cut.at = 0; cut.at < cut.rank; ++cut.at) {
      cut.rows_below /= call.shape[cut.axes[cut.at]];
      if (cut.rows_below * whole_row <= budget || cut.at + 1 == cut.rank) break;
    }
    const int64_t size = call.shape[cut.axes[cut.at]];
    cut.step = std::clamp<int64_t>(budget / std::max<int64_t>(1, cut.rows_below * whole_row), 1, size);
    // Blocks begin at even rows, as pairs do.
    if (call.tiers.of_rows() && cut.step % 2 && cut.step < size) ++cut.step;
    cut.pieces = (size + cut.step - 1) / cut.step;
  }
  cut.blocks = cut.column_pieces * cut.pieces;
  for (int i = 0; i < cut.at; ++i) cut.blocks *= call.shape[cut.axes[i]];
  return cut;
}

// Memory for vectors: an unaligned one would be read across two lines of cache each time.
class Aligned {
 public:
  explicit Aligned(int64_t bytes) : memory_(new char[size_t(bytes) + 64]) {}
  char* data() const { return memory_.get() + (-reinterpret_cast<uintptr_t>(memory_.get()) & 63); }

 private:
  std::unique_ptr<char[]> memory_;
};

// The random signs of the sketches S and T, per lane a value goes to, and the turn of each block: of S, then of T.
struct Signs {
  std::vector<uint32_t> turns;
  Aligned memory;
  const void* set[2];

  Signs(int64_t columns, int k, int item)
      : turns(size_t(2 * ((columns + k - 1) / k))), memory(int64_t(turns.size()) * k * item) {
    const int64_t blocks = int64_t(turns.size()) / 2, lanes = blocks * k;
    for (int which = 0; which < 2; ++which) {
      set[which] = memory.data() + which * lanes * item;
      for (int64_t i = 0; i < lanes; ++i) {
        const int64_t block = i / k;
        const int turn = scalar::SketchFold::turn(block, k, which);
        turns[size_t(which * blocks + block)] = uint32_t(turn);
        const double sign = scalar::SketchFold::negative(block, int(i % k) ^ turn, which) ? -1 : 1;
        char* const to = memory.data() + (which * lanes + i) * item;
        const float narrow = float(sign);
        std::memcpy(to, item == 8 ? static_cast<const void*>(&sign) : &narrow, size_t(item));
      }
    }
  }
};

// Those of the last few shapes: they are the same at every call.
std::shared_ptr<const Signs> signs_of(int64_t columns, int k, int item) {
  struct Entry {
    int64_t columns;
    int k, item;
    std::shared_ptr<const Signs> signs;
  };
  constexpr size_t most = 16;
  static std::mutex mutex;
  static auto* const entries = new std::vector<Entry>;  // outlives the threads of the pool
  const std::lock_guard<std::mutex> lock(mutex);
  for (const Entry& e : *entries)
    if (e.columns == columns && e.k == k && e.item == item) return e.signs;
  if (entries->size() == most) entries->erase(entries->begin());
  entries->push_back({columns, k, item, std::make_shared<const Signs>(columns, k, item)});
  return entries->back().signs;
}

// Everything that jobs share.
struct Work {
  const Call* call;
  const Kernels* kernels;
  Cut cut;
  int64_t jobs, per_job;
  int64_t cells_size;     // doubles of one job's records of groups
  double *cells, *tiers;  // of all jobs; cells of the call itself where jobs share no group
  int64_t tiers_size;
  bool disjoint;
  const Signs* signs;
  int compute_size;
};

// The part of the call that a block is, and the first of its groups.
struct Part {
  Call call;
  int64_t group = 0, first_row = 0;

  Part(const Work& work, int64_t index) : call(*work.call) {
    const Cut& cut = work.cut;
    const int64_t column = index % cut.column_pieces * cut.columns;
    index /= cut.column_pieces;
    if (call.rank) {
      const int channel = call.tiers.channel_axis;
      const int64_t columns = std::min(cut.columns, call.shape[channel] - column);
      narrow(work, channel, column, columns);
    }
    int64_t rows_in = cut.rows_below;
    for (int i = cut.at; i >= 0 && cut.rank; --i) {
      const int axis = cut.axes[i];
      const int64_t size = call.shape[axis], pieces = i == cut.at ? cut.pieces : size;
      const int64_t step = i == cut.at ? cut.step : 1, start = index % pieces * step;
      index /= pieces;
      first_row += start * rows_in;
      rows_in *= size;
      narrow(work, axis, start, std::min(step, size - start));
    }
  }

 private:
  void narrow(const Work& work, int axis, int64_t start, int64_t size) {
    call.shape[axis] = size;
    call.in[0].data += start * call.in[0].stride[axis];
    call.out[0].data += start * call.out[0].stride[axis];
    group += start * call.group_stride[axis];
    for (int k = 0; k < max_parameters; ++k)
      if (call.parameter_varies[k])
        call.parameter[k] =
            static_cast<const char*>(call.parameter[k]) + start * call.parameter_step[axis] * work.compute_size;
  }
};

RowBlock rows_of(const Part& part, const Cut& cut, int item) {
  const Call& call = part.call;
  const Array* const array[2] = {&call.in[0], &call.out[0]};
  RowBlock block;
  block.first_row = part.first_row;
  block.columns = call.rank ? call.shape[call.tiers.channel_axis] : 1;
  for (int side = 0; side < 2; ++side) {
    block.at[side] = array[side]->data;
    block.column_stride[side] = call.rank ? array[side]->stride[call.tiers.channel_axis] : item;
  }
  for (int i = 0; i < cut.rank; ++i) {
    const int axis = cut.axes[i];
    if (call.shape[axis] == 1) continue;
    block.size[block.rank] = call.shape[axis];
    for (int side = 0; side < 2; ++side) block.stride[side][block.rank] = array[side]->stride[axis];
    block.rows *= call.shape[axis];
    ++block.rank;
  }
  return block;
}

// x as it is before y overwrites it: the block then looks at a copy.
void set_aside(RowBlock& block, char* copy, int item) {
  char* to = copy;
  int64_t at[max_rank] = {};
  const char* from = block.at[0];
  for (int64_t r = 0; r < block.rows; ++r) {
    for (int64_t c = 0; c < block.columns; ++c, to += item)
      std::memcpy(to, from + c * block.column_stride[0], size_t(item));
    for (int i = block.rank - 1; i >= 0; --i) {
      from += block.stride[0][i];
      if (++at[i] < block.size[i]) break;
      from -= block.stride[0][i] * block.size[i];
      at[i] = 0;
    }
  }
  block.at[0] = copy;
  block.column_stride[0] = item;
  int64_t stride = block.columns * item;
  for (int i = block.rank - 1; i >= 0; --i) {
    block.stride[0][i] = stride;
    stride *= block.size[i];
  }
}

void run_block(const Work& work, int64_t index, double* cells, TierJob& job, std::unique_ptr<char[]>& copy) {
  const Part part(work, index);
  const Cut& cut = work.cut;
  const int item = work.kernels->item_size;
  RowBlock block = rows_of(part, cut, item);
  if (part.call.in_place) {
    if (!copy) copy.reset(new char[size_t(cut.step * cut.rows_below * cut.columns * item)]);
    set_aside(block, copy.get(), item);
  }
  Task task = task_of(part.call, cells ? cells + part.group : nullptr);
  task.scratch = thread_scratch();
  work.kernels->run(task);
  work.kernels->observe(block, job);
}

void run_job(void* context, int64_t i) {
  const Work& work = *static_cast<const Work*>(context);
  const Tiers& tiers = work.call->tiers;
  const int numbers = scalar::Sketches::sides * tiers.sketch, item = work.kernels->item_size;
  TierJob job{};
  job.tiers = &tiers;
  job.record = work.tiers + i * work.tiers_size;
  if (work.signs) {
    for (int s = 0; s < 2; ++s) job.signs[s] = work.signs->set[s];
    job.turns = work.signs->turns.data();
  }
  std::vector<double> shift(size_t(numbers), 0.0);
  constexpr int buckets = 2 * TierJob::tables * scalar::Buckets::size;
  std::vector<uint32_t> counters(size_t(tiers.histogram != Histogram::none ? buckets : 0), 0);
  job.shift = shift.data();
  job.counters = counters.data();
  const Aligned buffer(int64_t(TierJob::buffer_rows + 3) * numbers * work.compute_size);
  job.buffer = buffer.data();
  job.room_columns = work.cut.columns + padding;
  std::unique_ptr<char[]> room(new char[size_t(4 * job.room_columns * item)]);
  job.room = room.get();
  std::unique_ptr<char[]> copy;
  double* const cells = !work.cells ? nullptr : work.disjoint ? work.cells : work.cells + i * work.cells_size;
  const int64_t end = std::min(work.cut.blocks, (i + 1) * work.per_job);
  for (int64_t b = i * work.per_job; b < end; ++b) run_block(work, b, cells, job, copy);
  work.kernels->settle(job);
}

}  // namespace

int64_t tier_cells_of(const Tiers& tiers) { return layout_of(tiers).size; }
void init_tiers(const Tiers& tiers, double* cells) { layout_of(tiers).init(cells); }
void combine_tiers(const Tiers& tiers, double* into, const double* from) { layout_of(tiers).combine(into, from); }

std::vector<TierField> tier_fields(const Tiers& tiers) {
  using scalar::Buckets, scalar::Pairs, scalar::Sketches;
  const scalar::TierLayout layout = layout_of(tiers);
  std::vector<TierField> fields;
  const auto add_pairs = [&](const std::string& prefix, int at) {
    constexpr const char* names[] = {"count",    "identical", "collisions",  "nonfinite",
                                     "sum_sq_x", "sum_sq_y",  "least_ratio", "greatest_ratio"};
    for (int i = 0; i < Pairs::ratio; ++i) fields.push_back({prefix + names[i], at + i, 1});
    fields.push_back({prefix + "ratio", at + Pairs::ratio, Buckets::of_size});
  };
  if (layout.histogram_x >= 0) {
    fields.push_back({"histogram_x", layout.histogram_x, Buckets::size});
    fields.push_back({"histogram_y", layout.histogram_y, Buckets::size});
  }
  if (layout.pairs >= 0) add_pairs("pairs_", layout.pairs);
  if (layout.sketch >= 0) {
    const Sketches& s = layout.sketches;
    constexpr const char* sides[] = {"s_of_x", "t_of_x", "s_of_y", "t_of_y"};
    constexpr const char* products[] = {"xx", "yy", "xy"};
    fields.push_back({"sketch_rows", layout.sketch + Sketches::rows, 1});
    fields.push_back({"sketch_nonfinite", layout.sketch + Sketches::nonfinite, 1});
    for (int i = 0; i < Sketches::sides; ++i) {
      fields.push_back({std::string("sketch_mean_") + sides[i], layout.sketch + s.mean(i), s.k});
      fields.push_back({std::string("sketch_deviation_") + sides[i], layout.sketch + s.deviation(i), s.k});
    }
    for (int i = 0; i < Sketches::products; ++i)
      fields.push_back({std::string("sketch_") + products[i], layout.sketch + s.product(i), int64_t(s.k) * s.k});
    add_pairs("sketch_pairs_", layout.sketch + s.pairs());
  }
  return fields;
}

void execute_tiered(const Call& call, double* cells, double* tier_cells) {
  const Kernels& kernels = *active_isa().kernels[int(call.dtype)];
  const scalar::TierLayout layout = layout_of(call.tiers);
  layout.init(tier_cells);
  if (cells) init_cells(call.direction, call.level, cells, call.groups);
  if (elements_of(call) == 0) return;

  Work work{};
  work.call = &call;
  work.kernels = &kernels;
  work.cut = cut_of(call);
  work.per_job = (work.cut.blocks + most_jobs - 1) / most_jobs;
  // Jobs begin at even rows: where an index of the axes above has an odd number of rows, at every other one.
  const bool odd = work.cut.rank && work.cut.rows_below * call.shape[work.cut.axes[work.cut.at]] % 2;
  if (odd && call.tiers.of_rows())
    work.per_job = (work.per_job + 2 * work.cut.pieces - 1) / (2 * work.cut.pieces) * (2 * work.cut.pieces);
  work.jobs = (work.cut.blocks + work.per_job - 1) / work.per_job;
  work.tiers_size = layout.size;
  work.compute_size = kernels.item_size == 8 ? 8 : 4;
  // Whole rows belong to one job each; all other groups are met by all jobs.
  work.disjoint = call.groups > 1 && work.cut.column_pieces == 1;
  if (work.disjoint) {
    for (int i = 0; i < work.cut.rank; ++i)
      work.disjoint &= call.shape[work.cut.axes[i]] == 1 || call.group_stride[work.cut.axes[i]] != 0;
  }

  std::shared_ptr<const Signs> signs;
  if (call.tiers.sketch) signs = signs_of(work.cut.columns, call.tiers.sketch, work.compute_size);
  work.signs = signs.get();

  work.cells_size = cells ? cells_per_group(call.direction, call.level) * call.groups : 0;
  std::unique_ptr<double[]> records;
  work.cells = cells;
  if (cells && !work.disjoint && work.jobs > 1) {
    records.reset(new double[size_t(work.jobs * work.cells_size)]);
    for (int64_t i = 0; i < work.jobs; ++i)
      init_cells(call.direction, call.level, records.get() + i * work.cells_size, call.groups);
    work.cells = records.get();
  }
  std::unique_ptr<double[]> tiers;
  work.tiers = tier_cells;
  if (work.jobs > 1) {
    tiers.reset(new double[size_t(work.jobs * layout.size)]);
    work.tiers = tiers.get();
    for (int64_t i = 0; i < work.jobs; ++i) layout.init(work.tiers + i * layout.size);
  }
  parallel_for(work.jobs, run_job, &work);
  for (int64_t i = 0; work.jobs > 1 && i < work.jobs; ++i) {
    if (records) kernels.combine(call.direction, call.level, cells, records.get() + i * work.cells_size, call.groups);
    layout.combine(tier_cells, work.tiers + i * layout.size);
  }
}

}  // namespace geoact
