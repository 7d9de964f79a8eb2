"""What is tested: every row of the registry, with several parameters, in every dtype."""

from __future__ import annotations

import os
from dataclasses import dataclass

import geoact
import ml_dtypes
import numpy as np
import pytest

# The same tests, computed by the CUDA kernels on the simulated device: slower by far.
SIMULATED = os.environ.get("GEOACT_TEST_BACKEND") == "cusim"

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
NARROW = [DTYPES["float16"], DTYPES["bfloat16"]]
# Significant bits, exponent of the smallest normal number.
FORMATS = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}


@dataclass(frozen=True)
class Case:
    """One row of the registry with values for its parameters."""

    name: str
    values: tuple[float, ...] = ()

    def __str__(self):
        return "-".join([self.name, *(f"{v:g}" for v in self.values)])

    @property
    def row(self):
        return geoact.get(self.name)

    def __call__(self, x, **options):
        return self.row(x, *self.values, **options)

    def backward(self, dy, x, y, **options):
        """Dx alone: the gradient of a parameter has its own tests."""
        saved = {"x": x} if self.row.saves == "x" else {"y": y}
        result = self.row.backward(dy, *self.values, **saved, **options)
        return result[0] if self.row.trainable else result

    def parameters(self, dtype):
        """The values as the kernels compute with them: float32 for all but float64."""
        kind = np.float64 if dtype == np.float64 else np.float32
        return tuple(float(kind(v)) for v in self.values)

    def value(self, x, dtype):
        with np.errstate(all="ignore"):
            return self.row.value(x.astype(np.float64), *self.parameters(dtype))

    def size(self, x, dtype):
        """What errors are measured by: the value, or the largest term of a sum that cancels."""
        value = np.abs(self.value(x, dtype))
        if self.row.size is None:
            return value
        with np.errstate(all="ignore"):
            return np.maximum(value, self.row.size(x.astype(np.float64), *self.parameters(dtype)))

    def slope(self, x, dtype):
        with np.errstate(all="ignore"):
            slope = self.row.slope(x.astype(np.float64), *self.parameters(dtype))
        return np.broadcast_to(slope, x.shape)

    def measured_slope(self, x, y):
        """What the statistics count as f': of x, or of y as stored where y is what backward reads.

        f' as a function of y is not in the registry; it is what the float64 backward kernel makes of 1, which
        test_backward checks against the registry's f'(x).
        """
        if self.row.saves == "x":
            return self.slope(x, x.dtype)
        wide = np.ascontiguousarray(y.astype(np.float64))
        values = self.parameters(y.dtype)
        return self.row.backward(np.ones_like(wide), *values, y=wide)


def _plain(row):
    return tuple(0.25 if p.default is None else p.default for p in row.parameters)


def _other(row):
    return tuple(round(1.7 * v, 12) for v in _plain(row))


# Values that ask for another branch of the formula.
_FURTHER = {
    "elu": [(0.3,), (-0.4,)],
    "softplus": [(3.3, 20.0), (1.0, 1e6)],
    "prelu": [(-0.3,)],
    "swish": [(-1.3,), (0.0,)],
    "gal": [(0.1, -0.8, 0.35)],
    "acon_c": [(0.3, -0.6, 2.0), (0.5, 0.9, -1.3), (-0.4, 0.7, 0.0), (0.0, 1.0, 1.0), (1.1, 1.1, 1.0)],
    "xielu": [(-1.2, 0.7, 0.5, -1e-6), (0.4, -3.0, 0.0, -0.01), (2.0, 3.0, -0.3, 0.0)],
    "dyt": [(-0.7, 1.3, -0.4), (0.0, 1.0, 0.5), (4.0, -2.0, 0.1)],
    "derf": [(0.8, -0.35, 1.2, 0.3), (-1.5, 2.0, -0.7, 0.0), (0.0, 0.4, 1.0, -0.2)],
}

PLAIN = [Case(name, _plain(row)) for name, row in geoact.activations().items()]
CASES = [
    *PLAIN,
    *(Case(name, _other(row)) for name, row in geoact.activations().items() if row.parameters),
    *(Case(name, values) for name, more in _FURTHER.items() for values in more),
]
TRAINABLE = [case for case in CASES if case.row.trainable]

each_row = pytest.mark.parametrize("case", PLAIN, ids=str)
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_trainable = pytest.mark.parametrize("case", TRAINABLE, ids=str)


def raw(array):
    """The elements as unsigned integers, every NaN as the same one."""
    flat = np.ascontiguousarray(array).reshape(-1)
    nan = np.isnan(flat)
    integers = flat.view(f"u{flat.dtype.itemsize}").copy()
    integers[nan] = np.iinfo(integers.dtype).max
    return integers


def assert_same_bits(a, b):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    different = np.flatnonzero(raw(a) != raw(b))
    if different.size:
        first = different[0]
        pair = a.reshape(-1)[first], b.reshape(-1)[first]
        pytest.fail(f"{different.size} of {a.size} elements differ, the first at {first}: {pair[0]!r}, {pair[1]!r}")


def ulps(y, expected, dtype, size=None):
    """Error in units in the last place of ``size``, of ``expected`` if None; infinite where only one is NaN."""
    precision, smallest = FORMATS[dtype.name]
    _, exponent = np.frexp(expected if size is None else size)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, smallest) - (precision - 1))
    with np.errstate(invalid="ignore"):
        error = np.abs(y.astype(np.float64) - expected) / unit
    return np.where(np.isnan(error), np.where(y.astype(np.float64) == expected, 0, np.inf), error)
