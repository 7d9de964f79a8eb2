"""y of the Triton kernels against the float64 reference of the row, in units in the last place; edges; CPU kernels."""

import ml_dtypes
import numpy as np
import pytest
from support import inputs, precise
from support.cases import CASES, DTYPES, NARROW, PLAIN, Case, assert_same_bits, ulps
from support.interpreter import TritonCase

pytestmark = pytest.mark.usefixtures("large_tiles")

FLOAT32 = DTYPES["float32"]
EXACT = 0.5  # the promise of a row that rounds its result correctly
each_case = pytest.mark.parametrize("case", [TritonCase(case.name, case.values) for case in CASES], ids=str)
each_row = pytest.mark.parametrize("case", [TritonCase(case.name, case.values) for case in PLAIN], ids=str)


@each_case
def test_float32_error_is_within_the_promise_of_the_row(case):
    x = inputs.float32_sample()
    y, expected = case(x), case.value(x, FLOAT32)
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
def test_float64_error_is_within_the_promise_of_the_row(case):
    x = inputs.float64_sample()
    expected = precise.values(Case(case.name, case.values), inputs.float64_sample)
    sizes = precise.sizes(case, inputs.float64_sample)
    errors = [precise.ulps(*each) for each in zip(case(x), expected, sizes, strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= case.row.ulp["float64"], f"{errors[worst]:.3f} ulp at x = {x[worst]!r}"


@pytest.mark.parametrize("narrow", NARROW, ids=str)
@each_row
def test_every_16_bit_pattern_is_the_rounded_float32_result(case, narrow):
    x = inputs.every_pattern(narrow)
    assert_same_bits(case(x), case(x.astype(np.float32)).astype(narrow))


@each_case
def test_edges_are_those_of_the_cpu(case, dtype):
    """NaN, infinities, zeros of either sign, the ends of the format."""
    limits = ml_dtypes.finfo(dtype)
    ends = [float(limits.max), float(limits.tiny), float(limits.smallest_subnormal)]
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3, -3, *ends, *(-end for end in ends)]).astype(dtype)
    y, expected = case(x), Case(case.name, case.values)(x)
    for test in (np.isnan, np.isposinf, np.isneginf, np.signbit):
        ordered = ~np.isnan(expected) if test is np.signbit else slice(None)
        np.testing.assert_array_equal(test(y)[ordered], test(expected)[ordered])
    np.testing.assert_array_equal(y == 0, expected == 0)
