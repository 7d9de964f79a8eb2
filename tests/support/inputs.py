"""Arguments that are hard for an activation, and data that are hard for a statistic."""

from __future__ import annotations

from functools import lru_cache

import geoact
import numpy as np

from support.cases import DTYPES, FORMATS

# Where some activation changes its branch, its approximation, or underflows.
_EDGES = (
    0.0,
    0.25,
    0.5,
    1.0,
    1.5,
    3.0,
    5.5,
    6.0,
    8.0,
    9.0,
    12.0,
    12.5,
    14.5,
    15.0,
    16.0,
    20.0,
    24.0,
    26.0,
    30.0,
)
_EDGES += (38.5, 40.0, 45.0, 60.0, 87.3, 88.7, 103.9, 160.0, 708.4, 745.1, 1200.0, np.log(2) / 2, np.log(2))
_EDGES += (1e-8, 1e-16, 1e-30, 2.0**-126, 2.0**-24, 2.0**-12)


def neighbours(centres, dtype, reach):
    """The ``reach`` numbers of the format on either side of each centre; none is infinite."""
    integer = np.dtype(f"i{dtype.itemsize}")
    patterns = np.abs(centres).astype(dtype).view(integer)[:, None] + np.arange(-reach, reach, dtype=integer)
    magnitudes = np.maximum(patterns, 0).reshape(-1).view(dtype)
    signed = np.concatenate([magnitudes, -magnitudes])
    return signed[np.isfinite(signed)]


@lru_cache
def adversarial(name, reach):
    """Neighbourhoods of thresholds, of kinks, of the borders of exp's reduction, and of both ends of the format."""
    dtype = DTYPES[name]
    limits = np.finfo(dtype)
    kinks = [kink for row in geoact.activations().values() for kink in row.kinks]
    centres = np.array([*_EDGES, *kinks, float(limits.max), float(limits.tiny), float(limits.smallest_subnormal)])
    halves = (np.arange(0, 160) + 0.5) * np.log(2)
    return np.concatenate([neighbours(centres, dtype, reach), neighbours(np.r_[halves, halves / 2], dtype, 2)])


@lru_cache
def float32_sample():
    """About 200 000 finite float32 values: adversarial, log-spaced over the whole range, uniform at many widths."""
    random = np.random.default_rng(1)
    magnitudes = np.logspace(-45, np.log10(3.4e38), 30_000)
    uniform = [random.uniform(-w, w, 25_000) for w in (0.7, 3.0, 12.0, 45.0, 110.0)]
    subnormal = random.integers(1, 1 << 23, 1000).astype(np.uint32).view(np.float32)
    return np.concatenate(
        [adversarial("float32", 64), magnitudes, -magnitudes, *uniform, subnormal, -subnormal],
        dtype=np.float32,
        casting="same_kind",
    )


@lru_cache
def float64_sample():
    """About 300 finite float64 values: few, because each is compared with 60 digits."""
    random = np.random.default_rng(2)
    few = random.choice(adversarial("float64", 2), 150, replace=False)
    uniform = [random.uniform(-w, w, 20) for w in (0.7, 3.0, 12.0, 45.0, 110.0, 760.0)]
    magnitudes = np.logspace(-307, 307, 40)
    return np.concatenate([few, *uniform, magnitudes[::2], -magnitudes[1::2], [0.0, 5e-324, -5e-324]])


@lru_cache
def every_pattern(dtype):
    """All 65536 values of a 16-bit format, NaN and infinities included."""
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def smallest(dtype):
    """The smallest positive number of a format."""
    precision, exponent = FORMATS[dtype.name]
    return 2.0 ** (exponent - (precision - 1))


def normal(shape, dtype, *, mean=0.2, sd=1.5, seed=3):
    return (mean + sd * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


# Data sets on which naive sums lose every digit.
HARD = {
    "plain": lambda z: 0.2 + 1.5 * z,
    "narrow about 0.5": lambda z: 0.5 + 1e-4 * z,
    "narrow about 1000": lambda z: 1000 + z,
    "outlier first": lambda z: np.r_[1e4, z[1:]],
    "outlier last": lambda z: np.r_[z[:-1], -1e4],
    "constant": lambda z: np.full_like(z, 0.7),
    "constant negative": lambda z: np.full_like(z, -2.5),
    "zero": np.zeros_like,
    "tails": lambda z: 30 * z,
    "trend": lambda z: np.linspace(-4, 6, z.size),
    "huge": lambda z: 1e20 * z,
    "tiny": lambda z: 1e-25 * z,
    "two sizes": lambda z: np.where(np.arange(z.size) % 2, 1e-12, 1.0) * z,
}


def hard(kind, size, dtype):
    """``size`` values of one of HARD, or None where the format cannot hold them."""
    z = np.random.default_rng(len(kind)).standard_normal(size)
    with np.errstate(over="ignore"):
        x = HARD[kind](z).astype(dtype)
    return x if np.isfinite(x.astype(np.float64)).all() else None
