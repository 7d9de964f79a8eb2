// HOW a block of ReLU is passed over with its bit mask: y and the bits are made of x in registers, dx of dy and the
// bits.
//
// Elements that lie side by side in memory are those of a row, whose bits are moved 64 at once, or those of a column
// (channels last, transposed): then a lane is a row and collects a byte of its own from 8 columns.
//
// May include: pass.h, stage.h, ops/.
#pragma once

#include "pass.h"

namespace geoact::GEOACT_ISA {

// --- bits and masks ----------------------------------------------------------------------------------------

// Bit i is lane i.
template <class T, int W>
GEOACT_INLINE uint64_t bits_of(mask<T, W> m) {
  if constexpr (has_mask_registers<T, W>) {
    return m.m & ((uint32_t(1) << W) - 1);
  } else {
#if defined(__AVX2__)
    if constexpr (sizeof(T) * W == 32 && sizeof(T) == 4) return uint64_t(_mm256_movemask_ps((__m256)m.m));
    if constexpr (sizeof(T) * W == 32 && sizeof(T) == 8) return uint64_t(_mm256_movemask_pd((__m256d)m.m));
#endif
#if defined(__x86_64__)
    if constexpr (sizeof(T) * W == 16 && sizeof(T) == 4) return uint64_t(_mm_movemask_ps((__m128)m.m));
    if constexpr (sizeof(T) * W == 16 && sizeof(T) == 8) return uint64_t(_mm_movemask_pd((__m128d)m.m));
#endif
    uint64_t bits = 0;
    for (int i = 0; i < W; ++i) bits |= uint64_t(m.m[i] & 1) << i;
    return bits;
  }
}

// Lane i is bit i.
template <class V>
GEOACT_INLINE typename V::mask_type mask_of(uint64_t bits) {
  if constexpr (has_mask_registers<typename V::scalar, V::W>) {
    return {uint16_t(bits & ((uint32_t(1) << V::W) - 1))};
  } else {
    using I = typename format<typename V::scalar>::integer;
    typename V::integers lane{};
    for (int i = 0; i < V::W; ++i) lane[i] = I(1) << i;
    return {((lane - lane + I(bits & ((uint64_t(1) << V::W) - 1))) & lane) != 0};
  }
}

// --- what happens to an element ----------------------------------------------------------------------------

// y, and where the gradient passes: y > 0, or NaN.
struct Rectify {
  static constexpr bool reads_mask = false;
  template <class V, class S>
  static GEOACT_INLINE V apply(V x, typename V::mask_type& passes) {
    const V y = storage<V, S>::round(Relu<V>{}.value(x));
    passes = ~(y <= V(0));
    return y;
  }
};

// dy where its bit is set, else 0.
struct Gate {
  static constexpr bool reads_mask = true;
  template <class V, class S>
  static GEOACT_INLINE V apply(V dy, typename V::mask_type& passes) {
    return storage<V, S>::round(select(passes, dy, V(0)));
  }
};

// --- rows of adjacent elements -----------------------------------------------------------------------------

inline constexpr int word = 64;  // elements of a row whose bits are read or written at once

template <class Op, class V, class S>
GEOACT_INLINE void one_word(const S* in, S* out, uint8_t* bytes, int count) {
  static_assert(word % V::W == 0);
  uint64_t bits = 0;
  if constexpr (Op::reads_mask) std::memcpy(&bits, bytes, size_t(count + 7) / 8);
  const auto vector = [&](int i, int n) __attribute__((always_inline)) {
    auto passes = mask_of<V>(bits >> i);
    store_some(out + i, Op::template apply<V, S>(load_some<V>(in + i, n), passes), n);
    if constexpr (!Op::reads_mask) bits |= bits_of(passes) << i;
  };
  if (count == word) {
#pragma GCC unroll 32
    for (int i = 0; i < word; i += V::W) vector(i, V::W);
  } else {  // the lanes that are filled up are 0, and so are their bits
    for (int i = 0; i < count; i += V::W) vector(i, count - i < V::W ? count - i : V::W);
  }
  if constexpr (!Op::reads_mask) std::memcpy(bytes, &bits, size_t(count + 7) / 8);
}

template <class Op, class V, class S>
void along_rows(const MaskBlock& block) {
  constexpr int64_t item = sizeof(S), piece = rows_per_fold * V::W;
  static_assert(piece % word == 0);
  const bool side_by_side = block.in_step == item && block.out_step == item;
  for (int64_t row = 0; row < block.rows; ++row) {
    const char* in = block.in + row * block.in_row;
    char* out = block.out + row * block.out_row;
    uint8_t* bytes = block.mask + row * block.mask_row;
    if (side_by_side && block.past_cache) {
      PastCache past_cache;
      past_cache.begin(out);
      for (int64_t start = 0; start < block.columns; start += piece) {
        const int64_t n = block.columns - start < piece ? block.columns - start : piece;
        S* to = reinterpret_cast<S*>(past_cache.next());
        for (int64_t i = 0; i < n; i += word)
          one_word<Op, V, S>(reinterpret_cast<const S*>(in) + start + i, to + i, bytes + (start + i) / 8,
                             int(n - i < word ? n - i : word));
        past_cache.advance(n * item);
      }
      past_cache.end();
    } else if (side_by_side) {
      for (int64_t i = 0; i < block.columns; i += word)
        one_word<Op, V, S>(reinterpret_cast<const S*>(in) + i, reinterpret_cast<S*>(out) + i, bytes + i / 8,
                           int(block.columns - i < word ? block.columns - i : word));
    } else {
      S staged[word];
      char* const buffer = reinterpret_cast<char*>(staged);
      for (int64_t i = 0; i < block.columns; i += word) {
        const int64_t n = block.columns - i < word ? block.columns - i : word;
        copy_elements<S>(buffer, item, in + i * block.in_step, block.in_step, n);
        one_word<Op, V, S>(staged, staged, bytes + i / 8, int(n));
        copy_elements<S>(out + i * block.out_step, block.out_step, buffer, item, n);
      }
    }
  }
  if (side_by_side && block.past_cache) stream_fence();
}

// --- rows side by side -------------------------------------------------------------------------------------

template <class Op, class V, class S>
void across_rows(const MaskBlock& block) {
  using T = typename V::scalar;
  using I = typename format<T>::integer;
  constexpr int64_t at_once = 256;  // rows: their bytes stay in L1 while all columns pass
  for (int64_t first = 0; first < block.rows; first += at_once) {
    const int64_t last = block.rows - first < at_once ? block.rows : first + at_once;
    for (int64_t column = 0; column < block.columns; column += 8) {
      const int columns = int(block.columns - column < 8 ? block.columns - column : 8);
      uint8_t* const bytes = block.mask + column / 8;
      for (int64_t row = first; row < last; row += V::W) {
        const int count = int(last - row < V::W ? last - row : V::W);
        typename V::integers byte{};
        if constexpr (Op::reads_mask)
          for (int i = 0; i < count; ++i) byte[i] = bytes[(row + i) * block.mask_row];
        for (int k = 0; k < columns; ++k) {
          const auto* in = reinterpret_cast<const S*>(block.in + (column + k) * block.in_step) + row;
          auto* out = reinterpret_cast<S*>(block.out + (column + k) * block.out_step) + row;
          // A lane of ones is NaN, the one value that is unlike itself.
          const V set = from_bits<T, V::W>(-((byte >> k) & I(1)));
          auto passes = set != set;
          store_some(out, Op::template apply<V, S>(load_some<V>(in, count), passes), count);
          if constexpr (!Op::reads_mask)
            byte |= bits(select(passes, from_bits<T, V::W>(byte - byte + (I(1) << k)), V(0)));
        }
        if constexpr (!Op::reads_mask)
          for (int i = 0; i < count; ++i) bytes[(row + i) * block.mask_row] = uint8_t(byte[i]);
      }
    }
  }
}

template <class Op, class S>
void run_mask(const MaskBlock& block) {
  using V = widest<typename compute<S>::type>;
  if (block.in_row == int64_t(sizeof(S)) && block.out_row == int64_t(sizeof(S)))
    across_rows<Op, V, S>(block);
  else
    along_rows<Op, V, S>(block);
}

}  // namespace geoact::GEOACT_ISA
