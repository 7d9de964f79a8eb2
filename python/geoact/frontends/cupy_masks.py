"""ReLU with its bit mask on CuPy arrays: see :mod:`geoact.masks`."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoact import _core
from geoact.frontends.cupy import _accumulator, _Place
from geoact.masks import check_shape, mask_shape
from geoact.statistics import GeometryStats

_BITS = np.dtype(np.uint8)


def _in_c_order(array: Any) -> bool:  # noqa: ANN401
    step = array.itemsize
    for size, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        if stride != step and size > 1:
            return not array.size
        step *= size
    return True


def relu(x: Any, out: Any, stats: GeometryStats | None) -> tuple[Any, Any]:  # noqa: ANN401
    """Y = max(0, x) and its mask, on the device of x."""
    accumulator = _accumulator(stats, GeometryStats)
    place = _Place("x", x)
    source = place.borrow("x", x)
    target = None if out is None else place.borrow("out", out)
    mask = place.empty(mask_shape(x.shape), _BITS)
    y = place.empty_like(x) if out is None else out
    _core.relu_mask(source, mask.data.ptr, mask.size, target or place.borrow("out", y), accumulator)
    return y, mask


def relu_backward(dy: Any, mask: Any, out: Any) -> Any:  # noqa: ANN401
    """Dx: dy where the bit is set, else 0."""
    place = _Place("dy", dy)
    source = place.borrow("dy", dy)
    place.check("mask", mask)
    if mask.dtype != _BITS:
        raise TypeError(f"mask has dtype {mask.dtype} (accepted: uint8, as geoact.masks.relu makes it)")
    check_shape(mask.shape, dy.shape)
    here, there = mask.data.device_id, dy.data.device_id
    if here != there:
        raise ValueError(f"mask is on the device cuda:{here}, but dy is on cuda:{there}; they must be equal")
    if not _in_c_order(mask):
        raise ValueError("mask is not in C order; pass cupy.ascontiguousarray(mask)")
    dx = place.empty_like(dy) if out is None else out
    _core.relu_mask_backward(source, mask.data.ptr, mask.size, place.borrow("out", dx))
    return dx
