"""One pass of an activation over data: what it reads and writes, the call that is timed, and its check.

``suite.py`` declares which passes are measured. A pass is prepared once: seeded inputs (never zeros, whose branches and
denormals would flatter or hurt), an output that is already mapped, and a check against the float64 reference of the
registry row, which is made before and after timing and returns a checksum of the output.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import geoact
import ml_dtypes
import numpy as np
from geoact.bench import Call

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
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
OPERATIONS = {"relu": 1, "relu_squared": 2, "leaky_relu": 2, "prelu": 2, "hardsigmoid": 4, "hardswish": 5}
"""Operations per element, of the formula as written, a comparison counted as one. Of the other rows, and of statistics,
the number is a choice of the kernel, which differs among instruction sets: nothing is claimed for them."""


def array(shape: tuple[int, ...], dtype: str, offset: int = 0, seed: int = 1) -> np.ndarray:
    """Normal data (mean 0.2, sd 1.5) that begin ``offset`` bytes after a multiple of 64. Not to be written.

    Large ones are kept and shared; small ones lie elsewhere every time, because where they lie is a part of the noise.
    """
    return (_drawn if prod(shape) <= MIB else _kept)(shape, dtype, offset, seed)


def _drawn(shape: tuple[int, ...], dtype: str, offset: int, seed: int) -> np.ndarray:
    values = empty(shape, dtype, offset)
    drawn = np.random.default_rng(seed).standard_normal(prod(shape), dtype=np.float32)
    values[...] = (drawn * np.float32(1.5) + np.float32(0.2)).reshape(shape)
    values.flags.writeable = False
    return values


_kept = lru_cache(maxsize=4)(_drawn)


def empty(shape: tuple[int, ...], dtype: str, offset: int = 0) -> np.ndarray:
    """Memory of its own, already mapped (written once), ``offset`` bytes after a multiple of 64."""
    kind = DTYPES[dtype]
    raw = np.ones(prod(shape) * kind.itemsize + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + prod(shape) * kind.itemsize].view(kind).reshape(shape)


def values_of(row: geoact.Activation) -> tuple[float, ...]:
    """A number for every parameter."""
    return tuple(WEIGHT if p.default is None else p.default for p in row.parameters)


@dataclass(frozen=True)
class Pass:
    """Function, data, and what is asked for."""

    function: str
    shape: tuple[int, ...] = IN_L2
    dtype: str = "float32"
    direction: str = "forward"
    per: str | None = None  # None: no statistics
    offset: int = 0

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes_of_one(self) -> int:
        """Of one array."""
        return self.elements * DTYPES[self.dtype].itemsize

    def call(self) -> Call:
        """Prepare the call."""
        return _forward(self) if self.direction == "forward" else _backward(self)

    def averaged(self) -> tuple[int, ...] | int | None:
        """The axes that the statistics run over, as NumPy takes them."""
        return {"tensor": None, "channel": tuple(range(len(self.shape) - 1)), "row": -1}[self.per or "tensor"]


def _agree(
    actual: np.ndarray, expected: np.ndarray, relative: float, absolute: float | np.ndarray, what: object
) -> None:
    found = actual.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities are equal, not close
        error = np.where(found == expected, 0.0, np.abs(found - expected) - relative * np.abs(expected) - absolute)
    if not (error <= 0).all():
        at = int(np.flatnonzero(~(error <= 0))[0])
        raise AssertionError(f"{what}: element {at} is {found.flat[at]!r}, expected {np.ravel(expected)[at]!r}")


def _some(work: Pass) -> np.ndarray:
    return np.random.default_rng(0).integers(0, work.elements, min(work.elements, 4096))


def _checksum(out: np.ndarray) -> int:
    return zlib.crc32(out.reshape(-1).view(np.uint8))


def _forward(work: Pass) -> Call:
    row = geoact.get(work.function)
    values = values_of(row)
    x, y = array(work.shape, work.dtype, work.offset), empty(work.shape, work.dtype, work.offset)
    stats = geoact.GeometryStats(per=work.per) if work.per else None

    def run() -> object:
        return row(x, *values, out=y, stats=stats)

    def check() -> int:
        if stats is not None:
            stats.reset()
        y.fill(0)
        run()
        some, limits = _some(work), ml_dtypes.finfo(DTYPES[work.dtype])
        wide = x.reshape(-1)[some].astype(np.float64)
        units = 64 if work.dtype == "float64" else 4  # the reference is float64 itself
        tolerance, tiny = units * float(limits.eps), float(limits.smallest_subnormal)
        # A sum that may cancel is right to units of its largest term.
        least = tiny if row.size is None else tiny + tolerance * row.size(wide, *values)
        _agree(y.reshape(-1)[some], row.value(wide, *values), tolerance, least, work)
        if stats is not None:
            axis = work.averaged()
            assert np.atleast_1d(stats.n).sum() == work.elements, work
            _agree(np.atleast_1d(stats.mean_y), y.mean(axis=axis, dtype=np.float64).reshape(-1), 1e-6, 1e-9, work)
            _agree(np.atleast_1d(stats.var_y), y.var(axis=axis, dtype=np.float64).reshape(-1), 1e-6, 1e-12, work)
        return _checksum(y)

    flops = 0 if work.per else OPERATIONS.get(work.function, 0) * work.elements
    return Call(run, read=x.nbytes, written=y.nbytes, flops=flops, check=check)


def _backward(work: Pass) -> Call:
    row = geoact.get(work.function)
    values = values_of(row)
    x, dy = array(work.shape, work.dtype, work.offset), array(work.shape, work.dtype, work.offset, seed=2)
    dx = empty(work.shape, work.dtype, work.offset)
    stats = geoact.GradientStats(per=work.per) if work.per else None
    saved = {"x": x} if row.saves == "x" else {"y": row(x, *values)}

    def run() -> object:
        return row.backward(dy, *values, out=dx, stats=stats, **saved)

    def check() -> int:
        if stats is not None:
            stats.reset()
        dx.fill(0)
        run()
        some = _some(work)
        wide, gradient = (a.reshape(-1)[some].astype(np.float64) for a in (x, dy))
        eps = float(ml_dtypes.finfo(DTYPES[work.dtype]).eps)
        # a slope that is read from a rounded y has that rounding as its absolute error
        _agree(dx.reshape(-1)[some], gradient * row.slope(wide, *values), 64 * eps, 16 * eps, work)
        if stats is not None:
            squares = np.atleast_1d(np.square(dx, dtype=np.float64).sum(axis=work.averaged()))
            _agree(np.square(np.atleast_1d(stats.norm_dx)), squares, 2e-6, 1e-12, work)
        return _checksum(dx)

    return Call(run, read=dy.nbytes + x.nbytes, written=dx.nbytes, check=check)


def level(bytes_moved: int) -> str:
    """Where data are when a call begins, if nothing else ran in between."""
    if bytes_moved <= MIB * 3 // 4:
        return "L2"
    return "memory" if bytes_moved > geoact.info()["last_level_cache_bytes"] else "last-level cache"
