"""How the Triton kernels see tensors: as three axes, of which the last is dense in memory (``geoact.kernels.fused``).

A view says which axes of x are joined to which of the three, and whether groups lie along the middle one or the others.
Contiguous tensors, channels-last ones and rows with gaps between them are seen where they lie; others are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Tensor = torch.Tensor

_UNIT = 16  # elements, see UNIT of geoact.kernels.fused
_INT32 = 2**31 - 2**20  # offsets of a tile's end stay below 2^31


def joint_stride(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride of some axes seen as one, or None where they cannot be; 0 for no axes."""
    joint, extent = 0, 1
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size == 1:
            continue
        if extent == 1:
            joint = stride
        elif stride != joint * extent:
            return None
        extent *= size
    return joint


@dataclass(frozen=True)
class View:
    """How the tensors of a call are seen as three axes; see ``geoact.kernels.fused``."""

    order: tuple[int, ...]  # of the axes in memory
    cuts: tuple[int, int]  # which of them, in that order, are the first and the second of the three
    columns: bool
    whole: bool  # whether the record is one although groups are kept
    kept: int | None  # the axis of the groups, where they are those of one axis

    def sizes(self, x: Tensor) -> tuple[int, int, int]:
        """The extents of the three axes."""
        shape = [x.shape[axis] for axis in self.order]
        a, b = self.cuts
        return product(shape[:a]), product(shape[a:b]), product(shape[b:])

    def strides(self, t: Tensor) -> tuple[int, int] | None:
        """Of a tensor in memory order, or None where it has to be copied."""
        if t.numel() == 0:
            return 0, 0
        a, b = self.cuts
        parts = [joint_stride(t.shape[i:j], t.stride()[i:j]) for i, j in ((0, a), (a, b), (b, t.dim()))]
        first, second, dense = parts
        if first is None or second is None or dense is None or dense > 1:
            return None
        if dense == 0 and product(t.shape[b:]) > 1:
            return None
        return first, second


def product(sizes: Sequence[int]) -> int:
    """Of no sizes, 1."""
    result = 1
    for size in sizes:
        result *= size
    return result


def _memory_order(x: Tensor) -> tuple[int, ...]:
    strides = x.stride()
    return tuple(sorted(range(x.dim()), key=lambda axis: -strides[axis] if x.shape[axis] != 1 else 0))


def view_of(x: Tensor, per: str, axis: int, kept: int | None) -> View:
    """For groups by tensor, channel or row along ``axis``; with one record, ``kept`` may ask for an axis of groups."""
    order = _memory_order(x)
    if per == "row":
        others = [a for a in order if a != axis and x.shape[a] != 1]
        if others != sorted(others):
            order = tuple(range(x.dim()))  # groups are numbered in the order of the axes
        place = order.index(axis)
        if product([x.shape[a] for a in order[place + 1 :]]) == 1:
            return View((*(a for a in order if a != axis), axis), (0, x.dim() - 1), False, False, None)
        return View(order, (place, place + 1), True, False, None)
    channel = axis if per == "channel" else kept
    if channel is None:
        dense = x.dim()
        extent = 1
        while dense > 0 and (x.shape[order[dense - 1]] == 1 or x.stride(order[dense - 1]) == extent):
            dense -= 1
            extent *= x.shape[order[dense]]
        if extent == 1:
            dense = 0  # nothing to read in one go: seen as flat, which takes a copy
        return View(order, (dense, dense), False, True, None)
    place = order.index(channel)
    if product([x.shape[a] for a in order[place + 1 :]]) == 1:
        last = (*(a for a in order if a != channel), channel)
        return View(last, (0, x.dim() - 1), True, per != "channel", channel)
    return View(order, (place, place + 1), False, per != "channel", channel)


class Seen:
    """Tensors of one call in a view: each as it lies in memory, or a copy."""

    def __init__(self, view: View, like: Tensor) -> None:
        self.view = view
        self.sizes = view.sizes(like)
        self._strides: dict[str, tuple[int, int]] = {}
        self._extents: list[int] = [product(self.sizes)]

    def add(self, name: str, t: Tensor) -> Tensor:
        """The tensor with its axes in the order of memory, or a copy that the kernels can see as three axes."""
        ordered = t.permute(self.view.order)
        strides = self.view.strides(ordered)
        if strides is None:
            ordered = ordered.contiguous()
            strides = self.view.strides(ordered) or (0, 0)
        self._strides[name] = strides
        self._extents.append(sum((size - 1) * stride for size, stride in zip(self.sizes, strides, strict=False)))
        return ordered

    def add_target(self, name: str, t: Tensor) -> tuple[Tensor, Callable[[], object]]:
        """The same for a tensor that is written, and what is to be called afterwards."""
        in_place = self.view.strides(t.permute(self.view.order)) is not None
        ordered = self.add(name, t)
        if in_place:
            return ordered, lambda: None
        return ordered, lambda: t.permute(self.view.order).copy_(ordered)

    def arguments(self) -> dict[str, int]:
        """Sizes, strides and what follows from them, as the kernels take them."""
        numbers = {f"{name}_stride{k}": s[k] for name, s in self._strides.items() for k in (0, 1)}
        scaled = {"size2": self.sizes[2], **{k: v for k, v in numbers.items() if not k.startswith("w_")}}
        aligned = not self.view.columns and all(value % _UNIT == 0 for value in scaled.values())
        unit = _UNIT if aligned else 1
        return {
            "size0": self.sizes[0],
            "size1": self.sizes[1],
            "w_stride0": 0,
            "w_stride1": 0,
            **numbers,
            **{name: value // unit for name, value in scaled.items()},
            "UNIT": unit,
            "WIDE": max(self._extents) + self.sizes[2] >= _INT32,
        }
