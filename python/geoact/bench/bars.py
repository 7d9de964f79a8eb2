"""Ratios of measured times, and whether a limit is met: yes, no, or open where the interval contains the limit."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from geoact.bench.clocks import Sample
from geoact.bench.contenders import Bar, Group
from geoact.bench.engine import Measured
from geoact.bench.summary import Summary, interval, quantile

IMPOSSIBLE = 1.05  # of the ceiling: above that the timer, the byte count or the ceiling is wrong
DRIFT = 0.02  # of the clock rate within a group, above which its rows are flagged


@dataclass
class Row:
    """A bar and what was measured of it."""

    group: str
    bar: str
    limit: str
    unit: str
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    timed: str = ""
    against: str = ""
    met: str = ""  # yes, no, open; "error" where the measurement contradicts itself
    reason: str = ""
    flags: list[str] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> str:
        """Median and quartiles as they are shown."""
        if self.median is None:
            return "not measured"
        if self.unit == "%":
            return f"{self.median:.1%} ({self.q1:.1%} .. {self.q3:.1%})"
        digits = 2 if self.median < 100 else 0
        return f"{self.median:.{digits}f}{self.unit} ({self.q1:.{digits}f} .. {self.q3:.{digits}f})"

    def document(self) -> dict[str, Any]:
        """For a result file: no digits that mean nothing."""
        return {
            k: float(f"{v:.5g}") if isinstance(v, float) else v
            for k, v in asdict(self).items()
            if v not in ("", [], None)
        }


def verdict(low: float, high: float, at_most: float | None, at_least: float | None) -> str:
    """Yes or no where the interval lies on one side of the limit, open where it contains the limit."""
    if at_most is not None:
        return "yes" if high <= at_most else "no" if low > at_most else "open"
    if at_least is not None:
        return "yes" if low >= at_least else "no" if high < at_least else "open"
    return ""


def evaluate(group: Group, bar: Bar, measured: Measured) -> Row:
    """One row."""
    unit = "%" if bar.share else "" if bar.against else " us"
    row = Row(group.name, bar.title, bar.limit, unit, timed=bar.timed, labels=group.labels)
    times = {name: [s / c.calls for s in measured.seconds(name)] for c in group.contenders for name in (c.name,)}
    known = [name for name in bar.against if name in times]
    if bar.timed not in times or (bar.against and not known):
        absent = bar.timed if bar.timed not in times else bar.against[0]
        row.reason = f"{absent}: {group.missing.get(absent, 'did not run')}"
        row.met = "error" if "WRONG RESULT" in row.reason else ""
        return row
    if bar.against:
        row.against = min(known, key=lambda name: statistics.median(times[name]))
        pairs = zip(times[bar.timed], times[row.against], strict=True)
        values = sorted(b / a if bar.share else a / b for a, b in pairs)
    else:
        values = sorted(t * 1e6 for t in times[bar.timed])
    row.rounds = len(values)
    row.q1, row.median, row.q3 = (quantile(values, q) for q in (0.25, 0.5, 0.75))
    row.low, row.high = interval(values)
    row.met = verdict(row.low, row.high, bar.at_most, bar.at_least)
    row.flags = flags(measured)
    return row


def flags(measured: Measured) -> list[str]:
    """What a reader of a row must know about its measurement."""
    found = []
    if measured.drift > DRIFT:
        found.append(f"clock rate moved by {measured.drift:.1%}")
    if measured.throttled:
        found.append("throttled: " + ", ".join(measured.throttled))
    if measured.cut:
        found.append("cut short")
    return found


def impossible(group: Group, measured: Measured) -> list[str]:
    """Contenders that were faster than the ceiling allows."""
    ceilings = [name for name in group.ceilings if name in measured.samples]
    if not ceilings:
        return []
    medians = {c.name: statistics.median(measured.seconds(c.name)) / c.calls for c in group.contenders}
    fastest = min(ceilings, key=lambda name: medians[name])
    best = medians[fastest]
    return [
        f"{name} runs at {best / median:.1%} of the best copy of the same bytes ({fastest})"
        for name, median in medians.items()
        if best / median > IMPOSSIBLE
    ]


def judge(group: Group, measured: Measured) -> list[Row]:
    """All rows of a group; those of a contender that beat the ceiling are errors, whatever their ratio."""
    wrong = impossible(group, measured)
    rows = [evaluate(group, bar, measured) for bar in group.bars]
    for row in rows:
        for message in wrong:
            if message.startswith(f"{row.timed} runs at "):
                row.met, row.reason = "error", message
    if wrong and not any(row.met == "error" for row in rows):
        rows.append(Row(group.name, "faster than the ceiling", "", "", met="error", reason="; ".join(wrong)))
    return rows


def rates(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """The lowest and the highest clock rate that samples saw, in MHz; nothing where the clock does not know it."""
    found = {}
    for name, seen in (("MHz", [s.hertz for s in samples]), ("memory_MHz", [s.memory_hertz for s in samples])):
        known = [round(hertz / 1e6) for hertz in seen if hertz]
        if known:
            found[name] = [min(known), max(known)]
    return found


def raw(group: Group, measured: Measured) -> dict[str, Any]:
    """The samples as stored: nanoseconds of one call, clock rates in MHz, and how they were taken."""
    result: dict[str, Any] = {"stopped": measured.stopped, "contenders": {}}
    if measured.cut:
        result["cut"] = True
    if group.missing:
        result["missing"] = dict(group.missing)
    for contender in group.contenders:
        samples = measured.samples[contender.name]
        entry: dict[str, Any] = {
            "repeat": contender.repeat,
            "calls": contender.calls,
            "ns": [float(f"{s.seconds / contender.calls * 1e9:.6g}") for s in samples],
        }
        if contender.output is not None:
            entry["output"] = contender.output
        entry |= rates(samples)
        if group.bytes_moved:
            median = statistics.median(s.seconds for s in samples) / contender.calls
            entry["GB/s"] = float(f"{group.bytes_moved / median / 1e9:.4g}")
        entry |= {k: float(f"{v * 1e9 / contender.calls:.6g}") if isinstance(v, float) else v
                  for k, v in asdict(Summary.of(s.seconds for s in samples)).items()}  # fmt: skip
        result["contenders"][contender.name] = entry
    return result
