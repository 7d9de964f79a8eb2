"""Slopes of the activations in torch operators: what a second derivative and a forward derivative are made of.

One line per row of the registry, as a function of what its backward pass saves (x, or y where y is enough), and one for
the derivative of that. The kernels never use these: only ``create_graph=True`` and forward-mode differentiation do.
Being formulas, they take no derivative inside a derivative, which functorch would not allow. Computed in float32 for
the 16-bit dtypes, as the kernels are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from geoact.torch.autograd import Call

Tensor = torch.Tensor

_K, _C = 2 * math.sqrt(2 / math.pi), 0.044715


def _swish(x: Tensor, beta: Tensor | float) -> Tensor:
    u = torch.mul(x, beta)
    s = torch.sigmoid(u)
    return s * (1 + u * (1 - s))


def _gelu(x: Tensor) -> Tensor:
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return torch.add(torch.special.ndtr(x), x * density)


def _gelu_tanh(x: Tensor) -> Tensor:
    s = torch.sigmoid(_K * (x + _C * x**3))
    return s + x * s * (1 - s) * _K * (1 + 3 * _C * x * x)


def _mish(x: Tensor) -> Tensor:
    t = torch.tanh(torch.nn.functional.softplus(x))
    return t + x * (1 - t * t) * torch.sigmoid(x)


def _step(saved: Tensor, below: Any = 0.0) -> Tensor:  # noqa: ANN401
    return torch.where(saved > 0, torch.ones_like(saved), below + torch.zeros_like(saved))


def _softplus(x: Tensor, beta: float, threshold: float) -> Tensor:
    return torch.where(beta * x > threshold, torch.ones_like(x), torch.sigmoid(beta * x))


def _hardsigmoid(x: Tensor) -> Tensor:
    return torch.where((x > -3) & (x < 3), torch.full_like(x, 1 / 6), torch.zeros_like(x))


def _hardswish(x: Tensor) -> Tensor:
    return torch.where(x <= -3, torch.zeros_like(x), torch.where(x >= 3, torch.ones_like(x), x / 3 + 0.5))


def _acon(x: Tensor, p1: Any, p2: Any, beta: Any) -> tuple[Tensor, Tensor, Any]:  # noqa: ANN401
    """z, sigma(z) and p1 - p2."""
    apart = p1 - p2
    z = torch.mul(x, beta * apart)
    return z, torch.sigmoid(z), apart


def _acon_slope(x: Tensor, p1: Any, p2: Any, beta: Any) -> Tensor:  # noqa: ANN401
    z, _, _ = _acon(x, p1, p2, beta)
    return torch.add(p1 * _swish(z, 1.0), p2 * _swish(-z, 1.0))


def _acon_slopes(x: Tensor, p1: Any, p2: Any, beta: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
    z, s, apart = _acon(x, p1, p2, beta)
    return x * _swish(z, 1.0), x * _swish(-z, 1.0), (x * apart) ** 2 * s * (1 - s)


def _softplus_of(x: Tensor, v: Any) -> Tensor:  # noqa: ANN401
    v = v if isinstance(v, Tensor) else x.new_full((), v)
    return torch.logaddexp(v, torch.zeros_like(v))


def _sigmoid_of(x: Tensor, v: Any) -> Tensor:  # noqa: ANN401
    return torch.sigmoid(v if isinstance(v, Tensor) else x.new_full((), v))


def _xielu_ramp(x: Tensor, eps: float) -> Tensor:
    """What the bent part of the negative side grows by."""
    return torch.where(x < eps, torch.expm1(x.clamp_max(0)), -torch.ones_like(x))


def _xielu_bend(x: Tensor, eps: float) -> Tensor:
    low = x.clamp_max(0)
    return torch.where(x > 0, torch.zeros_like(x), torch.expm1(low.clamp_max(eps)) - low)


def _xielu(x: Tensor, alpha_p: Any, alpha_n: Any, beta: float, eps: float) -> Tensor:  # noqa: ANN401
    above = 2 * _softplus_of(x, alpha_p) * x
    return beta + torch.where(x > 0, above, (beta + _softplus_of(x, alpha_n)) * _xielu_ramp(x, eps))


def _xielu_slopes(x: Tensor, alpha_p: Any, alpha_n: Any, beta: float, eps: float) -> tuple[Tensor, ...]:  # noqa: ANN401
    return _sigmoid_of(x, alpha_p) * x.clamp_min(0) ** 2, _sigmoid_of(x, alpha_n) * _xielu_bend(x, eps)


def _dyt(x: Tensor, alpha: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Tanh and what its square lacks of 1."""
    t = torch.tanh(torch.mul(x, alpha))
    return t, 1 - t * t


def _dyt_slopes(x: Tensor, alpha: Any, weight: Any, bias: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
    t, rest = _dyt(x, alpha)
    return weight * x * rest, t, torch.ones_like(x)


def _derf(x: Tensor, alpha: Any, shift: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """The argument of erf, and erf' there."""
    u = torch.add(torch.mul(x, alpha), shift)
    return u, torch.exp(-u * u) * (2 / math.sqrt(math.pi))


def _derf_slopes(x: Tensor, alpha: Any, shift: Any, weight: Any, bias: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
    u, bell = _derf(x, alpha, shift)
    return weight * x * bell, weight * bell, torch.erf(u), torch.ones_like(x)


SLOPES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": lambda y: y * (1 - y),
    "centered_sigmoid": lambda y: (0.5 - y) * (0.5 + y),
    "tanh": lambda y: 1 - y * y,
    "relu": _step,
    "leaky_relu": _step,
    "relu_squared": lambda x: 2 * torch.relu(x),
    "elu": lambda x, alpha: torch.where(x > 0, torch.ones_like(x), alpha * torch.exp(x.clamp_max(0))),
    "silu": lambda x: _swish(x, 1.0),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "mish": _mish,
    "gal": lambda x, negative_slope, scale, shift: scale * _step(x, negative_slope),
    "prelu": _step,
    "swish": _swish,
    "acon_c": _acon_slope,
    "xielu": _xielu,
    "dyt": lambda x, alpha, weight, bias: weight * alpha * _dyt(x, alpha)[1],
    "derf": lambda x, alpha, shift, weight, bias: weight * alpha * _derf(x, alpha, shift)[1],
}

# d f / d parameter of every trained parameter, as a function of x and all parameters.
PARAMETER_SLOPES: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "prelu": lambda x, weight: (torch.where(x > 0, torch.zeros_like(x), x),),
    "swish": lambda x, beta: (x * x * torch.sigmoid(beta * x) * torch.sigmoid(-beta * x),),
    "acon_c": _acon_slopes,
    "xielu": _xielu_slopes,
    "dyt": _dyt_slopes,
    "derf": _derf_slopes,
}

_Formula = Callable[..., Tensor | float]


def _bend(s: Tensor, g: Tensor | float) -> Tensor:
    """S (1 - s) (2 + g (1 - 2 s)): times g' this is (x s)'' of s = sigmoid(g(x)), where g'' = 0; g stands for x g'."""
    return s * (1 - s) * (2 + g * (1 - 2 * s))


def _swish_bend(x: Tensor, beta: Any) -> Tensor:  # noqa: ANN401
    return _bend(torch.sigmoid(beta * x), beta * x)


def _gelu_tanh_curvature(x: Tensor) -> Tensor:
    s, first, second = torch.sigmoid(_K * (x + _C * x**3)), _K * (1 + 3 * _C * x * x), 6 * _K * _C * x
    return _bend(s, x * first) * first + x * s * (1 - s) * second


def _mish_curvature(x: Tensor) -> Tensor:
    t, s = torch.tanh(torch.nn.functional.softplus(x)), torch.sigmoid(x)
    return (1 - t * t) * s * (2 + x * (1 - s - 2 * t * s))


def _softplus_curvature(x: Tensor, beta: float, threshold: float) -> Tensor:
    s = torch.sigmoid(beta * x)
    return torch.where(beta * x > threshold, torch.zeros_like(x), beta * s * (1 - s))


def _acon_curvature(x: Tensor, p1: Any, p2: Any, beta: Any) -> Tensor:  # noqa: ANN401
    z, s, apart = _acon(x, p1, p2, beta)
    return torch.mul(_bend(s, z), beta * apart * apart)


def _xielu_curvature(x: Tensor, alpha_p: Any, alpha_n: Any, beta: float, eps: float) -> Tensor:  # noqa: ANN401
    curved = (beta + _softplus_of(x, alpha_n)) * torch.exp(x.clamp_max(0))
    below = torch.where(x < eps, curved, torch.zeros_like(curved))
    return torch.where(x > 0, 2 * _softplus_of(x, alpha_p), below)


def _dyt_curvature(x: Tensor, alpha: Any, weight: Any, bias: Any) -> Tensor:  # noqa: ANN401
    t, rest = _dyt(x, alpha)
    return torch.mul(t * rest, -2 * weight * alpha * alpha)


def _derf_curvature(x: Tensor, alpha: Any, shift: Any, weight: Any, bias: Any) -> Tensor:  # noqa: ANN401
    u, bell = _derf(x, alpha, shift)
    return torch.mul(u * bell, -2 * weight * alpha * alpha)


# The derivatives of SLOPES with respect to what was saved; 0 where the slope is piecewise constant.
CURVATURES: dict[str, _Formula] = {
    "sigmoid": lambda y: 1 - 2 * y,
    "centered_sigmoid": lambda y: -2 * y,
    "tanh": lambda y: -2 * y,
    "relu": lambda y: 0.0,
    "leaky_relu": lambda x, slope: 0.0,
    "relu_squared": lambda x: 2 * _step(x),
    "elu": lambda x, alpha: torch.where(x > 0, torch.zeros_like(x), alpha * torch.exp(x.clamp_max(0))),
    "silu": lambda x: _swish_bend(x, 1.0),
    "gelu": lambda x: (2 - x * x) * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "gelu_tanh": _gelu_tanh_curvature,
    "softplus": _softplus_curvature,
    "hardsigmoid": lambda x: 0.0,
    "hardswish": lambda x: torch.where((x > -3) & (x < 3), torch.full_like(x, 1 / 3), torch.zeros_like(x)),
    "mish": _mish_curvature,
    "gal": lambda x, negative_slope, scale, shift: 0.0,
    "prelu": lambda x, weight: 0.0,
    "swish": lambda x, beta: beta * _swish_bend(x, beta),
    "acon_c": _acon_curvature,
    "xielu": _xielu_curvature,
    "dyt": _dyt_curvature,
    "derf": _derf_curvature,
}


def _swish_parameter_curvature(x: Tensor, beta: Any) -> Tensor:  # noqa: ANN401
    s = torch.sigmoid(beta * x)
    return x**3 * s * (1 - s) * (1 - 2 * s)


_Terms = tuple[Tensor | float, ...]


def _acon_mixed(x: Tensor, p1: Any, p2: Any, beta: Any) -> _Terms:  # noqa: ANN401
    z, s, apart = _acon(x, p1, p2, beta)
    bend = _bend(s, z)
    return _swish(z, 1.0) + z * bend, _swish(-z, 1.0) - z * bend, apart * apart * x * bend


def _acon_parameters(x: Tensor, p1: Any, p2: Any, beta: Any) -> tuple[_Terms, ...]:  # noqa: ANN401
    z, s, apart = _acon(x, p1, p2, beta)
    bend = x * x * _bend(s, z)
    sharp = (x * apart) ** 3 * s * (1 - s) * (1 - 2 * s)
    return (beta * bend,), (-beta * bend, beta * bend), (apart * bend, -apart * bend, sharp)


def _xielu_mixed(x: Tensor, alpha_p: Any, alpha_n: Any, beta: float, eps: float) -> _Terms:  # noqa: ANN401
    ramp = torch.where(x > 0, torch.zeros_like(x), _xielu_ramp(x, eps))
    return 2 * _sigmoid_of(x, alpha_p) * x.clamp_min(0), _sigmoid_of(x, alpha_n) * ramp


def _xielu_parameters(x: Tensor, alpha_p: Any, alpha_n: Any, beta: float, eps: float) -> tuple[_Terms, ...]:  # noqa: ANN401
    of_p, of_n = _xielu_slopes(x, alpha_p, alpha_n, beta, eps)
    return (of_p * (1 - _sigmoid_of(x, alpha_p)),), (0.0, of_n * (1 - _sigmoid_of(x, alpha_n)))


def _dyt_mixed(x: Tensor, alpha: Any, weight: Any, bias: Any) -> _Terms:  # noqa: ANN401
    t, rest = _dyt(x, alpha)
    return weight * rest * (1 - 2 * alpha * x * t), alpha * rest, 0.0


def _dyt_parameters(x: Tensor, alpha: Any, weight: Any, bias: Any) -> tuple[_Terms, ...]:  # noqa: ANN401
    t, rest = _dyt(x, alpha)
    return (-2 * weight * x * x * t * rest,), (x * rest, 0.0), (0.0, 0.0, 0.0)


def _derf_mixed(x: Tensor, alpha: Any, shift: Any, weight: Any, bias: Any) -> _Terms:  # noqa: ANN401
    u, bell = _derf(x, alpha, shift)
    return weight * bell * (1 - 2 * alpha * x * u), -2 * weight * alpha * u * bell, alpha * bell, 0.0


def _derf_parameters(x: Tensor, alpha: Any, shift: Any, weight: Any, bias: Any) -> tuple[_Terms, ...]:  # noqa: ANN401
    u, bell = _derf(x, alpha, shift)
    bent = -2 * weight * u * bell
    return (x * x * bent,), (x * bent, bent), (x * bell, bell, 0.0), (0.0, 0.0, 0.0, 0.0)


# The derivatives of PARAMETER_SLOPES: with respect to x, which are also those of SLOPES with respect to the parameters,
# and with respect to the parameters, those of each by itself and by the ones before it.
PARAMETER_CURVATURES: dict[str, tuple[Callable[..., _Terms], Callable[..., tuple[_Terms, ...]]]] = {
    "prelu": (lambda x, weight: (1 - _step(x),), lambda x, weight: ((0.0,),)),
    "swish": (
        lambda x, beta: (x * _swish_bend(x, beta),),
        lambda x, beta: ((_swish_parameter_curvature(x, beta),),),
    ),
    "acon_c": (_acon_mixed, _acon_parameters),
    "xielu": (_xielu_mixed, _xielu_parameters),
    "dyt": (_dyt_mixed, _dyt_parameters),
    "derf": (_derf_mixed, _derf_parameters),
}


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _along_channels(call: Call, x: Tensor, weight: Tensor) -> Tensor:
    """The weight in a shape that broadcasts against x along its channels."""
    if weight.numel() == 1 or x.dim() < 2:
        return weight.reshape(())
    shape = [1] * x.dim()
    shape[call.channel_axis] = -1
    return weight.reshape(shape)


# One entry per trained parameter: None where it is a number, or nothing flows.
Weights = tuple[Tensor | None, ...]


def _values(call: Call, x: Tensor, weights: Weights) -> tuple[Any, ...]:
    given = (v if w is None else _along_channels(call, x, _wide(w)) for v, w in zip(call.values, weights, strict=False))
    return (*given, *call.values[len(weights) :])


class _Derivatives:
    """f', f'' and the derivatives by the parameters at what was saved, each computed when it is asked for."""

    def __init__(self, call: Call, saved: Tensor, weights: Weights) -> None:
        self.name = call.row.name
        self.saved = _wide(saved)
        self.values = _values(call, self.saved, weights)

    @functools.cached_property
    def slope(self) -> Tensor:
        return SLOPES[self.name](self.saved, *self.values)

    @functools.cached_property
    def curvature(self) -> Tensor | float:
        return CURVATURES[self.name](self.saved, *self.values)

    @functools.cached_property
    def parameter_slopes(self) -> tuple[Tensor, ...]:
        return PARAMETER_SLOPES[self.name](self.saved, *self.values)

    @functools.cached_property
    def mixed(self) -> _Terms:
        return PARAMETER_CURVATURES[self.name][0](self.saved, *self.values)

    @functools.cached_property
    def _parameter_curvatures(self) -> tuple[_Terms, ...]:
        return PARAMETER_CURVATURES[self.name][1](self.saved, *self.values)

    def parameter_curvature(self, j: int, k: int) -> Tensor | float:
        return self._parameter_curvatures[max(j, k)][min(j, k)]


def _summed(call: Call, each: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight from that of every element."""
    return each.sum_to_size(_along_channels(call, each, weight).shape).reshape(weight.shape).to(weight.dtype)


def _spread(call: Call, x: Tensor, weights: Weights) -> list[tuple[int, Tensor]]:
    """Those that are there, by their number, along the channels of x."""
    return [(k, _along_channels(call, x, _wide(w))) for k, w in enumerate(weights) if w is not None]


def second_derivative(
    call: Call,
    dy: Tensor,
    saved: Tensor,
    weights: Weights,
    needed: tuple[bool, ...],
    ddx: Tensor | None,
    ddweights: Weights,
) -> tuple[Tensor | None, ...]:
    """Gradients with respect to (dy, saved, *weights) of dx = dy f' and dweight = sum of dy df/dweight."""
    of, wide = _Derivatives(call, saved, weights), _wide(dy)
    along = _spread(call, wide, ddweights)
    if ddx is None and not along:
        return (None,) * len(needed)
    ddx = None if ddx is None else _wide(ddx)
    by_dy: Any = 0.0
    by_saved: Any = 0.0
    if needed[0]:
        by_dy = sum((d * of.parameter_slopes[k] for k, d in along), 0.0 if ddx is None else ddx * of.slope)
    if needed[1]:
        by_saved = sum((d * of.mixed[k] for k, d in along), 0.0 if ddx is None else ddx * of.curvature)
    by_weights: list[Tensor | None] = [None] * len(weights)
    for j, weight in enumerate(weights):
        if weight is None or not needed[2 + j]:
            continue
        by: Any = 0.0 if ddx is None else ddx * of.mixed[j]
        for k, d in along:
            by = by + d * of.parameter_curvature(j, k)
        by_weights[j] = _summed(call, wide * by, weight)
    return (
        (by_dy + torch.zeros_like(wide)).to(dy.dtype) if needed[0] else None,
        (wide * by_saved).to(saved.dtype) if needed[1] else None,
        *by_weights,
    )


def backward_derivative(
    call: Call,
    dy: Tensor,
    saved: Tensor,
    weights: Weights,
    ddy: Tensor | None,
    dsaved: Tensor | None,
    dweights: Weights,
) -> tuple[Tensor | None, ...]:
    """What (dx, *dweight) change by when (dy, saved, *weights) change by (ddy, dsaved, *dweights)."""
    of, wide = _Derivatives(call, saved, weights), _wide(dy)
    zero = torch.zeros_like(wide)
    along = _spread(call, wide, dweights)
    dx = zero if ddy is None else zero + _wide(ddy) * of.slope
    if dsaved is not None:
        dx = dx + wide * _wide(dsaved) * of.curvature
    for k, d in along:
        dx = dx + wide * d * of.mixed[k]
    by_weights: list[Tensor | None] = [None] * len(weights)
    for j, weight in enumerate(weights):
        if weight is None:
            continue
        each = zero if ddy is None else zero + _wide(ddy) * of.parameter_slopes[j]
        if dsaved is not None:
            each = each + wide * _wide(dsaved) * of.mixed[j]
        for k, d in along:
            each = each + wide * d * of.parameter_curvature(j, k)
        by_weights[j] = _summed(call, each, weight)
    return dx.to(dy.dtype), *by_weights


def forward_derivative(call: Call, saved: Tensor, weights: Weights, dx: Tensor | None, dweights: Weights) -> Tensor:
    """Dy = f'(x) dx + sum of df/dweight dweight."""
    of = _Derivatives(call, saved, weights)
    dy = torch.zeros_like(of.saved)
    if dx is not None:
        dy = dy + of.slope * _wide(dx)
    for k, d in _spread(call, of.saved, dweights):
        dy = dy + of.parameter_slopes[k] * d
    return dy.to(saved.dtype)
