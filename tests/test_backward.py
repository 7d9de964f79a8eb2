"""dx against dy f'(x), against finite differences, in place; gradients of parameters; edges."""

import geoact
import numpy as np
import pytest
from support import inputs
from support.cases import DTYPES, NARROW, PLAIN, assert_same_bits, each_case, each_row, each_trainable

# Largest error of a slope, in units of the compute type's spacing at max(1, |f'|).
SLOPE_ULP = 4


def gradient_error(case, x, dy):
    """Dx - dy f'(x), in spacings at |dy| max(1, |f'|)."""
    expected = case.slope(x, x.dtype)
    dx = case.backward(dy, x, case(x)).astype(np.float64)
    scale = np.abs(dy.astype(np.float64)) * np.maximum(1, np.abs(expected)) * np.finfo(x.dtype).eps
    return np.abs(dx - dy.astype(np.float64) * expected) / scale


@each_case
def test_float32_dx_is_dy_times_the_slope(case, isa):
    x = inputs.float32_sample()
    x = x[np.abs(x) < 1e15]
    dy = inputs.normal(x.size, np.float32, mean=0.5)
    error = gradient_error(case, x, dy)
    worst = np.argmax(error)
    assert error[worst] <= SLOPE_ULP, f"{error[worst]:.2f} at x = {x[worst]!r}"


@each_case
def test_float64_dx_is_dy_times_the_slope(case, isa):
    random = np.random.default_rng(5)
    x = np.concatenate([random.uniform(-w, w, 2000) for w in (1, 6, 40, 800)] + [inputs.adversarial("float64", 4)])
    x = x[np.abs(x) < 1e100]
    error = gradient_error(case, x, random.standard_normal(x.size))
    worst = np.argmax(error)
    # NumPy's own reference is a few spacings off
    assert error[worst] <= 2 * SLOPE_ULP, f"{error[worst]:.2f} at x = {x[worst]!r}"


@pytest.mark.parametrize("narrow", NARROW, ids=str)
@each_case
def test_every_16_bit_pattern_gives_the_rounded_float32_gradient(case, isa, narrow):
    saved = inputs.every_pattern(narrow)
    dy = inputs.normal(saved.size, narrow, seed=6)
    wide = case.backward(dy.astype(np.float32), saved.astype(np.float32), saved.astype(np.float32))
    with np.errstate(all="ignore"):
        assert_same_bits(case.backward(dy, saved, saved), wide.astype(narrow))


@each_case
def test_gradient_is_that_of_central_differences(case, isa):
    x = np.linspace(-5.03, 5.07, 1001)
    for kink in case.row.kinks:
        x = x[np.abs(x - kink) > 1e-3]
    step = 1e-5
    numeric = (case(x + step) - case(x - step)) / (2 * step)
    dx = case.backward(np.ones_like(x), x, case(x))
    np.testing.assert_allclose(dx, numeric, rtol=1e-8, atol=1e-8)


# --- in place -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["dy", "saved"])
@each_row
def test_dx_may_overwrite_dy_or_the_saved_array(case, isa, dtype, target):
    x, dy = inputs.normal(5000, dtype), inputs.normal(5000, dtype, seed=7)
    y = case(x)
    expected = case.backward(dy, x, y)
    dy, x, y = dy.copy(), x.copy(), y.copy()
    saved = x if case.row.saves == "x" else y
    out = dy if target == "dy" else saved
    assert case.backward(dy, x, y, out=out) is out
    assert_same_bits(out, expected)


# --- edges ----------------------------------------------------------------------------------------


# As in torch, the backward of these only compares x: a NaN there does not show in dx.
COMPARES_ONLY = {"relu", "leaky_relu", "prelu", "hardsigmoid"}


@each_row
def test_nan_in_dy_or_x_reaches_dx(case, isa, dtype):
    x, dy = inputs.normal(40, dtype), inputs.normal(40, dtype, seed=8)
    x[3], dy[3], x[5] = 1, np.nan, np.nan
    dx = case.backward(dy, x, case(x))
    assert np.isnan(dx[3])
    assert np.isnan(dx[5]) == (case.name not in COMPARES_ONLY)
    assert np.isfinite(np.delete(dx, [3, 5])).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_dead_side_of_a_rectifier_stops_any_gradient(isa, dtype, bad):
    x = np.array([-2.0, -0.0, 0.0, 3.0]).astype(dtype)
    dy = np.full(4, bad).astype(dtype)
    np.testing.assert_array_equal(geoact.relu.backward(dy, y=geoact.relu(x)).astype(float), [0, 0, 0, bad])
    np.testing.assert_array_equal(geoact.relu_squared.backward(dy, x=x).astype(float), [0, 0, 0, bad])


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "prelu", "relu_squared", "elu"])
def test_slope_at_a_kink_is_that_of_torch(isa, dtype, name):
    case = next(case for case in PLAIN if case.name == name)
    x = np.zeros(3, dtype)
    at_zero = {
        "leaky_relu": 0.01 if dtype == np.float64 else np.float32(0.01),
        "prelu": 0.25,
        "elu": 1.0,
    }.get(name, 0.0)
    expected = np.full(3, at_zero).astype(dtype)
    np.testing.assert_array_equal(case.backward(np.ones(3, dtype), x, case(x)), expected)


# --- gradients of parameters ----------------------------------------------------------------------


def parameter_reference(case, x, dy, weight, axes):
    """Sum of dy df/dparameter over all axes but the channel's, and the sum of the sizes of its terms."""
    wide = x.astype(np.float64)
    terms = dy.astype(np.float64) * case.row.param_slope(wide, weight)
    return terms.sum(axis=axes), np.abs(terms).sum(axis=axes)


def assert_gradient(gradient, reference, dtype):
    expected, size = reference
    relative = {"float16": 2**-10, "bfloat16": 2**-7}.get(np.dtype(dtype).name, 0)
    allowed = 1e-6 * size + relative * np.abs(expected)
    assert np.all(np.abs(np.asarray(gradient, np.float64) - expected) <= allowed)


@each_trainable
def test_gradient_of_a_number_is_a_number(case, isa, dtype):
    x, dy = inputs.normal((31, 257), dtype), inputs.normal((31, 257), dtype, seed=9, mean=0.1)
    dx, gradient = case.row.backward(dy, *case.values, x=x)
    assert type(gradient) is float
    assert_same_bits(dx, case.backward(dy, x, None))
    assert_gradient(gradient, parameter_reference(case, x, dy, case.parameters(dtype)[0], None), np.float32)


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@each_trainable
def test_gradient_of_one_value_has_its_shape_and_dtype(case, isa, dtype, shape):
    x, dy = inputs.normal((31, 57), dtype), inputs.normal((31, 57), dtype, seed=10, mean=0.1)
    weight = np.full(shape, case.values[0]).astype(dtype)
    _, gradient = case.row.backward(dy, weight, x=x)
    assert (gradient.shape, gradient.dtype) == (shape, dtype)
    assert_gradient(gradient, parameter_reference(case, x, dy, float(weight.reshape(-1)[0]), None), dtype)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((40, 33), 1),
        ((40, 33), -1),
        ((33, 40), 0),
        ((3, 17, 5, 7), 1),
        ((3, 5, 7, 17), -1),
        ((3, 5, 17, 7), 2),
        ((300, 700), 1),
        ((700, 300), 0),
    ],
    ids=str,
)
@each_trainable
def test_gradient_per_channel_is_the_sum_over_the_other_axes(case, isa, dtype, shape, axis):
    x, dy = inputs.normal(shape, dtype), inputs.normal(shape, dtype, seed=11, mean=0.1)
    channels, placed = shape[axis], [1] * len(shape)
    placed[axis] = channels
    weight = inputs.normal(channels, dtype, mean=case.values[0], sd=0.3, seed=12)
    spread = weight.astype(np.float64).reshape(placed)
    dx, gradient = case.row.backward(dy, weight, x=x, channel_axis=axis)
    others = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    assert (gradient.shape, gradient.dtype) == ((channels,), dtype)
    assert_gradient(gradient, parameter_reference(case, x, dy, spread, others), dtype)
    # one channel at a time with its own number: the same elements
    for c in (0, channels - 1):
        part = (slice(None),) * (axis % len(shape)) + (c,)
        number = float(weight[c])
        alone, _ = case.row.backward(np.ascontiguousarray(dy[part]), number, x=np.ascontiguousarray(x[part]))
        assert_same_bits(np.ascontiguousarray(dx[part]), alone)
        y = case.row(x, weight, channel_axis=axis)
        assert_same_bits(np.ascontiguousarray(y[part]), case.row(np.ascontiguousarray(x[part]), number))


@each_trainable
def test_statistics_do_not_change_the_gradients(case, isa, dtype):
    x, dy = inputs.normal((64, 37, 9), dtype), inputs.normal((64, 37, 9), dtype, seed=13)
    weight = inputs.normal(37, dtype, mean=case.values[0], sd=0.3, seed=14)
    dx, gradient = case.row.backward(dy, weight, x=x)
    for per, axis in (("tensor", -1), ("channel", 1), ("channel", 2), ("row", 1)):
        stats = geoact.GradientStats(per=per, channel_axis=axis)
        dx_measured, measured = case.row.backward(dy, weight, x=x, stats=stats)
        assert_same_bits(dx, dx_measured)
        np.testing.assert_allclose(
            measured.astype(float),
            gradient.astype(float),
            rtol=float(np.finfo(np.float32).eps * 64) if dtype not in NARROW else 2**-7,
        )


@each_trainable
def test_fewer_than_two_axes_are_one_channel(case, isa):
    x = inputs.normal(50, DTYPES["float32"])
    weight = np.array([case.values[0]], np.float32)
    assert_same_bits(case.row(x, weight), case(x))
    assert case.row.backward(x, weight, x=x)[1].shape == (1,)


def test_in_place_with_statistics_along_another_axis_than_the_weights():
    """dx overwrites dy, which the gradient of the weights, summed over other groups, reads as well."""
    x, dy = inputs.normal((37, 70), np.float32), inputs.normal((37, 70), np.float32, seed=5)
    weight = np.linspace(-0.5, 1, 70, dtype=np.float32)
    expected, expected_gradient = geoact.prelu.backward(dy, weight, x=x)
    for out in (dy.copy(), None):
        stats, given = geoact.GradientStats(per="row"), dy.copy() if out is None else out
        dx, gradient = geoact.prelu.backward(given, weight, x=x, out=out, stats=stats)
        assert_same_bits(dx, expected)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(stats.cells()["sum_sq_dy"], (dy.astype(float) ** 2).sum(axis=1), rtol=1e-6)
