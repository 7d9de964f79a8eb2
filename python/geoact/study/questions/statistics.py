"""Intervals of means and rank correlations where runs come in clusters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from geoact.study.measurement import correlation
from geoact.study.spread import CONFIDENCE, RESAMPLES, spread

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval, and the number of independent parts it comes from."""

    value: float
    low: float
    high: float
    n: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0; False where there is none."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Sequence[float | None]) -> Interval:
    """Return the mean of the finite values and its BCa interval (Efron 1987)."""
    finite = [value for value in values if value is not None and np.isfinite(value)]
    if not finite:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    found = spread(finite)
    return Interval(found.mean, found.low, found.high, len(finite))


def median_interval(values: Sequence[float]) -> Interval:
    """Return the median and its percentile interval: timings have outliers, which BCa follows."""
    sample = np.asarray(values, dtype=np.float64)
    draw = np.random.default_rng(0)
    medians = np.median(sample[draw.integers(0, len(sample), (RESAMPLES, len(sample)))], axis=1)
    low, high = np.quantile(medians, _tails())
    return Interval(float(np.median(sample)), float(low), float(high), len(sample))


def rank_correlation(
    x: Sequence[float | None], y: Sequence[float | None], clusters: Sequence[Hashable], strata: Sequence[Hashable]
) -> Interval:
    """Spearman's correlation of x and y within strata, with an interval from resampling whole clusters.

    Ranks are taken inside each stratum and scaled to 0..1, so that only differences within strata count; equal strata
    everywhere make it the ordinary correlation. Runs that share a cluster (the seeds of one activation in one setting)
    are alike: drawing them one by one would make the interval too narrow.
    """
    keep = [i for i, pair in enumerate(zip(x, y, strict=True)) if all(v is not None and np.isfinite(v) for v in pair)]
    first, second = (np.array([values[i] for i in keep], dtype=np.float64) for values in (x, y))
    groups = [strata[i] for i in keep]
    for stratum in dict.fromkeys(groups):
        part = np.array([group == stratum for group in groups])
        first[part], second[part] = _centred_ranks(first[part]), _centred_ranks(second[part])
    names = [clusters[i] for i in keep]
    members = [np.flatnonzero([name == one for name in names]) for one in dict.fromkeys(names)]
    if len(members) < 3:
        return Interval(float("nan"), float("nan"), float("nan"), len(members))
    # A correlation needs five sums; those of a resample are sums over its clusters.
    sums = np.array([_sums(first[part], second[part]) for part in members])
    draw = np.random.default_rng(0)
    counts = draw.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
    low, high = np.nanquantile(_from_sums(counts @ sums), _tails())
    return Interval(correlation(first, second), float(low), float(high), len(members))


def _tails() -> list[float]:
    return [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def _centred_ranks(values: Array) -> Array:
    return np.asarray((rankdata(values) - (len(values) + 1) / 2) / len(values))


def _sums(x: Array, y: Array) -> list[float]:
    return [len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y]


def _from_sums(sums: Array) -> Array:
    n, x, y, xx, yy, xy = sums.T
    scale = np.sqrt(np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0))
    quotient: Array = np.divide(xy - x * y / n, scale, out=np.full_like(scale, np.nan), where=scale > 0)
    return quotient
