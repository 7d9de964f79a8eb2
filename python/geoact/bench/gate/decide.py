"""What paired measurements of two sides say: the rule by which the gate decides.

A case is measured in several *incarnations*, fresh processes of both sides, and prepared anew a few times in each
(*placements*), because where a process and its data happen to lie in memory moves a time by per cents and no number of
rounds averages that out. Within a placement rounds are interleaved, and a round gives one log-ratio
ln(time B / time A). The estimate is the median of all of them. Its interval comes from a bootstrap in two stages
(Davison & Hinkley 1997, section 3.8): placements are drawn first and rounds within them, so that an effect which is
there in one of them and not in the others does not pass for one of the code.

A case has REGRESSED if the lower bound of its 95 % interval lies above delta and Holm's correction (Holm 1979) over all
cases leaves it significant at 5 %. delta is 3 % or, if that is more, three times the width that A against A showed in
the same rounds. A copy is timed in every round as a control: where it moved, the case is inconclusive.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

PASSED, REGRESSED, INCONCLUSIVE, MISSING, REFUSED = 0, 10, 11, 12, 13
"""Exit codes: nothing slower; something is; controls moved; a case or the baseline is missing; another machine."""

VERDICTS = {
    "regressed": "slower by more than delta",
    "faster": "faster by more than delta",
    "same": "the interval lies within delta on both sides",
    "open": "the interval contains delta: neither shown nor excluded",
    "inconclusive": "the copy beside it moved: the two sides were not treated alike",
    "noise": "the machine code is the same, so that whatever was measured is noise",
    "vanished": "measured before, not any more",
    "new": "not measured before",
    "skipped": "measured on neither side",
}
"""Every verdict and what it means."""

Groups = Sequence[Sequence[float]]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """When a change counts.

    Parameters
    ----------
    least : float
        Smallest relative change that is ever reported.
    widths : float
        ... or so many times the A/A width of the case, if that is more.
    unknown : float
        ... and this instead where nothing tells how far A lies from A (stored results of one session).
    alpha : float
        Probability of one false alarm in the whole suite.
    resamples : int
        Of the bootstrap, at least; more are drawn where a suite has many cases.
    """

    least: float = 0.03
    widths: float = 3.0
    unknown: float = 0.10
    alpha: float = 0.05
    resamples: int = 4000

    def __post_init__(self) -> None:
        for name in ("least", "widths", "unknown"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; it must lie between 0 and 1")
        if self.resamples < 100:
            raise ValueError(f"resamples is {self.resamples}; it must be at least 100")


@dataclass(frozen=True)
class Measurement:
    """What was measured of one case. All values are logarithms; one inner list per placement or session.

    Parameters
    ----------
    name : str
    ratios : ln(time B / time A) of one round, A being the mean of its two processes; empty where nothing is paired.
    twin : ln(time A' / time A), of a second process of the same side; empty where there was none.
    control : ln(copy B / copy A).
    control_twin : ln(copy A' / copy A).
    before, after : ln of a normalised time where sides were measured apart, one inner list per session.
    same_code : bool
    missing : str
        Why there is no measurement: "vanished", "new" or "skipped", then ``reason``.
    """

    name: str
    ratios: Groups = ()
    twin: Groups = ()
    control: Groups = ()
    control_twin: Groups = ()
    before: Groups = ()
    after: Groups = ()
    same_code: bool = False
    missing: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class Judged:
    """The verdict on one case; ``change`` and the bounds are relative changes of time, +0.05 being 5 % slower."""

    name: str
    verdict: str
    change: float | None = None
    low: float | None = None
    high: float | None = None
    delta: float | None = None
    width: float | None = None
    p: float | None = None
    control: float | None = None
    detectable: float | None = None
    rounds: int = 0
    incarnations: int = 0
    reason: str = ""
    notes: list[str] = field(default_factory=list)


def _arrays(groups: Groups) -> list[Values]:
    arrays = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    for array in arrays:
        if not np.isfinite(array).all():
            raise ValueError("a logarithm of a time is not finite")
    return arrays


def medians(groups: Groups, resamples: int, seed: int) -> Values:
    """Medians of ``resamples`` draws: as many groups as there are, with replacement, and values within each."""
    arrays = _arrays(groups)
    count, longest = len(arrays), max(len(a) for a in arrays)
    padded = np.zeros((count, longest))
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    lengths = np.array([len(a) for a in arrays])
    random = np.random.default_rng(seed)
    result = np.empty(resamples)
    step = max(1, (1 << 21) // (count * longest))
    for begin in range(0, resamples, step):
        n = min(step, resamples - begin)
        chosen = random.integers(count, size=(n, count))
        within = (random.random((n, count, longest)) * lengths[chosen][:, :, None]).astype(np.intp)
        drawn = padded[chosen[:, :, None], within].reshape(n, -1)
        result[begin : begin + n] = np.median(drawn, axis=1)
    return result


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm 1979): reject where they are at most alpha."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda n: p[n])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = largest
    return adjusted


@dataclass(frozen=True)
class _Estimate:
    """Of a median of logarithms."""

    median: float
    low: float
    high: float
    drawn: Values

    def above(self, delta: float) -> float:
        """p-value of "not above delta"; never 0, for so many draws cannot show that."""
        return (1 + int(np.count_nonzero(self.drawn <= delta))) / (1 + len(self.drawn))

    def below(self, delta: float) -> float:
        return (1 + int(np.count_nonzero(self.drawn >= -delta))) / (1 + len(self.drawn))


def _estimate(groups: Groups, resamples: int, seed: int, against: Groups = ()) -> _Estimate:
    drawn = medians(groups, resamples, seed)
    middle = float(np.median(np.concatenate(_arrays(groups))))
    if against:
        drawn = drawn - medians(against, resamples, seed + 1)
        middle -= float(np.median(np.concatenate(_arrays(against))))
    low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975]))
    return _Estimate(middle, low, high, drawn)


ALIKE = math.sqrt(3) / 2
"""Of ln A' - ln A to what ln B - (ln A + ln A') / 2 would scatter if B were a third A: variances of 2 and 3/2."""


def _reach(groups: Groups, resamples: int, seed: int) -> float:
    """How far another A may be said to lie from A: half the interval or, if that is more, the median."""
    found = _estimate(groups, resamples, seed)
    return ALIKE * max((found.high - found.low) / 2, abs(found.median))


def _width(measurement: Measurement, resamples: int, seed: int) -> float | None:
    """How far A lies from A: the reach of A'/A, or how far sessions lie from their median."""
    if any(len(group) for group in measurement.twin):
        return _reach(measurement.twin, resamples, seed)
    sessions = [float(np.median(a)) for a in _arrays(measurement.before)]
    if len(sessions) >= 3:
        return float(np.max(np.abs(np.array(sessions) - np.median(sessions))))
    return None


def _relative(logarithm: float) -> float:
    return math.expm1(logarithm)


def judge(measurements: Sequence[Measurement], rule: Rule = Rule()) -> list[Judged]:
    """Verdicts on all cases of a suite together, in their order.

    Raises ValueError if a measured case has no values, or one that is not finite.
    """
    measured = [m for m in measurements if not m.missing]
    resamples = max(rule.resamples, math.ceil(2 * max(1, len(measured)) / rule.alpha))
    found: dict[str, tuple[Judged, _Estimate]] = {}
    slower, faster, moved = {}, {}, {}
    for m in measured:
        if not any(len(g) for g in m.ratios) and not (any(map(len, m.before)) and any(map(len, m.after))):
            raise ValueError(f"{m.name} has no samples")
        seed = zlib.crc32(m.name.encode())
        if any(len(g) for g in m.ratios):
            estimate, groups = _estimate(m.ratios, resamples, seed), m.ratios
        else:
            estimate, groups = _estimate(m.after, resamples, seed, against=m.before), m.after
        width = _width(m, resamples, seed + 2)
        least = math.log1p(rule.least)
        delta = math.log1p(max(rule.least, rule.unknown)) if width is None else max(least, rule.widths * width)
        judged = Judged(
            m.name,
            "",
            change=_relative(estimate.median),
            low=_relative(estimate.low),
            high=_relative(estimate.high),
            delta=_relative(delta),
            width=None if width is None else _relative(width),
            detectable=_relative(delta + max(0.0, estimate.median - estimate.low)),
            rounds=sum(len(g) for g in groups),
            incarnations=sum(1 for g in groups if len(g)),
            notes=list(m.notes),
        )
        slower[m.name], faster[m.name] = estimate.above(delta), estimate.below(delta)
        if any(len(g) for g in m.control):
            control = _estimate(m.control, resamples, seed + 3)
            judged.control = _relative(control.median)
            known = any(len(g) for g in m.control_twin)
            limit = max(least, rule.widths * _reach(m.control_twin, resamples, seed + 4)) if known else least
            moved[m.name] = min(control.above(limit), control.below(limit))
        found[m.name] = judged, estimate
    slower, faster, moved = holm(slower), holm(faster), holm(moved)
    result = []
    for m in measurements:
        if m.missing:
            result.append(Judged(m.name, m.missing, reason=m.reason, notes=list(m.notes)))
            continue
        judged, _ = found[m.name]
        judged.p = min(slower[m.name], faster[m.name])
        judged.verdict = _verdict(judged, slower[m.name], faster[m.name], moved.get(m.name, 1.0), rule.alpha)
        if m.same_code and judged.verdict in ("regressed", "faster", "open"):
            judged.reason = f"would be {judged.verdict}, but the machine code is the same"
            judged.verdict = "noise"
        if judged.verdict == "inconclusive":
            judged.reason = f"the copy beside it moved by {judged.control:+.1%}"
        result.append(judged)
    return result


def _verdict(judged: Judged, slower: float, faster: float, moved: float, alpha: float) -> str:
    low, high, delta = judged.low, judged.high, judged.delta
    assert low is not None
    assert high is not None
    assert delta is not None
    if moved <= alpha:
        return "inconclusive"
    fastest = _relative(-math.log1p(delta))
    if low > delta and slower <= alpha:
        return "regressed"
    if high < fastest and faster <= alpha:
        return "faster"
    return "same" if high <= delta and low >= fastest else "open"


@dataclass
class Verdict:
    """The decision on a suite: ``code`` is the exit code, ``headline`` says it in a sentence."""

    cases: list[Judged]
    refused: list[str] = field(default_factory=list)
    strict: bool = False

    def named(self, verdict: str) -> list[Judged]:
        """The cases with this verdict."""
        return [case for case in self.cases if case.verdict == verdict]

    @property
    def code(self) -> int:
        """13 refused, 10 regressed, 12 vanished or nothing compared, 11 inconclusive (strict: or open), 0 otherwise."""
        if self.refused:
            return REFUSED
        if self.named("regressed"):
            return REGRESSED
        if self.named("vanished") or not any(case.change is not None for case in self.cases):
            return MISSING
        if self.named("inconclusive") or (self.strict and self.named("open")):
            return INCONCLUSIVE
        return PASSED

    @property
    def headline(self) -> str:
        """The decision in one sentence."""
        if self.refused:
            return f"refused: {'; '.join(self.refused)}"
        counts = [f"{len(found)} {verdict}" for verdict in VERDICTS if (found := self.named(verdict))]
        word = {PASSED: "passed", REGRESSED: "REGRESSED", INCONCLUSIVE: "INCONCLUSIVE", MISSING: "MISSING"}[self.code]
        return f"{word}: " + (", ".join(counts) or "there is nothing to compare")

    @property
    def detectable(self) -> tuple[float, float] | None:
        """Smallest slowdown that this run could have seen: in its best case and in its worst."""
        known = [case.detectable for case in self.cases if case.detectable is not None]
        return (min(known), max(known)) if known else None
