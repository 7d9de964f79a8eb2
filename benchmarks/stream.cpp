// The copy kernel with two inputs: reads a and b, writes c past the cache. What a backward pass has to move.
// Compiled by bars.py into a shared library; n is a multiple of 16, c is 64-byte aligned.
#include <cstddef>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

extern "C" void add(const float* a, const float* b, float* c, size_t n) {
  size_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) _mm512_stream_ps(c + i, _mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i)));
#elif defined(__AVX__)
  for (; i + 8 <= n; i += 8) _mm256_stream_ps(c + i, _mm256_add_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)));
#elif defined(__x86_64__)
  for (; i + 4 <= n; i += 4) _mm_stream_ps(c + i, _mm_add_ps(_mm_loadu_ps(a + i), _mm_loadu_ps(b + i)));
#endif
  for (; i < n; ++i) c[i] = a[i] + b[i];
#if defined(__x86_64__)
  _mm_sfence();
#endif
}
