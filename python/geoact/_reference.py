"""Float64 NumPy references of the activations and their slopes: what every kernel is checked against.

Written for accuracy at every finite x, not for speed: no cancellation near zero, no overflow in the tails.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Parameter = Any  # a number, or an array that broadcasts against x


def _quiet(x: Array) -> Array:
    return np.asarray(x, dtype=np.float64)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(_quiet(x)))
    return np.asarray(np.where(x < 0, e, np.where(np.isnan(x), np.nan, 1.0)) / (1 + e))


def sigmoid_slope(x: Array) -> Array:
    return sigmoid(x) * sigmoid(-x)


def centered_sigmoid(x: Array) -> Array:
    return np.tanh(x / 2) / 2


def tanh(x: Array) -> Array:
    return np.tanh(x)


def tanh_slope(x: Array) -> Array:
    return 4 * sigmoid_slope(2 * x)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def step(x: Array) -> Array:
    return np.where(x <= 0, 0.0, 1.0)


def leaky_relu(x: Array, negative_slope: Parameter) -> Array:
    return np.where(x > 0, x, x * negative_slope)


def leaky_relu_slope(x: Array, negative_slope: Parameter) -> Array:
    return np.where(x > 0, 1.0, negative_slope)


def prelu_param_slope(x: Array, weight: Parameter) -> Array:
    return np.where(x > 0, 0.0, x)


def gal(x: Array, negative_slope: Parameter, scale: Parameter, shift: Parameter) -> Array:
    return np.asarray(scale * (leaky_relu(x, negative_slope) - shift))


def gal_size(x: Array, negative_slope: Parameter, scale: Parameter, shift: Parameter) -> Array:
    return np.asarray(np.abs(scale) * np.maximum(np.abs(leaky_relu(x, negative_slope)), np.abs(shift)))


def gal_slope(x: Array, negative_slope: Parameter, scale: Parameter, shift: Parameter) -> Array:
    return np.asarray(scale * leaky_relu_slope(x, negative_slope))


def relu_squared(x: Array) -> Array:
    return np.maximum(x, 0) ** 2


def relu_squared_slope(x: Array) -> Array:
    return 2 * np.maximum(x, 0)


def elu(x: Array, alpha: Parameter) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_slope(x: Array, alpha: Parameter) -> Array:
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))


def silu(x: Array) -> Array:
    return swish(x, 1.0)


def silu_slope(x: Array) -> Array:
    return swish_slope(x, 1.0)


def swish(x: Array, beta: Parameter) -> Array:
    # x exp(beta x) before the division: the product is a normal number where exp(beta x) alone no longer is.
    u = x * beta
    e = np.exp(-np.abs(u) / 2)
    return np.asarray(np.where(u < 0, (x * e) * e, x) / (1 + e * e))


def swish_slope(x: Array, beta: Parameter) -> Array:
    u = np.clip(x * beta, -1e3, 1e3)  # bounded: the product below is 0 there, not infinity times 0
    return np.asarray(sigmoid(u) + u * sigmoid_slope(u))


def swish_param_slope(x: Array, beta: Parameter) -> Array:
    return x * x * sigmoid_slope(x * beta)


def _acon_c_terms(x: Array, p1: Parameter, p2: Parameter, beta: Parameter) -> tuple[Array, Array]:
    """The terms of p1 and p2, the one that decays by halves as in swish."""
    z = beta * ((p1 - p2) * x)
    e = np.exp(-np.abs(z) / 2)
    major, minor = x / (1 + e * e), (x * e) * e / (1 + e * e)
    return p1 * np.where(z > 0, major, minor), p2 * np.where(z > 0, minor, major)


def acon_c(x: Array, p1: Parameter, p2: Parameter, beta: Parameter) -> Array:
    first, second = _acon_c_terms(x, p1, p2, beta)
    return first + second


def acon_c_size(x: Array, p1: Parameter, p2: Parameter, beta: Parameter) -> Array:
    first, second = _acon_c_terms(x, p1, p2, beta)
    return np.maximum(np.abs(first), np.abs(second))


def acon_c_slope(x: Array, p1: Parameter, p2: Parameter, beta: Parameter) -> Array:
    z = beta * ((p1 - p2) * x)
    return np.asarray(p1 * swish_slope(z, 1.0) + p2 * swish_slope(-z, 1.0))


def acon_c_p1_slope(x: Array, p1: Parameter, p2: Parameter, beta: Parameter) -> Array:
    return x * swish_slope(beta * ((p1 - p2) * x), 1.0)


def acon_c_p2_slope(x: Array, p1: Parameter, p2: Parameter, beta: Parameter) -> Array:
    return x * swish_slope(beta * ((p2 - p1) * x), 1.0)


def acon_c_beta_slope(x: Array, p1: Parameter, p2: Parameter, beta: Parameter) -> Array:
    return swish_param_slope((p1 - p2) * x, beta)


def _expm1_beyond_linear(v: Array) -> Array:
    """exp(v) - 1 - v for v <= 0: near 0 the series, where the difference has lost its digits."""
    series = 1 + v / 13
    for k in range(12, 2, -1):
        series = 1 + v / k * series
    return np.where(np.abs(v) < 0.1, v * v / 2 * series, np.expm1(v) - v)


def _softplus_of(v: Parameter) -> Any:  # noqa: ANN401
    return np.maximum(v, 0) + np.log1p(np.exp(-np.abs(v)))


def _xielu_beyond(x: Array, eps: Parameter) -> Array:
    """exp(m) - 1 - x with m = min(x, eps), for x <= 0."""
    m = np.minimum(np.minimum(x, 0), eps)
    return np.asarray(_expm1_beyond_linear(m) + (m - np.minimum(x, 0)))


def xielu(x: Array, alpha_p: Parameter, alpha_n: Parameter, beta: Parameter, eps: Parameter) -> Array:
    a, s = _softplus_of(alpha_p), _softplus_of(alpha_n)
    near = (beta + s) * _xielu_beyond(x, eps) + beta * x
    far = (beta + s) * np.expm1(np.minimum(np.minimum(x, 0), eps)) - s * x  # without the part of beta x in both terms
    return np.asarray(np.where(x > 0, x * (a * x + beta), np.where(x > -4, near, far)))


def xielu_size(x: Array, alpha_p: Parameter, alpha_n: Parameter, beta: Parameter, eps: Parameter) -> Array:
    a, b = _softplus_of(alpha_p), beta + _softplus_of(alpha_n)
    low = np.minimum(x, 0)
    m = np.minimum(low, eps)
    bent = np.where(x > 0, a * x * x, b * np.maximum(_expm1_beyond_linear(m), np.abs(m - low)))
    return np.asarray(np.maximum(np.abs(bent), np.abs(beta * x)))


def xielu_slope(x: Array, alpha_p: Parameter, alpha_n: Parameter, beta: Parameter, eps: Parameter) -> Array:
    b, ramp = beta + _softplus_of(alpha_n), np.where(x < eps, np.expm1(np.minimum(x, 0)), -1.0)
    slope = np.where(x > 0, 2 * _softplus_of(alpha_p) * x + beta, b * ramp + beta)
    return np.asarray(np.where(np.isnan(x), x, slope))


def xielu_alpha_p_slope(x: Array, alpha_p: Parameter, alpha_n: Parameter, beta: Parameter, eps: Parameter) -> Array:
    return np.asarray(sigmoid(alpha_p) * np.maximum(x, 0) ** 2)


def xielu_alpha_n_slope(x: Array, alpha_p: Parameter, alpha_n: Parameter, beta: Parameter, eps: Parameter) -> Array:
    return sigmoid(alpha_n) * np.where(x > 0, 0.0, _xielu_beyond(x, eps))


def dyt(x: Array, alpha: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(weight * np.tanh(alpha * x) + bias)


def dyt_size(x: Array, alpha: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(np.maximum(np.abs(weight * np.tanh(alpha * x)), np.abs(bias)))


def dyt_slope(x: Array, alpha: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(weight * alpha * tanh_slope(alpha * x))


def dyt_alpha_slope(x: Array, alpha: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(weight * x * tanh_slope(alpha * x))


def dyt_weight_slope(x: Array, alpha: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(np.tanh(alpha * x))


def bias_slope(x: Array, *parameters: Parameter) -> Array:
    return np.ones_like(x)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def derf(x: Array, alpha: Parameter, shift: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(weight * _erf(alpha * x + shift) + bias)


def derf_size(x: Array, alpha: Parameter, shift: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(np.maximum(np.abs(weight * _erf(alpha * x + shift)), np.abs(bias)))


def _erf_slope(u: Array) -> Array:
    near = np.clip(u, -1e3, 1e3)
    return 2 / math.sqrt(math.pi) * np.exp(-near * near)


def derf_slope(x: Array, alpha: Parameter, shift: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(weight * alpha * _erf_slope(alpha * x + shift))


def derf_alpha_slope(x: Array, alpha: Parameter, shift: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(weight * x * _erf_slope(alpha * x + shift))


def derf_shift_slope(x: Array, alpha: Parameter, shift: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(weight * _erf_slope(alpha * x + shift))


def derf_weight_slope(x: Array, alpha: Parameter, shift: Parameter, weight: Parameter, bias: Parameter) -> Array:
    return np.asarray(_erf(alpha * x + shift))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x: Array) -> Array:
    return np.asarray(_erfc(-_quiet(x) / math.sqrt(2)) / 2)


def gelu(x: Array) -> Array:
    return x * _normal_cdf(x)


def gelu_slope(x: Array) -> Array:
    # x is bounded because exp(-x^2 / 2) is zero long before x overflows the product
    near = np.clip(x, -50, 50)
    return _normal_cdf(x) + near * np.exp(-near * near / 2) / math.sqrt(2 * math.pi)


_K = 2 * math.sqrt(2 / math.pi)
_C = 0.044715


def gelu_tanh(x: Array) -> Array:
    near = np.clip(x, -30, 30)
    return np.where(np.abs(x) > 30, np.where(x > 0, x, -0.0), swish(near, _K * (1 + _C * near * near)))


def gelu_tanh_slope(x: Array) -> Array:
    near = np.clip(x, -30, 30)
    z = _K * (near + _C * near**3)
    return sigmoid(z) + near * sigmoid_slope(z) * _K * (1 + 3 * _C * near * near)


def softplus(x: Array, beta: Parameter, threshold: Parameter) -> Array:
    u = x * beta
    smooth = (np.maximum(u, 0) + np.log1p(np.exp(-np.abs(u)))) / beta
    return np.where(u > threshold, x, smooth)


def softplus_slope(x: Array, beta: Parameter, threshold: Parameter) -> Array:
    return np.where(x * beta > threshold, 1.0, sigmoid(x * beta))


def hardsigmoid(x: Array) -> Array:
    return np.minimum(np.maximum(x + 3, 0), 6) / 6


def hardsigmoid_slope(x: Array) -> Array:
    return np.where((x > -3) & (x < 3), 1 / 6, 0.0)


def hardswish(x: Array) -> Array:
    return x * np.minimum(np.maximum(x + 3, 0), 6) / 6


def hardswish_slope(x: Array) -> Array:
    return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5))


def mish(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    low = e * (e + 2) / (e * (e + 2) + 2)
    high = (1 + 2 * e) / (1 + 2 * e + 2 * e * e)
    return np.asarray(x * np.where(x < 0, low, high))


def mish_slope(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    t = np.where(x < 0, e * (e + 2) / (e * (e + 2) + 2), (1 + 2 * e) / (1 + 2 * e + 2 * e * e))
    sech = np.where(x < 0, 2 * (1 + e), 2 * e * (1 + e)) / np.where(x < 0, e * (e + 2) + 2, 1 + 2 * e + 2 * e * e)
    return np.asarray(t + np.clip(x, -1e3, 1e3) * sech * sech * sigmoid(x))
