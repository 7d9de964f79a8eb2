"""y against the float64 reference of the registry row, in units in the last place; every 16-bit pattern; edges."""

from functools import lru_cache

import numpy as np
import pytest
from support import inputs, precise
from support.cases import DTYPES, NARROW, assert_same_bits, each_case, each_row, ulps

FLOAT32 = DTYPES["float32"]
EXACT = 0.5  # the promise of a row that rounds its result correctly


@lru_cache
def expected32(case):
    return case.value(inputs.float32_sample(), FLOAT32)


@each_case
def test_float32_error_is_within_the_promise_of_the_row(case, isa):
    x, expected = inputs.float32_sample(), expected32(case)
    y = case(x)
    with np.errstate(over="ignore"):
        rounded = expected.astype(np.float32)
    if case.row.ulp["float32"] == EXACT:
        np.testing.assert_array_equal(y, rounded)
        return
    representable = np.isfinite(rounded)
    assert np.array_equal(y[~representable], rounded[~representable])
    error = np.where(representable, ulps(y, expected, FLOAT32, case.size(x, FLOAT32)), 0)
    worst = np.argmax(error)
    assert error[worst] <= case.row.ulp["float32"], f"{error[worst]:.3f} ulp at x = {x[worst]!r}"


@each_case
def test_float64_error_is_within_the_promise_of_the_row(case, isa):
    x = inputs.float64_sample()
    expected = precise.values(case, inputs.float64_sample)
    sizes = precise.sizes(case, inputs.float64_sample)
    errors = [precise.ulps(*each) for each in zip(case(x), expected, sizes, strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= case.row.ulp["float64"], f"{errors[worst]:.3f} ulp at x = {x[worst]!r}"


@pytest.mark.parametrize("narrow", NARROW, ids=str)
@each_case
def test_every_16_bit_pattern_is_the_rounded_float32_result(case, isa, narrow):
    x = inputs.every_pattern(narrow)
    with np.errstate(all="ignore"):
        assert_same_bits(case(x), case(x.astype(np.float32)).astype(narrow))


# --- edges ----------------------------------------------------------------------------------------

# Where torch multiplies minus infinity by 0.
NAN_AT_MINUS_INFINITY = {"silu", "gelu", "gelu_tanh", "hardswish", "mish", "swish"}


@each_row
def test_nan_and_infinities_are_those_of_torch(case, isa, dtype):
    x = np.array([np.nan, np.inf, -np.inf]).astype(dtype)
    y = case(x).astype(np.float64)
    far = case.value(np.array([1e300, -1e300]), np.dtype(np.float64))
    high = np.inf if far[0] > 1e200 else far[0]
    low = np.nan if case.name in NAN_AT_MINUS_INFINITY else np.sign(far[1]) * np.inf if abs(far[1]) > 1e200 else far[1]
    np.testing.assert_array_equal(y, np.array([np.nan, high, low]))


@each_row
def test_nan_of_any_payload_stays_nan(case, isa):
    patterns = np.array([0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], dtype=np.uint32)
    assert np.isnan(case(patterns.view(np.float32))).all()


ADDS_ZERO = {"dyt", "derf"}  # the bias: -0 + 0 is 0


@each_row
def test_value_at_zero_and_its_sign(case, isa, dtype):
    y = case(np.array([0.0, -0.0]).astype(dtype)).astype(np.float64)
    at_zero, below = case.value(np.array([0.0, -1e-3]), dtype)
    if at_zero:
        rtol = float(2.0**-7 if dtype in NARROW else 2.0**-22)
        np.testing.assert_allclose(y, at_zero, rtol=rtol, atol=inputs.smallest(dtype) / 2)
        return
    assert np.array_equal(y, [0, 0])
    assert not np.signbit(y[0])
    if below and case.name not in ADDS_ZERO:  # the function leaves zero: minus zero is a small negative number
        assert np.signbit(y[1])


@each_case
def test_sign_and_order_are_those_of_the_reference(case, isa):
    x = np.sort(inputs.float32_sample())
    y, expected = case(x).astype(np.float64), case.value(x, FLOAT32)
    if (expected >= 0).all():
        assert (y >= 0).all()
    if (np.diff(expected) >= 0).all():
        above = y[1:]
        finite = np.isfinite(above)  # below plus infinity anything is in order
        size = np.maximum(np.abs(above), case.size(x, FLOAT32)[1:])[finite]
        allowed = 2 * case.row.ulp["float32"] * np.maximum(size * 2.0**-23, 2.0**-149)
        assert (above[finite] - y[:-1][finite] >= -allowed).all()


@each_row
def test_values_do_not_depend_on_the_neighbours(case, isa, dtype):
    x = inputs.normal(64, dtype)
    together = case(x)
    poisoned = x.copy()
    poisoned[1::2] = np.array([np.nan, np.inf] * 16).astype(dtype)
    assert_same_bits(case(poisoned)[::2], together[::2])
