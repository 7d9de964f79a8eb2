// How one part of a call is walked: axes to blocks, blocks to tiles, tiles to records.
//
// A tile is what is measured before float32 sums become a float64 record: at most 256 vectors of a flat run, or 256
// rows of a panel of columns. What the kernels cannot read in place (strided rows, an input the output overwrites) or
// should not write in place (an output larger than the cache) passes through a small buffer that stays in L1/L2. Tile
// borders depend on element indices only, so neither alignment nor the number of threads moves a result.
#pragma once

#include "exact.h"
#include "kernels.h"
#include "stage.h"
#include "vec.h"
// vec.h first
#include "../ops/statistics.h"

namespace geoact::GEOACT_ISA {

inline constexpr int64_t longest_tile = 4096, panel_columns = 512, panel_rows = 256, staged_rows = 64, call_rows = 16;
inline constexpr int64_t probe_rows = 4, refine_rows = 32, flat_ahead = 64;  // rows, rows, vectors
inline constexpr int64_t bytes_ahead = 16384;  // what a core computes on while memory answers
// Deviations below it have squares that lose digits in float32; harmless for float64, whose range is far away.
template <class T>
inline constexpr double deviation_floor = sizeof(T) == 4 ? 0x1p-50 : 0x1p-500;

template <class T>
struct KernelPair {
  void (*run)(const Block&);
  void (*examine)(const Block&, double* first, double* second, double* slope);
  Shortcuts shortcuts;
};

using D = widest<double>;

// Lanes [offset, offset + D::W) of a vector, or of its counters, as float64.
template <class V, class U>
GEOACT_INLINE D widen(const U& lanes, int offset) {
  using Element = __typeof__(lanes[0] + lanes[0]);
  native<Element, D::W> part;
  std::memcpy(&part, reinterpret_cast<const char*>(&lanes) + offset * sizeof(Element), sizeof part);
  return __builtin_convertvector(part, native<double, D::W>);
}

// Every column stays its own group.
template <class V>
struct ToColumns {
  int offset;
  GEOACT_INLINE D sum(V v) const { return widen<V>(v.v, offset); }
  GEOACT_INLINE D count(typename V::counter c) const { return widen<V>(c, offset); }
  GEOACT_INLINE D lowest(V v) const { return widen<V>(v.v, offset); }
  GEOACT_INLINE D highest(V v) const { return widen<V>(v.v, offset); }
};

// All lanes to one float64, in a fixed order.
template <class V>
struct ToOne {
  template <class U, class Two>
  static GEOACT_INLINE double fold(const U& lanes, const Two& two) {
    D all = widen<V>(lanes, 0);
    for (int offset = D::W; offset < V::W; offset += D::W) all = two(all, widen<V>(lanes, offset));
    double one = all.v[0];
    for (int i = 1; i < D::W; ++i) one = two(one, double(all.v[i]));
    return one;
  }
  static constexpr auto plus = [](auto a, auto b) __attribute__((always_inline)) { return a + b; };
  static GEOACT_INLINE double sum(V v) { return fold(v.v, plus); }
  static GEOACT_INLINE double count(typename V::counter c) { return fold(c, plus); }
  static GEOACT_INLINE double lowest(V v) {
    return fold(v.v, [](auto a, auto b) __attribute__((always_inline)) { return min(a, b); });
  }
  static GEOACT_INLINE double highest(V v) {
    return fold(v.v, [](auto a, auto b) __attribute__((always_inline)) { return max(a, b); });
  }
};

template <class Statistics, Level L>
inline constexpr int cells_of = Statistics::size;
template <>
inline constexpr int cells_of<Geometry, Level::counts> = Geometry::counts_size;

template <class Statistics>
inline constexpr bool has_shift = false;
template <>
inline constexpr bool has_shift<Geometry> = true;

template <class Statistics, class T, Level L>
class Walk {
  using V = widest<T>;
  using Lanes = typename Statistics::template Lanes<V, L>;
  using Shift = typename Statistics::template Shift<V>;
  static constexpr bool measured = L != Level::none, shifted = L == Level::moments && has_shift<Statistics>;
  static constexpr int cells = cells_of<Statistics, L>;
  static constexpr int64_t panel_strips = panel_columns / V::W;
  // A lane of float32 sums takes at most 256 values, however narrow the vector.
  static constexpr int64_t flat_tile = sizeof(T) == 4 ? 256 * V::W : longest_tile;

 public:
  Walk(const Task& task, KernelPair<T> kernels, int item, double smallest_normal)
      : task_(task), kernels_(kernels), item_(item), smallest_normal_(smallest_normal) {}

  void run() {
    const int inner = leaf_rank(), outer = task_.rank - inner;
    int64_t index[max_rank] = {};
    for (;;) {
      Cursor at{{task_.in[0], task_.in[1], task_.in[2]}, {task_.out[0], task_.out[1]}, 0, 0};
      for (int i = 0; i < outer; ++i) move(at, task_.axis[i], index[i]);
      if (columns_)
        columns_leaf(at, outer);
      else
        flat_leaf(at, outer);
      int i = outer - 1;
      while (i >= 0 && ++index[i] == task_.axis[i].size) index[i--] = 0;
      if (i < 0) break;
    }
    if (task_.stream) stream_fence();
  }

 private:
  struct Cursor {
    const char* in[max_inputs];
    char* out[max_outputs];
    int64_t group, parameter;
  };
  void move(Cursor& at, const Axis& axis, int64_t steps) const {
    for (int k = 0; k < task_.inputs; ++k) at.in[k] += axis.stride[k] * steps;
    for (int k = 0; k < task_.outputs; ++k) at.out[k] += axis.stride[task_.inputs + k] * steps;
    at.group += axis.group * steps;
    at.parameter += axis.parameter * steps;
  }
  static bool plain(const Axis& axis) { return axis.group == 0 && axis.parameter == 0; }

  // How many trailing axes one leaf covers: all plain ones as a flat run, or a tagged one as columns with the plain
  // axis outside it as rows.
  int leaf_rank() {
    int plain_axes = 0;
    while (plain_axes < task_.rank && plain(task_.axis[task_.rank - 1 - plain_axes])) ++plain_axes;
    columns_ = plain_axes == 0 && task_.rank > 0;
    if (!columns_) return plain_axes;
    return task_.rank > 1 && plain(task_.axis[task_.rank - 2]) ? 2 : 1;
  }

  Block block_at(const Cursor& at) {
    Block block{};
    for (int k = 0; k < max_parameters; ++k) {
      const T* p = static_cast<const T*>(task_.parameter[k]);
      block.parameter[k] = p && task_.parameter_varies[k] ? p + at.parameter : p;
    }
    block.saturation = task_.saturation;
    block.smallest_normal = smallest_normal_;
    block.lanes = lanes_;
    block.shift = shift_;
    block.parameter_lanes = parameter_lanes_;
    return block;
  }

  // --- a flat run ----------------------------------------------------------------------------------------------------

  // `count` adjacent elements: whole vectors one below the other, then what is left of one.
  void run_flat(Block block, int64_t count) {
    block.rows = count / V::W;
    block.columns = V::W;
    for (int64_t& stride : block.in_stride) stride = V::W;
    for (int64_t& stride : block.out_stride) stride = V::W;
    block.ahead = flat_ahead;
    kernels_.run(block);
    const int64_t done = block.rows * V::W;
    if (done == count) return;
    for (int k = 0; k < task_.inputs; ++k) block.in[k] = static_cast<const char*>(block.in[k]) + done * item_;
    for (int k = 0; k < task_.outputs; ++k) block.out[k] = static_cast<char*>(block.out[k]) + done * item_;
    block.rows = 1;
    block.columns = count - done;
    kernels_.run(block);
  }

  void flat_leaf(const Cursor& at, int outer) {
    const Box box{task_.axis + outer, task_.rank - outer, item_};
    const int64_t total = box.size();
    bool in_place[max_inputs], all_in_place = true, dense_out = true;
    for (int k = 0; k < task_.inputs; ++k)
      all_in_place &= in_place[k] = box.dense(k) && !(task_.inputs_shadowed && measured);
    for (int k = 0; k < task_.outputs; ++k) dense_out &= box.dense(task_.inputs + k);
    const bool direct = dense_out && !task_.stream, past_cache = dense_out && task_.stream;
    const bool whole = !measured && all_in_place && dense_out;
    Block block = block_at(at);
    if (past_cache) {
      past_cache_.begin(at.out[0]);
      block.past_cache = &past_cache_;
    }
    clear_parameters(1);
    double record[Statistics::size];
    if constexpr (measured) load_record(record, at.group);
    for (int64_t start = 0; start < total; start += flat_tile) {
      const int64_t count = whole ? total : total - start < flat_tile ? total - start : flat_tile;
      for (int k = 0; k < task_.inputs; ++k) {
        if (in_place[k])
          block.in[k] = at.in[k] + start * item_;
        else
          box.gather(stage_in_[k], at.in[k], k, start, count), block.in[k] = stage_in_[k];
      }
      for (int k = 0; k < task_.outputs; ++k) block.out[k] = direct ? at.out[k] + start * item_ : stage_out_[k];
      if constexpr (measured) {
        lanes_[0].clear();
        if constexpr (shifted) choose_shift(block, record, count);
      }
      run_flat(block, count);
      if (!direct && !past_cache)
        for (int k = 0; k < task_.outputs; ++k) box.scatter(at.out[k], stage_out_[k], task_.inputs + k, start, count);
      if constexpr (measured) harvest_flat(block, count, record);
      if (whole) break;
    }
    if (past_cache) past_cache_.end();
    if constexpr (measured) store_record(record, at.group);
    for (int k = 0; k < task_.trained; ++k)
      task_.parameter_gradient[k * task_.parameters + at.parameter] += ToOne<V>::sum(parameter_lanes_[0][k]);
  }

  void clear_parameters(int64_t strips) {
    for (int64_t s = 0; s < strips; ++s)
      for (int k = 0; k < task_.trained; ++k) parameter_lanes_[s][k] = V(T(0));
  }

  void load_record(double* record, int64_t group) const {
    for (int k = 0; k < cells; ++k) record[k] = task_.cells[k * task_.groups + group];
  }
  void store_record(const double* record, int64_t group) {
    for (int k = 0; k < cells; ++k) task_.cells[k * task_.groups + group] = record[k];
  }

  // The mean of what the group has seen so far; at its beginning, the median of the means of a few short pieces, which
  // one outlier cannot move.
  void choose_shift(const Block& block, const double* record, int64_t count) {
    double x = record[Geometry::mean_x], y = record[Geometry::mean_y];
    if (record[Geometry::n] == 0) {
      Block probe = block;  // a few short pieces, spread over the tile so that a trend does not mislead
      probe.rows = count >= 1024 ? 8 : count >= 32 ? 4 : 1;
      probe.columns = probe.rows == 1 ? count : count >= 1024 ? 16 : 8;
      for (int k = 0; k < task_.inputs; ++k) probe.in_stride[k] = count / probe.rows;
      kernels_.examine(probe, exact_[0], exact_[1], exact_[2]);
      x = middle_of(exact_[0], probe.rows, probe.columns);
      y = middle_of(exact_[1], probe.rows, probe.columns);
    }
    set_shift(0, usable(x), usable(y));
  }
  // The median of the means of 1, 4 or 8 pieces: an outlier spoils the mean of its own piece only.
  static double middle_of(const double* v, int64_t pieces, int64_t length) {
    if (pieces == 1) return mean_of(v, length, 1);
    double means[8] = {};
    for (int64_t i = 0; i < pieces; ++i) {
      const double mean = mean_of(v + i * length, length, 1);
      int64_t k = i;
      for (; k > 0 && means[k - 1] > mean; --k) means[k] = means[k - 1];
      means[k] = mean;
    }
    return (means[pieces / 2 - 1] + means[pieces / 2]) / 2;
  }
  // After a NaN the group's moments are NaN whatever the shift; a shift of NaN would also send every tile to be
  // measured again.
  static T usable(double v) { return is_finite(double(T(v))) ? T(v) : T(0); }
  void set_shift(int64_t strip, V x, V y) {
    if constexpr (has_shift<Statistics>) shift_[strip] = Shift{x, y};
  }
  double shift_x(int64_t strip, int lane) const {
    if constexpr (shifted)
      return double(shift_[strip].x.v[lane]);
    else
      return 0;
  }
  double shift_y(int64_t strip, int lane) const {
    if constexpr (shifted)
      return double(shift_[strip].y.v[lane]);
    else
      return 0;
  }

  void harvest_flat(Block block, int64_t count, double* record) {
    double fresh[Statistics::size];
    lanes_[0].template finish<double>(fresh, double(count), ToOne<V>{}, kernels_.shortcuts, shift_x(0, 0),
                                      shift_y(0, 0));
    if (Statistics::template suspicious<L>(fresh, kernels_.shortcuts, deviation_floor<T>, smallest_normal_)) {
      block.rows = 1;
      block.columns = count;
      kernels_.examine(block, exact_[0], exact_[1], exact_[2]);
      measure<L>(Statistics{}, Sample{exact_[0], exact_[1], exact_[2], count, 1}, task_.saturation, smallest_normal_,
                 fresh);
    }
    Statistics::template combine<L>(record, fresh);
  }

  // --- columns -------------------------------------------------------------------------------------------------------

  struct Panel {
    int64_t row, rows, column, columns;  // within the leaf
    int64_t group, group_step;           // of its first column
  };

  void columns_leaf(const Cursor& at, int outer) {
    const Axis& across = task_.axis[task_.rank - 1];
    const Axis single{1, {}, 0, 0};
    const Axis& down = task_.rank - outer == 2 ? task_.axis[outer] : single;
    bool staged = task_.inputs_shadowed && measured;
    const auto steps_whole = [&](int k) { return across.stride[k] == item_ && down.stride[k] % item_ == 0; };
    for (int k = 0; k < task_.inputs; ++k) staged |= !steps_whole(k);
    bool direct = !task_.stream;
    for (int k = 0; k < task_.outputs; ++k) direct &= steps_whole(task_.inputs + k);
    const int64_t tile_rows = staged ? staged_rows : panel_rows;
    for (int64_t row = 0; row < down.size; row += tile_rows)
      for (int64_t column = 0; column < across.size; column += panel_columns) {
        const Panel panel{row,
                          min_of(tile_rows, down.size - row),
                          column,
                          min_of(panel_columns, across.size - column),
                          at.group + column * across.group,
                          across.group};
        Cursor corner = at;
        move(corner, down, row);
        move(corner, across, column);
        run_panel(corner, panel, down, across, staged, direct);
      }
  }
  static int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

  void run_panel(const Cursor& at, const Panel& panel, const Axis& down, const Axis& across, bool staged, bool direct) {
    Block block = block_at(at);
    block.columns = panel.columns;
    block.lanes_step = panel.group_step != 0;
    for (int k = 0; k < max_parameters; ++k) block.parameter_stride[k] = task_.parameter_varies[k] && across.parameter;
    Axis axes[2] = {down, across};
    axes[0].size = panel.rows;
    axes[1].size = panel.columns;
    const Box box{axes, 2, item_};
    for (int k = 0; k < task_.inputs; ++k) {
      block.in[k] = at.in[k];
      block.in_stride[k] = down.stride[k] / item_;
      if (!staged) continue;
      box.gather(stage_in_[k], at.in[k], k, 0, panel.rows * panel.columns);
      block.in[k] = stage_in_[k];
      block.in_stride[k] = panel.columns;
    }
    for (int k = 0; k < task_.outputs; ++k) {
      block.out[k] = at.out[k];
      block.out_stride[k] = down.stride[task_.inputs + k] / item_;
    }
    block.rows = panel.rows;
    const int64_t row_bytes = panel.columns * item_;
    block.ahead = call_rows * row_bytes < bytes_ahead ? bytes_ahead / row_bytes : call_rows;
    const int64_t strips = (panel.columns + V::W - 1) / V::W;
    if constexpr (measured) {
      for (int64_t s = 0; s < (block.lanes_step ? strips : 1); ++s) lanes_[s].clear();
      if constexpr (shifted) choose_shifts(block, panel);
    }
    clear_parameters(strips);
    if (direct)
      kernels_.run(block);
    else
      run_staged(block, box);
    if constexpr (measured) {
      if (block.lanes_step)
        harvest_columns(block, panel);
      else
        harvest_shared(block, panel);
    }
    harvest_parameters(at, panel, across.parameter);
  }

  void run_staged(const Block& whole, const Box& box) {
    const int64_t pitch = whole.columns + V::W;  // rows a power of two apart would compete for one cache set
    Block block = whole;
    for (int64_t row = 0; row < whole.rows; row += call_rows) {
      block.rows = min_of(call_rows, whole.rows - row);
      for (int k = 0; k < task_.inputs; ++k)
        block.in[k] = static_cast<const char*>(whole.in[k]) + row * whole.in_stride[k] * item_;
      for (int k = 0; k < task_.outputs; ++k) {
        block.out[k] = stage_out_[k];
        block.out_stride[k] = pitch;
      }
      kernels_.run(block);
      for (int k = 0; k < task_.outputs; ++k)
        for (int64_t r = 0; r < block.rows; ++r) {
          const int out = task_.inputs + k;
          char* const to = static_cast<char*>(whole.out[k]);
          const char* from = stage_out_[k] + r * pitch * item_;
          if (box.unit(out))
            stream_row(to + (row + r) * box.stride(out), from, whole.columns * item_, task_.stream);
          else
            box.scatter(to, from, out, (row + r) * whole.columns, whole.columns);
        }
    }
  }

  // Column by column: the mean so far, or that of a few rows.
  void choose_shifts(const Block& block, const Panel& panel) {
    const double* n = task_.cells + Geometry::n * task_.groups;
    const double* mean_x = task_.cells + Geometry::mean_x * task_.groups;
    const double* mean_y = task_.cells + Geometry::mean_y * task_.groups;
    const bool fresh = n[panel.group] == 0;
    Block probe = block;
    if (fresh) {
      spread(probe, min_of(probe_rows, panel.rows), panel.rows);
      kernels_.examine(probe, exact_[0], exact_[1], exact_[2]);
    }
    if (!block.lanes_step) {
      const int64_t all = probe.rows * panel.columns;
      set_shift(0, usable(fresh ? mean_of(exact_[0], all, 1) : mean_x[panel.group]),
                usable(fresh ? mean_of(exact_[1], all, 1) : mean_y[panel.group]));
      return;
    }
    for (int64_t c = 0; c < panel.columns; ++c) {
      const int64_t g = panel.group + c * panel.group_step;
      shift_[c / V::W].x.v[c % V::W] = usable(fresh ? mean_of(exact_[0] + c, probe.rows, panel.columns) : mean_x[g]);
      shift_[c / V::W].y.v[c % V::W] = usable(fresh ? mean_of(exact_[1] + c, probe.rows, panel.columns) : mean_y[g]);
    }
    if (fresh && panel.rows > refine_rows) refine_shifts(block, panel);
  }

  // Rows of a block taken from all over it.
  void spread(Block& block, int64_t rows, int64_t of) const {
    block.rows = rows;
    for (int k = 0; k < task_.inputs; ++k) block.in_stride[k] *= of / rows;
  }

  // The mean of a few rows lies up to a standard deviation or two off in some of many columns, and so does an outlier
  // among them: the fast pass over a few more rows, its output thrown away, gives a better one.
  void refine_shifts(const Block& block, const Panel& panel) {
    Block sample = block;
    spread(sample, refine_rows, panel.rows);
    sample.out[0] = stage_out_[0];
    sample.out_stride[0] = sample.ahead = 0;
    kernels_.run(sample);
    for (int64_t s = 0; s * V::W < panel.columns; ++s) {
      for (int i = 0; i < V::W; ++i) {
        shift_[s].x.v[i] = usable(double(shift_[s].x.v[i]) + double(lanes_[s].x1.v[i]) / refine_rows);
        shift_[s].y.v[i] = usable(double(shift_[s].y.v[i]) + double(lanes_[s].y1.v[i]) / refine_rows);
      }
      lanes_[s].clear();
    }
  }

  Block strip_of(const Block& block, int64_t column, int count) const {
    Block strip = block;
    for (int k = 0; k < task_.inputs; ++k) strip.in[k] = static_cast<const char*>(block.in[k]) + column * item_;
    for (int k = 0; k < max_parameters; ++k)
      if (block.parameter_stride[k]) strip.parameter[k] = static_cast<const T*>(block.parameter[k]) + column;
    strip.columns = count;
    return strip;
  }

  void harvest_columns(const Block& block, const Panel& panel) {
    for (int64_t column = 0; column < panel.columns; column += V::W) {
      const int count = int(min_of(V::W, panel.columns - column));
      const int64_t s = column / V::W, group = panel.group + column * panel.group_step;
      alignas(64) double fresh[Statistics::size][V::W];
      const bool adjacent = panel.group_step == 1 && count == V::W;
      bool doubtful = false;
      for (int h = 0; h < V::W; h += D::W) {
        D cell[Statistics::size], sx(0.0), sy(0.0);
        const ToColumns<V> reduce{h};
        if constexpr (shifted) sx = reduce.sum(shift_[s].x), sy = reduce.sum(shift_[s].y);
        lanes_[s].template finish<D>(cell, D(double(panel.rows)), reduce, kernels_.shortcuts, sx, sy);
        const auto ours = D::mask_type::first(count - h < 0 ? 0 : count - h < D::W ? count - h : D::W);
        doubtful |= (ours & Statistics::template suspicious<L>(cell, kernels_.shortcuts, D(deviation_floor<T>),
                                                               D(smallest_normal_)))
                        .any();
        for (int k = 0; k < cells; ++k) storage<D, double>::store(fresh[k] + h, cell[k]);
      }
      if (doubtful) measure_strip(strip_of(block, column, count), fresh);
      if (adjacent) {
        combine_columns(task_.cells + group, task_.groups, fresh);
        continue;
      }
      alignas(64) double record[Statistics::size][V::W];
      for (int k = 0; k < cells; ++k)
        for (int i = 0; i < count; ++i) record[k][i] = task_.cells[k * task_.groups + group + i * panel.group_step];
      combine_columns(record[0], V::W, fresh);
      for (int k = 0; k < cells; ++k)
        for (int i = 0; i < count; ++i) task_.cells[k * task_.groups + group + i * panel.group_step] = record[k][i];
    }
  }

  void combine_columns(double* into, int64_t step, const double (*fresh)[V::W]) {
    for (int h = 0; h < V::W; h += D::W) {
      D a[Statistics::size], b[Statistics::size];
      for (int k = 0; k < cells; ++k) {
        a[k] = storage<D, double>::load(into + k * step + h);
        b[k] = storage<D, double>::load(fresh[k] + h);
      }
      Statistics::template combine<L>(a, b);
      for (int k = 0; k < cells; ++k) storage<D, double>::store(into + k * step + h, a[k]);
    }
  }

  void measure_strip(const Block& strip, double (*fresh)[V::W]) {
    kernels_.examine(strip, exact_[0], exact_[1], exact_[2]);
    for (int64_t c = 0; c < strip.columns; ++c) {
      double cell[Statistics::size];
      measure<L>(Statistics{}, Sample{exact_[0] + c, exact_[1] + c, exact_[2] + c, strip.rows, strip.columns},
                 task_.saturation, smallest_normal_, cell);
      for (int k = 0; k < cells; ++k) fresh[k][c] = cell[k];
    }
  }

  // All columns belong to one group (its parameter varies, its statistics do not).
  void harvest_shared(const Block& block, const Panel& panel) {
    double record[Statistics::size], fresh[Statistics::size];
    load_record(record, panel.group);
    lanes_[0].template finish<double>(fresh, double(panel.rows * panel.columns), ToOne<V>{}, kernels_.shortcuts,
                                      shift_x(0, 0), shift_y(0, 0));
    if (Statistics::template suspicious<L>(fresh, kernels_.shortcuts, deviation_floor<T>, smallest_normal_)) {
      Statistics::init(fresh);
      for (int64_t column = 0; column < panel.columns; column += V::W) {
        double cell[Statistics::size];
        const Block strip = strip_of(block, column, int(min_of(V::W, panel.columns - column)));
        kernels_.examine(strip, exact_[0], exact_[1], exact_[2]);
        measure<L>(Statistics{}, Sample{exact_[0], exact_[1], exact_[2], strip.rows * strip.columns, 1},
                   task_.saturation, smallest_normal_, cell);
        Statistics::template combine<L>(fresh, cell);
      }
    }
    Statistics::template combine<L>(record, fresh);
    store_record(record, panel.group);
  }

  void harvest_parameters(const Cursor& at, const Panel& panel, int64_t step) {
    for (int k = 0; k < task_.trained; ++k) {
      double* const gradient = task_.parameter_gradient + k * task_.parameters + at.parameter;
      for (int64_t c = 0; c < panel.columns; ++c)
        gradient[c * step] += double(parameter_lanes_[c / V::W][k].v[c % V::W]);
    }
  }

  const Task& task_;
  const KernelPair<T> kernels_;
  const int item_;
  const double smallest_normal_;
  bool columns_ = false;
  alignas(64) char stage_in_[max_inputs][staged_rows * panel_columns * sizeof(T)];
  PastCache past_cache_;
  alignas(64) char stage_out_[max_outputs][call_rows * (panel_columns + V::W) * sizeof(T)];
  alignas(64) Lanes lanes_[panel_strips];
  alignas(64) Shift shift_[panel_strips];
  alignas(64) V parameter_lanes_[panel_strips][max_parameters];
  alignas(64) double exact_[3][longest_tile];
};

}  // namespace geoact::GEOACT_ISA
