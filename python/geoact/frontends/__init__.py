"""Front ends: one module per array package, each with ``forward`` and ``backward`` of the same arguments.

They turn what a user passed into what the compiled core takes, and say what is wrong with it in the package's own
terms. A package is recognised by what is already in ``sys.modules`` and never imported from here. They may import
:mod:`geoact.statistics` and the core; nothing imports them but :mod:`geoact.activations`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geoact.frontends import numpy as _numpy

if TYPE_CHECKING:
    from geoact.activations import Activation
    from geoact.gates import Gate
    from geoact.statistics import GeometryStats, GradientStats


class Frontend(Protocol):
    """What every front end offers."""

    def forward(
        self,
        row: Activation,
        x: Any,  # noqa: ANN401
        values: tuple[object, ...],
        out: object,
        stats: GeometryStats | None,
        gradient_stats: GradientStats | None,
        channel_axis: int,
    ) -> Any:  # noqa: ANN401
        """Y = f(x), and the record of this call added to ``stats``."""

    def backward(
        self,
        row: Activation,
        dy: Any,  # noqa: ANN401
        saved: Any,  # noqa: ANN401
        values: tuple[object, ...],
        out: object,
        stats: GradientStats | None,
        channel_axis: int,
    ) -> Any:  # noqa: ANN401
        """Dx = dy f'(x), or (dx, dparameter), and the record of this call added to ``stats``."""

    def gated_forward(
        self,
        row: Gate,
        gate: Any,  # noqa: ANN401
        up: Any,  # noqa: ANN401
        values: tuple[float, ...],
        out: object,
        stats: GeometryStats | None,
        gradient_stats: GradientStats | None,
    ) -> Any:  # noqa: ANN401
        """Y = f(gate) h(up), and the record of f added to ``stats``."""

    def gated_backward(
        self,
        row: Gate,
        dy: Any,  # noqa: ANN401
        gate: Any,  # noqa: ANN401
        up: Any,  # noqa: ANN401
        values: tuple[float, ...],
        outs: tuple[Any, Any],
        stats: GradientStats | None,
    ) -> tuple[Any, Any]:
        """(dgate, dup), and the record of f added to ``stats``."""


BY_TYPE: dict[type, Frontend] = {np.ndarray: _numpy}


def find(x: object) -> Frontend:
    """The front end of an array; that of NumPy, which explains what is accepted, for anything unknown."""
    torch = sys.modules.get("torch")
    if _is(x, torch, "Tensor") or (torch is not None and hasattr(type(x), "__torch_function__")):
        return _find_torch(torch, x)
    cupy = sys.modules.get("cupy")
    if _is(x, cupy, "ndarray"):
        return _find_cupy(cupy)
    return _numpy


def _is(x: object, module: Any, name: str) -> bool:  # noqa: ANN401
    """Whether x is of a type of a module, which may be missing, or a stand-in that has no such type."""
    kind = getattr(module, name, None)
    return isinstance(kind, type) and isinstance(x, kind)


def _find_torch(torch: Any, x: object) -> Frontend:  # noqa: ANN401
    from geoact.frontends import torch as frontend
    from geoact.torch import fast

    BY_TYPE[torch.Tensor] = BY_TYPE[torch.nn.Parameter] = fast if fast.available else frontend
    return BY_TYPE.get(type(x), frontend)


def _find_cupy(cupy: Any) -> Frontend:  # noqa: ANN401
    if cupy.cuda.runtime.is_hip:
        raise TypeError("x is an array of CuPy for ROCm; geoact computes on the CPU and on CUDA devices")
    from geoact.frontends import cupy as frontend

    BY_TYPE[cupy.ndarray] = frontend
    return frontend
