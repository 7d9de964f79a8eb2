"""The declared benchmark cases: what runs, on how many bytes, from which level of the memory hierarchy.

Shared by the pytest-benchmark suite and by ``bars.py``. A case is prepared once: seeded inputs (never zeros, whose
branches and denormals would flatter or hurt), an output that is already mapped, a callable that makes one call, and a
check of that call against the float64 reference of the registry row, to be run before and after timing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import geoact
import ml_dtypes
import numpy as np

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
MIB = 1 << 20
IN_L2 = (1 << 16,)  # float32: 256 KiB in, 256 KiB out; one part, so one thread whatever the setting
OUT_OF_CACHE = (32 * MIB,)  # float32: 128 MiB in, 128 MiB out
WEIGHT = 0.25  # for the parameter that has no default


@lru_cache
def array(shape: tuple[int, ...], dtype: str, offset: int = 0, seed: int = 1) -> np.ndarray:
    """Normal data (mean 0.2, sd 1.5) that begin ``offset`` bytes after a multiple of 64. Shared: not to be written."""
    values = empty(shape, dtype, offset)
    drawn = np.random.default_rng(seed).standard_normal(prod(shape), dtype=np.float32)
    values[...] = (drawn * np.float32(1.5) + np.float32(0.2)).reshape(shape)
    values.flags.writeable = False
    return values


def empty(shape: tuple[int, ...], dtype: str, offset: int = 0) -> np.ndarray:
    """Memory of its own, already mapped (written once), ``offset`` bytes after a multiple of 64."""
    kind = DTYPES[dtype]
    raw = np.ones(prod(shape) * kind.itemsize + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + prod(shape) * kind.itemsize].view(kind).reshape(shape)


@dataclass
class Prepared:
    """One call, ready to be timed, and its check."""

    run: Callable[[], object]
    check: Callable[[], int]  # raises AssertionError; returns a checksum of the output


@dataclass(frozen=True)
class Case:
    """One row of the table: function, data, what is asked for."""

    function: str
    shape: tuple[int, ...] = IN_L2
    dtype: str = "float32"
    direction: str = "forward"
    per: str | None = None  # None: no statistics
    offset: int = 0

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.shape))
        words = [self.function, self.direction, self.dtype, size, f"stats-per-{self.per}" if self.per else "plain"]
        return "-".join([*words, f"offset{self.offset}"] if self.offset else words)

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes_moved(self) -> int:
        """Read and written, each once."""
        return self.elements * DTYPES[self.dtype].itemsize * (2 if self.direction == "forward" else 3)

    @property
    def cache(self) -> str:
        """Where the data are when the call begins, if nothing else ran in between."""
        if self.bytes_moved <= MIB * 3 // 4:
            return "L2"
        return "memory" if self.bytes_moved > geoact.info()["last_level_cache_bytes"] else "last-level cache"

    def prepare(self) -> Prepared:
        return _forward(self) if self.direction == "forward" else _backward(self)


def values_of(row: geoact.Activation) -> tuple[float, ...]:
    """A number for every parameter."""
    return tuple(WEIGHT if p.default is None else p.default for p in row.parameters)


def _agree(actual: np.ndarray, expected: np.ndarray, relative: float, absolute: float, what: str) -> None:
    np.testing.assert_allclose(
        actual.astype(np.float64), expected, rtol=relative, atol=absolute, equal_nan=False, err_msg=what
    )


def _some(case: Case) -> np.ndarray:
    return np.random.default_rng(0).integers(0, case.elements, min(case.elements, 4096))


def _checksum(out: np.ndarray) -> int:
    return zlib.crc32(out.reshape(-1).view(np.uint8))


def _forward(case: Case) -> Prepared:
    row = geoact.get(case.function)
    values = values_of(row)
    x, y = array(case.shape, case.dtype, case.offset), empty(case.shape, case.dtype, case.offset)
    stats = geoact.GeometryStats(per=case.per) if case.per else None

    def run() -> object:
        return row(x, *values, out=y, stats=stats)

    def check() -> int:
        if stats is not None:
            stats.reset()
        run()
        some, limits = _some(case), ml_dtypes.finfo(DTYPES[case.dtype])
        wide = x.reshape(-1)[some].astype(np.float64)
        expected = row.value(wide, *values)
        units = 64 if case.dtype == "float64" else 4  # the reference is float64 itself
        tolerance = units * float(limits.eps)
        _agree(y.reshape(-1)[some], expected, tolerance, float(limits.smallest_subnormal), case.name)
        if stats is not None:
            axis = {"tensor": None, "channel": tuple(range(x.ndim - 1)), "row": -1}[case.per]
            n = np.atleast_1d(stats.n)
            assert n.sum() == case.elements, case.name
            _agree(np.atleast_1d(stats.mean_y), y.mean(axis=axis, dtype=np.float64).reshape(-1), 1e-6, 1e-9, case.name)
            _agree(np.atleast_1d(stats.var_y), y.var(axis=axis, dtype=np.float64).reshape(-1), 1e-6, 1e-12, case.name)
        return _checksum(y)

    return Prepared(run, check)


def _backward(case: Case) -> Prepared:
    row = geoact.get(case.function)
    values = values_of(row)
    x, dy = array(case.shape, case.dtype, case.offset), array(case.shape, case.dtype, case.offset, seed=2)
    dx = empty(case.shape, case.dtype, case.offset)
    stats = geoact.GradientStats(per=case.per) if case.per else None
    saved = {"x": x} if row.saves == "x" else {"y": row(x, *values)}

    def run() -> object:
        return row.backward(dy, *values, out=dx, stats=stats, **saved)

    def check() -> int:
        if stats is not None:
            stats.reset()
        run()
        some = _some(case)
        wide, gradient = (a.reshape(-1)[some].astype(np.float64) for a in (x, dy))
        eps = float(ml_dtypes.finfo(DTYPES[case.dtype]).eps)
        # a slope that is read from a rounded y has that rounding as its absolute error
        _agree(dx.reshape(-1)[some], gradient * row.slope(wide, *values), 64 * eps, 16 * eps, case.name)
        if stats is not None:
            axis = None if case.per == "tensor" else tuple(range(x.ndim - 1)) if case.per == "channel" else -1
            squares = np.square(dx, dtype=np.float64).sum(axis=axis)
            _agree(np.square(np.atleast_1d(stats.norm_dx)), np.atleast_1d(squares), 2e-6, 1e-12, case.name)
        return _checksum(dx)

    return Prepared(run, check)


def suite() -> list[Case]:
    """Every row of the registry, with and without statistics, forward and backward; further dtypes and sizes."""
    rows = list(geoact.activations())
    passes = [(direction, per) for direction in ("forward", "backward") for per in (None, "tensor")]
    result = [Case(name, direction=direction, per=per) for name in rows for direction, per in passes]
    result += [Case(name, dtype=dtype, per="tensor") for name in rows for dtype in DTYPES if dtype != "float32"]
    for name in ("relu", "sigmoid", "gelu"):
        result += [Case(name, OUT_OF_CACHE, direction=direction, per=per) for direction, per in passes]
        result += [Case(name, (4096, 1024), per=per) for per in ("tensor", "channel", "row")]
    return result
