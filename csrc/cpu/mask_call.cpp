#include "mask_call.h"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "../call/mask.h"
#include "pool.h"

namespace geoact {
namespace {

constexpr int64_t elements_per_box = 65536, elements_per_record = 1024, columns_per_cut = 64;

// A piece of the call: where it begins, and how far it goes along each axis.
struct Box {
  int64_t in = 0, out = 0, mask = 0, group = 0;  // offsets: bytes, and the first of its groups
  int64_t groups = 1;
  int64_t cells = 0;  // where its record lies among those of all
  std::vector<int64_t> shape;
};

// Boxes as a function of the shape alone. An axis is halved until a box is small: the one of the longest steps, unless
// that leaves a record with too few elements; then one of groups, outermost first, so that a box has groups that follow
// each other. Rows are cut where a word of the mask ends.
class Cut {
 public:
  Cut(const Call& call, const MaskAxis* axes, int rank, bool measured)
      : call_(call), axes_(axes), rank_(rank), measured_(measured) {
    Box whole;
    for (int i = 0; i < rank; ++i) whole.shape.push_back(axes[i].size);
    divide(std::move(whole));
  }
  std::vector<Box> boxes;

 private:
  int64_t group_stride(int i) const { return measured_ && i < call_.rank ? call_.group_stride[i] : 0; }

  void divide(Box box) {
    int64_t total = 1;
    box.groups = 1;
    for (int i = 0; i < rank_; ++i) {
      total *= box.shape[size_t(i)];
      if (group_stride(i)) box.groups *= box.shape[size_t(i)];
    }
    const int axis = total > elements_per_box ? best(box, total) : -1;
    if (axis < 0) {
      boxes.push_back(std::move(box));
      return;
    }
    const int64_t unit = unit_of(axis), size = box.shape[size_t(axis)], half = (size / 2 + unit - 1) / unit * unit;
    Box rest = box;
    box.shape[size_t(axis)] = half;
    rest.shape[size_t(axis)] = size - half;
    rest.in += half * axes_[axis].in;
    rest.out += half * axes_[axis].out;
    rest.mask += half * axes_[axis].mask / (axis == rank_ - 1 ? 8 : 1);
    rest.group += half * group_stride(axis);
    divide(std::move(box));
    divide(std::move(rest));
  }

  int64_t unit_of(int axis) const { return axis == rank_ - 1 ? columns_per_cut : 1; }

  int best(const Box& box, int64_t total) const {
    int64_t outermost = 0;
    for (int i = 0; i < rank_; ++i)
      if (box.shape[size_t(i)] > 1) outermost = std::max(outermost, group_stride(i));
    int found = -1;
    for (int i = 0; i < rank_; ++i) {
      if (box.shape[size_t(i)] <= unit_of(i)) continue;
      if (group_stride(i) ? group_stride(i) != outermost
                          : box.groups > 1 && total / 2 < elements_per_record * box.groups)
        continue;
      if (found < 0 || std::abs(axes_[i].out) > std::abs(axes_[found].out)) found = i;
    }
    return found;
  }

  const Call& call_;
  const MaskAxis* axes_;
  int rank_;
  bool measured_;
};

struct Job {
  const Call* call;
  const Kernels* kernels;
  const MaskAxis* axes;
  int rank;
  uint8_t* mask;
  const std::vector<Box>* boxes;
  double* records;
  bool past_cache;
};

// The kernel over all matrices of a box: its rows lie along an axis of adjacent elements where there is one.
void pass_over(const Job& job, const Box& box, bool measured) {
  const int64_t item = job.kernels->item_size;
  MaskAxis axes[max_rank];
  for (int i = 0; i < job.rank; ++i) {
    axes[i] = job.axes[i];
    axes[i].size = box.shape[size_t(i)];
    if (measured) axes[i].in = axes[i].out;
  }
  const int outer = merge(axes, job.rank) - 1;
  const MaskAxis columns = axes[outer];
  MaskBlock block;
  block.out = job.call->out[0].data + box.out;
  block.in = measured ? block.out : job.call->in[0].data + box.in;
  block.mask = job.mask + box.mask;
  block.past_cache = job.past_cache;
  block.rows = 1;
  block.in_row = block.out_row = block.mask_row = 0;
  block.columns = columns.size;
  block.in_step = columns.in;
  block.out_step = columns.out;
  int others = outer;
  if (outer > 0) {
    int rows = outer - 1;
    for (int i = 0; i < outer; ++i)
      if (axes[i].in == item && axes[i].out == item) rows = i;
    std::swap(axes[rows], axes[outer - 1]);
    const MaskAxis& row = axes[--others];
    block.rows = row.size;
    block.in_row = row.in;
    block.out_row = row.out;
    block.mask_row = row.mask;
  }
  int64_t index[max_rank] = {};
  for (;;) {
    job.kernels->mask(job.call->direction, block);
    int i = others - 1;
    for (; i >= 0; --i) {
      const bool wraps = ++index[i] == axes[i].size;
      const int64_t steps = wraps ? 1 - axes[i].size : 1;
      block.in += steps * axes[i].in;
      block.out += steps * axes[i].out;
      block.mask += steps * axes[i].mask;
      if (!wraps) break;
      index[i] = 0;
    }
    if (i < 0) return;
  }
}

void run_box(void* context, int64_t i) {
  const Job& job = *static_cast<const Job*>(context);
  const Box& box = (*job.boxes)[size_t(i)];
  if (job.records) {
    // y of the box is in cache when its bits are made of it, and relu(y) is y.
    Call part = *job.call;
    std::copy_n(box.shape.begin(), part.rank, part.shape);
    part.in[0].data += box.in;
    part.out[0].data += box.out;
    part.groups = box.groups;
    execute(part, job.records + box.cells, nullptr);
  }
  pass_over(job, box, job.records != nullptr);
}

}  // namespace

void execute_masked(const Call& call, uint8_t* mask, double* cells) {
  if (cells) init_cells(call.direction, call.level, cells, call.groups);
  const int64_t total = elements_of(call);
  if (total == 0) return;
  const Kernels& kernels = *active_isa().kernels[int(call.dtype)];
  MaskAxis axes[max_rank];
  const int rank = mask_axes(call, axes);
  Cut cut(call, axes, rank, cells != nullptr);
  const int fields = cells_per_group(call.direction, call.level);
  std::vector<double> records;
  if (cells) {
    int64_t doubles = 0;
    for (Box& box : cut.boxes) {
      box.cells = doubles;
      doubles += fields * box.groups;
    }
    records.resize(size_t(doubles));
  }
  const bool past_cache = !cells && !call.in_place && streams(2 * total * kernels.item_size);
  Job job{&call, &kernels, axes, rank, mask, &cut.boxes, cells ? records.data() : nullptr, past_cache};
  parallel_for(int64_t(cut.boxes.size()), run_box, &job);
  if (!cells) return;
  std::vector<double> sum;
  for (const Box& box : cut.boxes) {  // in their order
    sum.resize(size_t(fields * box.groups));
    for (int k = 0; k < fields; ++k)
      std::copy_n(cells + k * call.groups + box.group, box.groups, sum.data() + k * box.groups);
    kernels.combine(call.direction, call.level, sum.data(), records.data() + box.cells, box.groups);
    for (int k = 0; k < fields; ++k)
      std::copy_n(sum.data() + k * box.groups, box.groups, cells + k * call.groups + box.group);
  }
}

}  // namespace geoact
