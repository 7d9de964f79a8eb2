// WITH WHAT words activations are written: verbs over a value type V that is float or double (CUDA, tests) or
// a vec of them (CPU). The primitives (fma, select, min, round, ldexp, ...) are overloads: the scalar ones
// are here, those of vec are in cpu/vec.h, which must then be included first.
//
// Accuracy rests on three habits:
//   * exp is kept in two parts, p * 2^n. The power is applied last, so a subnormal result is rounded once.
//   * An argument of exp that is itself a product is carried as head + tail: an absolute error of the
//     argument is a relative one of the result.
//   * Division is a real division, or as good as one (quotient); nothing is a bare reciprocal estimate.
//
// May include: coefficients.h. No loops over data, no intrinsics, no CUDA calls.
#pragma once

#ifndef GEOACT_ISA
#define GEOACT_ISA scalar
#endif

#if defined(__CUDACC__)
#define GEOACT_HD __host__ __device__ inline
#else
#define GEOACT_HD inline __attribute__((always_inline))
#endif

#include "coefficients.h"

namespace geoact::GEOACT_ISA {

// --- the scalar type under V -------------------------------------------------------------------------------

template <class V>
struct scalar_under {
  using type = typename V::scalar;
};
template <>
struct scalar_under<float> {
  using type = float;
};
template <>
struct scalar_under<double> {
  using type = double;
};
template <class V>
using scalar_of = typename scalar_under<V>::type;

// a for float, b for double
template <class V>
GEOACT_HD constexpr scalar_of<V> per_precision(float a, double b) {
  return sizeof(scalar_of<V>) == sizeof(float) ? a : b;
}

template <class V>
inline constexpr scalar_of<V> largest_finite = per_precision<V>(0x1.fffffep127f, 0x1.fffffffffffffp1023);

// A constant in every lane, rounded to the precision of V.
template <class V>
GEOACT_HD V lit(double c) {
  return V(static_cast<scalar_of<V>>(c));
}

// --- primitives for float and double -----------------------------------------------------------------------

// Whether fma(a, b, c) rounds once.
inline constexpr bool fuses =
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__aarch64__) || defined(GEOACT_SIM)
    true;
#else
    false;
#endif

GEOACT_HD float fma(float a, float b, float c) {
  if constexpr (fuses) return __builtin_fmaf(a, b, c);
  return a * b + c;
}
GEOACT_HD double fma(double a, double b, double c) {
  if constexpr (fuses) return __builtin_fma(a, b, c);
  return a * b + c;
}
GEOACT_HD float abs(float a) { return __builtin_fabsf(a); }
GEOACT_HD double abs(double a) { return __builtin_fabs(a); }
// a, whose sign bit is clear, with that of s
GEOACT_HD float with_sign(float a, float s) { return __builtin_copysignf(a, s); }
GEOACT_HD double with_sign(double a, double s) { return __builtin_copysign(a, s); }

GEOACT_HD float select(bool m, float a, float b) { return m ? a : b; }
GEOACT_HD double select(bool m, double a, double b) { return m ? a : b; }

// The second operand where the two are equal or unordered: max(0, x) hands NaN and -0 through.
GEOACT_HD float max(float a, float b) { return a > b ? a : b; }
GEOACT_HD double max(double a, double b) { return a > b ? a : b; }
GEOACT_HD float min(float a, float b) { return a < b ? a : b; }
GEOACT_HD double min(double a, double b) { return a < b ? a : b; }

// The lower and the higher of a value and what was kept so far; a NaN leaves that as it was. Which of -0 and 0 is
// kept is left open.
template <class V>
GEOACT_HD V lower(V a, V kept) {
#if defined(__CUDA_ARCH__)
  return fmin(a, kept);
#else
  return min(a, kept);
#endif
}
template <class V>
GEOACT_HD V higher(V a, V kept) {
#if defined(__CUDA_ARCH__)
  return fmax(a, kept);
#else
  return max(a, kept);
#endif
}

GEOACT_HD unsigned bits(float a) { return __builtin_bit_cast(unsigned, a); }
GEOACT_HD unsigned long long bits(double a) { return __builtin_bit_cast(unsigned long long, a); }

// To the nearest integer, ties to even, for |a| < 2^22 and 2^51.
GEOACT_HD float round(float a) { return (a + 0x1.8p23f) - 0x1.8p23f; }
GEOACT_HD double round(double a) { return (a + 0x1.8p52) - 0x1.8p52; }

// a * 2^n, rounded once, for integral-valued n in [2 - 2 bias, 2 bias] and a near 1: by two powers whose
// exponents are the halves of n. n lands in the lowest bits by one addition; what the sum has above them the
// shifts leave behind.
GEOACT_HD float ldexp(float a, float n) {
  const unsigned both = bits(n + (0x1.8p23f + 254)), half = both >> 1;
  return a * __builtin_bit_cast(float, half << 23) * __builtin_bit_cast(float, (both - half) << 23);
}
GEOACT_HD double ldexp(double a, double n) {
  const unsigned long long both = bits(n + (0x1.8p52 + 2046)), half = both >> 1;
  return a * __builtin_bit_cast(double, half << 52) * __builtin_bit_cast(double, (both - half) << 52);
}

// a with the lower half of its significand cleared: the product of two such numbers is exact.
GEOACT_HD float upper(float a) { return __builtin_bit_cast(float, bits(a) & 0xfffff000u); }
GEOACT_HD double upper(double a) { return __builtin_bit_cast(double, bits(a) & 0xfffffffff8000000ull); }

// a / b for 0.5 < b: in float32 on a GPU by the hardware's reciprocal (error <= 1 ulp, PTX ISA, rcp.approx.ftz.f32) and
// one correction with fma, which leaves half an ulp and a little. The division of the compiler rounds exactly, but
// branches, and branches keep it from working on several elements at once.
template <class V>
GEOACT_HD V quotient(V a, V b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(V) == sizeof(float)) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(b));
    const float q = a * r, rest = fma(-b, q, a);
    return rest == rest ? fma(rest, r, q) : q;  // where a or b is infinite there is no rest, and q is right
  } else
#endif
    return a / b;
}

// c / 6
template <class V>
GEOACT_HD V sixth(V c) {
  // 1/6 is 0.0010101...: cut off, it has lost a sixth of a power of two. With both parts positive, -0 stays.
  if constexpr (fuses)
    return fma(c, V(per_precision<V>(0x1.555554p-3f, 1.0 / 6)), c * lit<V>(per_precision<V>(0x1p-24f, 0x1p-54) / 6));
  else
    return c / lit<V>(6);
}

// --- polynomials -------------------------------------------------------------------------------------------

// The coefficient of x^I in C(x N / D), times (N / D)^C::leading. N / D is a power of two or its negative, so
// that scaling the argument costs nothing, neither time nor accuracy.
template <class V, class C, int I, int N, int D>
GEOACT_HD V coefficient() {
  constexpr auto scaled = [] {
    scalar_of<V> c = C::c[I];
    for (int k = 0; k < I + C::leading; ++k) c = c * N / D;
    return c;
  }();
  return V(scaled);
}

// c_I + c_I+1 x N / D + ... of `Terms` terms, and the same for the whole polynomial in steps of Terms powers.
// Longer steps wait less for their own results; that the last addition is to the lowest terms keeps the error
// at half an ulp.
template <class C, int I, int Terms, int N, int D, class V>
GEOACT_HD V terms(V x, V x2) {
  if constexpr (I == C::degree || Terms == 1)
    return coefficient<V, C, I, N, D>();
  else if constexpr (Terms == 4 && I + 2 <= C::degree)
    return fma(terms<C, I + 2, 2, N, D>(x, x2), x2, terms<C, I, 2, N, D>(x, x2));
  else
    return fma(coefficient<V, C, I + 1, N, D>(), x, coefficient<V, C, I, N, D>());
}
template <class C, int I, int Terms, int N, int D, class V>
GEOACT_HD V in_steps(V x, V x2, V step) {
  const V low = terms<C, I, Terms, N, D>(x, x2);
  if constexpr (I + Terms > C::degree)
    return low;
  else
    return fma(in_steps<C, I + Terms, Terms, N, D>(x, x2, step), step, low);
}

// How many terms a step of a polynomial has: as few as its length allows, and fewer without fma, where the sum
// of a step is itself rounded several times.
template <class V, class C>
inline constexpr int terms_of_step = C::degree < 7               ? 1
                                     : fuses                     ? (C::degree < 16 ? 2 : 4)
                                     : sizeof(scalar_of<V>) == 4 ? 1
                                                                 : 2;

// c0 + c1 x N / D + ...
template <class C, int N = 1, int D = 1, int Terms = 0, class V>
GEOACT_HD V polynomial(V x) {
  constexpr int used = Terms ? Terms : terms_of_step<V, C>;
  const V x2 = x * x;
  return in_steps<C, 0, used, N, D>(x, x2, used == 1 ? x : used == 2 ? x2 : x2 * x2);
}

// --- head and tail -----------------------------------------------------------------------------------------

// The unevaluated sum head + tail. The tail is small, but not always below half an ulp of the head.
template <class V>
struct Sum {
  V head, tail;
};

template <class V>
GEOACT_HD Sum<V> product(V a, V b) {
  if constexpr (fuses) {
    const V head = a * b;
    return {head, fma(a, b, -head)};
  } else {
    const V a_upper = upper(a), b_upper = upper(b);
    return {a_upper * b_upper, a_upper * (b - b_upper) + (a - a_upper) * b};
  }
}

template <class V>
GEOACT_HD Sum<V> square(V a) {
  if constexpr (fuses) {
    const V head = a * a;
    return {head, fma(a, a, -head)};
  } else {
    const V a_upper = upper(a);
    return {a_upper * a_upper, (a - a_upper) * (a + a_upper)};
  }
}

// a - b exactly (Knuth)
template <class V>
GEOACT_HD Sum<V> difference(V a, V b) {
  const V head = a - b, part = head - a;
  return {head, (a - (head - part)) - (b + part)};
}

// 1 / b to twice the precision; worth hoisting out of a loop
template <class V>
GEOACT_HD Sum<V> reciprocal(V b) {
  const V head = lit<V>(1) / b;
  const Sum<V> one = product(b, head);
  return {head, ((lit<V>(1) - one.head) - one.tail) * head};
}

// a b + c for a c that is a multiple of the last place of the sum: with so few bits in c, head - c is exact.
template <class V>
GEOACT_HD Sum<V> product_plus(V a, V b, V c) {
  if constexpr (fuses) {
    const V head = fma(a, b, c);
    return {head, fma(a, b, c - head)};
  } else {
    const Sum<V> ab = product(a, b);
    const V head = ab.head + c;
    return {head, (ab.head - (head - c)) + ab.tail};
  }
}

// --- exp ---------------------------------------------------------------------------------------------------

// All of these are of x N / D, as the polynomials are. n is integral-valued, and x N / D = n ln 2 + r N / D
// with |r N / D| <= ln(2) / 2.
template <int N = 1, int D = 1, class V>
GEOACT_HD V exponent(V x) {
  return round(x * V(Ln2<scalar_of<V>>::inverse * N / D));
}
template <int N = 1, int D = 1, class V>
GEOACT_HD V remainder(V x, V n) {
  using Ln2 = Ln2<scalar_of<V>>;
  return fma(n, V(-Ln2::low * D / N), fma(n, V(-Ln2::high * D / N), x));
}
template <int N = 1, int D = 1, class V>
GEOACT_HD V remainder(V head, V tail, V n) {
  using Ln2 = Ln2<scalar_of<V>>;
  return fma(n, V(-Ln2::high * D / N), head) + fma(n, V(-Ln2::low * D / N), tail);
}

// (exp(r N / D) - 1) / r
template <int N = 1, int D = 1, class V>
GEOACT_HD V expm1_ratio(V r) {
  using T = scalar_of<V>;
  return fma(polynomial<ExpTail<T>, N, D>(r), r, V(T(N) / D));
}
template <class V>
GEOACT_HD V expm1_reduced(V r) {  // exp(r) - 1 relatively accurate: r is added last
  return fma(r * r, polynomial<ExpTail<scalar_of<V>>>(r), r);
}

// p * 2^n with p near 1
template <class V>
struct Power {
  V p, n;
};

// |x N / D| < 2 bias ln 2
template <int N = 1, int D = 1, class V>
GEOACT_HD Power<V> exp_parts(V x) {
  const V n = exponent<N, D>(x), r = remainder<N, D>(x, n);
  return {fma(expm1_ratio<N, D>(r), r, lit<V>(1)), n};
}
template <class V>
GEOACT_HD V exp(V x) {
  const Power<V> e = exp_parts(x);
  return ldexp(e.p, e.n);
}

// exp(x) - 1 for |x| < 2 bias ln 2, relatively accurate; the sign of x = -0 is lost
template <class V>
GEOACT_HD V expm1(V x) {
  const V n = exponent(x), power = ldexp(lit<V>(1), n);
  return fma(expm1_reduced(remainder(x, n)), power, power - lit<V>(1));
}

// log(1 + e) / e for 0 <= e <= 1
template <class V>
GEOACT_HD V log1p_ratio(V e) {
  return polynomial<Log1pRatio<scalar_of<V>>>(e);
}

// --- the logistic function ---------------------------------------------------------------------------------

// sigma(x) = 2^n / (2^n + p) where p 2^-n = exp(-x). n is kept apart: the 2^n of the numerator goes last.
//
// x is bounded above, where sigma is 1 to the last bit. Below, only n is: beyond its bound p grows to
// infinity and the quotient falls to 0 by itself. So x sigma(x) at -inf is -inf / inf = NaN, as in torch.
template <class V>
struct Logistic {
  V r, factor, n, power;  // p = 1 + factor r, power = 2^n

  // 2^n + p, with p not rounded on its own
  GEOACT_HD V denominator() const { return fma(factor, r, power) + lit<V>(1); }
  // The same, a quarter of an ulp better near x = 0, where it is just above 2: the first sum is kept below 1
  GEOACT_HD V finer_denominator() const {
    return fma(factor, r, min(power, lit<V>(0.5))) + (max(power, lit<V>(0.5)) + lit<V>(0.5));
  }
  GEOACT_HD V value() const { return quotient(power, denominator()); }
  // 1 - sigma = p / (2^n + p), given the inverse of the denominator; inf * 0 is kept away
  GEOACT_HD V complement(V inverse) const { return min(lit<V>(1e30), fma(factor, r, lit<V>(1))) * inverse; }
};

template <class V>
inline constexpr scalar_of<V> logistic_one = per_precision<V>(24, 45);  // sigma is 1 to the last bit beyond
template <class V>
inline constexpr scalar_of<V> logistic_zero = per_precision<V>(-160, -1200);  // x sigma is 0 beyond
template <class V>
inline constexpr scalar_of<V> lowest_exponent = per_precision<V>(-250, -2000);

template <class V>
GEOACT_HD V logistic_exponent(V bounded) {
  return max(V(lowest_exponent<V>), exponent(bounded));
}
template <class V>
GEOACT_HD Logistic<V> logistic_of_reduced(V r, V n) {
  return {r, expm1_ratio<-1>(r), n, ldexp(lit<V>(1), n)};
}
template <class V>
GEOACT_HD Logistic<V> logistic(V x) {
  const V bounded = min(V(logistic_one<V>), x), n = logistic_exponent(bounded);
  return logistic_of_reduced(remainder(bounded, n), n);
}
template <class V>
GEOACT_HD Logistic<V> logistic(Sum<V> x) {
  // Of an infinite head the tail is NaN or infinite and matters no more: any small number will do.
  const V bounded = min(V(logistic_one<V>), x.head), n = logistic_exponent(bounded);
  return logistic_of_reduced(remainder(bounded, max(min(x.tail, lit<V>(1)), lit<V>(-1)), n), n);
}
// for -2 bias ln 2 < x < bias ln 2
template <class V>
GEOACT_HD Logistic<V> logistic_unbounded(Sum<V> x) {
  const V n = exponent(x.head);
  return logistic_of_reduced(remainder(x.head, x.tail, n), n);
}

// --- tanh --------------------------------------------------------------------------------------------------

// tanh(a / 2) = above / below = (1 - e) / (1 + e) with e = exp(-a), a >= 0. The two are rounded once each
// from the same exp(r) - 1: one as a sum with the other would carry its rounding error twice.
template <class V>
struct TanhQuotient {
  V above, below;
};

template <int Scale, class V>  // Scale times the denominator
GEOACT_HD TanhQuotient<V> tanh_of_half(V a) {
  const V x = min(lit<V>(per_precision<V>(30, 60)), a), n = exponent<-1>(x), r = remainder<-1>(x, n);
  const V power = ldexp(lit<V>(1), n), scaled = ldexp(lit<V>(Scale), n);
  const V m = fma(r * r, polynomial<ExpTail<scalar_of<V>>, -1>(r), -r);
  return {fma(-m, power, lit<V>(1) - power), fma(m, scaled, scaled + lit<V>(Scale))};
}

// --- the normal distribution -------------------------------------------------------------------------------

// For 0 <= a, exp(-a^2/2) = density * 2^n and P(N(0,1) > a) = density * ratio * 2^n. Beyond a bound, where a
// times either rounds to 0, a is that bound.
template <class V>
struct NormalTailParts {
  V density, times_a, dividend, divisor, n;  // times_a = a * density, ratio = dividend / divisor

  // Without fma the second form has fewer roundings; with it the first has, and only one division.
  GEOACT_HD V times_ratio(V v) const { return fuses ? v * quotient(dividend, divisor) : v / divisor; }
};

template <class V>
GEOACT_HD NormalTailParts<V> normal_tail(V a) {
  using T = scalar_of<V>;
  const V bounded = min(V(NormalTailBound<T>::value), a);
  const Sum<V> s = square(bounded);
  const V n = exponent<-1, 2>(s.head), r = remainder<-1, 2>(s.head, s.tail, n), ratio = expm1_ratio<-1, 2>(r);
  // The denominator is found as 2 a numerator + rest: that correlates the rounding errors of the two, which
  // the quotient then cancels in part. The highest powers first, so that the last addition rounds most.
  const V above = polynomial<NormalTailAbove<T>, 1, 1, 1>(bounded);
  const V rest = polynomial<NormalTailRest<T>, 1, 1, 1>(bounded), twice = bounded + bounded;
  const V density = fma(ratio, r, lit<V>(1)), times_a = fma(bounded * ratio, r, bounded);
  if constexpr (fuses) return {density, times_a, above, fma(twice, above, rest), n};
  return {density, times_a, lit<V>(1), rest / above + twice, n};
}

// erf(u): a polynomial near 0, and 1 less the tail further out. It is 1 to the last bit where that bound is.
template <class V>
GEOACT_HD V erf(V u) {
  using T = scalar_of<V>;
  const V size = abs(u), near = min(lit<V>(1), size);
  const V middle = fma(near, polynomial<ErfRatio<T>>(near * near), near);
  const NormalTailParts<V> tail = normal_tail(size * lit<V>(1.4142135623730950488));
  const V beyond = fma(ldexp(tail.times_ratio(tail.density), tail.n), lit<V>(-2), lit<V>(1));
  return with_sign(select(size > lit<V>(1), beyond, middle), u);
}

// --- edges -------------------------------------------------------------------------------------------------

// y, but NaN where x is -inf: for products x * f(x) whose f(-inf) = 0 was reached with a bounded argument.
template <class V>
GEOACT_HD V nan_at_minus_infinity(V x, V y) {
  return fma(min(lit<V>(0), x), lit<V>(0), y);
}

// 1 - y^2 without cancellation
template <class V>
GEOACT_HD V square_below(V y, scalar_of<V> bound) {
  if constexpr (fuses) return fma(-y, y, V(bound * bound));
  return (V(bound) - y) * (V(bound) + y);
}

}  // namespace geoact::GEOACT_ISA
