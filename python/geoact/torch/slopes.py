"""Slopes of the activations in torch operators: what a second derivative and a forward derivative are made of.

One line per row of the registry, as a function of what its backward pass saves (x, or y where y is enough), and one for
the derivative of that. The kernels never use these: only ``create_graph=True`` and forward-mode differentiation do.
Being formulas, they take no derivative inside a derivative, which functorch would not allow. Computed in float32 for
the 16-bit dtypes, as the kernels are.
"""

from __future__ import annotations

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
    "prelu": _step,
    "swish": _swish,
}

# d f / d parameter as a function of (x, parameter), for the trainable rows.
PARAMETER_SLOPES: dict[str, Callable[..., Tensor]] = {
    "prelu": lambda x, weight: torch.where(x > 0, torch.zeros_like(x), x),
    "swish": lambda x, beta: x * x * torch.sigmoid(beta * x) * torch.sigmoid(-beta * x),
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
    "prelu": lambda x, weight: 0.0,
    "swish": lambda x, beta: beta * _swish_bend(x, beta),
}


def _swish_parameter_curvature(x: Tensor, beta: Any) -> Tensor:  # noqa: ANN401
    s = torch.sigmoid(beta * x)
    return x**3 * s * (1 - s) * (1 - 2 * s)


# The derivatives of PARAMETER_SLOPES with respect to (x, the parameter); the first is also that of SLOPES with respect
# to the parameter.
PARAMETER_CURVATURES: dict[str, tuple[_Formula, _Formula]] = {
    "prelu": (lambda x, weight: 1 - _step(x), lambda x, weight: 0.0),
    "swish": (lambda x, beta: x * _swish_bend(x, beta), _swish_parameter_curvature),
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


def _values(call: Call, x: Tensor, weight: Tensor | None) -> tuple[Any, ...]:
    return call.values if weight is None else (_along_channels(call, x, _wide(weight)),)


class _Derivatives:
    """f', f'' and the derivatives by the parameter at what was saved, each computed when it is asked for."""

    def __init__(self, call: Call, saved: Tensor, weight: Tensor | None) -> None:
        self.name = call.row.name
        self.saved = _wide(saved)
        self.values = _values(call, self.saved, weight)

    @property
    def slope(self) -> Tensor:
        return SLOPES[self.name](self.saved, *self.values)

    @property
    def curvature(self) -> Tensor | float:
        return CURVATURES[self.name](self.saved, *self.values)

    @property
    def parameter_slope(self) -> Tensor:
        return PARAMETER_SLOPES[self.name](self.saved, *self.values)

    @property
    def mixed(self) -> Tensor | float:
        return PARAMETER_CURVATURES[self.name][0](self.saved, *self.values)

    @property
    def parameter_curvature(self) -> Tensor | float:
        return PARAMETER_CURVATURES[self.name][1](self.saved, *self.values)


def _summed(call: Call, each: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight from that of every element."""
    return each.sum_to_size(_along_channels(call, each, weight).shape).reshape(weight.shape).to(weight.dtype)


def second_derivative(
    call: Call,
    dy: Tensor,
    saved: Tensor,
    weight: Tensor | None,
    needed: tuple[bool, ...],
    ddx: Tensor | None,
    ddweight: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients with respect to (dy, saved, weight) of dx = dy f' and dweight = sum of dy df/dweight."""
    of, wide = _Derivatives(call, saved, weight), _wide(dy)
    by_dy: Any = 0.0
    by_saved: Any = 0.0
    by_weight: Any = 0.0
    if ddx is not None:
        ddx = _wide(ddx)
        by_dy = by_dy + ddx * of.slope if needed[0] else 0.0
        by_saved = by_saved + ddx * of.curvature if needed[1] else 0.0
        by_weight = by_weight + ddx * of.mixed if needed[2] else 0.0
    if ddweight is not None and weight is not None:
        along = _along_channels(call, wide, _wide(ddweight))
        by_dy = by_dy + along * of.parameter_slope if needed[0] else 0.0
        by_saved = by_saved + along * of.mixed if needed[1] else 0.0
        by_weight = by_weight + along * of.parameter_curvature if needed[2] else 0.0
    missing = ddx is None and ddweight is None
    return (
        (by_dy + torch.zeros_like(wide)).to(dy.dtype) if needed[0] and not missing else None,
        (wide * by_saved).to(saved.dtype) if needed[1] and not missing else None,
        _summed(call, wide * by_weight, weight) if weight is not None and needed[2] and not missing else None,
    )


def backward_derivative(
    call: Call,
    dy: Tensor,
    saved: Tensor,
    weight: Tensor | None,
    ddy: Tensor | None,
    dsaved: Tensor | None,
    dweight: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor | None]:
    """What (dx, dweight) change by when (dy, saved, weight) change by (ddy, dsaved, dweight)."""
    of, wide = _Derivatives(call, saved, weight), _wide(dy)
    dx = each = torch.zeros_like(wide)
    if ddy is not None:
        dx = dx + _wide(ddy) * of.slope
        each = each + _wide(ddy) * of.parameter_slope if weight is not None else each
    if dsaved is not None:
        dx = dx + wide * _wide(dsaved) * of.curvature
        each = each + wide * _wide(dsaved) * of.mixed if weight is not None else each
    if dweight is not None:
        along = _along_channels(call, wide, _wide(dweight))
        dx = dx + wide * along * of.mixed
        each = each + wide * along * of.parameter_curvature
    return dx.to(dy.dtype), None if weight is None else _summed(call, each, weight)


def forward_derivative(
    call: Call, saved: Tensor, weight: Tensor | None, dx: Tensor | None, dweight: Tensor | None
) -> Tensor:
    """Dy = f'(x) dx + df/dweight dweight."""
    of = _Derivatives(call, saved, weight)
    dy = torch.zeros_like(of.saved)
    if dx is not None:
        dy = dy + of.slope * _wide(dx)
    if dweight is not None:
        dy = dy + of.parameter_slope * _along_channels(call, of.saved, _wide(dweight))
    return dy.to(saved.dtype)
