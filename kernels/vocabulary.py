"""The verbs that activations are written with, for float32 and float64: ``csrc/ops/vocabulary.h`` in Triton.

Accuracy rests on the same habits. exp is kept in two parts, p 2^n, and the power is applied last, so that a subnormal
result is rounded once; an argument of exp that is itself a product is carried as head + tail; division is a correctly
rounded one. ``tl.exp`` and ``/`` are neither on a GPU (ex2.approx, div.full), and libdevice is not there under the
interpreter, so nothing of either is used.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .coefficients import (
    ERF_RATIO_32,
    ERF_RATIO_64,
    EXP_BEND_32,
    EXP_BEND_64,
    EXP_TAIL_32,
    EXP_TAIL_64,
    LN2_HIGH_32,
    LN2_HIGH_64,
    LN2_INVERSE_32,
    LN2_INVERSE_64,
    LN2_LOW_32,
    LN2_LOW_64,
    LOG1P_RATIO_32,
    LOG1P_RATIO_64,
    NORMAL_TAIL_ABOVE_32,
    NORMAL_TAIL_ABOVE_64,
    NORMAL_TAIL_BOUND_32,
    NORMAL_TAIL_BOUND_64,
    NORMAL_TAIL_REST_32,
    NORMAL_TAIL_REST_64,
)

SIXTH_32, SIXTH_64 = tl.constexpr(float.fromhex("0x1.555554p-3")), tl.constexpr(1 / 6)
SIXTH_REST_32, SIXTH_REST_64 = tl.constexpr(2.0**-24 / 6), tl.constexpr(2.0**-54 / 6)
ROOT_OF_2: tl.constexpr = tl.constexpr(1.4142135623730950488)
# Adding it leaves the integer part of a small number in the lowest bits of the significand.
ROUND_32, ROUND_64 = tl.constexpr(1.5 * 2.0**23), tl.constexpr(1.5 * 2.0**52)
# The same with twice the exponent bias added.
BIASED_32, BIASED_64 = tl.constexpr(1.5 * 2.0**23 + 254), tl.constexpr(1.5 * 2.0**52 + 2046)


# --- constants and choices ---------------------------------------------------------------------------------


@triton.jit
def per(x, narrow: tl.constexpr, wide: tl.constexpr):
    """The constant for the precision of x: a Python number beside a float64 tensor may be rounded to float32."""
    if x.dtype == tl.float64:
        constant = tl.full([], wide, tl.float64)
    else:
        constant = tl.full([], narrow, tl.float32)
    return constant


@triton.jit
def lit(x, c: tl.constexpr):
    """C in the precision of x."""
    return per(x, c, c)


@triton.jit
def finite(x):
    """X, infinities as the largest number."""
    largest = per(x, 3.4028234663852886e38, 1.7976931348623157e308)
    return larger(-1.0 * largest, smaller(largest, x))


@triton.jit
def larger(a, b):
    """The second operand where the two are equal or unordered: as the second, NaN and -0 are handed through."""
    return tl.where(a > b, a, b)


@triton.jit
def smaller(a, b):
    """The second operand where the two are equal or unordered."""
    return tl.where(a < b, a, b)


@triton.jit
def quotient(a, b):
    """A / b, correctly rounded."""
    if a.dtype == tl.float64:
        result = a / b
    else:
        result = tl.div_rn(a, b)
    return result


@triton.jit
def with_sign(a, s):
    """A, whose sign bit is clear, with that of s."""
    if s.dtype == tl.float64:
        sign = s.to(tl.uint64, bitcast=True) & 0x8000000000000000
        result = (a.to(tl.uint64, bitcast=True) | sign).to(tl.float64, bitcast=True)
    else:
        sign = s.to(tl.uint32, bitcast=True) & 0x80000000
        result = (a.to(tl.uint32, bitcast=True) | sign).to(tl.float32, bitcast=True)
    return result


@triton.jit
def nearest(a):
    """To the nearest integer, ties to even, for |a| < 2^22 and 2^51."""
    big = per(a, ROUND_32, ROUND_64)
    return (a + big) - big


@triton.jit
def ldexp(a, n):
    """A 2^n, rounded once, for integral-valued n in [2 - 2 bias, 2 bias] and a near 1."""
    if a.dtype == tl.float64:
        both = (n + per(n, BIASED_32, BIASED_64)).to(tl.uint64, bitcast=True)
        half = both >> 1
        low = (half << 52).to(tl.float64, bitcast=True)
        result = a * low * ((both - half) << 52).to(tl.float64, bitcast=True)
    else:
        both = (n + per(n, BIASED_32, BIASED_64)).to(tl.uint32, bitcast=True)
        half = both >> 1
        low = (half << 23).to(tl.float32, bitcast=True)
        result = a * low * ((both - half) << 23).to(tl.float32, bitcast=True)
    return result


@triton.jit
def sixth(c):
    """C / 6; with both parts positive, -0 stays."""
    return tl.fma(c, per(c, SIXTH_32, SIXTH_64), c * per(c, SIXTH_REST_32, SIXTH_REST_64))


@triton.jit
def horner(x, C: tl.constexpr, degree: tl.constexpr):
    """The sum of C[k] x^k."""
    result = lit(x, C[degree])
    for k in tl.static_range(degree - 1, -1, -1):
        result = tl.fma(result, x, lit(x, C[k]))
    return result


# --- head and tail -----------------------------------------------------------------------------------------


class Sum(NamedTuple):
    """The unevaluated sum head + tail. The tail is small, but not always below half an ulp of the head."""

    head: tl.tensor
    tail: tl.tensor


@triton.jit
def product(a, b):
    """A b, exactly."""
    head = a * b
    return Sum(head, tl.fma(a, b, -head))


@triton.jit
def difference(a, b):
    """A - b, exactly (Knuth)."""
    head = a - b
    part = head - a
    return Sum(head, (a - (head - part)) - (b + part))


@triton.jit
def product_plus(a, b, c):
    """A b + c for a c that is a multiple of the last place of the sum: with so few bits in c, head - c is exact."""
    head = tl.fma(a, b, c)
    return Sum(head, tl.fma(a, b, c - head))


@triton.jit
def reciprocal(b):
    """1 / b to twice the precision."""
    head = quotient(lit(b, 1.0), b)
    one = product(b, head)
    return Sum(head, ((1.0 - one.head) - one.tail) * head)


# --- exp ---------------------------------------------------------------------------------------------------


@triton.jit
def exponent(x):
    """The n of x = n ln 2 + r, |r| <= ln(2) / 2."""
    return nearest(x * per(x, LN2_INVERSE_32[0], LN2_INVERSE_64[0]))


@triton.jit
def remainder(x, n):
    """The r of x = n ln 2 + r."""
    high, low = per(x, -LN2_HIGH_32[0], -LN2_HIGH_64[0]), per(x, -LN2_LOW_32[0], -LN2_LOW_64[0])
    return tl.fma(n, low, tl.fma(n, high, x))


@triton.jit
def remainder_of_sum(head, tail, n):
    """The r of head + tail = n ln 2 + r."""
    high, low = per(head, -LN2_HIGH_32[0], -LN2_HIGH_64[0]), per(head, -LN2_LOW_32[0], -LN2_LOW_64[0])
    return tl.fma(n, high, head) + tl.fma(n, low, tail)


@triton.jit
def exp_tail(r):
    """(exp(r) - 1 - r) / r^2."""
    if r.dtype == tl.float64:
        result = horner(r, EXP_TAIL_64, 9)
    else:
        result = horner(r, EXP_TAIL_32, 4)
    return result


@triton.jit
def exp_bend(r):
    """The same, with a small relative error of its own."""
    if r.dtype == tl.float64:
        result = horner(r, EXP_BEND_64, 11)
    else:
        result = horner(r, EXP_BEND_32, 5)
    return result


@triton.jit
def expm1_ratio(r):
    """(exp(r) - 1) / r."""
    return tl.fma(exp_tail(r), r, lit(r, 1.0))


@triton.jit
def exp(x):
    """Exp(x) for |x| < 2 bias ln 2."""
    n = exponent(x)
    r = remainder(x, n)
    return ldexp(tl.fma(expm1_ratio(r), r, lit(x, 1.0)), n)


@triton.jit
def expm1(x):
    """Exp(x) - 1 for |x| < 2 bias ln 2, relatively accurate; the sign of x = -0 is lost."""
    n = exponent(x)
    r = remainder(x, n)
    power = ldexp(lit(x, 1.0), n)
    return tl.fma(tl.fma(r * r, exp_tail(r), r), power, power - 1.0)


@triton.jit
def log1p_ratio(e):
    """Log(1 + e) / e for 0 <= e <= 1."""
    if e.dtype == tl.float64:
        result = horner(e, LOG1P_RATIO_64, 20)
    else:
        result = horner(e, LOG1P_RATIO_32, 9)
    return result


# --- the logistic function ---------------------------------------------------------------------------------


class Logistic(NamedTuple):
    """Sigma(x) = 2^n / (2^n + p) where p 2^-n = exp(-x), p = 1 + ratio m; the 2^n of the numerator goes last.

    x is bounded above, where sigma is 1 to the last bit. Below, only n is: beyond its bound p grows to infinity and
    the quotient falls to 0 by itself. So x sigma(x) at -inf is -inf / inf = NaN, as in torch.
    """

    m: tl.tensor
    ratio: tl.tensor
    n: tl.tensor
    power: tl.tensor


@triton.jit
def logistic_one(x):
    """Beyond it sigma is 1 to the last bit."""
    return per(x, 24.0, 45.0)


@triton.jit
def logistic_zero(x):
    """Below it x sigma(x) is 0."""
    return per(x, -160.0, -1200.0)


@triton.jit
def logistic_of_reduced(r, n):
    return Logistic(-r, expm1_ratio(-r), n, ldexp(lit(r, 1.0), n))


@triton.jit
def logistic(x):
    bounded = smaller(logistic_one(x), x)
    n = larger(per(x, -250.0, -2000.0), exponent(bounded))
    return logistic_of_reduced(remainder(bounded, n), n)


@triton.jit
def logistic_of_sum(head, tail):
    # Of an infinite head the tail is NaN or infinite and matters no more: any small number will do.
    bounded = smaller(logistic_one(head), head)
    n = larger(per(head, -250.0, -2000.0), exponent(bounded))
    small = larger(smaller(tail, lit(tail, 1.0)), lit(tail, -1.0))
    return logistic_of_reduced(remainder_of_sum(bounded, small, n), n)


@triton.jit
def denominator(s):
    """2^n + p, with p not rounded on its own."""
    return tl.fma(s.ratio, s.m, s.power) + 1.0


@triton.jit
def finer_denominator(s):
    """The same, a quarter of an ulp better near x = 0, where it is just above 2: the first sum is kept below 1."""
    half = lit(s.m, 0.5)
    return tl.fma(s.ratio, s.m, smaller(s.power, half)) + (larger(s.power, half) + 0.5)


@triton.jit
def complement(s, inverse):
    """1 - sigma = p / (2^n + p), given the inverse of the denominator; inf * 0 is kept away."""
    return smaller(lit(s.m, 1e30), tl.fma(s.ratio, s.m, lit(s.m, 1.0))) * inverse


# --- tanh --------------------------------------------------------------------------------------------------


@triton.jit
def tanh_of_half(a, scale: tl.constexpr):
    """Tanh(a / 2) / scale = (1 - e) / (scale + scale e) with e = exp(-a), a >= 0.

    The two are rounded once each from the same exp(r) - 1: one as a sum with the other would carry its error twice.
    """
    x = smaller(per(a, 30.0, 60.0), a)
    n = exponent(-x)
    r = remainder(-x, n)
    power, scaled = ldexp(lit(a, 1.0), n), ldexp(lit(a, scale), n)
    m = tl.fma(r * r, exp_tail(r), r)
    return quotient(tl.fma(-m, power, 1.0 - power), tl.fma(m, scaled, scaled + scale))


# --- the normal distribution -------------------------------------------------------------------------------


class NormalTail(NamedTuple):
    """For 0 <= a, exp(-a^2/2) = density 2^n and P(N(0,1) > a) = density (above / below) 2^n."""

    density: tl.tensor
    times_a: tl.tensor  # a density
    above: tl.tensor
    below: tl.tensor
    n: tl.tensor


@triton.jit
def normal_tail(a):
    """Beyond a bound, where a times either rounds to 0, a is that bound."""
    bounded = smaller(per(a, NORMAL_TAIL_BOUND_32[0], NORMAL_TAIL_BOUND_64[0]), a)
    s = product(bounded, bounded)
    n = exponent(s.head * -0.5)
    r = remainder_of_sum(s.head * -0.5, s.tail * -0.5, n)
    ratio = expm1_ratio(r)
    # The denominator is found as 2 a numerator + rest: that correlates the rounding errors of the two, which the
    # quotient then cancels in part.
    if a.dtype == tl.float64:
        above, rest = horner(bounded, NORMAL_TAIL_ABOVE_64, 9), horner(bounded, NORMAL_TAIL_REST_64, 10)
    else:
        above, rest = horner(bounded, NORMAL_TAIL_ABOVE_32, 4), horner(bounded, NORMAL_TAIL_REST_32, 5)
    below = tl.fma(bounded + bounded, above, rest)
    density, times_a = tl.fma(ratio, r, lit(a, 1.0)), tl.fma(bounded * ratio, r, bounded)
    return NormalTail(density, times_a, above, below, n)


@triton.jit
def erf(u):
    """A polynomial near 0, and 1 less the tail further out."""
    size = tl.abs(u)
    near = smaller(lit(u, 1.0), size)
    if u.dtype == tl.float64:
        rest = horner(near * near, ERF_RATIO_64, 12)
    else:
        rest = horner(near * near, ERF_RATIO_32, 6)
    middle = tl.fma(near, rest, near)
    tail = normal_tail(size * lit(u, ROOT_OF_2))
    out = ldexp(tail.density * quotient(tail.above, tail.below), tail.n)
    beyond = tl.fma(out, lit(u, -2.0), lit(u, 1.0))
    return with_sign(tl.where(size > 1, beyond, middle), u)


# --- edges -------------------------------------------------------------------------------------------------


@triton.jit
def nan_at_minus_infinity(x, y):
    """Y, but NaN where x is -inf: for products x f(x) whose f(-inf) = 0 was reached with a bounded argument."""
    zero = lit(x, 0.0)
    return tl.fma(smaller(zero, x), zero, y)
