"""A number measured over seeds: mean, standard deviation and a bootstrap interval, never the mean alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """``values`` in seed order; ``low`` .. ``high`` is the 95 % bootstrap interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float
    values: list[float]


def spread(values: Sequence[float]) -> Spread:
    """Summarise one value per seed; sd divides by n - 1, the interval is BCa (Efron 1987)."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    sd = float(sample.std(ddof=1)) if len(sample) > 1 else 0.0
    low, high = _interval(sample)
    return Spread(mean, sd, low, high, [float(value) for value in sample])


def mean_and_sd(values: Sequence[float]) -> Spread:
    """Like ``spread`` without resampling (the interval is NaN), for tables with hundreds of rows.

    Values that are not finite stay in ``values`` and out of the mean: a layer of dead units has no effective
    bits.
    """
    sample = np.asarray(values, dtype=np.float64)
    finite = sample[np.isfinite(sample)]
    mean = float(finite.mean()) if len(finite) else float("nan")
    sd = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
    return Spread(mean, sd, float("nan"), float("nan"), [float(value) for value in sample])


def _interval(sample: NDArray[np.float64]) -> tuple[float, float]:
    # Resampling equal values is defined by hand: SciPy answers NaN and warns.
    if len(sample) < 2 or not np.isfinite(sample).all() or np.ptp(sample) == 0:
        return float(sample.mean()), float(sample.mean())
    # Jack-knifing n values of which n-1 are equal makes the acceleration 0/0; the percentile interval always
    # exists.
    method = "BCa" if len(np.unique(sample)) > 2 else "percentile"
    result = stats.bootstrap(
        (sample,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method=method, rng=0
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
