"""NumPy arrays on the CPU: what to pass to the compiled core, which checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoact import _core
from geoact.statistics import GeometryStats, GradientStats

if TYPE_CHECKING:
    from geoact.activations import Activation


def _hint(x: object, name: str) -> None:
    """Say what to do with a foreign array, before the core only says that it is one."""
    module = type(x).__module__.partition(".")[0]
    if module in ("cupy", "jax", "tensorflow"):
        raise TypeError(
            f"{name} is a {module} array; this version of geoact computes on NumPy arrays and torch tensors. Convert "
            f"it first, e.g. numpy.asarray({name}), or see geoact.info() for the backends it knows"
        )


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
    accumulator = None
    if stats is not None:
        if not isinstance(stats, GeometryStats):
            raise TypeError(f"stats must be a geoact.GeometryStats, got {type(stats).__name__}")
        accumulator = stats._accumulator
    try:
        return _core.forward(row._index, x, values, row._names, out, accumulator, channel_axis)
    except TypeError:
        _hint(x, "x")
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
    """Dx = dy f'(x), or (dx, dparameter), and the record of this call added to ``stats``."""
    accumulator = None
    if stats is not None:
        if not isinstance(stats, GradientStats):
            raise TypeError(f"stats must be a geoact.GradientStats, got {type(stats).__name__}")
        accumulator = stats._accumulator
    try:
        result = _core.backward(row._index, dy, saved, row.saves, values, row._names, out, accumulator, channel_axis)
    except TypeError:
        _hint(dy, "dy")
        raise
    if not row.trainable:
        return result
    dx, gradient = result
    (value,) = values
    if not isinstance(value, np.ndarray):
        return dx, float(gradient[0])
    with np.errstate(over="ignore"):  # a gradient too large for the parameter's dtype is infinite, as dx would be
        return dx, gradient.astype(value.dtype).reshape(value.shape)
