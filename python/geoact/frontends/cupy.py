"""CuPy arrays: described to the compiled core by their address, so that nothing leaves the device or waits for it.

CuPy is never imported, only found among the loaded modules: an array of it exists, so it is there. What is used of it
here is listed in ``tests/support/cupy_memory.py`` and held against the real package. Memory comes from CuPy's allocator
and the work goes to CuPy's current stream, both of the device on which the first array of the call lies.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from geoact import _core
from geoact.frontends.hints import belongs_to, conversion
from geoact.statistics import GeometryStats, GradientStats

if TYPE_CHECKING:
    from geoact.activations import Activation
    from geoact.gates import Gate

_CUDA = 2  # as DLPack counts types of devices
_HERE: AbstractContextManager[object] = nullcontext()
_ACCEPTED = ("float16", "bfloat16", "float32", "float64")
_DTYPES: dict[np.dtype[Any], str] = {}  # those met so far, in the byte order of this machine


def _dtype(name: str, array: Any) -> str:  # noqa: ANN401
    dtype = array.dtype
    if dtype.name in _ACCEPTED and dtype.isnative:
        return _DTYPES.setdefault(dtype, dtype.name)
    if dtype.name in _ACCEPTED:
        raise TypeError(
            f"{name} is not in the byte order of this machine; pass {name}.astype({name}.dtype.newbyteorder('='))"
        )
    raise TypeError(
        f"{name} has dtype {dtype} (accepted: CuPy arrays of float16, bfloat16 (ml_dtypes), float32 or float64)"
    )


def _steps(name: str, array: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Strides in elements."""
    item, strides = array.itemsize, array.strides
    for axis, stride in enumerate(strides):
        # that of an axis of one index is never used and may be anything
        if stride % item and array.shape[axis] > 1 and array.size:
            raise ValueError(f"{name} lies at odd addresses, where the device cannot read it; pass a copy")
    return tuple([stride // item for stride in strides])


class _Place:
    """The device of a call, CuPy's current stream there, and memory from CuPy's allocator for both."""

    __slots__ = ("_cupy", "_device", "_first", "_stream")

    def __init__(self, first: str, array: Any) -> None:  # noqa: ANN401
        self._cupy: Any = sys.modules["cupy"]
        self._first = first
        self._device: int = array.data.device_id
        self._stream = self._cupy.cuda.get_current_stream(self._device)

    def _there(self) -> AbstractContextManager[object]:
        if self._cupy.cuda.runtime.getDevice() == self._device:
            return _HERE
        device: AbstractContextManager[object] = self._cupy.cuda.Device(self._device)
        return device

    def allocate(self, size: int) -> tuple[object, int]:
        """So many bytes, for the core, which keeps this method, and with it the stream, while it may write there."""
        with self._there():
            memory = self._cupy.cuda.alloc(size)
        return memory, memory.ptr

    def empty_like(self, array: Any) -> Any:  # noqa: ANN401
        with self._there():
            return self._cupy.empty_like(array)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401
        with self._there():
            return self._cupy.empty(shape, dtype)

    def gradient(self, value: Any, count: int) -> Any:  # noqa: ANN401
        """For the gradient of a parameter: like the parameter, or one float64 where that is a number."""
        shape, dtype = (value.shape, value.dtype) if isinstance(value, self._cupy.ndarray) else ((), np.float64)
        make = self._cupy.empty if count else self._cupy.zeros  # of no elements the core computes nothing
        with self._there():
            return make(shape, dtype)

    def borrow(self, name: str, array: Any) -> _core.Borrowed:  # noqa: ANN401
        """The array as the core reads it."""
        if type(array) is not self._cupy.ndarray:
            self.check(name, array)
        dtype = _DTYPES.get(array.dtype) or _dtype(name, array)
        memory, steps = array.data, _steps(name, array)
        device = (_CUDA, memory.device_id)
        return _core.Borrowed(array, memory.ptr, array.shape, steps, dtype, device, self._stream.ptr, self.allocate)

    def parameters(self, row: Activation, values: tuple[object, ...]) -> tuple[Any, ...]:
        """Parameters as the core reads them; what is no array is left for it to judge."""
        pairs = zip(row._names, values, strict=True)
        return tuple(self.borrow(name, value) if belongs_to(value) else value for name, value in pairs)

    def check(self, name: str, value: object) -> None:
        """Refuse what is no CuPy array, or is one with something that the core would ignore."""
        if isinstance(value, self._cupy.ndarray):
            if hasattr(value, "mask"):
                raise TypeError(f"{name} is a masked array, whose mask would be ignored; pass a plain cupy.ndarray")
            return
        package = belongs_to(value)
        if not package:
            raise TypeError(f"{name} must be a CuPy array as {self._first} is, got {type(value).__name__}")
        raise TypeError(
            f"{name} is a {package} array, but {self._first} is a CuPy array; they must be of one package: "
            f"{conversion(name, value, to='cupy')}"
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
    out: Any,  # noqa: ANN401
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """Y = f(x), and the record of this call added to ``stats``."""
    if gradient_stats is not None:
        raise TypeError("gradient_stats needs a tensor with autograd; for CuPy pass stats= to .backward")
    accumulator = _accumulator(stats, GeometryStats)
    place = _Place("x", x)
    source = place.borrow("x", x)
    values = place.parameters(row, values)
    y = place.empty_like(x) if out is None else out
    _core.forward(row._index, source, values, row._names, place.borrow("out", y), accumulator, channel_axis)
    return y


def backward(
    row: Activation,
    dy: Any,  # noqa: ANN401
    saved: Any,  # noqa: ANN401
    values: tuple[object, ...],
    out: Any,  # noqa: ANN401
    stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """Dx = dy f'(x), or (dx, dparameter, ...), and the record of this call added to ``stats``."""
    accumulator = _accumulator(stats, GradientStats)
    place = _Place("dy", dy)
    sources = place.borrow("dy", dy), place.borrow(row.saves, saved)
    gradients = [place.gradient(value, dy.size) for value in values[: row.trainable]]
    borrowed = tuple(place.borrow("gradient", gradient) for gradient in gradients) or None
    values = place.parameters(row, values)
    dx = place.empty_like(dy) if out is None else out
    target = place.borrow("out", dx)
    _core.backward(
        row._index, *sources, row.saves, values, row._names, target, accumulator, channel_axis, gradients=borrowed
    )
    return (dx, *gradients) if row.trainable else dx


def gated_forward(
    row: Gate,
    gate: Any,  # noqa: ANN401
    up: Any,  # noqa: ANN401
    values: tuple[float, ...],
    out: Any,  # noqa: ANN401
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
) -> Any:  # noqa: ANN401
    """Y = f(gate) h(up), and the record of f added to ``stats``."""
    if gradient_stats is not None:
        raise TypeError("gradient_stats needs a tensor with autograd; for CuPy pass stats= to .backward")
    accumulator = _accumulator(stats, GeometryStats)
    place = _Place("gate", gate)
    sources = place.borrow("gate", gate), place.borrow("up", up)
    y = place.empty_like(gate) if out is None else out
    _core.gated_forward(row._index, *sources, values, row._names, place.borrow("out", y), accumulator)
    return y


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
    place = _Place("dy", dy)
    sources = place.borrow("dy", dy), place.borrow("gate", gate), place.borrow("up", up)
    dgate, dup = (place.empty_like(dy) if out is None else out for out in outs)
    targets = place.borrow("out[0]", dgate), place.borrow("out[1]", dup)
    _core.gated_backward(row._index, *sources, values, row._names, *targets, accumulator)
    return dgate, dup
