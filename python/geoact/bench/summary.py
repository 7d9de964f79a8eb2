"""What is said of samples: order statistics and noise. Standard library only; no sample is ever deleted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
        below += math.exp(math.lgamma(n + 1) - math.lgamma(rank + 1) - math.lgamma(n - rank + 1) - n * math.log(2))
        if below > 0.025:
            break
        rank += 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[n - rank]


@dataclass(frozen=True)
class Summary:
    """What is reported of samples."""

    n: int
    minimum: float
    q1: float
    median: float
    q3: float
    mad: float
    outliers: int  # beyond 1.5 interquartile ranges of the quartiles

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """Summarise values, of which there is at least one."""
        ordered = sorted(values)
        if not ordered:
            raise ValueError("there are no samples to summarise")
        q1, median, q3 = (quantile(ordered, q) for q in (0.25, 0.5, 0.75))
        reach = 1.5 * (q3 - q1)
        outside = sum(v < q1 - reach or v > q3 + reach for v in ordered)
        mad = statistics.median(abs(v - median) for v in ordered)
        return cls(len(ordered), ordered[0], q1, median, q3, mad, outside)


def noise(values: Sequence[float]) -> float:
    """Relative standard deviation. In floats: the exact ``statistics.stdev`` would cost more than what is timed."""
    if len(values) < 2:
        return math.inf
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) / mean
