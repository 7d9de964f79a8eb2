"""Every cell and every derived value against float64 NumPy, for every grouping, level, dtype and instruction set."""

import itertools

import geoact
import numpy as np
import pytest
from geoact import _derived
from support import inputs, oracle
from support.cases import DTYPES, PLAIN, each_row

# shape, channel axis: 1 to 4 axes, the channel first, last and between (NCHW), few and many rows and channels
LAYOUTS = [
    ((300,), 0),
    ((70, 33), -1),
    ((33, 70), 0),
    ((1100, 3), 1),
    ((5, 700), 1),
    ((700, 5), 0),
    ((600, 520), -1),
    ((520, 300), 0),
    ((7, 11, 13), 1),
    ((40, 3, 50), -2),
    ((2, 17, 9, 5), 1),
    ((3, 4, 70, 70), 1),
    ((2, 9, 5, 17), -1),
]


GROUPINGS = ("tensor", "channel", "row")
LEVELS = ("counts", "moments")
NOT_FINITE = (np.nan, np.inf, -np.inf)


def measured(case, x, **settings):
    stats = geoact.GeometryStats(**settings)
    y = case(x, stats=stats)
    return stats, y


def count_of_saturated(slope, dtype):
    """Bounds of the count: an f' within rounding of the threshold may fall on either side."""
    margin = 1e-12 if dtype == np.float64 else 1e-6
    return [(np.abs(slope) < 0.05 + side * margin).sum(axis=1) for side in (-1, 1)]


def check(case, x, per="tensor", axis=-1, level="moments", context=""):
    stats, y = measured(case, x, per=per, channel_axis=axis, level=level)
    groups = [oracle.grouped(a, per, axis) for a in (x, y, case.measured_slope(x, y))]
    expected = oracle.cells(*groups, x.dtype)
    low, high = count_of_saturated(groups[2], x.dtype)
    actual = stats.cells()
    assert ((low <= actual["saturated"]) & (actual["saturated"] <= high)).all(), (str(case), x.dtype, per, context)
    del expected["saturated"]
    oracle.assert_cells(actual, expected, context=f"{case} {x.dtype} {x.shape} per {per} {axis} {context}")
    return stats, groups


@each_row
def test_cells_of_every_row(case, isa, dtype):
    for shape, axis in (((130, 37), -1), ((61, 130), 0)):
        x = inputs.normal(shape, dtype, sd=2.5)
        for per, level in itertools.product(GROUPINGS, LEVELS):
            check(case, x, per, axis, level)


@pytest.mark.parametrize("name", ["relu", "silu", "prelu"])
@pytest.mark.parametrize("per", ["channel", "row"])
def test_cells_of_every_grouping(isa, dtype, per, name):
    case = next(case for case in PLAIN if case.name == name)
    for shape, axis in LAYOUTS:
        check(case, inputs.normal(shape, dtype), per, axis)


def test_cells_with_a_parameter_per_channel_and_groups_along_other_axes(isa, dtype):
    x = inputs.normal((40, 9, 31), dtype)
    weight = inputs.normal(9, dtype, mean=0.3, sd=0.2)
    spread = weight.astype(np.float64)[:, None]
    for per, axis in (("tensor", -1), ("channel", 1), ("channel", 0), ("channel", 2), ("row", 1), ("row", 2)):
        stats = geoact.GeometryStats(per=per, channel_axis=axis)
        y = geoact.prelu(x, weight, stats=stats)
        slope = geoact.prelu.slope(x.astype(np.float64), spread)
        groups = [oracle.grouped(a, per, axis) for a in (x, y, slope)]
        oracle.assert_cells(stats.cells(), oracle.cells(*groups, dtype), context=(per, axis))


# --- data on which naive sums fail ----------------------------------------------------------------


@pytest.mark.parametrize("kind", inputs.HARD)
@each_row
def test_hard_data(case, isa, kind):
    for dtype in DTYPES.values():
        for shape, per in (((9001,), "tensor"), ((700, 13), "channel"), ((13, 700), "row")):
            x = inputs.hard(kind, int(np.prod(shape)), dtype)
            if x is not None:
                check(case, x.reshape(shape), per, context=kind)


def test_statistics_of_a_million_values(isa):
    x = inputs.normal((1 << 20) + 3, DTYPES["float32"], mean=0.5, sd=1e-4)
    for case in PLAIN:
        check(case, x)


@each_row
def test_values_that_are_not_finite_are_counted_and_stay_in_their_group(case, isa, dtype):
    places = [((5000,), "tensor", 4321), ((300, 40), "channel", (17, 5)), ((40, 300), "row", (5, 299))]
    for (shape, per, at), level, bad in itertools.product(places, LEVELS, NOT_FINITE):
        x = inputs.normal(shape, dtype)
        x[at] = bad
        stats, _ = check(case, x, per, level=level)
        np.testing.assert_array_equal(np.atleast_1d(stats.nonfinite_x), np.arange(stats.groups) == stats.groups // 8)


@each_row
def test_a_value_that_is_not_finite_among_equal_ones(case, isa, dtype):
    for value, bad in itertools.product((1.0, -1.0, 0.0), NOT_FINITE):
        x = np.full((3, 40), value).astype(dtype)
        x[1, 7] = bad
        for per, level in itertools.product(GROUPINGS, LEVELS):
            check(case, x, per, level=level, context=(value, bad))


@each_row
def test_nothing_but_nan(case, isa, dtype):
    stats, _ = check(case, np.full((40, 5), np.nan).astype(dtype), "channel")
    assert (stats.nonfinite_x == 40).all()
    assert (stats.positive_fraction == 0).all()


def test_subnormal_values_are_counted(isa, dtype):
    x = (np.arange(-50, 50) * inputs.smallest(dtype)).astype(dtype)
    for case in PLAIN:
        check(case, x)
        check(case, np.tile(x, (7, 1)), "channel")


# --- derived values -------------------------------------------------------------------------------


def test_every_derived_value_has_an_oracle():
    assert set(oracle.GROUP) == {row.name for row in _derived.COUNTS + _derived.MOMENTS}
    assert set(oracle.LAYER) == {row.name for row in _derived.LAYER_COUNTS + _derived.LAYER_MOMENTS}
    assert set(oracle.GRADIENT) == {row.name for row in _derived.GRADIENT}


def assert_derived(stats, functions, groups, dtype):
    for name, function in functions.items():
        value = np.atleast_1d(getattr(stats, name))
        expected = [function(*arrays, dtype) for arrays in zip(*groups, strict=True)]
        np.testing.assert_allclose(value, expected, rtol=4e-6, atol=1e-6, err_msg=name)


@each_row
def test_derived_values(case, isa, dtype):
    few = {row.name: oracle.GROUP[row.name] for row in _derived.COUNTS}
    for shape, per in (((90, 21), "tensor"), ((90, 9), "channel"), ((9, 90), "row")):
        x = inputs.normal(shape, dtype, mean=0.4)
        stats, groups = check(case, x, per)
        assert_derived(stats, oracle.GROUP, groups, dtype)
        assert_derived(measured(case, x, per=per, level="counts")[0], few, groups, dtype)


@each_row
def test_values_of_the_layer_are_those_of_all_pairs_of_samples(case, dtype):
    x = inputs.normal((60, 12), dtype)
    x[:, 3] = -np.abs(x[:, 3])  # dead
    x[:, 4] = np.abs(x[:, 4]) + np.array(0.5).astype(dtype)  # always on
    stats, y = measured(case, x, per="channel")
    for name, function in oracle.LAYER.items():
        expected = function(oracle.grouped(x, "channel"), oracle.grouped(y, "channel"), dtype)
        np.testing.assert_allclose(getattr(stats, name), expected, rtol=4e-6, atol=1e-6, err_msg=name)
    size = np.abs(y.astype(float)).mean(axis=0)
    for tau in (0.025, 0.9):
        assert stats.dormant_fraction(tau) == np.mean(size <= tau * size.mean())


def test_saturation_threshold_is_the_one_asked_for(isa, dtype):
    x = inputs.normal(4000, dtype, sd=4)
    for threshold in (0.01, 0.1, 0.2):
        stats, y = measured(PLAIN[0], x, saturation=threshold)
        slope = PLAIN[0].measured_slope(x, y)
        margin = 1e-6
        low, high = ((np.abs(slope) < threshold + side * margin).sum() for side in (-1, 1))
        assert low <= stats.saturation_fraction * 4000 <= high


# --- the backward pass ----------------------------------------------------------------------------


GRADIENT_LAYOUTS = [
    ((6000,), "tensor", -1),
    ((130, 37), "channel", -1),
    ((37, 130), "channel", 0),
    ((3, 5, 90), "channel", 1),
    ((37, 130), "row", -1),
]


def check_gradient(case, x, dy, per="tensor", axis=-1):
    y, stats = case(x), geoact.GradientStats(per=per, channel_axis=axis)
    dx = case.backward(dy, x, y, stats=stats)
    groups = [oracle.grouped(a, per, axis) for a in (dy, dx, case.measured_slope(x, y))]
    expected = oracle.gradient_cells(*groups, x.dtype)
    oracle.assert_cells(stats.cells(), expected, context=f"{case} {x.dtype} {x.shape} per {per} {axis}")
    return stats, groups


@each_row
def test_gradient_statistics(case, isa, dtype):
    for shape, per, axis in GRADIENT_LAYOUTS:
        x, dy = inputs.normal(shape, dtype, sd=2.5), inputs.normal(shape, dtype, seed=15, mean=0.1)
        stats, groups = check_gradient(case, x, dy, per, axis)
        assert_derived(stats, oracle.GRADIENT, groups, dtype)
        if per == "channel":
            gain = (groups[1] ** 2).sum() / (groups[0] ** 2).sum()
            assert stats.layer_realised_gain == pytest.approx(gain, rel=1e-6)


@each_row
def test_gradient_statistics_of_small_and_large_gradients(case, isa, dtype):
    x, wide = inputs.normal((70, 33), dtype), inputs.normal((70, 33), np.float64, seed=16)
    for scale in (1e-30, 1e-20, 1e-6, 1e18, 1e25):
        with np.errstate(over="ignore", under="ignore"):
            dy = (scale * wide).astype(dtype)
        if np.isfinite(dy.astype(float)).all():
            check_gradient(case, x, dy)
            check_gradient(case, x, dy, "channel")


@each_row
def test_gradients_that_are_not_finite_are_counted(case, isa, dtype):
    for bad in NOT_FINITE:
        x, dy = inputs.normal((200, 40), dtype, mean=2), inputs.normal((200, 40), dtype, seed=17)
        dy[3, 5] = bad
        check_gradient(case, x, dy, "channel")
