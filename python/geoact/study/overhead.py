"""Section e: what measuring costs on this machine.

Five ways to do the same work take turns, round after round, so that whatever else the machine does hits all
of them: the activation alone; with statistics per tensor; with statistics per channel; NumPy's activation
alone; and NumPy computing y and the same numbers. Every way runs on one thread, because NumPy's element-wise
loops do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geoact
from geoact.study.config import StudyConfig

Array = NDArray[Any]

COLUMNS = 256
WAYS = ("plain", "per_tensor", "per_channel", "numpy_plain", "numpy_measured")
RATIOS = (
    ("per tensor / alone", "per_tensor", "plain"),
    ("per channel / alone", "per_channel", "plain"),
    ("NumPy, same numbers / NumPy alone", "numpy_measured", "numpy_plain"),
    ("NumPy, same numbers / geoact per tensor", "numpy_measured", "per_tensor"),
)


@dataclass(frozen=True)
class Ratio:
    """``ratio`` of the median times; ``lower`` and ``upper``: quartiles of the ratios within each round."""

    name: str
    ratio: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Case:
    """One activation at one size; ``seconds`` per call are medians.

    ``largest_disagreement`` is the largest relative difference between NumPy's numbers and the fused ones.
    """

    activation: str
    rows: int
    columns: int
    bytes_touched: int
    calls_per_round: int
    seconds: dict[str, float]
    ratios: list[Ratio]
    largest_disagreement: float


@dataclass(frozen=True)
class Overhead:
    """All cases, and how they were timed."""

    rounds: int
    dtype: str
    cases: list[Case]


def run(config: StudyConfig, advance: Callable[[], None]) -> Overhead:
    """Time every activation at every size."""
    cases = []
    with one_thread():
        for rows in config.overhead_rows:
            x = np.random.default_rng(0).standard_normal((rows, COLUMNS), dtype=np.float32)
            for name in config.overhead_activations:
                cases.append(_time_case(config, name, x))
                advance()
    return Overhead(config.overhead_rounds, "float32", cases)


def steps(config: StudyConfig) -> int:
    """How many times ``run`` reports progress."""
    return len(config.overhead_rows) * len(config.overhead_activations)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let geoact use one thread inside, and what it used before afterwards."""
    before: Any = geoact.info()["threads"]
    geoact.set_num_threads(1)
    try:
        yield
    finally:
        geoact.set_num_threads(before)


def _time_case(config: StudyConfig, name: str, x: Array) -> Case:
    activation: Any = geoact.get(name)
    y, tensor, channel = np.empty_like(x), geoact.GeometryStats(), geoact.GeometryStats(per="channel")
    value, slope = NUMPY[name]
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: activation(x, out=y),
        "per_tensor": lambda: activation(x, out=y, stats=tensor),
        "per_channel": lambda: activation(x, out=y, stats=channel),
        "numpy_plain": lambda: value(x, y),
        "numpy_measured": lambda: numpy_statistics(x, value(x, y), slope),
    }
    calls = _calls_per_round(ways["plain"], config.overhead_min_seconds)
    rounds = _interleave(ways, config.overhead_rounds, calls)
    seconds = {way: float(np.median(times)) for way, times in rounds.items()}
    return Case(
        activation=name,
        rows=x.shape[0],
        columns=x.shape[1],
        bytes_touched=x.nbytes + y.nbytes,
        calls_per_round=calls,
        seconds=seconds,
        ratios=[_ratio(label, rounds[top], rounds[bottom]) for label, top, bottom in RATIOS],
        largest_disagreement=_disagreement(name, x),
    )


def _calls_per_round(way: Callable[[], object], least: float) -> int:
    """Count the calls that make one reading last ``least`` seconds; the first call does not count."""
    way()
    start = perf_counter()
    way()
    return max(1, int(np.ceil(least / max(perf_counter() - start, 1e-7))))


def _interleave(ways: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, NDArray[np.float64]]:
    """Seconds per call, one reading per way and round, after one round that is thrown away."""
    readings: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        # Every second round runs backwards, so that no way always follows the same neighbour.
        for way in list(ways) if turn % 2 else list(ways)[::-1]:
            call = ways[way]
            start = perf_counter()
            for _ in range(calls):
                call()
            readings[way].append((perf_counter() - start) / calls)
    return {way: np.array(times[1:]) for way, times in readings.items()}


def _ratio(name: str, top: NDArray[np.float64], bottom: NDArray[np.float64]) -> Ratio:
    lower, upper = np.quantile(top / bottom, [0.25, 0.75])
    return Ratio(name, float(np.median(top) / np.median(bottom)), float(lower), float(upper))


def _disagreement(name: str, x: Array) -> float:
    """Largest relative difference between NumPy's numbers and the fused ones."""
    stats: Any = geoact.GeometryStats()
    y = geoact.get(name)(x, stats=stats)
    expected = numpy_statistics(x, np.asarray(y), NUMPY[name][1])
    shared = ("mean_y", "var_y", "gain", "linear_share", "mean_sq_slope")
    return max(abs(float(getattr(stats, key)) - expected[key]) / abs(expected[key]) for key in shared)


def numpy_statistics(x: Array, y: Array, slope: Callable[[Array, Array], Array]) -> dict[str, float]:
    """Compute the numbers of level "moments" as a careful NumPy user does: float64 sums, two passes."""
    gradient = slope(x, y)
    mean_x, mean_y = float(x.mean(dtype=np.float64)), float(y.mean(dtype=np.float64))
    dx, dy = x - np.float32(mean_x), y - np.float32(mean_y)
    n = x.size
    var_x, var_y = (float(np.square(part).mean(dtype=np.float64)) for part in (dx, dy))
    covariance = float((dx * dy).mean(dtype=np.float64))
    square_x, square_y = var_x + mean_x**2, var_y + mean_y**2
    positive = np.maximum(x, 0)
    return {
        "n": n,
        "mean_x": mean_x,
        "mean_y": mean_y,
        "var_x": var_x,
        "var_y": var_y,
        "gain": var_y / var_x,
        "linear_share": covariance**2 / (var_x * var_y),
        "cosine": (covariance + mean_x * mean_y) / (square_x * square_y) ** 0.5,
        "norm_ratio": (square_y / square_x) ** 0.5,
        "l1_x": float(np.abs(x).sum(dtype=np.float64)),
        "l1_y": float(np.abs(y).sum(dtype=np.float64)),
        "mean_positive": float(positive.mean(dtype=np.float64)),
        "mean_sq_positive": float(np.square(positive).mean(dtype=np.float64)),
        "mean_slope": float(gradient.mean(dtype=np.float64)),
        "mean_sq_slope": float(np.square(gradient).mean(dtype=np.float64)),
        "positive_fraction": np.count_nonzero(x > 0) / n,
        "zero_fraction": 1 - np.count_nonzero(y) / n,
        "saturation_fraction": np.count_nonzero(np.abs(gradient) < 0.05) / n,
        "nonfinite": n - np.count_nonzero(np.isfinite(x)),
        "x_min": float(x.min()),
        "x_max": float(x.max()),
        "y_min": float(y.min()),
        "y_max": float(y.max()),
    }


def _sigmoid(x: Array, out: Array) -> Array:
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    return np.reciprocal(out, out=out)


def _relu(x: Array, out: Array) -> Array:
    return np.maximum(x, 0, out=out)


def _silu(x: Array, out: Array) -> Array:
    return np.multiply(x, _sigmoid(x, out), out=out)


def _silu_slope(x: Array, y: Array) -> Array:
    gate = _sigmoid(x, np.empty_like(x))
    return np.asarray(gate + y * (1 - gate))


NUMPY: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    "sigmoid": (_sigmoid, lambda x, y: y * (1 - y)),
    "relu": (_relu, lambda x, y: (y > 0).astype(y.dtype)),
    "silu": (_silu, _silu_slope),
}
"""NumPy's value(x, out) and slope(x, y) of each activation timed here."""
