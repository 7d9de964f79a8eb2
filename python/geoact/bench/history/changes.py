"""Where a series of results changed: segmentation with a penalty, then a test that noise does not pass.

1. **Segments.** The values are taken by their logarithms, so that a change is a factor. The series is cut into segments
   of constant level that minimise the squared residuals plus a penalty per cut, exactly and in linear time on average:
   PELT (Killick, Fearnhead and Eckley, "Optimal detection of changepoints with a linear computational cost", Journal
   of the American Statistical Association 107 (2012) 1590-1598), as ``ruptures.KernelCPD`` has it with the linear kernel
   (Truong, Oudre and Vayatis, Signal Processing 167 (2020) 107299). The penalty is 2 s^2 log n, that of the Bayesian
   information criterion for a level and a place, where s is the noise between neighbours: the median absolute
   difference of neighbours over 0.6745 sqrt 2, which steps do not inflate as they would a standard deviation.
2. **Test.** Such a penalty alone cuts short or heavy-tailed noise. Every cut is therefore held to Student's t of the
   levels of its two sides, with the residuals of all segments pooled, and its p is multiplied by the number of places
   where a pair of cuts could have been put (the place was chosen, so one test is not enough) and by the number of
   series that are looked at. The weakest cut is removed and the rest tested anew until all that are left pass; a cut
   must also keep its p when the most extreme value of either side is left out, so that no single run makes one.
3. **Size.** A change smaller than ``least`` is not told: the layout of a binary alone moves times by that much.

A segment has at least three runs, so a change is believed once three runs show it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ruptures import KernelCPD
from scipy.stats import t as student

SHORTEST = 3  # runs of a segment
ALPHA = 0.05  # chance of a false alarm in all series together
LEAST = 0.01  # of the level: smaller changes are not told
RESOLUTION = 1e-3  # of the level: times reproduce no better, however alike a few of them are

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Change:
    """A change of level ahead of the run with this index; ``before`` and ``after`` are the medians of the sides."""

    index: int
    before: float
    after: float
    p: float

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before


def changes(values: Sequence[float], *, series: int = 1, alpha: float = ALPHA, least: float = LEAST) -> list[Change]:
    """Find the changes of level of positive values.

    Parameters
    ----------
    values : sequence of float
    series : int
        How many series are looked at together: the more, the stronger the evidence that is asked for.
    alpha : float
        Chance that noise makes a change in any of them.
    least : float
        Smallest change that is told, as a share of the level.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or not np.all(np.isfinite(given)) or np.any(given <= 0):
        raise ValueError("values must be a sequence of positive numbers")
    n = len(given)
    if n < 2 * SHORTEST:
        return []
    logs = np.log(given)
    logs -= np.median(logs)
    noise = max(float(np.median(np.abs(np.diff(logs)))) / (0.6745 * math.sqrt(2)), RESOLUTION)
    found = KernelCPD(kernel="linear", min_size=SHORTEST).fit((logs / noise)[:, None]).predict(pen=2 * math.log(n))
    cuts = [0, *found]  # the last is n
    tests = _places(n) * max(1, series)
    while len(cuts) > 2:
        evidence = [_p(logs, cuts, k, noise) * tests for k in range(1, len(cuts) - 1)]
        weakest = max(range(len(evidence)), key=evidence.__getitem__)
        if evidence[weakest] <= alpha and _smallest(given, cuts) >= least:
            break
        if evidence[weakest] <= alpha:
            weakest = min(range(len(evidence)), key=lambda k: abs(_step(given, cuts, k + 1)))
        del cuts[weakest + 1]
    return [
        Change(cuts[k], *_levels(given, cuts, k), min(1.0, _p(logs, cuts, k, noise) * tests))
        for k in range(1, len(cuts) - 1)
    ]


def _places(n: int) -> int:
    """Pairs of neighbouring segments that could have been chosen from n runs, up to a shift of both."""
    free = n - 2 * SHORTEST + 1
    return free * (free + 1) // 2


def _levels(given: Floats, cuts: Sequence[int], k: int) -> tuple[float, float]:
    """Medians of the sides of a cut."""
    return tuple(float(np.median(given[a:b])) for a, b in ((cuts[k - 1], cuts[k]), (cuts[k], cuts[k + 1])))  # type: ignore[return-value]


def _step(given: Floats, cuts: Sequence[int], k: int) -> float:
    before, after = _levels(given, cuts, k)
    return after / before - 1


def _smallest(given: Floats, cuts: Sequence[int]) -> float:
    return min(abs(_step(given, cuts, k)) for k in range(1, len(cuts) - 1))


def _p(logs: Floats, cuts: Sequence[int], k: int, noise: float) -> float:
    """Of a cut: the larger one of Student's p with all runs and without the run that speaks most for the cut."""
    left, right = logs[cuts[k - 1] : cuts[k]], logs[cuts[k] : cuts[k + 1]]
    pieces = [logs[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    residuals = sum(float(((piece - piece.mean()) ** 2).sum()) for piece in pieces)
    freedom = len(logs) - len(pieces)
    spread = max(math.sqrt(residuals / freedom), noise)
    up = right.mean() > left.mean()
    kept = (np.delete(left, np.argmin(left) if up else np.argmax(left)), right)
    other = (left, np.delete(right, np.argmax(right) if up else np.argmin(right)))
    return max(_student(a, b, spread, freedom) for a, b in ((left, right), kept, other))


def _student(left: Floats, right: Floats, spread: float, freedom: int) -> float:
    distance = abs(float(right.mean() - left.mean())) / (spread * math.sqrt(1 / len(left) + 1 / len(right)))
    return float(2 * student.sf(distance, freedom))
