"""Contenders take turns until their times are known.

The engine knows neither what it times nor how time is read: a ``Clock`` does that, so everything here is tested with a
simulated device. A round lets every contender run once, in shuffled order; every ratio that is made later is that of
one round, so that whatever slows the device slows both sides. Rounds end when the noise is small or has stopped
changing, or when the time is up, and the reason is kept. Standard library only.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from geoact.bench.clocks import Clock, Sample, Untimeable
from geoact.bench.contenders import Contender, Group
from geoact.bench.summary import noise


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
        """Of every run of a contender."""
        return [sample.seconds for sample in self.samples[name]]

    @property
    def drift(self) -> float:
        """Range of the clock rate over its median; 0 where it is not known."""
        rates = [s.hertz for samples in self.samples.values() for s in samples if s.hertz]
        return (max(rates) - min(rates)) / statistics.median(rates) if rates else 0.0

    @property
    def throttled(self) -> list[str]:
        """Why the device was slowed down, at any moment."""
        return sorted({why for samples in self.samples.values() for s in samples for why in s.throttled})


def first_line(error: BaseException) -> str:
    """The line of a long message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Mismatched")), lines[0] if lines else type(error).__name__)


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
    try:
        contender.verify()
    except AssertionError as error:
        group.drop(contender, f"WRONG RESULT{moment}: {first_line(error)}")
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
            group.drop(contender, str(error))
    measured = Measured({c.name: [] for c in group.contenders})
    shuffle, order = random.Random(seed), list(group.contenders)
    while order:
        shuffle.shuffle(order)
        for contender in list(order):
            contender.before()
            try:
                measured.samples[contender.name].append(clock.sample(contender.runs, contender.repeat))
            except Untimeable as error:
                group.drop(contender, str(error))
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
