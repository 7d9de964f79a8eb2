"""geoact's kernels for the deterministic tier: every activation, with and without statistics, both ways.

    python -m geoact.bench.instructions benchmarks/instructions_suite.py --baseline benchmarks/results/instructions.json

Counted are the instructions of one call on 32768 elements, by one thread, on aligned arrays in cache: what a count can
depend on is fixed here. Times are not asked for, so there is one size: counts per element barely change with it.
"""

from __future__ import annotations

from functools import lru_cache

import geoact
import ml_dtypes
import numpy as np
from geoact.bench import Call, Suite

ROWS, COLUMNS = 128, 256
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
WEIGHT = 0.25  # of the parameter that has no default
CLOSER = ("relu", "sigmoid", "gelu")  # one that is bound by memory, one that computes, one that does both

suite = Suite(
    "geoact-instructions",
    package="geoact",
    ignore=("bench/*",),  # the copies that times are held against
    setup=lambda: geoact.set_num_threads(1),
)


def empty(dtype: str) -> np.ndarray:
    """Memory that begins at a multiple of 64."""
    kind = DTYPES[dtype]
    raw = np.ones(ROWS * COLUMNS * kind.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + ROWS * COLUMNS * kind.itemsize].view(kind).reshape(ROWS, COLUMNS)


@lru_cache
def drawn(dtype: str, seed: int) -> np.ndarray:
    """Normal data (mean 0.2, sd 1.5), the same every time. Shared: not to be written."""
    values = empty(dtype)
    values[...] = np.random.default_rng(seed).normal(0.2, 1.5, (ROWS, COLUMNS))
    values.flags.writeable = False
    return values


def parameters(row: geoact.Activation) -> tuple[float, ...]:
    return tuple(WEIGHT if p.default is None else p.default for p in row.parameters)


def close(result: np.ndarray, expected: np.ndarray, dtype: str, what: str) -> None:
    eps = float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=64 * eps, atol=16 * eps, err_msg=what)


def forward(activation: str, statistics: str, dtype: str, n: int) -> Call:
    row = geoact.get(activation)
    x, y, values = drawn(dtype, 1), empty(dtype), parameters(row)
    stats = None if statistics == "none" else geoact.GeometryStats(per=statistics)

    def run() -> object:
        return row(x, *values, out=y, stats=stats)

    def check() -> None:
        if stats is not None:
            stats.reset()
        run()
        close(y[:8], row.value(x[:8].astype(np.float64), *values), dtype, activation)
        assert stats is None or np.sum(stats.n) == n, "elements were left out of the statistics"

    return Call(run, x.nbytes, y.nbytes, check=check)


def backward(activation: str, statistics: str, dtype: str, n: int) -> Call:
    row = geoact.get(activation)
    x, dy, dx, values = drawn(dtype, 1), drawn(dtype, 2), empty(dtype), parameters(row)
    stats = None if statistics == "none" else geoact.GradientStats(per=statistics)
    saved = {"x": x} if row.saves == "x" else {"y": row(x, *values, out=empty(dtype))}

    def run() -> object:
        return row.backward(dy, *values, out=dx, stats=stats, **saved)

    def check() -> None:
        run()
        wide, gradient = x[:8].astype(np.float64), dy[:8].astype(np.float64)
        close(dx[:8], gradient * row.slope(wide, *values), dtype, activation)

    return Call(run, 2 * x.nbytes, dx.nbytes, check=check)


def declare() -> None:
    chosen = [(name, per, "float32") for name in geoact.activations() for per in ("none", "tensor")]
    chosen += [(name, per, dtype) for name in CLOSER for dtype in ("bfloat16", "float64") for per in ("none", "tensor")]
    chosen += [(name, per, "float32") for name in CLOSER for per in ("channel", "row")]
    for make in (forward, backward):
        for name, per, dtype in chosen:
            suite.add(make, {"activation": name, "statistics": per, "dtype": dtype, "n": ROWS * COLUMNS})


declare()
