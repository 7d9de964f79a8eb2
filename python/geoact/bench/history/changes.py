"""Where a series of results changed: segmentation with a penalty, then a test that noise does not pass.

1. **Segments.** The values are taken by their logarithms, so that a change is a factor. The series is cut into segments
   of constant level that minimise the squared residuals plus a penalty per cut, exactly and in linear time on average:
   PELT (Killick, Fearnhead and Eckley, "Optimal detection of changepoints with a linear computational cost", Journal
   of the American Statistical Association 107 (2012) 1590-1598), as ``ruptures.KernelCPD`` has it with the linear
   kernel (Truong, Oudre and Vayatis, Signal Processing 167 (2020) 107299). The penalty is 2 s^2 log n, that of the
   Bayesian information criterion for a level and a place, where s is the noise between neighbours: the median absolute
   difference of neighbours over 0.6745 sqrt 2, which steps do not inflate as they would a standard deviation.
2. **Test.** Such a penalty alone cuts short or heavy-tailed noise. Every cut is therefore held to Student's t of the
   levels of its two sides, with the residuals of both pooled. Its p is multiplied by the number of places that a cut
   can have, because the place was chosen, and by the number of series that are looked at (Bonferroni). It is the
   largest of the p of all runs and those without the run of either side that speaks most for the cut, so that no single
   run makes one; and it is 1 where a third of the runs of a side are nearer to the level of the other side, so that
   two slow runs beside an ordinary one are no change. The weakest cut is removed and the rest are tested anew, until
   all that are left pass.
3. **Size.** A change smaller than ``least`` is not told: the layout of a binary alone moves times by that much.

A segment has at least three runs, so a change is believed once three runs show it.
"""

from __future__ import annotations

import itertools
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

    Raises ValueError where a value is not positive.
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
    edges = [0, *(int(edge) for edge in found)]  # the last is n
    tests = (n - 2 * SHORTEST + 1) * max(1, series)
    while True:
        cuts = [_cut(given, logs, edges, k, noise, tests) for k in range(1, len(edges) - 1)]
        if not cuts:
            return []
        weakest = max(cuts, key=lambda cut: cut.p)
        if weakest.p <= alpha:
            weakest = min(cuts, key=lambda cut: abs(math.log(cut.ratio)))
            if abs(weakest.ratio - 1) >= least:
                return cuts
        edges.remove(weakest.index)


def _cut(given: Floats, logs: Floats, edges: Sequence[int], k: int, noise: float, tests: int) -> Change:
    """The cut at an inner edge, with its p."""
    before, after = (float(np.median(given[a:b])) for a, b in itertools.pairwise(edges[k - 1 : k + 2]))
    return Change(edges[k], before, after, min(1.0, _p(logs, edges, k, noise) * tests))


def _p(logs: Floats, edges: Sequence[int], k: int, noise: float) -> float:
    """The largest of Student's p with all runs and without the run of either side that speaks most for the cut."""
    left, right = (logs[a:b] for a, b in itertools.pairwise(edges[k - 1 : k + 2]))
    if not _shown_by(left, right):
        return 1.0
    residuals = sum(float(((side - side.mean()) ** 2).sum()) for side in (left, right))
    freedom = len(left) + len(right) - 2
    spread = max(math.sqrt(residuals / freedom), noise)
    up = right.mean() > left.mean()
    shorter_left = np.delete(left, np.argmin(left) if up else np.argmax(left))
    shorter_right = np.delete(right, np.argmax(right) if up else np.argmin(right))
    sides = ((left, right), (shorter_left, right), (left, shorter_right))
    return max(_student(*pair, spread, freedom) for pair in sides)


def _shown_by(left: Floats, right: Floats) -> bool:
    """Whether more than two thirds of the runs of either side are nearer to the level of their own."""
    middle = (np.median(left) + np.median(right)) / 2
    up = np.median(right) > np.median(left)
    astray = (np.mean((left > middle) == up), np.mean((right < middle) == up))
    return bool(max(astray) < 1 / 3)


def _student(left: Floats, right: Floats, spread: float, freedom: int) -> float:
    distance = abs(float(right.mean() - left.mean())) / (spread * math.sqrt(1 / len(left) + 1 / len(right)))
    return float(2 * student.sf(distance, freedom))
