// Moving elements between a strided box of axes and a small contiguous buffer, and storing past the cache.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace geoact::GEOACT_ISA {

// Copies n elements, `from_step` and `to_step` bytes apart.
template <class U>
GEOACT_INLINE void copy_elements(char* to, int64_t to_step, const char* from, int64_t from_step, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    U value;
    std::memcpy(&value, from + i * from_step, sizeof value);
    std::memcpy(to + i * to_step, &value, sizeof value);
  }
}

// A box of axes seen as one run of elements in C order.
struct Box {
  const Axis* axis;
  int rank, item;

  GEOACT_INLINE int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= axis[i].size;
    return n;
  }
  GEOACT_INLINE int64_t stride(int array) const { return rank > 0 ? axis[0].stride[array] : 0; }
  GEOACT_INLINE bool unit(int array) const { return rank == 0 || axis[rank - 1].stride[array] == item; }
  GEOACT_INLINE bool dense(int array) const { return rank == 0 || (rank == 1 && unit(array)); }

  // Calls piece(position in the run, byte offset in the array, length) for the innermost pieces of [start, start + n).
  template <class Piece>
  GEOACT_INLINE void pieces(int array, int64_t start, int64_t n, const Piece& piece) const {
    if (rank == 0) {
      piece(int64_t(0), int64_t(0), n);
      return;
    }
    int64_t index[max_rank], offset = 0, rest = start;
    for (int i = rank - 1; i >= 0; --i) {
      index[i] = rest % axis[i].size;
      rest /= axis[i].size;
      offset += index[i] * axis[i].stride[array];
    }
    const Axis& inner = axis[rank - 1];
    for (int64_t done = 0; done < n;) {
      const int64_t left = inner.size - index[rank - 1], length = left < n - done ? left : n - done;
      piece(done, offset, length);
      done += length;
      index[rank - 1] += length;
      offset += length * inner.stride[array];
      for (int i = rank - 1; i > 0 && index[i] == axis[i].size; --i) {
        offset += axis[i - 1].stride[array] - axis[i].size * axis[i].stride[array];
        index[i] = 0;
        ++index[i - 1];
      }
    }
  }
  GEOACT_INLINE void copy(char* to, int64_t to_step, const char* from, int64_t from_step, int64_t n) const {
    if (to_step == item && from_step == item) std::memcpy(to, from, size_t(n * item));
    else if (item == 2) copy_elements<uint16_t>(to, to_step, from, from_step, n);
    else if (item == 4) copy_elements<uint32_t>(to, to_step, from, from_step, n);
    else copy_elements<uint64_t>(to, to_step, from, from_step, n);
  }
  void gather(char* buffer, const char* array, int which, int64_t start, int64_t n) const {
    const int64_t step = rank ? axis[rank - 1].stride[which] : item;
    pieces(which, start, n, [&](int64_t at, int64_t offset, int64_t length) {
      copy(buffer + at * item, item, array + offset, step, length);
    });
  }
  void scatter(char* array, const char* buffer, int which, int64_t start, int64_t n) const {
    const int64_t step = rank ? axis[rank - 1].stride[which] : item;
    pieces(which, start, n, [&](int64_t at, int64_t offset, int64_t length) {
      copy(array + offset, step, buffer + at * item, item, length);
    });
  }
};

GEOACT_INLINE void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Buffer to array. Non-temporal stores must be aligned, which the array need not be: only the buffer side is read
// unaligned, so a misaligned array costs two short edges and nothing else.
inline __attribute__((always_inline)) void stream(char* to, const char* from, int64_t bytes, bool past_cache) {
#if defined(__x86_64__)
  if (past_cache) {
    const int64_t head = int64_t(-reinterpret_cast<uintptr_t>(to) & (vector_bytes - 1));
    if (head < bytes) {
      std::memcpy(to, from, size_t(head));
      int64_t i = head;
      for (; i + vector_bytes <= bytes; i += vector_bytes) {
#if defined(__AVX512F__)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
#elif defined(__AVX2__)
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
#else
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
#endif
      }
      std::memcpy(to + i, from + i, size_t(bytes - i));
      return;
    }
  }
#endif
  std::memcpy(to, from, size_t(bytes));
}

}  // namespace geoact::GEOACT_ISA
