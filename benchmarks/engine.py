"""Contenders take turns until their times are known; what comes out are ratios, and whether a bar is met.

The engine knows neither what it times nor how time is read: a ``Clock`` does that, so everything here is tested with a
simulated device. A round lets every contender run once, in shuffled order; every ratio is that of one round, so that
whatever slows the device slows both sides. Rounds end when the noise is small or has stopped changing, or when the time
is up, and the reason is kept. Standard library only.

Terms: a *contender* is something that is timed; a *group* is the contenders that take turns; a *bar* is a ratio of two
of them with a limit; a *ceiling* is a contender that nothing moving the same bytes can beat, which is a copy.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

IMPOSSIBLE = 1.05  # of the ceiling: above that the timer, the byte count or the ceiling is wrong
DRIFT = 0.02  # of the clock rate within a group, above which its rows are flagged


class Untimeable(Exception):
    """A contender cannot be timed by this clock; the message says why."""


@dataclass(frozen=True)
class Sample:
    """Seconds of one call, and what is known of the device at that moment."""

    seconds: float
    hertz: float | None = None
    throttled: tuple[str, ...] = ()


class Clock(Protocol):
    """Reads time. ``label`` says of which device and in which cache state."""

    label: str

    def sample(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample:
        """Time ``repeat`` runs in a row, taking turns among ``runs``; the seconds are those of one run."""


# --- what takes part ----------------------------------------------------------------------------------------


@dataclass
class Contender:
    """Something that is timed.

    ``runs`` are the same call on different buffers; one of them may make ``calls`` calls at once (a graph). ``before``
    is called, untimed, ahead of every sample; ``check`` ahead of all samples and after them: it raises AssertionError,
    or returns a checksum of the output, which must then be the same both times, or None.
    """

    name: str
    runs: Sequence[Callable[[], object]]
    check: Callable[[], object] = lambda: None
    before: Callable[[], object] = lambda: None
    calls: int = 1
    repeat: int = 1
    output: object = None


@dataclass(frozen=True)
class Bar:
    """A ratio of times, timed / against; with ``share`` its inverse, the share of the ceiling's speed.

    ``against`` may name several, of which the fastest counts; empty: microseconds of one call.
    """

    title: str
    timed: str
    against: tuple[str, ...] = ()
    at_most: float | None = None
    at_least: float | None = None
    share: bool = False

    @property
    def limit(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}" + ("" if self.against else " us")
        if self.at_least is None:
            return ""
        return f">= {self.at_least:.0%}" if self.share else f">= {self.at_least:g}"


@dataclass
class Group:
    """Contenders that take turns, and the bars made of them; ``missing`` says of the others why they are not there."""

    name: str
    contenders: list[Contender] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    ceilings: tuple[str, ...] = ()
    bytes_moved: int | None = None
    labels: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Contender], absent: type[Exception]) -> None:
        """Add a contender, or the reason why it is absent."""
        try:
            self.contenders.append(make())
        except absent as error:
            self.missing[name] = str(error)


# --- statistics ---------------------------------------------------------------------------------------------


def quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics."""
    place = (len(ordered) - 1) * q
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Order statistics around the median with a probability of at least 95 %; the extremes of few samples."""
    n, below, rank = len(ordered), 0.0, 0
    while rank < n // 2:
        below += math.comb(n, rank) / 2**n
        if below > 0.025:
            break
        rank += 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[n - rank]


@dataclass(frozen=True)
class Summary:
    """What is reported of samples; none is deleted."""

    n: int
    minimum: float
    q1: float
    median: float
    q3: float
    mad: float
    outliers: int  # beyond 1.5 interquartile ranges of the quartiles

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        ordered = sorted(values)
        q1, median, q3 = (quantile(ordered, q) for q in (0.25, 0.5, 0.75))
        reach = 1.5 * (q3 - q1)
        outside = sum(v < q1 - reach or v > q3 + reach for v in ordered)
        mad = statistics.median(abs(v - median) for v in ordered)
        return cls(len(ordered), ordered[0], q1, median, q3, mad, outside)


def noise(values: Sequence[float]) -> float:
    """Relative standard deviation."""
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else math.inf


@dataclass(frozen=True)
class StopRule:
    """When the samples of a contender are enough: quiet, or as noisy as they will stay."""

    least: int = 10  # samples
    seconds: float = 0.5  # of timed work
    quiet: float = 0.005  # relative standard deviation
    window: int = 10  # rounds over which the noise must have stopped changing
    change: float = 0.05
    limit: float = 15.0  # seconds of the whole group
    most: int = 10_000  # samples, all of which are stored

    def reason(self, samples: Sequence[float], spent: float) -> str | None:
        """Why sampling may stop, or None."""
        if len(samples) >= self.most:
            return f"{self.most} samples"
        if len(samples) < self.least or spent < self.seconds:
            return None
        if noise(samples) <= self.quiet:
            return f"relative sd <= {self.quiet:.1%}"
        if len(samples) >= self.least + self.window:
            recent = [noise(samples[:n]) for n in range(len(samples) - self.window + 1, len(samples) + 1)]
            if max(recent) - min(recent) <= self.change * statistics.fmean(recent):
                return "noise is stable"
        return None


@dataclass
class Budget:
    """Seconds for all groups together; each gets its part of what is left, so what one leaves goes to the rest."""

    seconds: float
    weight: float  # of all groups
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.end = self.now() + self.seconds

    def part(self, weight: float = 1) -> float:
        """Seconds for the next group."""
        part = max(0.0, self.end - self.now()) * weight / max(weight, self.weight)
        self.weight -= weight
        return part


# --- measuring ----------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """The samples of a group, by contender, in the order of the rounds."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    stopped: str = ""
    cut: bool = False  # fewer samples than the rule asks for

    def seconds(self, name: str) -> list[float]:
        return [sample.seconds for sample in self.samples[name]]

    @property
    def drift(self) -> float:
        """Range of the clock rate over its median; 0 where it is not known."""
        rates = [s.hertz for samples in self.samples.values() for s in samples if s.hertz]
        return (max(rates) - min(rates)) / statistics.median(rates) if rates else 0.0

    @property
    def throttled(self) -> list[str]:
        return sorted({why for samples in self.samples.values() for s in samples for why in s.throttled})


def first_line(error: BaseException) -> str:
    """The line of a long message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Mismatched")), lines[0] if lines else type(error).__name__)


def drop(group: Group, contender: Contender, reason: str) -> None:
    group.contenders.remove(contender)
    group.missing[contender.name] = reason


def warm_up(contender: Contender, clock: Clock, shortest: float, limit: float) -> None:
    """Run until two samples in a row agree, and set how often one repeats the run to last ``shortest`` seconds."""
    end, last = time.monotonic() + limit, math.inf
    contender.repeat = 1
    for turn in itertools.count(1):
        contender.before()
        seconds = clock.sample(contender.runs, contender.repeat).seconds
        wanted = max(1, math.ceil(shortest / max(seconds, 1e-9)))
        steady = abs(seconds - last) <= 0.05 * last and wanted <= 2 * contender.repeat
        contender.repeat, last = max(contender.repeat, wanted), seconds
        if (steady and turn >= 3) or time.monotonic() > end:
            return


def _verified(group: Group, contender: Contender, moment: str) -> bool:
    """Check a contender; one that is wrong, or whose output is another than before, is dropped."""
    before = contender.output
    try:
        contender.before()
        contender.output = contender.check()
        assert before is None or contender.output == before, "the output is not what it was"
    except AssertionError as error:
        drop(group, contender, f"WRONG RESULT{moment}: {first_line(error)}")
        return False
    return True


def measure(
    group: Group, clock: Clock, rule: StopRule, seconds: float, *, seed: int = 0, floor: int = 3, shortest: float = 2e-5
) -> Measured:
    """Interleaved rounds of all contenders of a group.

    ``seconds`` is what the group may cost: when they are over it stops, but not before ``floor`` rounds.
    """
    begin = time.monotonic()
    for contender in list(group.contenders):
        if not _verified(group, contender, ""):
            continue
        try:
            warm_up(contender, clock, shortest, seconds / 4 / max(1, len(group.contenders)))
        except Untimeable as error:
            drop(group, contender, str(error))
    measured = Measured({c.name: [] for c in group.contenders})
    shuffle, order = random.Random(seed), list(group.contenders)
    while order:
        shuffle.shuffle(order)
        for contender in list(order):
            contender.before()
            try:
                measured.samples[contender.name].append(clock.sample(contender.runs, contender.repeat))
            except Untimeable as error:
                drop(group, contender, str(error))
                order.remove(contender)
                del measured.samples[contender.name]
        spent = time.monotonic() - begin
        reasons = [rule.reason(times, sum(times) * c.repeat) for c in order for times in (measured.seconds(c.name),)]
        rounds = min((len(s) for s in measured.samples.values()), default=0)
        if all(reasons):
            measured.stopped = ", ".join(sorted({str(reason) for reason in reasons}))
            break
        if rounds >= floor and spent > min(seconds, rule.limit):
            measured.stopped = "time limit" if spent > rule.limit else "its part of the time was used up"
            measured.cut = rounds < rule.least
            break
    for contender in list(group.contenders):
        if not _verified(group, contender, " after it was timed"):
            del measured.samples[contender.name]
    return measured


# --- deciding -----------------------------------------------------------------------------------------------


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
    best = min(medians[name] for name in ceilings)
    return [
        f"{name} runs at {best / median:.1%} of the best copy of the same bytes ({min(ceilings, key=medians.get)})"
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
        rates = [round(s.hertz / 1e6) for s in samples if s.hertz]
        if rates:
            entry["MHz"] = [min(rates), max(rates)]
        if group.bytes_moved:
            median = statistics.median(s.seconds for s in samples) / contender.calls
            entry["GB/s"] = float(f"{group.bytes_moved / median / 1e9:.4g}")
        entry |= {k: float(f"{v * 1e9 / contender.calls:.6g}") if isinstance(v, float) else v
                  for k, v in asdict(Summary.of(s.seconds for s in samples)).items()}  # fmt: skip
        result["contenders"][contender.name] = entry
    return result
