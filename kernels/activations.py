"""WHAT an activation is: a value and a slope, the same definitions as the structs of ``csrc/ops/activations.h``.

    value(x, p)             f(x); p is the tuple of parameters, in the order of the public arguments
    slope(x, y, p)          f'(x); where y is saved it is called slope(y, y, p), where x is, slope(x, x, p)
    param_slope(x, y, p)    the tuple of df/dp[k] of the trained parameters, which are the first
    gradient(dy, x, y, p)   dx, only where it is not dy * slope for dy = inf or x = NaN

Arguments are float32, or float64 for float64 data. ``ACTIVATIONS`` is the registry; its names, order, ``saves`` and
``parameters`` are those of the compiled structs, which a test checks. Edges (NaN, infinities, -0, the slope at a kink)
are those of torch, except that slopes at infinity are their limits where torch multiplies infinity by 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .coefficients import (
    GELU_TANH_ARGUMENT_CUBIC_32,
    GELU_TANH_ARGUMENT_CUBIC_64,
    GELU_TANH_ARGUMENT_CUBIC_TAIL_32,
    GELU_TANH_ARGUMENT_CUBIC_TAIL_64,
    GELU_TANH_ARGUMENT_LINEAR_32,
    GELU_TANH_ARGUMENT_LINEAR_64,
    GELU_TANH_ARGUMENT_LINEAR_TAIL_32,
    GELU_TANH_ARGUMENT_LINEAR_TAIL_64,
)
from .vocabulary import (
    Sum,
    complement,
    denominator,
    difference,
    erf,
    exp,
    exp_bend,
    expm1,
    expm1_ratio,
    exponent,
    finer_denominator,
    finite,
    larger,
    ldexp,
    lit,
    log1p_ratio,
    logistic,
    logistic_of_reduced,
    logistic_of_sum,
    logistic_one,
    logistic_zero,
    nan_at_minus_infinity,
    normal_tail,
    per,
    product,
    product_plus,
    quotient,
    reciprocal,
    remainder,
    remainder_of_sum,
    sixth,
    smaller,
    tanh_of_half,
    with_sign,
)

THIRD: tl.constexpr = tl.constexpr(1 / 3)
ONE_SIXTH: tl.constexpr = tl.constexpr(1 / 6)
ERF_SLOPE: tl.constexpr = tl.constexpr(1.1283791670955125739)
NORMAL_DENSITY: tl.constexpr = tl.constexpr(0.39894228040143267794)

# --- sigmoids ----------------------------------------------------------------------------------------------


@triton.jit
def sigmoid(x, p):
    s = logistic(x)
    return quotient(s.power, denominator(s))


@triton.jit
def sigmoid_slope(x, y, p):
    return tl.fma(-y, y, y)


@triton.jit
def centered_sigmoid(x, p):
    return with_sign(tanh_of_half(tl.abs(x), 2.0), x)


@triton.jit
def centered_sigmoid_slope(x, y, p):
    return tl.fma(-y, y, lit(y, 0.25))


@triton.jit
def tanh(x, p):
    return with_sign(tanh_of_half(tl.abs(x + x), 1.0), x)


@triton.jit
def tanh_slope(x, y, p):
    return tl.fma(-y, y, lit(y, 1.0))


# --- piecewise polynomials ---------------------------------------------------------------------------------


@triton.jit
def relu(x, p):
    return larger(lit(x, 0.0), x)


@triton.jit
def relu_slope(x, y, p):
    return tl.where(y <= 0, lit(y, 0.0), lit(y, 1.0))


@triton.jit
def relu_gradient(dy, x, y, p):
    return tl.where(y <= 0, lit(y, 0.0), dy)


@triton.jit
def leaky_relu(x, p):
    return tl.where(x > 0, x, x * p[0])


@triton.jit
def leaky_relu_slope(x, y, p):
    return tl.where(x > 0, lit(x, 1.0), p[0])


@triton.jit
def gal(x, p):
    return p[1] * (tl.where(x > 0, x, x * p[0]) - p[2])


@triton.jit
def gal_slope(x, y, p):
    return tl.where(x > 0, p[1], p[1] * p[0])


@triton.jit
def relu_squared(x, p):
    positive = larger(lit(x, 0.0), x)
    return positive * positive


@triton.jit
def relu_squared_slope(x, y, p):
    positive = larger(lit(x, 0.0), x)
    return positive + positive


@triton.jit
def relu_squared_gradient(dy, x, y, p):
    return tl.where(x <= 0, lit(x, 0.0), dy * (x + x))


# --- exponential and smooth --------------------------------------------------------------------------------


@triton.jit
def elu(x, p):
    bounded = larger(per(x, -30.0, -60.0), smaller(lit(x, 0.0), x))
    return tl.where(x >= 0, x, p[0] * expm1(bounded))


@triton.jit
def elu_slope(x, y, p):
    # Of x: y + alpha would lose what a narrow format rounded away of y, and the side where alpha is negative.
    bounded = larger(per(x, -110.0, -760.0), smaller(lit(x, 0.0), x))  # where exp is 0
    return tl.where(x > 0, lit(x, 1.0), p[0] * exp(bounded))


@triton.jit
def silu(x, p):
    s = logistic(x)
    return ldexp(quotient(x, denominator(s)), s.n)


@triton.jit
def silu_slope(x, y, p):
    s = logistic(x)
    inverse = quotient(lit(x, 1.0), denominator(s))
    sigma = s.power * inverse
    bounded = larger(logistic_zero(x), smaller(logistic_one(x), x))
    return tl.fma(bounded * sigma, complement(s, inverse), sigma)


@triton.jit
def gelu(x, p):
    tail = normal_tail(tl.abs(x))
    lost = ldexp(tail.times_a * quotient(tail.above, tail.below), tail.n)  # |x| P(N(0,1) > |x|)
    # -lost would be 0 - lost, and so +0 for x = -0
    return nan_at_minus_infinity(x, tl.where(x > 0, x - lost, -1.0 * lost))


@triton.jit
def gelu_slope(x, y, p):
    tail = normal_tail(tl.abs(x))
    weighted = tail.times_a * lit(x, NORMAL_DENSITY)  # |x| times the normal density
    lost = ldexp(tail.density * quotient(tail.above, tail.below) - weighted, tail.n)
    return tl.where(x > 0, 1.0 - lost, lost)


@triton.jit
def gelu_tanh_argument(x):
    """X (linear + cubic x^2) as head + tail: exp makes a relative error of y out of an absolute one here."""
    cubic = per(x, GELU_TANH_ARGUMENT_CUBIC_32[0], GELU_TANH_ARGUMENT_CUBIC_64[0])
    cubic_tail = per(x, GELU_TANH_ARGUMENT_CUBIC_TAIL_32[0], GELU_TANH_ARGUMENT_CUBIC_TAIL_64[0])
    linear = per(x, GELU_TANH_ARGUMENT_LINEAR_32[0], GELU_TANH_ARGUMENT_LINEAR_64[0])
    linear_tail = per(x, GELU_TANH_ARGUMENT_LINEAR_TAIL_32[0], GELU_TANH_ARGUMENT_LINEAR_TAIL_64[0])
    w = product(x, x)
    total = product_plus(w.head, cubic, linear)
    small = tl.fma(w.tail, cubic, total.tail + linear_tail)
    tail = tl.fma(w.head, cubic_tail, small)
    z = product(x, total.head)
    return Sum(z.head, tl.fma(x, tail, z.tail))


@triton.jit
def gelu_tanh_logistic(x):
    """Sigma of the argument, for -2 bias ln 2 < argument < bias ln 2."""
    z = gelu_tanh_argument(x)
    n = exponent(z.head)
    return logistic_of_reduced(remainder_of_sum(z.head, z.tail, n), n)


@triton.jit
def gelu_tanh(x, p):
    bounded = larger(per(x, -12.5, -26.0), x)
    s = gelu_tanh_logistic(smaller(per(x, 8.0, 12.0), bounded))
    return nan_at_minus_infinity(x, ldexp(quotient(bounded, denominator(s)), s.n))


@triton.jit
def gelu_tanh_slope(x, y, p):
    bounded = smaller(per(x, 8.0, 12.0), larger(per(x, -12.5, -26.0), x))
    s = gelu_tanh_logistic(bounded)
    inverse = quotient(lit(x, 1.0), denominator(s))
    sigma = s.power * inverse
    linear = per(
        x,
        GELU_TANH_ARGUMENT_LINEAR_32[0] + GELU_TANH_ARGUMENT_LINEAR_TAIL_32[0],
        GELU_TANH_ARGUMENT_LINEAR_64[0] + GELU_TANH_ARGUMENT_LINEAR_TAIL_64[0],
    )
    cubic = per(x, 3 * GELU_TANH_ARGUMENT_CUBIC_32[0], 3 * GELU_TANH_ARGUMENT_CUBIC_64[0])
    rate = tl.fma(bounded * bounded, cubic, linear)
    return tl.fma(bounded * sigma * rate, complement(s, inverse), sigma)


@triton.jit
def softplus(x, p):
    beta, threshold = p[0], p[1]
    z = x * beta
    bound = quotient(per(x, 160.0, 1200.0), tl.abs(beta))  # exp(-|z|) is 0 beyond
    a = product(smaller(bound, tl.abs(x)), tl.abs(beta))
    inverse = reciprocal(beta)
    n = exponent(-a.head)
    r = remainder_of_sum(-a.head, -a.tail, n)
    ratio = expm1_ratio(r)
    e = ldexp(tl.fma(ratio, r, lit(x, 1.0)), n)
    p_over_beta = tl.fma(ratio * inverse.head, r, inverse.tail) + inverse.head
    rest = ldexp(p_over_beta * log1p_ratio(e), n)
    return tl.where(z > threshold, x, tl.where(z <= 0, lit(x, 0.0), x) + rest)


@triton.jit
def softplus_slope(x, y, p):
    z = product(x, p[0])
    s = logistic_of_sum(z.head, z.tail)
    return tl.where(z.head > p[1], lit(x, 1.0), quotient(s.power, denominator(s)))


@triton.jit
def hardsigmoid(x, p):
    return sixth(smaller(lit(x, 6.0), larger(lit(x, 0.0), x + 3.0)))


@triton.jit
def hardsigmoid_slope(x, y, p):
    return tl.where(tl.abs(x) < 3, lit(x, ONE_SIXTH), lit(x, 0.0))


@triton.jit
def hardsigmoid_gradient(dy, x, y, p):
    return tl.where(tl.abs(x) < 3, dy * lit(x, ONE_SIXTH), lit(x, 0.0))


@triton.jit
def hardswish(x, p):
    return tl.where(x >= 3, x, sixth(x * larger(lit(x, 0.0), x + 3.0)))


@triton.jit
def hardswish_gradient(dy, x, y, p):
    inside = dy * ((x + 1.5) * lit(x, THIRD))
    return tl.where(x <= -3, lit(x, 0.0), tl.where(x >= 3, dy, inside))


@triton.jit
def hardswish_slope(x, y, p):
    return hardswish_gradient(lit(x, 1.0), x, y, p)


# x tanh(softplus(x)) = x e (e + 2) / (e (e + 2) + 2) with e = exp(x). Numerator and denominator have a factor 0.75 that
# moves them to mid-binade for small e, where their roundings would weigh most.


@triton.jit
def mish(x, p):
    bounded = larger(per(x, -160.0, -1200.0), x)
    low = smaller(per(x, 15.0, 30.0), bounded)
    n = exponent(low)
    r = remainder(low, n)
    ratio = expm1_ratio(r)
    e = ldexp(tl.fma(ratio, r, lit(x, 1.0)), n)
    above = tl.fma(e, lit(x, 0.75), lit(x, 1.5))
    share = quotient(above, tl.fma(e, above, lit(x, 1.5)))
    return nan_at_minus_infinity(x, ldexp(bounded * tl.fma(share * ratio, r, share), n))


@triton.jit
def mish_slope(x, y, p):
    bounded = smaller(per(x, 15.0, 30.0), larger(per(x, -160.0, -1200.0), x))
    e = exp(bounded)
    above = tl.fma(e, lit(x, 0.75), lit(x, 1.5))
    inverse = quotient(lit(x, 0.75), tl.fma(e, above, lit(x, 1.5)))
    return inverse * tl.fma(4.0 * bounded * inverse, tl.fma(e, e, e), e * (e + 2.0))


# --- with a trained parameter ------------------------------------------------------------------------------


@triton.jit
def prelu_param_slope(x, y, p):
    return (smaller(lit(x, 0.0), x),)


@triton.jit
def swish(x, p):
    z = product(x, p[0])
    s = logistic_of_sum(z.head, z.tail)
    return ldexp(quotient(x, finer_denominator(s)), s.n)


@triton.jit
def swish_slope(x, y, p):
    z = product(x, p[0])
    s = logistic_of_sum(z.head, z.tail)
    inverse = quotient(lit(x, 1.0), finer_denominator(s))
    sigma = s.power * inverse
    bounded = larger(logistic_zero(x), smaller(logistic_one(x), z.head))
    return tl.fma(bounded * sigma, complement(s, inverse), sigma)


@triton.jit
def swish_param_slope(x, y, p):
    z = product(x, p[0])
    s = logistic_of_sum(z.head, z.tail)
    inverse = quotient(lit(x, 1.0), finer_denominator(s))
    inside = tl.where(tl.abs(z.head) > 1000, lit(x, 0.0), x)
    return ((inside * s.power * inverse) * (inside * complement(s, inverse)),)


# p1 x sigma(z) + p2 x sigma(-z) with z = beta (p1 - p2) x: the two terms do not cancel where p1 and p2 have one sign.


class Sides(NamedTuple):
    """exp(-|z|) = p 2^n, below = 1 + exp(-|z|); which parameter weighs more, and which less."""

    rising: tl.tensor
    size: tl.tensor
    p: tl.tensor
    n: tl.tensor
    below: tl.tensor
    major: tl.tensor
    minor: tl.tensor
    apart: tl.tensor


@triton.jit
def acon_sides(x, p):
    apart = difference(p[0], p[1])
    rate = product(p[2], apart.head)
    slow = tl.fma(p[2], apart.tail, rate.tail)
    bounded = finite(x)
    z = product(bounded, finite(rate.head))
    tail = tl.fma(bounded, slow, z.tail)
    rising = z.head > 0
    zero = per(x, 174.0, 1416.0)  # the lesser term is taken as 0 beyond, as it is for |x| < 2^100
    size = smaller(zero, tl.abs(z.head))
    less = tl.where(rising, tail, -tail)
    kept = larger(smaller(less, lit(x, 1.0)), lit(x, -1.0))  # of an infinite head the tail is NaN
    n = exponent(-size)
    r = remainder_of_sum(-size, -kept, n)
    ratio = expm1_ratio(r)
    power = ldexp(lit(x, 1.0), n)
    part = tl.where(size >= zero, lit(x, 0.0), tl.fma(ratio, r, lit(x, 1.0)))
    below = tl.fma(ratio * power, r, power) + 1.0
    major, minor = tl.where(rising, p[0], p[1]), tl.where(rising, p[1], p[0])
    return Sides(rising, size + kept, part, n, below, major, minor, apart.head)


@triton.jit
def acon_rates(s):
    """sigma(|z|) + |z| sigma', what that lacks of 1, sigma(|z|), sigma(-|z|)."""
    high = quotient(lit(s.size, 1.0), s.below)
    low = ldexp(s.p * high, s.n)
    up = tl.fma(s.size * low, high, high)
    down = low * tl.fma(-s.size, high, lit(s.size, 1.0))
    return up, down, high, low


@triton.jit
def acon_c(x, p):
    s = acon_sides(x, p)
    share = quotient(finite(x), s.below)
    y = tl.fma(share, s.major, ldexp(share * s.p * s.minor, s.n))
    far = tl.where(y == 0, y, y * lit(x, float("inf")))  # infinite, unless both terms vanish there
    return tl.where(tl.abs(x) <= per(x, 3.4028234663852886e38, 1.7976931348623157e308), y, far)


@triton.jit
def acon_c_slope(x, y, p):
    s = acon_sides(x, p)
    up, down, _high, _low = acon_rates(s)
    return tl.fma(s.major, up, s.minor * down)


@triton.jit
def acon_c_param_slope(x, y, p):
    s = acon_sides(x, p)
    up, down, high, low = acon_rates(s)
    of_major, of_minor = x * up, tl.where(down == 0, down, x * down)
    d = tl.where(s.p == 0, lit(x, 0.0), s.apart * finite(x))
    return tl.where(s.rising, of_major, of_minor), tl.where(s.rising, of_minor, of_major), (d * low) * (d * high)


@triton.jit
def softplus_of(v):
    e = exp(larger(per(v, -110.0, -760.0), -tl.abs(v)))
    return larger(lit(v, 0.0), v) + e * log1p_ratio(e)


@triton.jit
def xielu_below(x, p):
    """exp(m) - 1 and exp(m) - 1 - x with m = min(x, eps)."""
    m = smaller(p[3], x)
    bounded = larger(per(x, -30.0, -60.0), smaller(lit(x, 0.0), m))
    n = exponent(bounded)
    r = remainder(bounded, n)
    power = ldexp(lit(x, 1.0), n)
    square, bend = r * r, exp_bend(r)
    grown, rest = tl.fma(square, bend, r), power - 1.0
    # With n = 0 the linear term has cancelled exactly.
    beyond = tl.where(n == 0, square * bend + (m - x), tl.fma(power, grown, rest - x))
    return tl.fma(grown, power, rest), beyond


@triton.jit
def xielu(x, p):
    beta, a, s = p[2], softplus_of(p[0]), softplus_of(p[1])
    b = beta + s
    grown, beyond = xielu_below(x, p)
    near, far = tl.fma(b, beyond, beta * x), tl.fma(b, grown, -s * x)
    return tl.where(x > 0, x * tl.fma(a, x, beta), tl.where(x > -4, near, far))


@triton.jit
def xielu_slope(x, y, p):
    beta, a, b = p[2], softplus_of(p[0]), p[2] + softplus_of(p[1])
    grown, _beyond = xielu_below(x, p)
    ramp = tl.where(x >= p[3], lit(x, -1.0), grown)  # beyond eps, exp(eps) is a constant
    return tl.where(x > 0, tl.fma(a + a, x, beta), tl.fma(b, ramp, beta))


@triton.jit
def xielu_param_slope(x, y, p):
    positive = larger(lit(x, 0.0), x)
    first, second = logistic(p[0]), logistic(p[1])
    of_p, of_n = quotient(first.power, denominator(first)), quotient(second.power, denominator(second))
    _grown, beyond = xielu_below(x, p)
    return of_p * positive * positive, of_n * tl.where(x > 0, lit(x, 0.0), beyond)


@triton.jit
def dyt_tanh(x, p):
    z = p[0] * finite(x)  # 0 where alpha is, at infinity too
    return with_sign(tanh_of_half(tl.abs(z + z), 1.0), z)


@triton.jit
def dyt_bell(x, p):
    """1 - tanh^2 = 4 sigma(2 z) sigma(-2 z)."""
    z = product(finite(x), 2.0 * p[0])
    s = logistic_of_sum(-tl.abs(z.head), tl.where(z.head > 0, -z.tail, z.tail))
    inverse = quotient(lit(x, 1.0), denominator(s))
    return 4.0 * (s.power * inverse) * complement(s, inverse)


@triton.jit
def dyt(x, p):
    return tl.fma(p[1], dyt_tanh(x, p), p[2])


@triton.jit
def dyt_slope(x, y, p):
    return (p[1] * p[0]) * dyt_bell(x, p)


@triton.jit
def dyt_param_slope(x, y, p):
    h = dyt_bell(x, p)
    return p[1] * tl.where(h == 0, h, x * h), dyt_tanh(x, p), tl.where(x == x, lit(x, 1.0), lit(x, 1.0))


@triton.jit
def derf_argument(x, p):
    z = product(p[0], finite(x))
    u = difference(z.head, -p[1])
    tail = u.tail + z.tail
    head = tl.where(tl.abs(u.head) <= per(x, 3.4028234663852886e38, 1.7976931348623157e308), u.head + tail, u.head)
    return Sum(head, (u.head - head) + tail)


@triton.jit
def erf_bell(u):
    """erf'(u) = 2 / sqrt(pi) exp(-u^2)."""
    size = smaller(per(u.head, 11.0, 28.0), tl.abs(u.head))  # exp(-u^2) is 0 beyond
    tail = tl.where(u.head > 0, u.tail, -u.tail)
    kept = larger(smaller(tail, lit(tail, 1e-3)), lit(tail, -1e-3))  # of an infinite head the tail is NaN
    s = product(size, size)
    n = exponent(-s.head)
    r = remainder_of_sum(-s.head, -tl.fma(size + size, kept, s.tail), n)
    return ldexp(tl.fma(expm1_ratio(r), r, lit(r, 1.0)) * lit(r, ERF_SLOPE), n)


@triton.jit
def derf(x, p):
    return tl.fma(p[2], erf(derf_argument(x, p).head), p[3])


@triton.jit
def derf_slope(x, y, p):
    return (p[2] * p[0]) * erf_bell(derf_argument(x, p))


@triton.jit
def derf_param_slope(x, y, p):
    u = derf_argument(x, p)
    h = erf_bell(u)
    of_shift = p[2] * h
    of_alpha = tl.where(h == 0, h, x * of_shift)
    return of_alpha, of_shift, erf(u.head), tl.where(x == x, lit(x, 1.0), lit(x, 1.0))


# --- the registry ------------------------------------------------------------------------------------------


class Activation(NamedTuple):
    """The functions of one activation, and what backward reads: "x" or "y"."""

    value: Any
    slope: Any
    saves: str = "x"
    parameters: int = 0
    trainable: int = 0  # so many of the parameters, from the first on
    param_slope: Any = None
    gradient: Any = None


ACTIVATIONS = {
    "sigmoid": Activation(sigmoid, sigmoid_slope, saves="y"),
    "centered_sigmoid": Activation(centered_sigmoid, centered_sigmoid_slope, saves="y"),
    "tanh": Activation(tanh, tanh_slope, saves="y"),
    "relu": Activation(relu, relu_slope, saves="y", gradient=relu_gradient),
    "leaky_relu": Activation(leaky_relu, leaky_relu_slope, parameters=1),
    "relu_squared": Activation(relu_squared, relu_squared_slope, gradient=relu_squared_gradient),
    "elu": Activation(elu, elu_slope, parameters=1),
    "silu": Activation(silu, silu_slope),
    "gelu": Activation(gelu, gelu_slope),
    "gelu_tanh": Activation(gelu_tanh, gelu_tanh_slope),
    "softplus": Activation(softplus, softplus_slope, parameters=2),
    "hardsigmoid": Activation(hardsigmoid, hardsigmoid_slope, gradient=hardsigmoid_gradient),
    "hardswish": Activation(hardswish, hardswish_slope, gradient=hardswish_gradient),
    "mish": Activation(mish, mish_slope),
    "gal": Activation(gal, gal_slope, parameters=3),
    "prelu": Activation(leaky_relu, leaky_relu_slope, parameters=1, trainable=1, param_slope=prelu_param_slope),
    "swish": Activation(swish, swish_slope, parameters=1, trainable=1, param_slope=swish_param_slope),
    "acon_c": Activation(acon_c, acon_c_slope, parameters=3, trainable=3, param_slope=acon_c_param_slope),
    "xielu": Activation(xielu, xielu_slope, parameters=4, trainable=2, param_slope=xielu_param_slope),
    "dyt": Activation(dyt, dyt_slope, parameters=3, trainable=3, param_slope=dyt_param_slope),
    "derf": Activation(derf, derf_slope, parameters=4, trainable=4, param_slope=derf_param_slope),
}
