"""Order statistics and noise."""

import math

import numpy as np
import pytest
from geoact.bench.summary import Summary, interval, noise, quantile


def test_a_summary_is_numpys():
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0, 100.0]
    summary = Summary.of(values)
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    assert (summary.q1, summary.median, summary.q3) == pytest.approx((q1, median, q3))
    assert (summary.n, summary.minimum, summary.outliers) == (8, 1.0, 1)
    assert summary.mad == pytest.approx(np.median(np.abs(np.array(values) - median)))
    assert Summary.of([2.0]).median == 2.0


def test_the_interval_of_a_median_holds_it_with_95_percent():
    random = np.random.default_rng(0)
    for n in (6, 10, 25, 60):
        held = 0
        for _ in range(2000):
            low, high = interval(sorted(random.standard_normal(n)))
            held += low <= 0 <= high
        assert 0.94 <= held / 2000 <= 1.0
        assert interval(sorted(range(n)))[1] - interval(sorted(range(n)))[0] <= n - 1


def test_noise_of_one_sample_is_not_known():
    assert noise([1.0]) == math.inf
    assert noise([1.0, 1.0, 1.0]) == 0


def test_noise_is_numpys_standard_deviation_over_the_mean():
    values = np.random.default_rng(2).lognormal(0, 0.3, 50)
    assert noise(values.tolist()) == pytest.approx(np.std(values, ddof=1) / np.mean(values), rel=1e-12)


def test_quantiles_are_numpys():
    values = sorted(np.random.default_rng(1).standard_normal(17))
    for q in (0, 0.05, 0.5, 0.99, 1):
        assert quantile(values, q) == pytest.approx(np.quantile(values, q))


def test_nothing_cannot_be_summarised():
    with pytest.raises(ValueError, match="there are no samples to summarise"):
        Summary.of([])
