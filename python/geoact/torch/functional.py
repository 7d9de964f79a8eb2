"""The activations with the names, arguments and defaults of ``torch.nn.functional``, plus statistics.

Every function takes a tensor of float16, bfloat16, float32 or float64, of any shape and strides, and returns one of the
same shape, dtype and memory format; autograd, torch.compile, export, vmap and forward-mode differentiation work.
``stats=`` (a :class:`geoact.GeometryStats`) is filled in the forward pass, ``gradient_stats=`` (a
:class:`geoact.GradientStats`) when autograd runs backward; both are optional and change no bit of the result.
Formulas and sources: docs/activations.md. Raises TypeError or ValueError, naming the argument, before anything is
written.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from geoact import _registry as _rows  # geoact.activations is the function
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import masks

_G = GeometryStats | None
_D = GradientStats | None


def _out(input: Tensor, inplace: bool) -> Tensor | None:
    return input if inplace else None


def sigmoid(input: Tensor, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """1 / (1 + exp(-x)), as torch.sigmoid."""
    y: Tensor = _rows.sigmoid(input, stats=stats, gradient_stats=gradient_stats)
    return y


def centered_sigmoid(input: Tensor, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """sigmoid(x) - 1/2, without the constant that eats the bits of a narrow format."""
    y: Tensor = _rows.centered_sigmoid(input, stats=stats, gradient_stats=gradient_stats)
    return y


def tanh(input: Tensor, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """Hyperbolic tangent, as torch.tanh."""
    y: Tensor = _rows.tanh(input, stats=stats, gradient_stats=gradient_stats)
    return y


def relu(
    input: Tensor, inplace: bool = False, *, stats: _G = None, gradient_stats: _D = None, save: str = "output"
) -> Tensor:
    """max(0, x), as torch.nn.functional.relu.

    ``save`` is what autograd keeps for backward: "output", which costs nothing where y is kept anyway, or "mask", one
    bit per element (docs/masks.md).
    """
    if save != "output":
        return masks.rectify(input, inplace, stats, gradient_stats, save)
    y: Tensor = _rows.relu(input, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats)
    return y


def leaky_relu(
    input: Tensor,
    negative_slope: float = 0.01,
    inplace: bool = False,
    *,
    stats: _G = None,
    gradient_stats: _D = None,
) -> Tensor:
    """x, times negative_slope where x <= 0, as torch.nn.functional.leaky_relu."""
    y: Tensor = _rows.leaky_relu(
        input, negative_slope, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats
    )
    return y


def relu_squared(input: Tensor, inplace: bool = False, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """max(0, x)^2."""
    y: Tensor = _rows.relu_squared(input, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats)
    return y


def elu(
    input: Tensor, alpha: float = 1.0, inplace: bool = False, *, stats: _G = None, gradient_stats: _D = None
) -> Tensor:
    """x, or alpha (exp(x) - 1) where x <= 0, as torch.nn.functional.elu."""
    y: Tensor = _rows.elu(input, alpha, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats)
    return y


def silu(input: Tensor, inplace: bool = False, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """X sigmoid(x), as torch.nn.functional.silu."""
    y: Tensor = _rows.silu(input, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats)
    return y


def gelu(input: Tensor, approximate: str = "none", *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """X P(N(0, 1) < x), or its tanh form with approximate="tanh", as torch.nn.functional.gelu."""
    y: Tensor = _rows.gelu(input, approximate=approximate, stats=stats, gradient_stats=gradient_stats)
    return y


def softplus(
    input: Tensor, beta: float = 1.0, threshold: float = 20.0, *, stats: _G = None, gradient_stats: _D = None
) -> Tensor:
    """log(1 + exp(beta x)) / beta, x where beta x > threshold, as torch.nn.functional.softplus."""
    y: Tensor = _rows.softplus(input, beta, threshold, stats=stats, gradient_stats=gradient_stats)
    return y


def hardsigmoid(input: Tensor, inplace: bool = False, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """min(max(x + 3, 0), 6) / 6, as torch.nn.functional.hardsigmoid."""
    y: Tensor = _rows.hardsigmoid(input, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats)
    return y


def hardswish(input: Tensor, inplace: bool = False, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """X min(max(x + 3, 0), 6) / 6, as torch.nn.functional.hardswish."""
    y: Tensor = _rows.hardswish(input, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats)
    return y


def mish(input: Tensor, inplace: bool = False, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """X tanh(log(1 + exp(x))), as torch.nn.functional.mish."""
    y: Tensor = _rows.mish(input, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats)
    return y


def prelu(input: Tensor, weight: Tensor, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:
    """x, times weight where x <= 0; weight has one value or one per channel (axis 1), as torch.nn.functional.prelu."""
    y: Tensor = _rows.prelu(input, weight, stats=stats, gradient_stats=gradient_stats)
    return y


def swish(input: Tensor, beta: Any = 1.0, *, stats: _G = None, gradient_stats: _D = None) -> Tensor:  # noqa: ANN401
    """X sigmoid(beta x); beta is a number, or a tensor of one value or one per channel (axis 1)."""
    y: Tensor = _rows.swish(input, beta, stats=stats, gradient_stats=gradient_stats)
    return y


def gal(
    input: Tensor,
    negative_slope: float = 0.01,
    scale: float = 1.0,
    shift: float = 0.0,
    inplace: bool = False,
    *,
    stats: _G = None,
    gradient_stats: _D = None,
) -> Tensor:
    """Scale (leaky_relu(x) - shift)."""
    y: Tensor = _rows.gal(
        input, negative_slope, scale, shift, out=_out(input, inplace), stats=stats, gradient_stats=gradient_stats
    )
    return y


def acon_c(
    input: Tensor,
    p1: Any = 1.0,  # noqa: ANN401
    p2: Any = 0.0,  # noqa: ANN401
    beta: Any = 1.0,  # noqa: ANN401
    channel_axis: int = 1,
    *,
    stats: _G = None,
    gradient_stats: _D = None,
) -> Tensor:
    """(p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x.

    Each parameter is a number, or a tensor of one value or one per channel (axis ``channel_axis``).
    """
    y: Tensor = _rows.acon_c(input, p1, p2, beta, channel_axis=channel_axis, stats=stats, gradient_stats=gradient_stats)
    return y


def xielu(
    input: Tensor,
    alpha_p: Any = _rows.xielu.parameters[0].default,  # noqa: ANN401
    alpha_n: Any = _rows.xielu.parameters[1].default,  # noqa: ANN401
    beta: float = 0.5,
    eps: float = -1e-6,
    channel_axis: int = 1,
    *,
    stats: _G = None,
    gradient_stats: _D = None,
) -> Tensor:
    """A parabola for x > 0, an exponential below, both of slope beta at 0; a = softplus(alpha) is their curvature.

    Each alpha is a number, or a tensor of one value or one per channel (axis ``channel_axis``).
    """
    y: Tensor = _rows.xielu(
        input, alpha_p, alpha_n, beta, eps, channel_axis=channel_axis, stats=stats, gradient_stats=gradient_stats
    )
    return y


def dyt(
    input: Tensor,
    alpha: Any = 0.5,  # noqa: ANN401
    weight: Any = 1.0,  # noqa: ANN401
    bias: Any = 0.0,  # noqa: ANN401
    channel_axis: int = 1,
    *,
    stats: _G = None,
    gradient_stats: _D = None,
) -> Tensor:
    """Weight tanh(alpha x) + bias.

    Each parameter is a number, or a tensor of one value or one per channel (axis ``channel_axis``).
    """
    y: Tensor = _rows.dyt(
        input, alpha, weight, bias, channel_axis=channel_axis, stats=stats, gradient_stats=gradient_stats
    )
    return y


def derf(
    input: Tensor,
    alpha: Any = 0.5,  # noqa: ANN401
    shift: Any = 0.0,  # noqa: ANN401
    weight: Any = 1.0,  # noqa: ANN401
    bias: Any = 0.0,  # noqa: ANN401
    channel_axis: int = 1,
    *,
    stats: _G = None,
    gradient_stats: _D = None,
) -> Tensor:
    """Weight erf(alpha x + shift) + bias.

    Each parameter is a number, or a tensor of one value or one per channel (axis ``channel_axis``).
    """
    y: Tensor = _rows.derf(
        input, alpha, shift, weight, bias, channel_axis=channel_axis, stats=stats, gradient_stats=gradient_stats
    )
    return y
