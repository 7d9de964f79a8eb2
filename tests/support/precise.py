"""The registry's reference functions with 60 digits: the same source, executed on mpmath numbers.

``geoact._reference`` is loaded a second time with mpmath in the place of NumPy and math, so that a float64 kernel is
not measured with float64. Scalars only.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from types import ModuleType
from unittest import mock

import mpmath
import numpy as np
from geoact import _reference

DIGITS = 60


def _erfc(x):
    # mpmath's own overflows for huge arguments; below 1e-9000 it is 0 to any float64
    return mpmath.erfc(x) if abs(x) < 150 else mpmath.mpf(0 if x > 0 else 2)


def _numpy_stand_in():
    np = ModuleType("numpy")
    np.float64, np.nan = float, mpmath.mpf("nan")
    np.asarray = lambda x, dtype=None: x
    np.where = lambda condition, a, b: a if condition else b
    np.isnan = mpmath.isnan
    np.maximum, np.minimum = max, min
    np.clip = lambda x, low, high: min(max(x, low), high)
    np.abs, np.exp, np.expm1, np.tanh = abs, mpmath.exp, mpmath.expm1, mpmath.tanh
    np.log1p = mpmath.log1p
    np.vectorize = lambda function, otypes: function
    np.typing = ModuleType("numpy.typing")
    np.typing.NDArray = {float: float}
    return np


@lru_cache
def _module():
    stand_in, spec = _numpy_stand_in(), importlib.util.spec_from_file_location("precise", _reference.__file__)
    module = importlib.util.module_from_spec(spec)
    math = ModuleType("math")
    math.erfc, math.erf, math.sqrt, math.pi = _erfc, mpmath.erf, mpmath.sqrt, mpmath.pi
    replaced = {"numpy": stand_in, "numpy.typing": stand_in.typing, "math": math}
    with mock.patch.dict(sys.modules, replaced), mpmath.workdps(DIGITS):
        spec.loader.exec_module(module)
        module._C = mpmath.mpf("0.044715")  # the decimal number, not the double nearest to it
    return module


@lru_cache
def values(case, sample):
    """F(x) for every x of a sample function, as mpmath numbers."""
    return _each(case, sample, case.row.value)


@lru_cache
def sizes(case, sample):
    """What errors are measured by: the largest term of a sum that cancels, else the value."""
    return _each(case, sample, case.row.size or case.row.value)


def _each(case, sample, reference):
    function = getattr(_module(), reference.__name__)
    with mpmath.workdps(DIGITS):
        parameters = [mpmath.mpf(v) for v in case.values]
        return [function(mpmath.mpf(float(x)), *parameters) for x in sample()]


def ulps(y, expected, size=0):
    """Error of a float64 number in units in the last place, of ``size`` where that is larger.

    0 beyond the range if y is infinite or the largest.
    """
    limits = np.finfo(np.float64)
    with mpmath.workdps(DIGITS):
        if abs(expected) > limits.max:
            return 0.0 if abs(y) >= limits.max and (y > 0) == (expected > 0) else np.inf
        if not np.isfinite(y):
            return np.inf
        largest = max(abs(expected), abs(size))
        exponent = max(mpmath.frexp(largest)[1] - 1, -1022) if largest else -1022
        return float(abs(mpmath.mpf(float(y)) - expected) / mpmath.ldexp(1, exponent - 52))
