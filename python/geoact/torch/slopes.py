"""Slopes of the activations in torch operators: what a second derivative and a forward derivative are made of.

One line per row of the registry, as a function of what its backward pass saves (x, or y where y is enough). The kernels
never use these: only ``create_graph=True`` and forward-mode differentiation do. Computed in float32 for the 16-bit
dtypes, as the kernels are.
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
    "elu": lambda y, alpha: torch.where(y > 0, torch.ones_like(y), y + alpha),
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


def _formula(call: Call, dy: Tensor, saved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """(dx, dweight) in operators that torch can differentiate."""
    wide = _wide(saved)
    values = _values(call, wide, weight)
    dx = (_wide(dy) * SLOPES[call.row.name](wide, *values)).to(dy.dtype)
    if weight is None:
        return dx, None
    each = _wide(dy) * PARAMETER_SLOPES[call.row.name](wide, *values)
    return dx, each.sum_to_size(values[0].shape).reshape(weight.shape).to(weight.dtype)


def second_derivative(
    call: Call,
    inputs: tuple[Tensor, ...],
    needed: tuple[bool, ...],
    ddx: Tensor | None,
    ddweight: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients of (dx, dweight) with respect to (dy, saved, weight), given those that arrive; differentiable."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: dy may itself have been computed from what was saved, and that path is not part of this derivative.
        leaves = tuple(t.view_as(t) if t.requires_grad else t.detach() for t in inputs)
        dx, dweight = _formula(call, leaves[0], leaves[1], leaves[2] if len(leaves) > 2 else None)
    pairs = [(o, g) for o, g in ((dx, ddx), (dweight, ddweight)) if o is not None and g is not None and o.requires_grad]
    wanted = [i for i in range(len(inputs)) if needed[i] and leaves[i].requires_grad]
    result: list[Tensor | None] = [None] * len(inputs)
    if pairs and wanted:
        outputs, arrived = zip(*pairs, strict=True)
        found = torch.autograd.grad(
            outputs, [leaves[i] for i in wanted], arrived, create_graph=create_graph, allow_unused=True
        )
        for i, gradient in zip(wanted, found, strict=True):
            result[i] = gradient
    return tuple(result)


def forward_derivative(
    call: Call, saved: Tensor, weight: Tensor | None, dx: Tensor | None, dweight: Tensor | None
) -> Tensor:
    """Dy = f'(x) dx + df/dweight dweight."""
    wide = _wide(saved)
    values = _values(call, wide, weight)
    dy = torch.zeros_like(wide)
    if dx is not None:
        dy = dy + SLOPES[call.row.name](wide, *values) * _wide(dx)
    if dweight is not None:
        along = _along_channels(call, wide, _wide(dweight))
        dy = dy + PARAMETER_SLOPES[call.row.name](wide, *values) * along
    return dy.to(saved.dtype)
