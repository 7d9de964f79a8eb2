// Moving elements between a strided box of axes and a small contiguous buffer, and storing past the cache.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace geoact::GEOACT_ISA {

inline constexpr int rows_per_fold = 32;  // longest run of float32 additions into one register

// A piece of raw memory one vector long. The compiler would turn memcpy of unknown length into `rep movs`, whose
// start-up costs more than the rows it is used on here.
using Raw = native<uint64_t, vector_bytes / 8>;
GEOACT_INLINE Raw load_raw(const char* from) {
  Raw raw;
  std::memcpy(&raw, from, sizeof raw);
  return raw;
}

GEOACT_INLINE void copy_bytes(char* to, const char* from, int64_t bytes) {
  int64_t i = 0;
  for (; i + vector_bytes <= bytes; i += vector_bytes) {
    const Raw raw = load_raw(from + i);
    std::memcpy(to + i, &raw, sizeof raw);
  }
  for (; i + 8 <= bytes; i += 8) std::memcpy(to + i, from + i, 8);
  for (; i < bytes; ++i) to[i] = from[i];
}

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
    if (to_step == item && from_step == item)
      copy_bytes(to, from, n * item);
    else if (item == 2)
      copy_elements<uint16_t>(to, to_step, from, from_step, n);
    else if (item == 4)
      copy_elements<uint32_t>(to, to_step, from, from_step, n);
    else
      copy_elements<uint64_t>(to, to_step, from, from_step, n);
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

// `bytes`, a multiple of the vector, to an aligned address, past the cache.
GEOACT_INLINE void stream_lines(char* to, const char* from, int64_t bytes) {
#if defined(__x86_64__)
  for (int64_t i = 0; i < bytes; i += vector_bytes) {
    const Raw raw = load_raw(from + i);
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), (__m512i)raw);
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), (__m256i)raw);
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), (__m128i)raw);
#endif
  }
#else
  copy_bytes(to, from, bytes);
#endif
}

// A run of output on its way past the cache. Non-temporal stores want whole aligned lines, which the array need not
// begin with: results are put into a small buffer at the array's own misalignment and leave it line by line, so that a
// misaligned array costs two partial lines in all.
struct PastCache {
  static constexpr int64_t line = 64, most = rows_per_fold * vector_bytes;
  alignas(64) char buffer[most + 2 * line];
  char* to;        // where the buffer's first byte belongs
  int64_t filled;  // bytes of the buffer in use
  int64_t skip;    // leading bytes that are not ours

  GEOACT_INLINE void begin(char* array) {
    skip = filled = int64_t(reinterpret_cast<uintptr_t>(array) & (line - 1));
    to = array - skip;
  }
  GEOACT_INLINE char* next() { return buffer + filled; }
  GEOACT_INLINE void advance(int64_t bytes) {
    filled += bytes;
    int64_t whole = filled & -line, from = 0;
    if (whole && skip) {
      copy_bytes(to + skip, buffer + skip, line - skip);
      from = line;
      skip = 0;
    }
    stream_lines(to + from, buffer + from, whole - from);
    to += whole;
    filled -= whole;
    std::memcpy(buffer, buffer + whole, line);  // the beginning of the next line
  }
  GEOACT_INLINE void end() { copy_bytes(to + skip, buffer + skip, filled - skip); }
};

// One row of a staged matrix to its place.
GEOACT_INLINE void stream_row(char* to, const char* from, int64_t bytes, bool past_cache) {
  const int64_t head = int64_t(-reinterpret_cast<uintptr_t>(to) & (PastCache::line - 1));
  if (!past_cache || bytes < head + PastCache::line) {
    copy_bytes(to, from, bytes);
    return;
  }
  const int64_t whole = (bytes - head) & -PastCache::line;
  copy_bytes(to, from, head);
  stream_lines(to + head, from + head, whole);
  copy_bytes(to + head + whole, from + head + whole, bytes - head - whole);
}

}  // namespace geoact::GEOACT_ISA
