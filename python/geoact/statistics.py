"""Accumulators of what an activation does: the state a pass adds to, and how it is merged and read.

The state is a table of cells (fields x groups) kept by the compiled core, merged by the same ``combine`` everywhere;
derived values (:mod:`geoact._derived`) are computed when they are read. Imports NumPy and ``geoact._core``.
"""

from __future__ import annotations

import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from geoact import _core
from geoact._arguments import whole
from geoact._derived import COUNTS, GRADIENT, LAYER_COUNTS, LAYER_GRADIENT, LAYER_MOMENTS, MOMENTS, Derived
from geoact._reservoir import Reservoir
from geoact._tiers import HISTOGRAM, PAIRS, SKETCH, Histogram, PairDistances, Sketch, Tier, unpack

if TYPE_CHECKING:
    import pandas as pd

_SCHEMA = 1  # of pickles and to_dict
_FIELDS = {direction: [name for name, _ in _core.fields(direction)] for direction in ("forward", "backward")}
_Self = TypeVar("_Self", bound="_Statistics")

# What a traced program refers to statistics by: a tensor that holds a number, and who has that number.
_numbers = itertools.count(1)
_numbered: WeakValueDictionary[int, Numbered] = WeakValueDictionary()


_COUNTS = COUNTS, LAYER_COUNTS
_GRADIENT = GRADIENT, LAYER_GRADIENT
_MOMENTS = COUNTS + MOMENTS, LAYER_COUNTS + LAYER_MOMENTS


# By name, for each of the pairs that ``_rows`` may return.
_BY_NAME = {
    id(pair): tuple({row.name: row for row in rows} for rows in pair) for pair in (_COUNTS, _MOMENTS, _GRADIENT)
}


# Of a number of the tiers: what has to be asked for.
_TIER_OF = {
    row.name: asked
    for rows, asked in ((HISTOGRAM, "histogram=True"), (PAIRS, "pairs=True"), (SKETCH, "sketch=64"))
    for row in rows
}


def pandas() -> Any:  # noqa: ANN401
    """The package, for ``to_dataframe``, or how to install it."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install pandas") from error
    return pd


class Numbered:
    """An object that a traced program can refer to: by a number, in a tensor where torch is loaded."""

    def __init__(self) -> None:
        self._number()

    def _number(self) -> None:
        number = next(_numbers)
        _numbered[number] = self
        torch = sys.modules.get("torch")
        self._token: Any = getattr(torch, "tensor")([number], device="cpu") if hasattr(torch, "tensor") else None  # noqa: B009


_MOST_AXES = 64  # NumPy's limit


def _check(name: str, value: object, accepted: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be a str, got {type(value).__name__} (accepted: {', '.join(map(repr, accepted))})"
        )
    if value not in accepted:
        raise ValueError(f"{name} is {value!r} (accepted: {', '.join(map(repr, accepted))})")
    return value


class _Statistics(Numbered, ABC):
    """What both accumulators share: settings, merging, reading, printing."""

    _direction: ClassVar[str]
    _reservoir: Reservoir | None = None

    def __init__(self, per: str, channel_axis: int, level: str, saturation: float, **tiers: Any) -> None:  # noqa: ANN401
        self._per = _check("per", per, ("tensor", "channel", "row"))
        self._level = _check("level", level, ("counts", "moments"))
        channel_axis = whole("channel_axis", channel_axis, None)
        if abs(channel_axis) > _MOST_AXES:
            raise ValueError(f"channel_axis is {channel_axis}, but arrays have at most {_MOST_AXES} axes")
        if isinstance(saturation, bool) or not isinstance(saturation, (int, float)):
            raise TypeError(f"saturation must be a number, got {type(saturation).__name__}")
        self._channel_axis = channel_axis
        self._saturation = float(saturation)
        self._accumulator = _core.Accumulator(self._direction, per, channel_axis, level, self._saturation, **tiers)
        self._read: tuple[int, dict[str, npt.NDArray[np.float64]]] = (-1, {})
        self._number()

    # --- what was asked for ---

    @property
    def per(self) -> str:
        """What a group is: "tensor", "channel" or "row"."""
        return self._per

    @property
    def channel_axis(self) -> int:
        """The axis of the channels; rows run along it."""
        return self._channel_axis

    @property
    def level(self) -> str:
        """How much is measured: "counts" or "moments"."""
        return self._level

    @property
    def saturation(self) -> float:
        """|f'| below which an element counts as saturated."""
        return self._saturation

    @property
    def dtype(self) -> str:
        """Name of the dtype measured so far; "" before the first call."""
        return self._accumulator.dtype

    @property
    def groups(self) -> int:
        """Number of groups: 1, or channels or rows seen; 0 before the first call."""
        return self._accumulator.groups

    @property
    def calls(self) -> int:
        """Number of calls measured."""
        return self._accumulator.calls

    @property
    def enabled(self) -> bool:
        """Whether calls are measured (default). Where False they compute the same, and nothing is added.

        On a device this is a word of memory that the kernels read, so that it also switches the replays of a CUDA graph
        that was captured before. Merging, reading and ``reset`` do not ask for it. Copies and pickles carry it.
        """
        return self._accumulator.enabled

    @enabled.setter
    def enabled(self, on: bool) -> None:
        if not isinstance(on, (bool, np.bool_)):
            raise TypeError(f"enabled must be a bool, got {type(on).__name__}")
        self._accumulator.enabled = bool(on)

    # --- reading ---

    def cells(self) -> dict[str, npt.NDArray[np.float64]]:
        """The raw record: field name to float64 array of shape (groups,). Counts are exact up to 2^53."""
        return {name: values.copy() for name, values in self._record().items()}

    def _record(self) -> dict[str, npt.NDArray[np.float64]]:
        """The same, not to be written to, and kept until the record changes: one reading asks for it many times."""
        version, record = self._read
        if version != self._accumulator.version:
            version, table = self._accumulator.version, self._accumulator.cells()
            record = dict(zip(_FIELDS[self._direction], table, strict=False))
            self._read = version, record
        return record

    @abstractmethod
    def _rows(self) -> tuple[tuple[Derived, ...], tuple[Derived, ...]]:
        """Rows of the values per group, and of those of the whole layer."""

    def _compute(self, row: Derived) -> Any:  # noqa: ANN401
        # 0 / 0 and the like are answers here: a share of nothing is NaN
        with np.errstate(all="ignore"):
            value = row.of(self._record(), self.dtype or "float32")
        if isinstance(value, float):
            return value
        return float(value[0]) if self._per == "tensor" else value

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("_"):
            raise AttributeError(name)
        group, layer = _BY_NAME[id(self._rows())]
        if name in group:
            return self._compute(group[name])
        if name in layer:
            if self._per != "channel":
                raise ValueError(f"{name} compares channels: use per='channel' (this one has per={self._per!r})")
            return self._compute(layer[name]) if self.groups else float("nan")
        if name in self._tier_rows():
            return self._tier(name)
        if name in _TIER_OF:
            raise ValueError(f"{name} needs {_TIER_OF[name]} (this one is {self!r})")
        if self._level == "counts" and any(row.name == name for row in MOMENTS + LAYER_MOMENTS):
            raise ValueError(f"{name} needs level='moments' (this one has level='counts')")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        group, layer = self._rows()
        return sorted({*super().__dir__(), *(row.name for row in group + layer), *self._tier_rows()})

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold (NaN included).

        Returns
        -------
        dict
            "settings", "groups": derived values per group (a number for per="tensor", else a list) and, for
            per="channel", "layer": one number per name.
        """
        group, layer = self._rows()
        values = {row.name: self._compute(row) for row in group}
        result: dict[str, Any] = {
            "schema": _SCHEMA,
            "kind": type(self).__name__,
            "settings": self._settings(),
            "dtype": self.dtype,
            "groups": {k: v if isinstance(v, float) else v.tolist() for k, v in values.items()},
        }
        if self._per == "channel":
            result["layer"] = {row.name: getattr(self, row.name) for row in layer}
        if tiers := self._tier_rows():
            result["tiers"] = {name: self._tier(name) for name in tiers}
        return result

    def _tier_rows(self) -> dict[str, Tier]:
        """Numbers of the opt-in tiers that were asked for, by name."""
        return {}

    def _tier(self, name: str) -> float:
        raise AttributeError(name)

    def to_dataframe(self) -> pd.DataFrame:
        """Derived values as a pandas DataFrame, one row per group.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = pandas()
        group, _ = self._rows()
        columns = {row.name: np.atleast_1d(self._compute(row)) for row in group}
        return pd.DataFrame(columns, index=pd.RangeIndex(self.groups, name=self._per))

    # --- merging ---

    def _settings(self) -> dict[str, Any]:
        return {
            "per": self._per,
            "channel_axis": self._channel_axis,
            "level": self._level,
            "saturation": self._saturation,
        }

    def copy(self: _Self) -> _Self:
        """An independent copy, on the host: what lies on a device is read, and the device is waited for."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        with self._turn():
            twin._accumulator = self._accumulator.copy()
            twin._reservoir = self._reservoir and self._reservoir.copy()
        twin._read = (-1, {})
        twin._number()
        return twin

    def merge(self: _Self, other: _Self) -> _Self:
        """Add the record of ``other`` to this one and return it: the statistics of both data sets together.

        Rows (per="row") are appended, everything else is combined.

        Raises
        ------
        TypeError, ValueError
            If ``other`` is of another kind or has other settings, dtype or number of channels. Nothing changes then.
        """
        if type(other) is not type(self):
            raise TypeError(f"other must be a {type(self).__name__}, got {type(other).__name__}")
        if self._reservoir is None and other._reservoir is None:
            self._accumulator.merge(other._accumulator)
            return self
        if self._reservoir is None or other._reservoir is None:
            raise ValueError("other has a different reservoir; only like statistics merge")
        other = other.copy()  # at one moment, and without two locks at a time: it may be merging this one
        with self._turn():
            together = self._reservoir.merged(cast("Reservoir", other._reservoir))
            self._accumulator.merge(other._accumulator)
            self._reservoir.become(together)
        return self

    def __add__(self: _Self, other: _Self) -> _Self:
        """The statistics of both data sets together; neither operand changes."""
        if type(other) is not type(self):
            return NotImplemented
        return self.copy().merge(other)

    def __iadd__(self: _Self, other: _Self) -> _Self:
        if type(other) is not type(self):
            return NotImplemented
        return self.merge(other)

    def __radd__(self: _Self, other: object) -> _Self:
        # sum() starts from 0
        return self.copy() if isinstance(other, int) and other == 0 else NotImplemented

    def all_reduce(self: _Self, group: Any = None) -> _Self:  # noqa: ANN401
        """The statistics of all ranks of a torch.distributed group together; every rank must call it.

        This one stays as it is. :func:`geoact.torch.distributed.all_reduce` does many at once in as many messages.

        Parameters
        ----------
        group : torch.distributed.ProcessGroup, optional
            The ranks that take part; default: all.

        Raises
        ------
        ImportError
            If torch is not installed.
        RuntimeError
            If there is no process group.
        ValueError
            On every rank, if kind, settings, dtype or number of channels differ between them.
        """
        try:
            from geoact.torch.distributed import all_reduce
        except ImportError as error:
            raise ImportError("all_reduce needs torch: pip install geoact[torch]") from error
        result: _Self = all_reduce([self], group)[0]  # type: ignore[type-var]
        return result

    def reset(self) -> None:
        """Forget everything measured; the settings stay, and so does ``enabled``."""
        with self._turn():
            self._accumulator.reset()
            if self._reservoir is not None:
                self._reservoir.reset()

    def _turn(self) -> AbstractContextManager[object]:
        """For what takes the accumulator and the reservoir: a call in another thread, which fills both, ends first."""
        return nullcontext() if self._reservoir is None else self._reservoir.lock

    def __getstate__(self) -> dict[str, Any]:
        with self._turn():
            return {
                "tiers": self._accumulator.tier_cells(),
                "reservoir": self._reservoir and self._reservoir.copy(),
                "schema": _SCHEMA,
                "settings": self._settings(),
                "cells": self._accumulator.cells(),
                "dtype": self.dtype,
                "calls": self.calls,
                "enabled": self.enabled,
            }

    def _restore(self, settings: dict[str, Any]) -> None:
        """Begin anew with the settings of a pickle."""
        _Statistics.__init__(self, **settings)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state.get("schema") != _SCHEMA:
            raise ValueError(f"pickle of schema {state.get('schema')!r}; this version reads {_SCHEMA}")
        self._restore(state["settings"])
        self._accumulator.set_cells(state["cells"], state["dtype"], state.get("calls", 0))
        self._accumulator.set_tier_cells(state.get("tiers", np.empty(0)))  # those of 0.1 have no tiers
        self._reservoir = state.get("reservoir")
        self.enabled = state.get("enabled", True)  # pickles of 0.1 have none

    # --- printing ---

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self._settings().items())
        off = "" if self.enabled else ", enabled=False"
        return f"<{type(self).__name__} {settings}, dtype={self.dtype!r}, groups={self.groups}{off}>"

    def __str__(self) -> str:
        group, layer = self._rows()
        title = f"{type(self).__name__} per {self._per}, {self.dtype or 'no data yet'}"
        tiers = [f"  {name:<20} {self._tier(name):>14.6g}" for name in self._tier_rows()]
        if self._per == "tensor":
            return "\n".join([title, *(f"  {row.name:<20} {self._compute(row):>14.6g}" for row in group), *tiers])
        if self.groups == 0:
            return title
        lines = [f"{title}, {self.groups} {self._per}s", f"  {'':<20} {'min':>12} {'median':>12} {'max':>12}"]
        for row in group:
            values = self._compute(row)
            known = np.sort(values[~np.isnan(values)])  # infinities included, so nothing is interpolated
            low, middle, high = known[[0, (known.size - 1) // 2, -1]] if known.size else (np.nan,) * 3
            lines.append(f"  {row.name:<20} {low:>12.5g} {middle:>12.5g} {high:>12.5g}")
        if self._per == "channel":
            lines += ["  whole layer", *(f"  {row.name:<20} {self._compute(row):>12.5g}" for row in layer)]
        return "\n".join(lines + (["  all data", *tiers] if tiers else []))


class GeometryStats(_Statistics):
    """What an activation does to its input: scale, shape, resolution, gradient. An accumulator, passed like ``out=``.

    Parameters
    ----------
    per : {"tensor", "channel", "row"}
        One record for everything, for each index of ``channel_axis``, or for each position of the other axes. Rows of
        later calls are appended to those of earlier ones.
    channel_axis : int
        The axis of the channels.
    level : {"counts", "moments"}
        "counts" keeps exact counts and extremes only; "moments" adds means, variances, covariance and slopes.
    saturation : float
        An element counts as saturated where |f'| is below it; between 0 and 1.
    histogram : bool or "all"
        Counts of x and y in buckets of a quarter octave, of one value in 32 (True) or of every value ("all").
    pairs : bool
        Distances of adjacent rows before and after; x must have two axes or more.
    sketch : {0, 32, 64, 128}
        Numbers per row of a sketch, for participation ratio and linear CKA without keeping rows.
    reservoir : int
        Rows of x and y kept, a uniform sample of all; for ranks and neighbours, post hoc.
    seed : int
        Of the reservoir.

    The tiers (from ``histogram`` on) are of all data, whatever ``per`` says, and measured in the same pass; a row is
    what lies along ``channel_axis``. docs/tiers.md says what they cost and how exact they are.

    Notes
    -----
    Derived values are attributes: ``stats.gain``, ``stats.linear_share``, ... (float for per="tensor", else a float64
    array of shape (groups,)); ``dir(stats)`` lists them, docs/statistics.md defines them. Values of the whole layer,
    such as ``dead_fraction`` and ``layer_gain``, exist for per="channel".

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what is accepted.
    """

    _direction = "forward"

    def __init__(
        self,
        per: str = "tensor",
        channel_axis: int = -1,
        level: str = "moments",
        saturation: float = 0.05,
        *,
        histogram: bool | str = False,
        pairs: bool = False,
        sketch: int = 0,
        reservoir: int = 0,
        seed: int = 0,
    ) -> None:
        if not isinstance(histogram, (bool, str)) or (isinstance(histogram, str) and histogram != "all"):
            kind = TypeError if not isinstance(histogram, (bool, str)) else ValueError
            raise kind(f"histogram is {histogram!r} (accepted: False, True, 'all')")
        if not isinstance(pairs, (bool, np.bool_)):
            raise TypeError(f"pairs must be a bool, got {type(pairs).__name__}")
        pairs = bool(pairs)
        sketch, reservoir, seed = (
            whole(name, value) for name, value in (("sketch", sketch), ("reservoir", reservoir), ("seed", seed))
        )
        if sketch not in (0, 32, 64, 128):
            raise ValueError(f"sketch is {sketch} (accepted: 0, 32, 64, 128)")
        self._histogram, self._pairs, self._k, self._seed = histogram, pairs, sketch, seed
        counted = "all" if histogram == "all" else "sampled" if histogram else "none"
        super().__init__(per, channel_axis, level, saturation, histogram=counted, pairs=pairs, sketch=sketch)
        self._reservoir = Reservoir(reservoir, seed) if reservoir else None

    def _settings(self) -> dict[str, Any]:
        asked = {"histogram": self._histogram, "pairs": self._pairs, "sketch": self._k}
        if self._reservoir is not None:
            asked.update(reservoir=self._reservoir.size, seed=self._seed)
        return {**super()._settings(), **{name: value for name, value in asked.items() if value}}

    def _restore(self, settings: dict[str, Any]) -> None:
        GeometryStats.__init__(self, **settings)

    def __copy__(self) -> GeometryStats:
        return self.copy()

    # --- the opt-in tiers ---

    def _unpacked(self) -> dict[str, npt.NDArray[np.float64]]:
        return unpack(self._accumulator.tier_cells(), self._accumulator.tier_fields())

    def _asked(self, what: object, how: str) -> None:
        if not what:
            raise ValueError(f"this was not measured: ask for {how} (this one is {self!r})")

    @property
    def histogram_x(self) -> Histogram:
        """The distribution of x; needs ``histogram``."""
        self._asked(self._histogram, "histogram=True")
        return Histogram(self._unpacked()["histogram_x"])

    @property
    def histogram_y(self) -> Histogram:
        """The distribution of y; needs ``histogram``."""
        self._asked(self._histogram, "histogram=True")
        return Histogram(self._unpacked()["histogram_y"])

    @property
    def pairs(self) -> PairDistances:
        """Distances of adjacent rows; needs ``pairs``."""
        self._asked(self._pairs, "pairs=True")
        return PairDistances(self._unpacked(), "pairs_")

    @property
    def sketch(self) -> Sketch:
        """What the sketches tell; needs ``sketch``."""
        self._asked(self._k, "sketch=64")
        return Sketch(self._unpacked(), self._k, double=self.dtype == "float64")

    @property
    def reservoir(self) -> Reservoir:
        """The rows kept; needs ``reservoir``."""
        self._asked(self._reservoir, "reservoir=256")
        assert self._reservoir is not None
        return self._reservoir

    def _keeping(self, x: Any, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Run a call on x, and keep rows of it."""
        return self.reservoir.around(x, self._channel_axis, call) if self.enabled else call()

    def _refuse_tiers(self, what: str) -> None:
        """For calls that would leave the tiers unmeasured without a word."""
        if self._histogram or self._pairs or self._k or self._reservoir is not None:
            plain = super()._settings()
            asked = ", ".join(f"{k}={v!r}" for k, v in self._settings().items() if k not in plain)
            raise ValueError(f"stats was made with {asked}, which {what} does not measure")

    def _tier_rows(self) -> dict[str, Tier]:
        asked = ((self._histogram, HISTOGRAM), (self._pairs, PAIRS), (self._k, SKETCH))
        return {row.name: row for on, rows in asked if on for row in rows}

    def _tier(self, name: str) -> float:
        row = self._tier_rows()[name]
        if row in HISTOGRAM:
            return row.of(self.histogram_x, self.histogram_y)
        return row.of(self.pairs if row in PAIRS else self.sketch)

    def _rows(self) -> tuple[tuple[Derived, ...], tuple[Derived, ...]]:
        return _COUNTS if self._level == "counts" else _MOMENTS

    def dormant_fraction(self, tau: float = 0.025) -> float:
        """Share of channels whose mean |y| is at most ``tau`` times the mean over channels.

        Source: Sokar, Agarwal, Castro, Evci (2023), The dormant neuron phenomenon in deep reinforcement learning.
        Needs per="channel" and level="moments".
        """
        if self._per != "channel" or self._level != "moments":
            raise ValueError(f"dormant_fraction needs per='channel' and level='moments', got {self!r}")
        cells = self.cells()
        with np.errstate(all="ignore"):
            size = cells["sum_abs_y"] / cells["n"]
            return float(np.mean(size <= tau * np.mean(size))) if size.size else float("nan")


class GradientStats(_Statistics):
    """What the backward pass does to the gradient. An accumulator for ``.backward(..., stats=)``.

    Parameters
    ----------
    per, channel_axis
        As for :class:`GeometryStats`.

    Notes
    -----
    ``realised_gain`` is |dx|^2 / |dy|^2; ``zero_fraction``, ``underflow_fraction``, ``norm_dx`` and the
    others are attributes as well; docs/statistics.md defines them.
    """

    _direction = "backward"

    def __init__(self, per: str = "tensor", channel_axis: int = -1) -> None:
        super().__init__(per, channel_axis, "moments", 0.05)

    def _rows(self) -> tuple[tuple[Derived, ...], tuple[Derived, ...]]:
        return _GRADIENT
