// How the opt-in tiers (ops/tiers.h) look at rows: a block of them at a time, right after the pass has gone over it and
// while x and y are in cache, so that memory is still read once. Nothing here depends on the activation.
//
// May include: vec.h, ops/. Knows nothing of threads or Python.
#pragma once

#include "vec.h"
// vec.h first: the verbs of ops/ are found by overload
#include "../ops/tiers.h"
#include "kernels.h"
#include "stage.h"

namespace geoact::GEOACT_ISA {

template <class V>
GEOACT_INLINE V permute(V v, typename V::integers lanes) {
#if defined(__clang__)
  V moved;
  for (int i = 0; i < V::W; ++i) moved.v[i] = v.v[lanes[i]];
  return moved;
#else
  return V(__builtin_shuffle(v.v, lanes));
#endif
}

template <class V>
GEOACT_INLINE typename V::integers bucket_of(V x) {
  using T = typename V::scalar;
  using I = typename V::integers;
  constexpr int significand = format<T>::mantissa_bits;
  const I size = bits(abs(x));
  I at = (size >> (significand - 2)) - (((format<T>::bias + Buckets::least) << 2) - 1);
  at = at > 0 ? at : I{};
  const I top = I{} + (Buckets::of_size - 1);
  at = at < top ? at : top;
  at += bits(x) < 0 ? I{} + Buckets::of_size : I{};
  return size > bits(V(T(__builtin_inf()))) ? I{} + Buckets::nan : at;
}

// The rows of one job, block after block; its memory is the job's, its record is settled at the end.
template <class S, class T>
class Observer {
  using V = widest<T>;
  using I = typename V::integers;

 public:
  Observer(const RowBlock& block, TierJob& job)
      : block_(block),
        job_(job),
        layout_(job.tiers->histogram != Histogram::none, job.tiers->pairs, job.tiers->sketch) {}

  void run() {
    const bool histograms = layout_.histogram_x >= 0, pairs = layout_.pairs >= 0, sketches = layout_.sketch >= 0;
    int64_t index[max_rank] = {};
    const char* at[2] = {block_.at[0], block_.at[1]};
    const S* rows[2][2] = {{room(0, 0), room(1, 0)},
                           {}};  // of the pair; an even row of the block before is in the room
    for (int64_t r = 0; r < block_.rows; ++r) {
      const int half = int((block_.first_row + r) & 1);
      for (int side = 0; side < 2; ++side) rows[half][side] = whole_row(at[side], side, half);
      if (histograms) histogram(rows[half], block_.first_row + r);
      if (sketches) sketch(rows[half], half);
      if (pairs && half) pair(rows);
      advance(index, at);
    }
    if (histograms) add_counters();
    if (pairs && (block_.first_row + block_.rows) & 1)
      for (int side = 0; side < 2; ++side)
        std::memmove(room(side, 0), rows[0][side], size_t(block_.columns) * sizeof(S));
  }

  // The rows still in the buffer, then sums of differences from the shift to means and deviations.
  void settle() {
    if (layout_.sketch < 0) return;
    flush();
    double* const record = job_.record + layout_.sketch;
    const Sketches& s = layout_.sketches;
    const double n = record[Sketches::rows];
    if (n == 0) return;
    for (int which = 0; which < Sketches::products; ++which) {
      const double* const a = record + s.mean(Sketches::first_of(which));
      const double* const b = record + s.mean(Sketches::second_of(which));
      for (int i = 0; i < s.k; ++i) {
        const double share = a[i] / n;
        double* const products = record + s.product(which) + i * s.k;
        for (int j = 0; j < s.k; ++j) products[j] -= share * b[j];
      }
    }
    for (int i = 0; i < Sketches::sides * s.k; ++i) {
      double &sum = record[s.mean(0) + i], &squares = record[s.deviation(0) + i];
      squares = squares - sum * sum / n > 0 ? squares - sum * sum / n : 0;
      sum = job_.shift[i] + sum / n;
    }
  }

 private:
  void advance(int64_t* index, const char** at) const {
    for (int i = block_.rank - 1; i >= 0; --i) {
      for (int side = 0; side < 2; ++side) at[side] += block_.stride[side][i];
      if (++index[i] < block_.size[i]) return;
      for (int side = 0; side < 2; ++side) at[side] -= block_.stride[side][i] * block_.size[i];
      index[i] = 0;
    }
  }

  // A row whose elements are adjacent: the array's own, or gathered.
  const S* whole_row(const char* from, int side, int half) {
    const int64_t step = block_.column_stride[side];
    if (step == int64_t(sizeof(S)) || block_.columns == 1) return reinterpret_cast<const S*>(from);
    S* const row = room(side, half);
    for (int64_t c = 0; c < block_.columns; ++c) std::memcpy(row + c, from + c * step, sizeof(S));
    return row;
  }
  S* room(int side, int half) const { return static_cast<S*>(job_.room) + (side * 2 + half) * job_.room_columns; }

  static GEOACT_INLINE V load_padded(const S* p, int64_t count) {
    if (count >= V::W) return storage<V, S>::load(p);
    S buffer[V::W] = {};
    if (count > 0) std::memcpy(buffer, p, size_t(count) * sizeof(S));
    return storage<V, S>::load(buffer);
  }

  // --- histogram -----------------------------------------------------------------------------------------------------

  // Tables of each array take turns: an increment of the same counter would wait for the one before.
  static constexpr int tables = TierJob::tables;
  void histogram(const S* const (&row)[2], int64_t number) {
    const bool all = job_.tiers->histogram == Histogram::all;
    const int64_t step = all ? SampledRuns::run : int64_t(SampledRuns::run) * SampledRuns::every;
    for (int64_t c = all ? 0 : SampledRuns::first(number); c < block_.columns; c += step) {
      const int64_t end = c + SampledRuns::run < block_.columns ? c + SampledRuns::run : block_.columns;
      for (int side = 0; side < 2; ++side) {
        uint32_t* const table = static_cast<uint32_t*>(job_.counters) + tables * side * Buckets::size;
        for (int64_t i = c; i < end; i += V::W) {
          alignas(64) typename format<T>::integer at[V::W];
          const I found = bucket_of(load_padded(row[side] + i, end - i));
          std::memcpy(at, &found, sizeof at);
          const int count = end - i < V::W ? int(end - i) : V::W;
          if (count == V::W) {
#pragma GCC unroll 16
            for (int j = 0; j < V::W; ++j) ++table[at[j] + j % tables * Buckets::size];
          } else {
            for (int j = 0; j < count; ++j) ++table[at[j]];
          }
        }
      }
    }
  }
  void add_counters() {
    for (int side = 0; side < 2; ++side) {
      double* const into = job_.record + (side ? layout_.histogram_y : layout_.histogram_x);
      uint32_t* const table = static_cast<uint32_t*>(job_.counters) + tables * side * Buckets::size;
      for (int i = 0; i < Buckets::size; ++i) {
        for (int t = 0; t < tables; ++t) into[i] += double(table[i + t * Buckets::size]);
      }
      std::memset(table, 0, tables * Buckets::size * sizeof *table);
    }
  }

  // --- pairs ---------------------------------------------------------------------------------------------------------

  static double sum_of(V v) {
    double lanes[V::W];
    for (int i = 0; i < V::W; ++i) lanes[i] = double(v.v[i]);
    for (int half = V::W / 2; half; half /= 2)
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
  }
  static double exact_square_distance(const S* a, const S* b, int64_t columns) {
    double sum = 0;
    for (int64_t c = 0; c < columns; ++c) {
      const double d = double(load_padded(a + c, 1).v[0]) - double(load_padded(b + c, 1).v[0]);
      sum += d * d;
    }
    return sum;
  }
  static constexpr int64_t short_sum = 64;  // float32 additions in a row, in vectors
  static double square_distance(const S* a, const S* b, int64_t columns) {
    double sum = 0;
    for (int64_t start = 0; start < columns; start += short_sum * V::W) {
      const int64_t end = columns - start < short_sum * V::W ? columns : start + short_sum * V::W;
      V even(T(0)), odd(T(0));
      int64_t c = start;
      for (; c + 2 * V::W <= end; c += 2 * V::W) {
        const V d = storage<V, S>::load(a + c) - storage<V, S>::load(b + c);
        const V e = storage<V, S>::load(a + c + V::W) - storage<V, S>::load(b + c + V::W);
        even = fma(d, d, even);
        odd = fma(e, e, odd);
      }
      for (; c < end; c += V::W) {
        const V d = load_padded(a + c, end - c) - load_padded(b + c, end - c);
        even = fma(d, d, even);
      }
      sum += sum_of(even + odd);
    }
    // Squares of float32 that overflow, or are too small to keep their digits.
    if (sizeof(T) == 4 && !(sum < 0x1p100 && sum > 0x1p-90)) return exact_square_distance(a, b, columns);
    return sum;
  }
  void pair(const S* const (&rows)[2][2]) {
    Pairs::add(job_.record + layout_.pairs, square_distance(rows[0][0], rows[1][0], block_.columns),
               square_distance(rows[0][1], rows[1][1], block_.columns));
  }

  // --- sketches ------------------------------------------------------------------------------------------------------

  void sketch(const S* const (&row)[2], int half) {
    switch (layout_.sketches.k) {
      case 32:
        return sketch_row<32>(row, half);
      case 64:
        return sketch_row<64>(row, half);
      default:
        return sketch_row<128>(row, half);
    }
  }

  template <int K>
  void sketch_row(const S* const (&row)[2], int half) {
    constexpr int numbers = Sketches::sides * K;
    T* const pair = static_cast<T*>(job_.buffer) + int64_t(TierJob::buffer_rows) * numbers;
    T* const z = pair + half * numbers;
    for (int side = 0; side < 2; side += together<K>) fold<K, together<K>>(row + side, z + 2 * side * K);
    V sum(T(0));
    for (int i = 0; i < numbers; i += V::W) sum = fma(load_at(z + i), V(T(0)), sum);
    const bool finite = job_.finite[half] = sum_of(sum) == 0;  // 0 times NaN or infinity is NaN
    double* const record = job_.record + layout_.sketch;
    if (half) {
      const bool both = job_.finite[0] && finite;
      Pairs::add(record + layout_.sketches.pairs(),
                 both ? difference<K>(pair + Sketches::s_of_x * K, z + Sketches::s_of_x * K) : __builtin_inf(),
                 both ? difference<K>(pair + Sketches::s_of_y * K, z + Sketches::s_of_y * K) : __builtin_inf());
    }
    if (finite)
      keep<K>(z);
    else
      record[Sketches::nonfinite] += 1;
  }
  static GEOACT_INLINE V load_at(const T* p) { return storage<V, T>::load(p); }

  template <int K>
  static double difference(const T* a, const T* b) {
    V sum(T(0));
    for (int i = 0; i < K; i += V::W) {
      const V d = load_at(a + i) - load_at(b + i);
      sum = fma(d, d, sum);
    }
    return sum_of(sum);
  }

  // S^T x and T^T x of one row of each of so many arrays. Two share signs and turns where their sums fit into
  // registers.
  template <int K>
  static constexpr int together = V::W * int(sizeof(T)) == 64 && K / V::W <= 4 ? 2 : 1;
  static constexpr int ahead = 1024 / int(sizeof(S));  // turns hide from the processor where the next load will be

  template <int K, int arrays>
  void fold(const S* const* row, T* z) {
    constexpr int N = K / V::W;
    V sum[arrays][2][N];
    for (int a = 0; a < arrays; ++a)
      for (int i = 0; i < N; ++i) sum[a][0][i] = sum[a][1][i] = V(T(0));
    const int64_t blocks = block_.columns / K;
    const S* from[arrays];
    for (int64_t b = 0; b < blocks; ++b) {
      for (int a = 0; a < arrays; ++a) {
        from[a] = row[a] + b * K;
        for (int i = 0; i < K; i += 64 / int(sizeof(S))) __builtin_prefetch(from[a] + i + ahead);
      }
      add_block<K, arrays>(from, b, sum);
    }
    if (const int64_t rest = block_.columns - blocks * K) {
      S padded[arrays][K] = {};
      for (int a = 0; a < arrays; ++a) {
        std::memcpy(padded[a], row[a] + blocks * K, size_t(rest) * sizeof(S));
        from[a] = padded[a];
      }
      add_block<K, arrays>(from, blocks, sum);
    }
    for (int a = 0; a < arrays; ++a)
      for (int set = 0; set < 2; ++set)
        for (int i = 0; i < N; ++i) storage<V, T>::store(z + (2 * a + set) * K + i * V::W, sum[a][set][i]);
  }
  template <int K, int arrays>
  GEOACT_INLINE void add_block(const S* const (&from)[arrays], int64_t b, V (&sum)[arrays][2][K / V::W]) const {
    constexpr size_t inside = V::W - 1;  // the bits of a turn that move lanes within a vector
    I lanes{};
    for (int i = 0; i < V::W; ++i) lanes[i] = i;
#pragma GCC unroll 2
    for (int set = 0; set < 2; ++set) {
      const size_t turn = job_.turns[b + set * ((block_.columns + K - 1) / K)];
      const T* const signs = static_cast<const T*>(job_.signs[set]) + b * K;
      const I order = lanes ^ typename format<T>::integer(turn & inside);
#pragma GCC unroll 16
      for (int i = 0; i < K / V::W; ++i) {
        const V sign = load_at(signs + i * V::W);
#pragma GCC unroll 2
        for (int a = 0; a < arrays; ++a) {
          const V v = storage<V, S>::load(from[a] + (size_t(i * V::W) ^ (turn & ~inside)));
          sum[a][set][i] = fma(permute(v, order), sign, sum[a][set][i]);
        }
      }
    }
  }

  // One more row of the buffer, as its difference from the job's first.
  template <int K>
  void keep(const T* z) {
    constexpr int numbers = Sketches::sides * K;
    T* const rows = static_cast<T*>(job_.buffer);
    T* const first = rows + int64_t(TierJob::buffer_rows + 2) * numbers;
    if (!job_.shifted) {
      for (int i = 0; i < numbers; ++i) job_.shift[i] = double(first[i] = z[i]);
      job_.shifted = true;
    }
    T* const row = rows + int64_t(job_.filled) * numbers;
    for (int i = 0; i < numbers; i += V::W) storage<V, T>::store(row + i, load_at(z + i) - load_at(first + i));
    if (++job_.filled == TierJob::buffer_rows) flush();
  }
  void flush() {
    switch (layout_.sketches.k) {
      case 32:
        return flush_rows<32>();
      case 64:
        return flush_rows<64>();
      default:
        return flush_rows<128>();
    }
  }
  template <int K>
  void flush_rows() {
    constexpr int row = Sketches::sides * K;
    const T* const z = static_cast<const T*>(job_.buffer);
    double* const record = job_.record + layout_.sketch;
    const Sketches& s = layout_.sketches;
    for (int which = 0; which < Sketches::products; ++which)
      products<K>(z + Sketches::first_of(which) * K, z + Sketches::second_of(which) * K, job_.filled,
                  record + s.product(which));
    constexpr int beside = 4;  // columns of vectors: the sums of one would wait for each other
    for (int i = 0; i < row; i += beside * V::W) {
      V sum[beside], squares[beside];
      for (int p = 0; p < beside; ++p) sum[p] = squares[p] = V(T(0));
      for (int r = 0; r < job_.filled; ++r) {
#pragma GCC unroll 4
        for (int p = 0; p < beside; ++p) {
          const V v = load_at(z + r * row + i + p * V::W);
          sum[p] += v;
          squares[p] = fma(v, v, squares[p]);
        }
      }
      for (int p = 0; p < beside; ++p)
        for (int j = 0; j < V::W; ++j) {
          record[s.mean(0) + i + p * V::W + j] += double(sum[p].v[j]);
          record[s.deviation(0) + i + p * V::W + j] += double(squares[p].v[j]);
        }
    }
    record[Sketches::rows] += job_.filled;
    job_.filled = 0;
  }

  // into += a^T b, of `rows` rows: a corner of it at a time in registers.
  template <int K>
  static void products(const T* a, const T* b, int rows, double* into) {
    constexpr int row = Sketches::sides * K, down = 4, across = V::W * int(sizeof(T)) == 64 ? 4 : 2;
    constexpr int N = K / V::W < across ? K / V::W : across;
    for (int i = 0; i < K; i += down)
      for (int j = 0; j < K; j += N * V::W) {
        V sum[down][N];
        for (int p = 0; p < down; ++p)
          for (int q = 0; q < N; ++q) sum[p][q] = V(T(0));
        for (int r = 0; r < rows; ++r) {
          V right[N];
#pragma GCC unroll 4
          for (int q = 0; q < N; ++q) right[q] = load_at(b + r * row + j + q * V::W);
#pragma GCC unroll 4
          for (int p = 0; p < down; ++p) {
            const V left(a[r * row + i + p]);
#pragma GCC unroll 4
            for (int q = 0; q < N; ++q) sum[p][q] = fma(left, right[q], sum[p][q]);
          }
        }
        for (int p = 0; p < down; ++p)
          for (int q = 0; q < N; ++q)
            for (int l = 0; l < V::W; ++l) into[(i + p) * K + j + q * V::W + l] += double(sum[p][q].v[l]);
      }
  }

  const RowBlock& block_;
  TierJob& job_;
  const TierLayout layout_;
};

}  // namespace geoact::GEOACT_ISA
