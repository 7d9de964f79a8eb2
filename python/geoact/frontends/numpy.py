"""NumPy arrays on the CPU: what to pass to the compiled core, which checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoact import _core
from geoact.frontends.hints import belongs_to, conversion
from geoact.statistics import GeometryStats, GradientStats

if TYPE_CHECKING:
    from geoact.activations import Activation
    from geoact.gates import Gate


def _explain(arguments: tuple[tuple[str, object], ...]) -> None:
    """Say what to do with an array of another package, where the core only says that it is one."""
    first, x = arguments[0]
    for name, value in arguments:
        package = belongs_to(value)
        if package in ("", "NumPy", "torch"):  # of torch's arrays the core knows more
            continue
        if isinstance(x, np.ndarray):
            raise TypeError(
                f"{name} is a {package} array, but {first} is a NumPy array; they must be of one package: "
                f"{conversion(name, value, to='numpy')}"
            )
        raise TypeError(
            f"{name} is a {package} {type(value).__name__}; geoact computes on NumPy arrays, CuPy arrays and torch "
            f"tensors: {conversion(name, value, to='')}"
        )


def _accumulator(stats: Any, kind: type[Any]) -> _core.Accumulator | None:  # noqa: ANN401
    if stats is None:
        return None
    if not isinstance(stats, kind):
        raise TypeError(f"stats must be a geoact.{kind.__name__}, got {type(stats).__name__}")
    accumulator: _core.Accumulator = stats._accumulator
    return accumulator


def forward(
    row: Activation,
    x: Any,  # noqa: ANN401
    values: tuple[object, ...],
    out: object,
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """Y = f(x), and the record of this call added to ``stats``."""
    if gradient_stats is not None:
        raise TypeError("gradient_stats needs a tensor with autograd; for NumPy pass stats= to .backward")
    accumulator = _accumulator(stats, GeometryStats)
    try:
        return _core.forward(row._index, x, values, row._names, out, accumulator, channel_axis)
    except TypeError:
        _explain((("x", x), ("out", out), *zip(row._names, values, strict=True)))
        raise


def backward(
    row: Activation,
    dy: Any,  # noqa: ANN401
    saved: Any,  # noqa: ANN401
    values: tuple[object, ...],
    out: object,
    stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """Dx = dy f'(x), or (dx, dparameter, ...), and the record of this call added to ``stats``."""
    accumulator = _accumulator(stats, GradientStats)
    try:
        result = _core.backward(row._index, dy, saved, row.saves, values, row._names, out, accumulator, channel_axis)
    except TypeError:
        _explain((("dy", dy), (row.saves, saved), ("out", out), *zip(row._names, values, strict=True)))
        raise
    if not row.trainable:
        return result
    dx, *gradients = result
    return dx, *(_like(value, gradient) for value, gradient in zip(values, gradients, strict=False))


def _like(value: object, gradient: np.ndarray[Any, Any]) -> Any:  # noqa: ANN401
    """A gradient in the type of its parameter."""
    if not isinstance(value, np.ndarray):
        return float(gradient[0])
    with np.errstate(over="ignore"):  # a gradient too large for the parameter's dtype is infinite, as dx would be
        return gradient.astype(value.dtype).reshape(value.shape)


def gated_forward(
    row: Gate,
    gate: Any,  # noqa: ANN401
    up: Any,  # noqa: ANN401
    values: tuple[float, ...],
    out: object,
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
) -> Any:  # noqa: ANN401
    """Y = f(gate) h(up), and the record of f added to ``stats``."""
    if gradient_stats is not None:
        raise TypeError("gradient_stats needs a tensor with autograd; for NumPy pass stats= to .backward")
    accumulator = _accumulator(stats, GeometryStats)
    try:
        return _core.gated_forward(row._index, gate, up, values, row._names, out, accumulator)
    except TypeError:
        _explain((("gate", gate), ("up", up), ("out", out)))
        raise


def gated_backward(
    row: Gate,
    dy: Any,  # noqa: ANN401
    gate: Any,  # noqa: ANN401
    up: Any,  # noqa: ANN401
    values: tuple[float, ...],
    outs: tuple[Any, Any],
    stats: GradientStats | None,
) -> tuple[Any, Any]:
    """(dgate, dup), and the record of f added to ``stats``."""
    accumulator = _accumulator(stats, GradientStats)
    try:
        return _core.gated_backward(row._index, dy, gate, up, values, row._names, *outs, accumulator)
    except TypeError:
        _explain((("dy", dy), ("gate", gate), ("up", up), ("out[0]", outs[0]), ("out[1]", outs[1])))
        raise
