"""What there is to be drawn of a document: speed against bytes, the roofline, the price of an option, the bars.

Numbers only, so that the plots (matplotlib) and the page (plotly) draw the same. Nothing here knows the axes of a suite
by name: colours and shapes are given to whatever axes have few values, and lines follow those that change the size.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from geoact.bench.bars import Row
from geoact.bench.report.content import CaseView, cases, limit_of, rows

OVERHEAD_AXIS = "statistics"
# Okabe and Ito (2008), the yellow replaced by an olive that shows on white; the shapes repeat what the colours say.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a7a1f", "#7d7d7d")
_SIZES = ("n", "size", "shape", "elements", "numel", "length", "bytes", "rows", "columns")
_OFF = ("none", "false", "0", "no", "off", "plain", "without", "")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


# --- which axis is which --------------------------------------------------------------------------


@dataclass(frozen=True)
class Legend:
    """The axes that colours and shapes stand for; "" where there is none. ``case`` is the function of a case."""

    colour: str
    colours: tuple[str, ...]
    shape: str
    shapes: tuple[str, ...]
    sizes: tuple[str, ...]

    @classmethod
    def of(cls, views: Sequence[CaseView]) -> Legend:
        """Colours for the axis with most values that still fit the palette, shapes for the next one."""
        values: dict[str, dict[str, None]] = {"case": dict.fromkeys(view.function for view in views)}
        numeric: dict[str, bool] = {}
        for view in views:
            for axis, value in view.axes.items():
                values.setdefault(axis, {})[str(value)] = None
                numeric[axis] = numeric.get(axis, True) and isinstance(value, int) and not isinstance(value, bool)
        sizes = tuple(a for a in values if a in _SIZES or (numeric.get(a) and _moves_other_bytes(views, a)))
        few = [axis for axis in values if axis not in sizes and 2 <= len(values[axis]) <= len(PALETTE)]
        few.sort(key=lambda axis: -len(values[axis]))
        first, second = [*few, "", ""][:2]
        of = {axis: tuple(values[axis]) for axis in few} | {"": ()}
        return cls(first, of[first], second, of[second], sizes)

    def place(self, view: CaseView) -> tuple[int, int]:
        """Index of the colour and of the shape of a case; the first where there is only one."""
        return (
            self.colours.index(value_of(view, self.colour)) if self.colour else 0,
            self.shapes.index(value_of(view, self.shape)) if self.shape else 0,
        )


def _moves_other_bytes(views: Sequence[CaseView], axis: str) -> bool:
    """Whether this axis alone changes how many bytes a case moves: it is then a size, not a kind."""
    seen: dict[tuple[object, ...], set[int]] = defaultdict(set)
    for view in views:
        alike = (view.function, *((key, str(value)) for key, value in view.axes.items() if key != axis))
        seen[alike].add(view.bytes)
    return any(len(found) > 1 for found in seen.values())


def value_of(view: CaseView, axis: str) -> str:
    """The value of an axis as it is shown; "" where a case does not have it."""
    return view.function if axis == "case" else str(view.axes.get(axis, ""))


# --- speed ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """A case in the plots of speed."""

    view: CaseView
    colour: int
    shape: int


@dataclass(frozen=True)
class Speeds:
    """Cases with declared bytes; ``copies`` are (bytes, GB/s) of the copy, ``roofs`` GB/s of the copy per cache."""

    legend: Legend
    points: tuple[Speed, ...]
    copies: tuple[tuple[int, float], ...]
    roofs: Mapping[str, float]

    @property
    def with_flops(self) -> tuple[Speed, ...]:
        """Points that have a place on the roofline."""
        return tuple(point for point in self.points if point.view.flops)


def speeds(document: Mapping[str, Any]) -> Speeds:
    """Every measured case that declares bytes, and what the copy of as many bytes reached."""
    views = [view for view in cases(document) if view.measured and view.bytes]
    legend = Legend.of(views)
    by_bytes, by_level = defaultdict(list), defaultdict(list)
    for view in views:
        if view.copy_gigabytes:
            by_bytes[view.bytes].append(view.copy_gigabytes)
            by_level[level(view, document)].append(view.copy_gigabytes)
    return Speeds(
        legend,
        tuple(Speed(view, *legend.place(view)) for view in views),
        tuple((count, statistics.median(found)) for count, found in sorted(by_bytes.items())),
        dict(sorted(((name, max(found)) for name, found in by_level.items()), key=lambda roof: -roof[1])),
    )


def level(view: CaseView, document: Mapping[str, Any]) -> str:
    """The smallest cache that holds all bytes of a case, or where they are when caches are cold."""
    environment = document["environment"]
    where = "memory" if view.device == "cpu" else "device memory"
    if document.get("cache") == "cold":
        return where
    if view.device != "cpu":
        gpu = environment.get("gpu")
        size = gpu.get("l2_bytes") if isinstance(gpu, Mapping) else None
        return "L2" if size and view.bytes <= size else where
    found = []
    for name, text in (environment.get("caches") or {}).items():
        match = re.fullmatch(r"(\d+)([KMG]?)", str(text))
        if match and not name.endswith("instruction"):
            found.append((int(match[1]) * _UNITS.get(match[2], 1), name.partition(" ")[0]))
    return next((name for size, name in sorted(found) if view.bytes <= size), where)


# --- the price of an option -----------------------------------------------------------------------


@dataclass(frozen=True)
class Price:
    """Two cases that differ in one axis only, and the ratio of their times with an interval."""

    without: CaseView
    case: CaseView
    value: str
    ratio: float
    low: float
    high: float
    line: str
    colour: int
    shape: int


@dataclass(frozen=True)
class Prices:
    """All pairs of an axis; ``base`` is the value that the others are held against."""

    axis: str
    base: str
    legend: Legend
    pairs: tuple[Price, ...]


def prices(document: Mapping[str, Any], axis: str = OVERHEAD_AXIS) -> Prices:
    """Time with an option over time without it, for pairs of cases that are equal in every other axis.

    Each is held against its own copy, measured in the same rounds, where both have one: what slowed the machine
    between the two then cancels. The interval is made of the ends of theirs, so it is wider than 95 %.
    """
    views = [view for view in cases(document) if view.measured and axis in view.axes]
    values = list(dict.fromkeys(str(view.axes[axis]) for view in views))
    base = next((value for value in values if value.lower() in _OFF), values[0] if values else "")
    alike: dict[tuple[object, ...], dict[str, CaseView]] = defaultdict(dict)
    for view in views:
        rest = ((key, str(value)) for key, value in view.axes.items() if key != axis)
        key = (view.function, view.device, *rest)
        alike[key][str(view.axes[axis])] = view
    both = [(group[base], view, value) for group in alike.values() if base in group
            for value, view in group.items() if value != base]  # fmt: skip
    # The axis itself tells apart only where it has more than two values.
    legend = Legend.of([_stripped(view, axis if len(values) < 3 else "") for _, view, _ in both])
    pairs = [_price(one, other, value, legend, axis) for one, other, value in both]
    return Prices(axis, base, legend, tuple(sorted(pairs, key=lambda p: (p.line, p.case.bytes))))


def _stripped(view: CaseView, axis: str) -> CaseView:
    return replace(view, axes={k: v for k, v in view.axes.items() if k != axis})


def _price(without: CaseView, case: CaseView, value: str, legend: Legend, axis: str) -> Price:
    one, other = without.score, case.score
    if one and other and without.bytes == case.bytes:
        ratio = one["median"] / other["median"]
        low, high = one.get("low", 0) / other.get("high", 1), one.get("high", 1) / (other.get("low") or 1)
    else:
        ratio = (case.median or 0) / (without.median or 1)
        (a, b), (c, d) = without.quartiles or (1, 1), case.quartiles or (1, 1)
        low, high = c / b, d / a
    rest = [f"{key}={case.axes[key]}" for key in case.axes if key not in legend.sizes and key != axis]
    line = ",".join([case.function, *rest, value])
    return Price(without, case, value, ratio, low, high, line, *legend.place(case))


# --- bars -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """A bar as a dot with its interval, and its limit."""

    row: Row
    median: float
    low: float
    high: float
    limit: tuple[str, float] | None


def dots(document: Mapping[str, Any]) -> list[Dot]:
    """Bars that are ratios of contenders which took turns; by group, in their order."""
    groups = document["groups"]
    found = []
    for row in rows(document):
        several = len((groups.get(row.group) or {}).get("contenders", ())) > 1
        if row.median and row.unit in ("", "%") and several and row.low and row.high and row.met != "error":
            found.append(Dot(row, row.median, row.low, row.high, limit_of(row)))
    return found


def spread(places: Sequence[tuple[int, int]]) -> list[float]:
    """Where (bytes, colour) go: different colours at the same bytes side by side, moved by up to 7 %."""
    colours: dict[int, set[int]] = defaultdict(set)
    for count, colour in places:
        colours[count].add(colour)
    widest = max(colour for _, colour in places) or 1
    return [count * 2 ** ((colour / widest - 0.5) * 0.2 if len(colours[count]) > 1 else 0) for count, colour in places]


def decades(values: Iterable[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis around positive values."""
    positive = [value for value in values if value > 0]
    low, high = min(positive), max(positive)
    room = max((high / low) ** 0.06, 1.12)
    return low / room, high * room
