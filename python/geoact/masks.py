"""ReLU with a mask of one bit per element: what backward needs of the forward pass, in a 16th to a 64th of its bytes.

    y, mask = geoact.masks.relu(x)
    dx = geoact.masks.relu_backward(dy, mask)

A mask is an array of uint8, of shape ``x.shape[:-1] + (ceil(x.shape[-1] / 8),)``, (1,) where x has no axes: bit i % 8
of byte i // 8 of a row says that the gradient passes element i, which is where ``not (y <= 0)``: x is positive or NaN.
That is ``numpy.packbits(~(y <= 0), axis=-1, bitorder="little")``; bits past a row are 0. The bits count what fires
(:func:`firing_count`) and tell how alike two rows are (:func:`hamming`).

Arrays of NumPy and CuPy and tensors of torch, on the CPU and on CUDA devices. Semantics: docs/masks.md.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoact import _core
from geoact.frontends import numpy as _numpy
from geoact.frontends.hints import belongs_to
from geoact.statistics import GeometryStats

if TYPE_CHECKING:
    from collections.abc import Callable

    _Mask = npt.NDArray[np.uint8]
    _Counts = npt.NDArray[np.int64]

__all__ = ["firing_count", "hamming", "pairwise_hamming", "relu", "relu_backward"]


def mask_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the mask of an array of this shape."""
    return (*shape[:-1], -(-shape[-1] // 8)) if shape else (1,)


def check_shape(mask: tuple[int, ...], dy: tuple[int, ...]) -> None:
    """Refuse a mask that belongs to an array of another shape."""
    if mask != mask_shape(dy):
        raise ValueError(f"mask has shape {mask}, but dy of shape {dy} needs a mask of shape {mask_shape(dy)}")


def _elsewhere(x: object) -> Any:  # noqa: ANN401
    """The functions of this name for the package of x, or None for NumPy's, which say what is accepted."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, getattr(torch, "Tensor", ())):
        import importlib

        return importlib.import_module("geoact.torch.masks")
    if belongs_to(x) == "CuPy":
        from geoact.frontends import cupy_masks

        return cupy_masks
    return None


def relu(x: Any, out: Any = None, stats: GeometryStats | None = None) -> Any:  # noqa: ANN401
    """max(0, x), and where it lets the gradient pass, in one pass over memory.

    Parameters
    ----------
    x : array of float16, bfloat16, float32 or float64, any shape and strides
    out : array like x, optional
        Where y is written; x itself computes in place.
    stats : GeometryStats, optional
        Measured as by ``geoact.relu``, while the data are in cache.

    Returns
    -------
    y : array of the shape, dtype and memory layout of x
        Bitwise that of ``geoact.relu``. Of a torch tensor that requires a gradient it is differentiable, and autograd
        saves the mask alone.
    mask : array of uint8 in C order, of shape ``x.shape[:-1] + (ceil(x.shape[-1] / 8),)``

    Raises
    ------
    TypeError, ValueError
        Naming the argument, before anything is written; ``stats`` is then as it was.
    """
    if stats is not None:
        if not isinstance(stats, GeometryStats):
            raise TypeError(f"stats must be a geoact.GeometryStats, got {type(stats).__name__}")
        stats._refuse_tiers("the mask")
    package = _elsewhere(x)
    if package is not None:
        return package.relu(x, out, stats)
    accumulator = None if stats is None else stats._accumulator
    mask = np.empty(mask_shape(np.shape(x)) if isinstance(x, np.ndarray) else 0, np.uint8)
    try:
        y = _core.relu_mask(x, _address(mask), mask.nbytes, out, accumulator)
    except TypeError:
        _numpy._explain((("x", x), ("out", out)))
        raise
    return y, mask


def relu_backward(dy: Any, mask: Any, out: Any = None) -> Any:  # noqa: ANN401
    """Gradient with respect to x: dy where the bit is set, else 0, also where dy is NaN or infinite.

    Parameters
    ----------
    dy : array
        Gradient with respect to y, of the shape and dtype of y; any strides.
    mask : array of uint8
        As :func:`relu` returned it; any strides.
    out : array like dy, optional
        Where dx is written; may be ``dy`` itself.

    Returns
    -------
    dx : array
        Bitwise that of ``geoact.relu.backward(dy, y=y)``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, before anything is written.
    """
    package = _elsewhere(dy)
    if package is not None:
        return package.relu_backward(dy, mask, out)
    if isinstance(dy, np.ndarray):
        mask = _checked("mask", mask)
        check_shape(mask.shape, dy.shape)
        mask = np.ascontiguousarray(mask)
    else:
        mask = np.empty(0, np.uint8)  # the core says what dy must be
    try:
        return _core.relu_mask_backward(dy, _address(mask), mask.nbytes, out)
    except TypeError:
        _numpy._explain((("dy", dy), ("out", out)))
        raise


def _address(mask: _Mask) -> int:
    address: int = mask.__array_interface__["data"][0]
    return address


def _checked(name: str, mask: object) -> _Mask:
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array of uint8, got {type(mask).__name__}")
    if mask.dtype != np.uint8:
        raise TypeError(f"{name} has dtype {mask.dtype} (accepted: uint8, as geoact.masks.relu makes it)")
    return mask


# --- what the bits tell ------------------------------------------------------------------------------------

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
_popcount: Callable[[Any], _Mask] = getattr(np, "bitwise_count", _ONES.__getitem__)  # of NumPy 2


def _rows(name: str, mask: object) -> _Mask:
    """A mask on the CPU as a NumPy array."""
    if not isinstance(mask, np.ndarray) and hasattr(mask, "__array__"):
        mask = np.asarray(mask)
    bits = _checked(name, mask)
    if bits.ndim == 0:
        raise ValueError(f"{name} has no axes; a mask has at least one")
    return bits


def firing_count(mask: Any, axis: int | tuple[int, ...] | None = None) -> Any:  # noqa: ANN401
    """How many elements fire: the bits that are set.

    Parameters
    ----------
    mask : array of uint8
        NumPy's, or what NumPy can read, such as a torch tensor on the CPU.
    axis : int or tuple of int, optional
        Axes to count over; by default all. -1 counts the units that fire for each row, 0 of a matrix how often each
        unit fires: where the last axis is kept it has 8 entries per byte, those past the columns of x are 0.

    Returns
    -------
    int, or array of int64

    Raises
    ------
    TypeError, ValueError
        If ``mask`` is no array of uint8 with at least one axis, or has no such axis.
    """
    bits = _rows("mask", mask)
    if axis is None:
        return int(_popcount(bits).sum(dtype=np.int64))
    given = axis if isinstance(axis, tuple) else (axis,)
    for one in given:
        if isinstance(one, bool) or not isinstance(one, (int, np.integer)):
            raise TypeError(f"axis must be an int or a tuple of int, got {type(one).__name__}")
        if not -bits.ndim <= one < bits.ndim:
            raise ValueError(f"axis is {one}, but mask has {bits.ndim} axes")
    axes = tuple(one % bits.ndim for one in given)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis names an axis twice: {axis}")
    if bits.ndim - 1 in axes:
        return _popcount(bits).sum(axis=axes, dtype=np.int64)
    counts = [((bits >> np.uint8(k)) & np.uint8(1)).sum(axis=axes, dtype=np.int64) for k in range(8)]
    units = np.stack(counts, axis=-1)
    return units.reshape(*units.shape[:-2], 8 * bits.shape[-1])


def hamming(a: Any, b: Any) -> _Counts:  # noqa: ANN401
    """In how many elements the rows of two masks differ.

    Parameters
    ----------
    a, b : array of uint8
        Masks with rows of the same length along the last axis; the other axes are broadcast.

    Returns
    -------
    array of int64
        Without the last axis.

    Raises
    ------
    TypeError, ValueError
        If they are no masks, or do not fit each other.
    """
    a, b = _rows("a", a), _rows("b", b)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"a has rows of {a.shape[-1]} bytes, but b has rows of {b.shape[-1]}; they must be equal")
    try:
        different = a ^ b
    except ValueError:
        raise ValueError(f"a has shape {a.shape}, but b has shape {b.shape}; they must broadcast") from None
    counts: _Counts = _popcount(different).sum(axis=-1, dtype=np.int64)
    return counts


def pairwise_hamming(a: Any, b: Any = None) -> _Counts:  # noqa: ANN401
    """In how many elements each row of a differs from each row of b.

    Parameters
    ----------
    a, b : array of uint8 of shapes (m, bytes) and (n, bytes)
        Two masks of matrices; b is a by default.

    Returns
    -------
    array of int64 of shape (m, n)

    Raises
    ------
    TypeError, ValueError
        If they are no masks of matrices, or have rows of different lengths.
    """
    a = _rows("a", a)
    b = a if b is None else _rows("b", b)
    for name, mask in (("a", a), ("b", b)):
        if mask.ndim != 2:
            raise ValueError(f"{name} has shape {mask.shape}; accepted: a matrix, (rows, bytes)")
    distances = np.empty((len(a), len(b)), np.int64)
    if not len(a):
        hamming(a, b[:0])  # the lengths of their rows
    for row, bits in enumerate(a):  # one row at a time: all pairs at once would be as large as m masks of b
        distances[row] = hamming(bits, b)
    return distances
