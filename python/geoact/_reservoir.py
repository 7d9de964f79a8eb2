"""A reservoir: whole rows of x and y, a uniform sample of all that were seen, for what needs rows (ranks, neighbours).

Which rows are taken follows from the seed and the numbers of rows alone, so accumulators of one seed keep the same
samples at every layer. Nothing is read but the rows that are kept. Post-hoc measures use SciPy. Imports NumPy only.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_alive: weakref.WeakSet[Reservoir] = weakref.WeakSet()


def _free_locks() -> None:
    """In a child: who held a lock was another thread of the parent, and does not live here."""
    for one in list(_alive):
        one.lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_free_locks)


class Reservoir:
    """A uniform sample of at most ``size`` rows (Li 1994, "Reservoir-sampling algorithms", algorithm L).

    Attributes
    ----------
    size : int
        Rows kept at most.
    seen : int
        Rows offered.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        self._begin()
        self.reset()

    def _begin(self) -> None:
        self.lock = threading.RLock()  # from the choice of a call's rows until they are kept
        _alive.add(self)

    def reset(self) -> None:
        """Forget all rows."""
        with self.lock:
            self._forget()

    def _forget(self) -> None:
        self.seen = 0
        self._rows: list[tuple[Any, Any]] = []  # (x, y) of each slot, arrays of one row or (array of rows, index)
        self._draw = np.random.default_rng([self.seed, self.size])
        self._weight, self._next = 1.0, -1

    @property
    def kept(self) -> int:
        """Rows in it now."""
        return len(self._rows)

    @property
    def channels(self) -> int:
        """Length of a row; 0 before the first."""
        if not self._rows:
            return 0
        row = self._rows[0][0]
        return len(row) if isinstance(row, np.ndarray) else int(row[0].shape[1])

    # --- choosing rows ---

    def _skip(self) -> None:
        """The next row that will be taken: algorithm L jumps over those that will not."""
        self._weight *= math.exp(math.log(1 - self._draw.random()) / self.size)
        self._jump()

    def _jump(self) -> None:
        # log1p keeps digits when the weight is small; of a weight of 1 the next row is the next.
        gap = math.log(1 - self._draw.random()) / math.log1p(-self._weight) if self._weight < 1 else 0
        self._next += int(min(gap, 2.0**62)) + 1

    def plan(self, rows: int) -> Plan | None:
        """Which of the next ``rows`` rows are kept, and where. Nothing changes until the plan is carried out.

        None where all are passed over: most calls, once many rows were seen.
        """
        if self.seen >= self.size and self._next >= self.seen + rows:
            return None
        twin = self._twin()
        taken: dict[int, int] = {}  # slot -> row; a later one replaces an earlier
        fill = min(rows, max(0, self.size - self.seen))
        taken.update((self.seen + i, i) for i in range(fill))
        if self.seen < self.size <= self.seen + fill:
            twin._next = self.size - 1
            twin._skip()
        end = self.seen + rows
        while self.size <= end and twin._next < end:
            taken[int(twin._draw.integers(self.size))] = twin._next - self.seen
            twin._skip()
        twin.seen = end
        return Plan(self, twin, list(taken), np.fromiter(taken.values(), np.int64, len(taken)))

    def around(self, x: Any, channel_axis: int, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Run a call on x that returns y, and keep rows of both; those of x are taken first, for y may overwrite them.

        Raises
        ------
        ValueError
            If x has no rows along ``channel_axis``, or rows of another length than those kept; nothing has changed.
        """
        probe = sys.modules.get("geoact.torch.probe")
        # The call says what x must be, or measures nothing; activation checkpointing repeats one whose rows were kept.
        if not _has_rows(x) or (probe is not None and probe.running_backward()):
            return call()
        shape = tuple(x.shape)
        if len(shape) < 2:
            raise ValueError(
                f"stats was made with reservoir={self.size}, which keeps rows, but x has shape {shape} (accepted: two "
                "axes or more)"
            )
        if not -len(shape) <= channel_axis < len(shape):
            raise ValueError(f"stats was made with channel_axis={channel_axis}, but x has shape {shape}")
        channels = shape[channel_axis]
        rows = math.prod(shape) // channels if channels else 0
        with self.lock:  # threads that share it take turns
            if self.channels not in (0, channels):
                raise ValueError(f"stats keeps rows of {self.channels} channels, but x has {channels}")
            plan = self.plan(rows)
            if plan is None:
                y = call()
                self.seen += rows
                return y
            before = plan.take(x, channel_axis)
            y = call()
            plan.carry_out(before, plan.take(y, channel_axis))
        return y

    # --- rows ---

    @property
    def x(self) -> npt.NDArray[Any]:
        """Kept rows of the pre-activation, (kept, channels), float32 or float64."""
        return self._table(0)

    @property
    def y(self) -> npt.NDArray[Any]:
        """Kept rows of the activation, as stored, in the order of ``x``."""
        return self._table(1)

    def _table(self, side: int) -> npt.NDArray[Any]:
        if not self._rows:
            return np.empty((0, 0), np.float32)
        self._rows = [(_on_host(x), _on_host(y)) for x, y in self._rows]
        return np.stack([row[side] for row in self._rows])

    def become(self, other: Reservoir) -> None:
        """Hold what another one holds. Who waits for this one's turn finds it there."""
        self.__dict__.update({**other.__dict__, "lock": self.lock})

    def merged(self, other: Reservoir) -> Reservoir:
        """A uniform sample of the rows of both."""
        if other.seed != self.seed:
            raise ValueError(f"other has seed={other.seed}, this one {self.seed}; only like statistics merge")
        if other.size != self.size:
            raise ValueError(f"other has reservoir={other.size}, this one {self.size}; only like statistics merge")
        if self.kept and other.kept and self.channels != other.channels:
            raise ValueError(f"other holds rows of {other.channels} channels, this one of {self.channels}")
        result = Reservoir(self.size, self.seed)
        draw = result._draw = np.random.default_rng([self.seed, self.size, self.seen, other.seen])
        result.seen = self.seen + other.seen
        if result.seen <= self.size:
            result._rows = self._rows + other._rows
            if result.seen == self.size:
                result._next = self.size - 1
                result._skip()
            return result
        mine = 0  # of the rows drawn without putting back; NumPy's hypergeometric ends at 10^9
        for drawn in range(self.size):
            mine += int(draw.integers(result.seen - drawn) < self.seen - mine)
        for part, count in ((self, mine), (other, self.size - mine)):
            result._rows += [part._rows[i] for i in draw.choice(part.kept, count, replace=False)]
        # The largest of the `size` smallest of `seen` uniform numbers: where algorithm L goes on.
        result._weight, result._next = float(draw.beta(self.size, result.seen - self.size + 1)), result.seen - 1
        result._jump()
        return result

    def copy(self) -> Reservoir:
        """An independent copy; rows are shared, they are never written to."""
        with self.lock:
            twin = self._twin()
            twin._rows = list(self._rows)
        twin._begin()
        return twin

    def _twin(self) -> Reservoir:
        """With random numbers of its own; lock and rows are still this one's."""
        twin = Reservoir.__new__(Reservoir)
        twin.__dict__.update(self.__dict__)
        twin._draw = np.random.default_rng()
        twin._draw.bit_generator.state = self._draw.bit_generator.state
        return twin

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            state = {**self.__dict__, "_rows": [(_on_host(x), _on_host(y)) for x, y in self._rows]}
        del state["lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    # --- what rows tell ---

    def _distances(self) -> tuple[Array, Array]:
        try:
            from scipy.spatial.distance import pdist
        except ImportError as error:
            raise ImportError("measures of a reservoir need SciPy: pip install geoact[study]") from error
        x, y = self._finite()
        if len(x) < 3:
            raise ValueError(f"the reservoir holds {len(x)} finite rows; distances are compared from 3 on")
        return pdist(x), pdist(y)

    def _finite(self) -> tuple[Array, Array]:
        """The rows that are finite before and after."""
        x, y = self.x.astype(np.float64), self.y.astype(np.float64)
        good = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        return x[good], y[good]

    def spearman(self) -> float:
        """Rank correlation of all distances before and after; 0 where one side has none that differ."""
        from scipy.stats import rankdata

        before, after = (rankdata(d) for d in self._distances())
        before, after = before - before.mean(), after - after.mean()
        below = math.sqrt(float(before @ before) * float(after @ after))
        return float(before @ after) / below if below else 0.0

    def stress(self) -> float:
        """Kruskal's stress-1 of the best multiple of the distances after: sqrt(sum (d_x - a d_y)^2 / sum d_x^2).

        NaN where all rows are the same before.
        """
        before, after = self._distances()
        below = float(after @ after)
        scale = float(before @ after) / below if below else 0.0
        whole = float(before @ before)
        return float(np.sqrt(np.sum((before - scale * after) ** 2) / whole)) if whole else float("nan")

    def _neighbours(self, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        from scipy.spatial.distance import squareform

        tables = [squareform(d) for d in self._distances()]
        rows = len(tables[0])
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < rows / 2:
            raise ValueError(f"k is {k!r} (accepted: a whole number from 1 to below half of the {rows} finite rows)")
        for table in tables:
            np.fill_diagonal(table, -1)  # first in every order
        before, after = (np.argsort(np.argsort(table, axis=1, kind="stable"), axis=1) for table in tables)
        return before, after

    def neighbour_overlap(self, k: int = 10) -> float:
        """Share of the k nearest rows before that are among the k nearest after, mean over rows."""
        before, after = self._neighbours(k)
        both = (before >= 1) & (before <= k) & (after >= 1) & (after <= k)
        return float(both.sum() / (len(before) * k))

    def trustworthiness(self, k: int = 10) -> float:
        """Whether neighbours after were near before: 1 where none is new (Venna, Kaski 2001)."""
        before, after = self._neighbours(k)
        rows = len(before)
        new = (after >= 1) & (after <= k) & (before > k)
        return float(1 - 2 / (rows * k * (2 * rows - 3 * k - 1)) * np.sum((before - k)[new]))

    def rankme(self, of: str = "y") -> float:
        """Effective rank: exp of the entropy of the normalised singular values of the rows (Garrido et al. 2023).

        Of the rows that are finite before and after; NaN where all are zero.

        Parameters
        ----------
        of : {"x", "y"}
        """
        if of not in ("x", "y"):
            raise ValueError(f"of is {of!r} (accepted: 'x', 'y')")
        rows = self._finite()["xy".index(of)]
        if not rows.size:
            raise ValueError(f"the reservoir holds no finite rows ({self.kept} rows)")
        values = np.linalg.svd(rows, compute_uv=False)
        if not values.any():
            return float("nan")
        p = values[values > 0] / values.sum()
        return float(np.exp(-np.sum(p * np.log(p))))


class Plan:
    """The rows of one call that are kept."""

    def __init__(self, of: Reservoir, then: Reservoir, slots: list[int], rows: npt.NDArray[np.int64]) -> None:
        self._of, self._then, self._slots, self.rows = of, then, slots, rows

    def take(self, array: Any, channel_axis: int) -> Any:  # noqa: ANN401
        """The chosen rows of an array of NumPy, CuPy or torch, as (chosen, channels); a copy."""
        axis = channel_axis % array.ndim
        shape = tuple(n for i, n in enumerate(array.shape) if i != axis)
        index: list[Any] = list(np.unravel_index(self.rows, shape))
        if hasattr(array, "detach"):  # torch
            import torch

            array = array.detach()
            index = [torch.from_numpy(i).to(array.device) for i in index]
        index.insert(axis, slice(None))
        taken = array[tuple(index)]
        # Indices side by side stay where they were: behind the channels of axis 0.
        return taken.T if axis == 0 else taken

    def carry_out(self, x: Any, y: Any) -> None:  # noqa: ANN401
        """Keep what was taken."""
        rows, of = list(self._of._rows), self._of
        for i, slot in sorted(enumerate(self._slots), key=lambda pair: pair[1]):
            row = ((x, i), (y, i))
            if slot < len(rows):
                rows[slot] = row
            else:
                rows.append(row)
        of.__dict__.update({**self._then.__dict__, "_rows": rows})


def _has_rows(x: Any) -> bool:  # noqa: ANN401
    """Whether rows can be read: not of torch's sparse and nested tensors, nor where there are no data."""
    if not hasattr(x, "shape") or getattr(x, "is_nested", False):
        return False
    return str(getattr(x, "layout", "torch.strided")) == "torch.strided" and not getattr(x, "is_meta", False)


def _on_host(row: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    """One row as a NumPy array; rows on a device are read when they are asked for."""
    if isinstance(row, np.ndarray):
        return row
    table, i = row
    one = table[i]
    if hasattr(one, "detach"):  # torch
        import torch

        one = one.detach().cpu()
        one = (one if one.dtype == torch.float64 else one.float()).numpy()
    elif hasattr(one, "get"):  # CuPy
        one = one.get()
    wide = np.float64 if one.dtype == np.float64 else np.float32
    return np.array(one, dtype=wide)
