"""WHAT an activation is: a value and a slope, the same definitions as the structs of ``csrc/ops/activations.h``.

    value(x, p)             f(x); p is the tuple of parameters, in the order of the public arguments
    slope(x, y, p)          f'(x); where y is saved it is called slope(y, y, p), where x is, slope(x, x, p)
    param_slope(x, y, p)    df/dp[0], where the parameter is trained
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
    exp,
    expm1,
    expm1_ratio,
    exponent,
    finer_denominator,
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
    return smaller(lit(x, 0.0), x)


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
    return (inside * s.power * inverse) * (inside * complement(s, inverse))


# --- the registry ------------------------------------------------------------------------------------------


class Activation(NamedTuple):
    """The functions of one activation, and what backward reads: "x" or "y"."""

    value: Any
    slope: Any
    saves: str = "x"
    parameters: int = 0
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
    "prelu": Activation(leaky_relu, leaky_relu_slope, parameters=1, param_slope=prelu_param_slope),
    "swish": Activation(swish, swish_slope, parameters=1, param_slope=swish_param_slope),
}
