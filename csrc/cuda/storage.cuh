// What lies in memory and how it becomes a number: float16 and bfloat16 as their bits, several elements as one access.
//
// May include: device.h.
#pragma once

#include <cstdint>

#include "device.h"

namespace geoact::cuda {

struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// N elements that are read or written by one instruction; written two by two, so that small ones share a register.
template <class S, int N>
struct alignas(sizeof(S) * N) Pack {
  S v[N];
  __device__ __forceinline__ S operator[](int i) const { return v[i]; }
  __device__ __forceinline__ void put(int i, S a, S b) { v[i] = a, v[i + 1] = b; }
};
template <class S, int N>
  requires(sizeof(S) == 2)
struct alignas(sizeof(S) * N) Pack<S, N> {
  uint32_t pair[N / 2];
  __device__ __forceinline__ S operator[](int i) const { return {uint16_t(pair[i / 2] >> i % 2 * 16)}; }
  __device__ __forceinline__ void put(int i, S a, S b) { pair[i / 2] = a.bits | uint32_t(b.bits) << 16; }
};

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(bfloat16 v) { return __uint_as_float(uint32_t(v.bits) << 16); }
__device__ __forceinline__ void narrow(float v, float& to) { to = v; }
__device__ __forceinline__ void narrow(double v, double& to) { to = v; }

#if defined(__CUDACC__)

__device__ __forceinline__ float widen(float16 v) { return __half2float(__ushort_as_half(v.bits)); }
__device__ __forceinline__ void narrow(float v, float16& to) { to.bits = __half_as_ushort(__float2half_rn(v)); }
__device__ __forceinline__ void narrow(float v, bfloat16& to) {
  to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(v));
}

__device__ __forceinline__ void narrow(float a, float b, float16& to_a, float16& to_b) {
  const __half2 both = __floats2half2_rn(a, b);
  to_a.bits = __half_as_ushort(both.x), to_b.bits = __half_as_ushort(both.y);
}
__device__ __forceinline__ void narrow(float a, float b, bfloat16& to_a, bfloat16& to_b) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
  to_a.bits = __bfloat16_as_ushort(both.x), to_b.bits = __bfloat16_as_ushort(both.y);
}

#else

inline float widen(float16 v) {
  const int exponent = v.bits >> 10 & 31, fraction = v.bits & 1023;
  const float size = exponent == 31 ? (fraction ? __builtin_nanf("") : __builtin_inff())
                     : exponent     ? __builtin_ldexpf(float(1024 + fraction), exponent - 25)
                                    : __builtin_ldexpf(float(fraction), -24);
  return __builtin_copysignf(size, v.bits >> 15 ? -1.f : 1.f);
}
inline void narrow(float v, float16& to) {
  const uint32_t bits = __float_as_uint(v), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000)
    to.bits = uint16_t(sign | 0x7e00);
  else if (size >= 0x477ff000)  // halfway from 65504 to what would follow
    to.bits = uint16_t(sign | 0x7c00);
  else if (size < 0x38800000)  // subnormal: a multiple of 2^-24
    to.bits = uint16_t(sign | uint32_t(__builtin_rintf(__uint_as_float(size) * 0x1p24f)));
  else
    to.bits = uint16_t(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}
inline void narrow(float v, bfloat16& to) {
  const uint32_t bits = __float_as_uint(v);
  to.bits = (bits & 0x7fffffff) > 0x7f800000 ? uint16_t(0x7fff) : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif

// Two at once, which is one instruction for narrow types.
template <class S, class V>
__device__ __forceinline__ void narrow(V a, V b, S& to_a, S& to_b) {
  narrow(a, to_a), narrow(b, to_b);
}

// What y or dx is after it has been stored.
template <class S, class V>
__device__ __forceinline__ V stored(V v) {
  S s;
  narrow(v, s);
  return widen(s);
}

template <class S>
struct compute {
  using type = float;
};
template <>
struct compute<double> {
  using type = double;
};

// Smallest normal number of a storage type.
template <class S>
inline constexpr double smallest_normal = 0x1p-126;
template <>
inline constexpr double smallest_normal<float16> = 0x1p-14;
template <>
inline constexpr double smallest_normal<double> = 0x1p-1022;

}  // namespace geoact::cuda
