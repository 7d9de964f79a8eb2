"""The compiled fast path ``geoact._torch``: used where this installation has one for the very torch that runs.

It does what :func:`geoact.frontends.torch.forward` does for the common call, and hands every other call to it.
``forward`` and ``backward`` make this module a front end like the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from geoact import _core, backends
from geoact.activations import activations
from geoact.frontends import torch as by_python
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import autograd

if TYPE_CHECKING:
    from geoact.activations import Activation

backward = by_python.backward
gated_forward = by_python.gated_forward
gated_backward = by_python.gated_backward
_compiling = torch.compiler.is_dynamo_compiling


def _load() -> tuple[Callable[..., Any] | None, str]:
    """The compiled function, if there is one, and what ``geoact.info()`` says of it."""
    built_for, state = backends.torch_fast_path(torch.__version__)
    if built_for != torch.__version__:
        return None, state
    try:
        from geoact import _torch
    except ImportError as error:
        return None, f"{state}, but it cannot be loaded: {error}"
    rows = tuple(
        (row, row._index, row.saves == "y", row.trainable, len(row.parameters), row.name)
        for row in activations().values()
    )
    _torch.connect(
        _core._api,
        rows,
        by_python.forward,
        autograd.Direct,
        _derivative,
        GeometryStats,
        GradientStats,
    )
    compiled: Callable[..., Any] = _torch.forward
    return compiled, state


def _derivative(dy: Any, saved: Any, weight: Any, call: autograd.Direct) -> tuple[Any, Any]:  # noqa: ANN401
    """What the compiled node hands back to Python: it knows of one trained parameter."""
    dx, gradients = autograd.derivative(dy, saved, (weight,) * call.row.trainable, call)
    return dx, gradients[0] if gradients else None


_forward, state = _load()
available = _forward is not None


def forward(
    row: Activation,
    x: torch.Tensor,
    values: tuple[Any, ...],
    out: Any,  # noqa: ANN401
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """As the Python front end; torch.compile is shown that one."""
    if _compiling() or _forward is None:
        return by_python.forward(row, x, values, out, stats, gradient_stats, channel_axis)
    return _forward(row, x, values, out, stats, gradient_stats, channel_axis)
