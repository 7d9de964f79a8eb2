// The vector type: a value `vec<T, W>` of W lanes and the few operations the kernels are written in.
//
// Built on GCC/Clang vector extensions, so one text serves SSE2, AVX2, AVX-512 and NEON; intrinsics only where they
// pay or where the extensions have no word for it (fma, rounding, mask registers, float16). Everything lives in a
// namespace named after the instruction set it is compiled for, because each set is a separate object file and the
// linker must never find two versions of one function.
//
// May include: nothing of ours. Used by: cpu/pass.h, and through overloads by ops/.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef GEOACT_ISA
#error "vec.h is compiled once per instruction set: define GEOACT_ISA (baseline, avx2, avx512, neon)"
#endif

#define GEOACT_INLINE inline __attribute__((always_inline))

namespace geoact::GEOACT_ISA {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

// Storage types the arithmetic never happens in.
struct half {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

template <class T>
struct format;  // what the arithmetic needs to know of a floating-point type
template <>
struct format<float> {
  using integer = int32_t;
  using unsigned_integer = uint32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
};
template <>
struct format<double> {
  using integer = int64_t;
  using unsigned_integer = uint64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
};

template <class T, int W>
struct native_of {  // GCC drops vector_size from an alias template of a dependent type, but not from a member typedef
  typedef T type __attribute__((vector_size(W * sizeof(T))));
};
template <class T, int W>
using native = typename native_of<T, W>::type;

template <class T, int W>
inline constexpr bool has_mask_registers =
#if defined(__AVX512F__)
    W * sizeof(T) == 64;
#else
    false;
#endif

// --- masks -------------------------------------------------------------------------------------------------

template <class T, int W, bool Registers = has_mask_registers<T, W>>
struct mask {
  using lanes = native<typename format<T>::integer, W>;
  lanes m;
  friend GEOACT_INLINE mask operator&(mask a, mask b) { return {a.m & b.m}; }
  friend GEOACT_INLINE mask operator|(mask a, mask b) { return {a.m | b.m}; }
  friend GEOACT_INLINE mask operator~(mask a) { return {~a.m}; }
  GEOACT_INLINE bool any() const {
    auto merged = m[0];
    for (int i = 1; i < W; ++i) merged |= m[i];
    return merged != 0;
  }
  static GEOACT_INLINE mask first(int64_t n) {
    lanes index{};
    for (int i = 0; i < W; ++i) index[i] = i;
    return {index < static_cast<typename format<T>::integer>(n)};
  }
};

template <class T, int W>
struct mask<T, W, true> {
  uint16_t m;
  friend GEOACT_INLINE mask operator&(mask a, mask b) { return {uint16_t(a.m & b.m)}; }
  friend GEOACT_INLINE mask operator|(mask a, mask b) { return {uint16_t(a.m | b.m)}; }
  friend GEOACT_INLINE mask operator~(mask a) { return {uint16_t(~a.m)}; }
  GEOACT_INLINE bool any() const { return (m & ((uint32_t(1) << W) - 1)) != 0; }
  static GEOACT_INLINE mask first(int64_t n) { return {uint16_t((uint32_t(1) << n) - 1)}; }
};

// --- values ------------------------------------------------------------------------------------------------

template <class T, int W_>
struct vec {
  using scalar = T;
  static constexpr int W = W_;
  using lanes = native<T, W>;
  using integers = native<typename format<T>::integer, W>;
  using mask_type = mask<T, W>;
  using counter = native<typename format<T>::integer, W>;
  lanes v;

  vec() = default;
  GEOACT_INLINE vec(lanes value) : v(value) {}
  GEOACT_INLINE vec(T value) : v(value - lanes{}) {}  // `value - 0` keeps the sign of -0

  friend GEOACT_INLINE vec operator+(vec a, vec b) { return a.v + b.v; }
  friend GEOACT_INLINE vec operator-(vec a, vec b) { return a.v - b.v; }
  friend GEOACT_INLINE vec operator*(vec a, vec b) { return a.v * b.v; }
  friend GEOACT_INLINE vec operator/(vec a, vec b) { return a.v / b.v; }
  friend GEOACT_INLINE vec operator-(vec a) { return -a.v; }
  GEOACT_INLINE vec& operator+=(vec b) { return *this = *this + b; }

#if defined(__AVX512F__)
#define GEOACT_COMPARE(op, code)                                     \
  friend GEOACT_INLINE mask_type operator op(vec a, vec b) {         \
    if constexpr (!has_mask_registers<T, W>)                         \
      return {a.v op b.v};                                           \
    else if constexpr (sizeof(T) == 4)                               \
      return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, code)};   \
    else                                                             \
      return {_mm512_cmp_pd_mask((__m512d)a.v, (__m512d)b.v, code)}; \
  }
#else
#define GEOACT_COMPARE(op, code) \
  friend GEOACT_INLINE mask_type operator op(vec a, vec b) { return {a.v op b.v}; }
#endif
  GEOACT_COMPARE(<, _CMP_LT_OQ)
  GEOACT_COMPARE(<=, _CMP_LE_OQ)
  GEOACT_COMPARE(>, _CMP_GT_OQ)
  GEOACT_COMPARE(>=, _CMP_GE_OQ)
  GEOACT_COMPARE(==, _CMP_EQ_OQ)
  GEOACT_COMPARE(!=, _CMP_NEQ_UQ)
#undef GEOACT_COMPARE
};

template <class T>
using widest = vec<T, vector_bytes / int(sizeof(T))>;

template <class T, int W>
GEOACT_INLINE auto bits(vec<T, W> a) {
  return (typename vec<T, W>::integers)a.v;
}
template <class T, int W>
GEOACT_INLINE vec<T, W> from_bits(native<typename format<T>::integer, W> b) {
  return (native<T, W>)b;
}

// m ? a : b, lane by lane
template <class T, int W>
GEOACT_INLINE vec<T, W> select(mask<T, W> m, vec<T, W> a, vec<T, W> b) {
#if defined(__AVX512F__)
  if constexpr (has_mask_registers<T, W>) {
    if constexpr (sizeof(T) == 4)
      return (native<T, W>)_mm512_mask_blend_ps(m.m, (__m512)b.v, (__m512)a.v);
    else
      return (native<T, W>)_mm512_mask_blend_pd(m.m, (__m512d)b.v, (__m512d)a.v);
  } else
#endif
    return m.m ? a.v : b.v;
}

// What has an instruction that the vector extensions have no word for, or that GCC does not find by itself.
// clang-format off
#define GEOACT_EXTREMA(R, prefix, suffix)                                        \
  GEOACT_INLINE R native_max(R a, R b) { return prefix##_max_##suffix(a, b); }   \
  GEOACT_INLINE R native_min(R a, R b) { return prefix##_min_##suffix(a, b); }
#define GEOACT_FMA(R, instruction) GEOACT_INLINE R native_fma(R a, R b, R c) { return instruction; }
#define GEOACT_ROUND(R, instruction) GEOACT_INLINE R native_round(R a) { return instruction; }
#if defined(__x86_64__)
GEOACT_EXTREMA(__m128, _mm, ps)
GEOACT_EXTREMA(__m128d, _mm, pd)
#endif
#if defined(__AVX2__)
GEOACT_EXTREMA(__m256, _mm256, ps)
GEOACT_EXTREMA(__m256d, _mm256, pd)
GEOACT_ROUND(__m256, _mm256_round_ps(a, 0x08))
GEOACT_ROUND(__m256d, _mm256_round_pd(a, 0x08))
#endif
#if defined(__FMA__)
GEOACT_FMA(__m256, _mm256_fmadd_ps(a, b, c))
GEOACT_FMA(__m256d, _mm256_fmadd_pd(a, b, c))
#endif
#if defined(__AVX512F__)
GEOACT_EXTREMA(__m512, _mm512, ps)
GEOACT_EXTREMA(__m512d, _mm512, pd)
GEOACT_FMA(__m512, _mm512_fmadd_ps(a, b, c))
GEOACT_FMA(__m512d, _mm512_fmadd_pd(a, b, c))
GEOACT_ROUND(__m512, _mm512_roundscale_ps(a, 0x08))
GEOACT_ROUND(__m512d, _mm512_roundscale_pd(a, 0x08))
#endif
#if defined(__aarch64__)
GEOACT_FMA(float32x4_t, vfmaq_f32(c, a, b))
GEOACT_FMA(float64x2_t, vfmaq_f64(c, a, b))
GEOACT_ROUND(float32x4_t, vrndnq_f32(a))
GEOACT_ROUND(float64x2_t, vrndnq_f64(a))
#endif
#undef GEOACT_EXTREMA
#undef GEOACT_FMA
#undef GEOACT_ROUND
// clang-format on

// The second operand is returned when the two are unordered or equal, so max(vec(0), x) hands NaN through.
template <class T, int W>
GEOACT_INLINE vec<T, W> max(vec<T, W> a, vec<T, W> b) {
  if constexpr (requires { native_max(a.v, b.v); })
    return native<T, W>(native_max(a.v, b.v));
  else
    return a.v > b.v ? a.v : b.v;
}
template <class T, int W>
GEOACT_INLINE vec<T, W> min(vec<T, W> a, vec<T, W> b) {
  if constexpr (requires { native_min(a.v, b.v); })
    return native<T, W>(native_min(a.v, b.v));
  else
    return a.v < b.v ? a.v : b.v;
}

template <class T, int W>
GEOACT_INLINE vec<T, W> abs(vec<T, W> a) {
  using U = typename format<T>::unsigned_integer;
  return from_bits<T, W>(bits(a) & static_cast<typename format<T>::integer>(U(-1) >> 1));
}

// a, whose sign bit is clear, with that of s
template <class T, int W>
GEOACT_INLINE vec<T, W> with_sign(vec<T, W> a, vec<T, W> s) {
  return from_bits<T, W>(bits(a) | (bits(s) & bits(vec<T, W>(-T(0)))));
}

// a with the lower half of its significand cleared: the product of two such numbers is exact.
template <class T, int W>
GEOACT_INLINE vec<T, W> upper(vec<T, W> a) {
  using I = typename format<T>::integer;
  return from_bits<T, W>(bits(a) & -(I(1) << (format<T>::mantissa_bits / 2 + 1)));
}

// a * b + c: fused where the instruction set has it, two roundings on the x86-64 baseline.
inline constexpr bool has_fma =
#if defined(__FMA__) || defined(__aarch64__)
    true;
#else
    false;
#endif
template <class T, int W>
GEOACT_INLINE vec<T, W> fma(vec<T, W> a, vec<T, W> b, vec<T, W> c) {
  static_assert(!has_fma || requires { native_fma(a.v, b.v, c.v); }, "a vector this wide would round twice");
  if constexpr (has_fma)
    return native<T, W>(native_fma(a.v, b.v, c.v));
  else
    return a.v * b.v + c.v;
}

// To the nearest integer, ties to even; |a| < 2^(mantissa bits - 1).
template <class T, int W>
GEOACT_INLINE vec<T, W> round(vec<T, W> a) {
  if constexpr (requires { native_round(a.v); })
    return native<T, W>(native_round(a.v));
  else {
    constexpr T shifter = T(3) * T(uint64_t(1) << (format<T>::mantissa_bits - 1));
    return (a.v + shifter) - shifter;
  }
}

// a * 2^n with one rounding, subnormal results included, for integral-valued n in [2 - 2 bias, 2 bias] and a near 1.
template <class T, int W>
GEOACT_INLINE vec<T, W> ldexp(vec<T, W> a, vec<T, W> n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) * W == 64 && sizeof(T) == 4)
    return (native<T, W>)_mm512_scalef_ps((__m512)a.v, (__m512)n.v);
  else if constexpr (sizeof(T) * W == 64)
    return (native<T, W>)_mm512_scalef_pd((__m512d)a.v, (__m512d)n.v);
  else
#endif
  {
    // By two powers whose exponents are the halves of n. n lands in the lowest bits by one addition; what the sum has
    // in its upper bits the shifts leave behind.
    constexpr T shifter = T(3) * T(uint64_t(1) << (format<T>::mantissa_bits - 1)) + T(2 * format<T>::bias);
    using Unsigned = native<typename format<T>::unsigned_integer, W>;
    const Unsigned both = (Unsigned)(n + vec<T, W>(shifter)).v, half = both >> 1;
    const vec<T, W> first = (native<T, W>)(half << format<T>::mantissa_bits);
    const vec<T, W> second = (native<T, W>)((both - half) << format<T>::mantissa_bits);
    return (a * first) * second;
  }
}

// --- counters: one integer per lane ------------------------------------------------------------------------

template <class T, int W>
using counter = native<typename format<T>::integer, W>;

template <class T, int W>
GEOACT_INLINE counter<T, W> tally(native<typename format<T>::integer, W> c, mask<T, W> m) {
#if defined(__AVX512F__)
  if constexpr (has_mask_registers<T, W>) {
    if constexpr (sizeof(T) == 4)
      return (counter<T, W>)_mm512_mask_sub_epi32((__m512i)c, m.m, (__m512i)c, _mm512_set1_epi32(-1));
    else
      return (counter<T, W>)_mm512_mask_sub_epi64((__m512i)c, m.m, (__m512i)c, _mm512_set1_epi64(-1));
  } else
#endif
    return c - m.m;  // a true lane is -1
}

// --- memory: V is a vec, S what the array holds ------------------------------------------------------------

template <class V, class S>
struct storage;  // load, store, round: between S in memory and V in registers

template <class T, int W>
struct storage<vec<T, W>, T> {
  using V = vec<T, W>;
  static GEOACT_INLINE V load(const T* p) {
    native<T, W> v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static GEOACT_INLINE void store(T* p, V a) { std::memcpy(p, &a.v, sizeof a.v); }
  static GEOACT_INLINE V round(V a) { return a; }
};

template <int W>
struct storage<vec<float, W>, bfloat16> {
  using V = vec<float, W>;
  using narrow = native<uint16_t, W>;
  using wide = native<uint32_t, W>;
  static GEOACT_INLINE V load(const bfloat16* p) {
    narrow n;
    std::memcpy(&n, p, sizeof n);
    return (native<float, W>)(__builtin_convertvector(n, wide) << 16);
  }
  // To nearest even in the integer domain. Exact for every NaN that arithmetic can produce here: their low 16 bits
  // are zero (inputs are bfloat16, new NaNs are the default one), so the rounding carry never leaves the payload.
  static GEOACT_INLINE V round(V a) {
    wide u = (wide)a.v;
    u += 0x7fffu + ((u >> 16) & 1u);
    return (native<float, W>)(u & 0xffff0000u);
  }
  static GEOACT_INLINE void store(bfloat16* p, V rounded) {
    const narrow n = __builtin_convertvector((wide)rounded.v >> 16, narrow);
    std::memcpy(p, &n, sizeof n);
  }
};

template <int W>
struct storage<vec<float, W>, half> {
  using V = vec<float, W>;
  using narrow = native<uint16_t, W>;
  using wide = native<uint32_t, W>;

  static GEOACT_INLINE V widen(narrow n) {
#if defined(__AVX512F__)
    if constexpr (W == 16)
      return (native<float, W>)_mm512_cvtph_ps((__m256i)n);
    else
#endif
#if defined(__F16C__)
        if constexpr (W == 8)
      return (native<float, W>)_mm256_cvtph_ps((__m128i)n);
    else
#elif defined(__aarch64__)
    if constexpr (W == 4)
      return (native<float, W>)vcvt_f32_f16((float16x4_t)n);
    else
#endif
    {
      const wide u = __builtin_convertvector(n, wide);
      const wide magnitude = (u & 0x7fffu) << 13;
      // 2^112 moves the exponent bias from 15 to 127 and normalises subnormals in the same multiplication.
      wide r = (wide)((native<float, W>)magnitude * 0x1p112f);
      const wide special = (wide)(magnitude >= (0x7c00u << 13));
      r |= special & (0xffu << 23);
      r |= (wide)(magnitude > (0x7c00u << 13)) & (1u << 22);  // a signalling NaN leaves quiet
      return (native<float, W>)(r | ((u & 0x8000u) << 16));
    }
  }
  static GEOACT_INLINE narrow narrowed(V a) {
#if defined(__AVX512F__)
    if constexpr (W == 16)
      return (narrow)_mm512_cvtps_ph((__m512)a.v, 0x08);
    else
#endif
#if defined(__F16C__)
        if constexpr (W == 8)
      return (narrow)_mm256_cvtps_ph((__m256)a.v, 0x08);
    else
#elif defined(__aarch64__)
    if constexpr (W == 4)
      return (narrow)vcvt_f16_f32((float32x4_t)a.v);
    else
#endif
    {
      const wide u = (wide)a.v;
      const wide magnitude = u & 0x7fffffffu;
      const wide normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
      // Adding 0.5 aligns the subnormal's last bit with the last bit of the sum, which the addition then rounds.
      const wide subnormal = (wide)((native<float, W>)magnitude + 0.5f) - (126u << 23);
      const wide is_small = (wide)(magnitude < (113u << 23));
      const wide overflows = (wide)(magnitude >= 0x477ff000u);  // 65520, the first value that rounds to infinity
      const wide is_nan = (wide)(magnitude > 0x7f800000u);
      wide r = (is_small & subnormal) | (~is_small & normal);
      r = (overflows & 0x7c00u) | (~overflows & r);
      r = (is_nan & (0x7e00u | ((magnitude >> 13) & 0x3ffu))) | (~is_nan & r);
      return __builtin_convertvector(r | ((u >> 16) & 0x8000u), narrow);
    }
  }
  static GEOACT_INLINE V load(const half* p) {
    narrow n;
    std::memcpy(&n, p, sizeof n);
    return widen(n);
  }
  static GEOACT_INLINE V round(V a) { return widen(narrowed(a)); }
  static GEOACT_INLINE void store(half* p, V rounded) {
    const narrow n = narrowed(rounded);
    std::memcpy(p, &n, sizeof n);
  }
};

}  // namespace geoact::GEOACT_ISA
