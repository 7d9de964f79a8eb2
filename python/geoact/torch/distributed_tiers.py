"""The opt-in tiers' share in an all_reduce: counts and sums add, extremes are extremes, sketches by a pivot.

As in :mod:`geoact.torch.distributed`: one part travels in its MAX and one in its SUM, and what is summed is taken about
the means of the leading rank, so that no digits are lost where means are far from zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from geoact import _core

_Array = npt.NDArray[np.float64]
_PRODUCTS = {"xx": ("s_of_x", "t_of_x"), "yy": ("s_of_y", "t_of_y"), "xy": ("s_of_x", "t_of_y")}
_SIDES = ("s_of_x", "t_of_x", "s_of_y", "t_of_y")


class _Received(Protocol):
    def take(self, rows: int, columns: int) -> _Array:
        """The next cells of a packed buffer."""


class TierShare:
    """Share of this rank in the record of the tiers."""

    def __init__(self, accumulator: _core.Accumulator, *, leads: bool) -> None:
        self.accumulator, self.leads = accumulator, leads
        self.cells = accumulator.tier_cells()
        self.at = {name: slice(first, first + size) for name, first, size in accumulator.tier_fields()}
        self.least = [name for name in self.at if name.endswith("least_ratio")]
        self.greatest = [name for name in self.at if name.endswith("greatest_ratio")]
        self.sketched = "sketch_rows" in self.at
        apart = {*self.least, *self.greatest}
        if self.sketched:
            apart.update(f"sketch_{kind}_{side}" for kind in ("mean", "deviation") for side in _SIDES)
            apart.update(f"sketch_{which}" for which in _PRODUCTS)
        self.summed = [name for name in self.at if name not in apart]
        self.pivot = self._means()

    def _means(self) -> _Array:
        if not self.sketched:
            return np.empty((0, 0))
        return np.stack([self.cells[self.at[f"sketch_mean_{s}"]] for s in _SIDES])

    def extremes(self) -> _Array:
        """Minima negated, maxima, and the leader's means."""
        own = [-self.cells[self.at[n]] for n in self.least] + [self.cells[self.at[n]] for n in self.greatest]
        pivot = self.pivot.ravel() if self.leads else np.full(self.pivot.size, -np.inf)
        return np.concatenate([*own, pivot])

    def take_extremes(self, received: _Received) -> None:
        """Of all ranks."""
        for name in self.least:
            self.cells[self.at[name]] = -received.take(1, 1)[0]
        for name in self.greatest:
            self.cells[self.at[name]] = received.take(1, 1)[0]
        self.pivot = received.take(*self.pivot.shape)

    def sums(self) -> _Array:
        """Counts and sums, and what is about the pivot."""
        parts = [self.cells[self.at[name]] for name in self.summed]
        if self.sketched:
            n = self.cells[self.at["sketch_rows"]][0]
            offset = self._means() - self.pivot
            parts += [(n * offset).ravel()]
            parts += [
                self.cells[self.at[f"sketch_deviation_{s}"]] + n * o**2 for s, o in zip(_SIDES, offset, strict=True)
            ]
            for which, (a, b) in _PRODUCTS.items():
                moved = n * np.outer(offset[_SIDES.index(a)], offset[_SIDES.index(b)])
                parts.append(self.cells[self.at[f"sketch_{which}"]] + moved.ravel())
        return np.concatenate(parts)

    def take_sums(self, received: _Received) -> None:
        """Of all ranks; the accumulator then holds them."""
        for name in self.summed:
            place = self.at[name]
            self.cells[place] = received.take(1, place.stop - place.start)[0]
        if self.sketched:
            n = max(self.cells[self.at["sketch_rows"]][0], 1.0)
            offset = received.take(*self.pivot.shape) / n
            for s, o, p in zip(_SIDES, offset, self.pivot, strict=True):
                self.cells[self.at[f"sketch_mean_{s}"]] = p + o
                self.cells[self.at[f"sketch_deviation_{s}"]] = np.maximum(received.take(1, len(o))[0] - n * o**2, 0)
            for which, (a, b) in _PRODUCTS.items():
                moved = n * np.outer(offset[_SIDES.index(a)], offset[_SIDES.index(b)])
                self.cells[self.at[f"sketch_{which}"]] = received.take(1, moved.size)[0] - moved.ravel()
        self.accumulator.set_tier_cells(self.cells)
