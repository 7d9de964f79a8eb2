// The ceilings of a memory-bound kernel on a CPU: the least that can be done to so many bytes, as fast as it goes. Copy
// (one stream read, one written), merge (two read, one written), read and fill; the last three letters of a name, _nt,
// say that the stores go past the cache. geoact.bench races them and holds every case against the fastest.
//
// A plain C interface, loaded by ctypes, so that one build serves every Python. Compiled once per instruction set into
// a library of its own (see CMakeLists.txt); depends on nothing of geoact.
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr size_t width = 64;
#elif defined(__AVX2__)
constexpr size_t width = 32;
#else
constexpr size_t width = 16;
#endif
constexpr size_t unroll = 4;
using Vector = uint64_t __attribute__((vector_size(width)));

inline Vector load(const char* p) {
  Vector v;
  std::memcpy(&v, p, width);
  return v;
}

struct Plain {
  static void store(char* p, Vector v) { std::memcpy(p, &v, width); }
  static void finish() {}
};

// Needs p aligned to a vector.
struct Streaming {
  static void store(char* p, Vector v) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(__x86_64__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
    std::memcpy(p, &v, width);
#endif
  }
  static void finish() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
  }
};

// One vector of each source at a time, four in flight; the bytes that fill no vector are left to the last loop.
template <class Store, class Wide, class Byte>
void pass(char* out, size_t bytes, Wide wide, Byte byte) {
  size_t i = 0;
  for (; i + unroll * width <= bytes; i += unroll * width) {
    Vector v[unroll];
    for (size_t k = 0; k < unroll; ++k) v[k] = wide(i + k * width);
    for (size_t k = 0; k < unroll; ++k) Store::store(out + i + k * width, v[k]);
  }
  for (; i < bytes; ++i) out[i] = byte(i);
  Store::finish();
}

template <class Store>
void copy_with(const char* a, char* c, size_t bytes) {
  pass<Store>(c, bytes, [a](size_t i) { return load(a + i); }, [a](size_t i) { return a[i]; });
}

template <class Store>
void merge_with(const char* a, const char* b, char* c, size_t bytes) {
  pass<Store>(
      c, bytes, [=](size_t i) { return load(a + i) ^ load(b + i); },
      [=](size_t i) { return static_cast<char>(a[i] ^ b[i]); });
}

template <class Store>
void fill_with(char* c, size_t bytes) {
  // Not zero: some processors drop stores of zeros early.
  pass<Store>(c, bytes, [](size_t) { return Vector{} + 0x5a5a5a5a5a5a5a5aull; }, [](size_t) { return char{0x5a}; });
}

}  // namespace

extern "C" {

// `bytes` is the size of each array. The _nt functions need c aligned to 64 bytes.
void copy(const char* a, char* c, size_t bytes) { copy_with<Plain>(a, c, bytes); }
void copy_nt(const char* a, char* c, size_t bytes) { copy_with<Streaming>(a, c, bytes); }
void merge(const char* a, const char* b, char* c, size_t bytes) { merge_with<Plain>(a, b, c, bytes); }
void merge_nt(const char* a, const char* b, char* c, size_t bytes) { merge_with<Streaming>(a, b, c, bytes); }
void fill(char* c, size_t bytes) { fill_with<Plain>(c, bytes); }
void fill_nt(char* c, size_t bytes) { fill_with<Streaming>(c, bytes); }

// Returns what it read, folded, so that no compiler can leave the reading out.
uint64_t read(const char* a, size_t bytes) {
  Vector sum[unroll] = {};
  size_t i = 0;
  for (; i + unroll * width <= bytes; i += unroll * width)
    for (size_t k = 0; k < unroll; ++k) sum[k] ^= load(a + i + k * width);
  uint64_t folded = 0;
  for (; i < bytes; ++i) folded ^= static_cast<unsigned char>(a[i]);
  for (const Vector& v : sum)
    for (size_t k = 0; k < width / 8; ++k) folded ^= v[k];
  return folded;
}

// The best of the libraries that this processor can run.
const char* best() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return "avx512";
  if (__builtin_cpu_supports("avx2")) return "avx2";
#endif
  return "baseline";
}
}
