"""dx against dy f'(x), against finite differences, in place; gradients of parameters; edges."""

import geoact
import numpy as np
import pytest
from support import inputs
from support.cases import DTYPES, NARROW, PLAIN, TRAINABLE, assert_same_bits, each_case, each_row, each_trainable

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
COMPARES_ONLY = {"relu", "leaky_relu", "prelu", "hardsigmoid", "gal"}


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


def parameter_references(case, x, dy, values, axes):
    """Per trained parameter: the sum of dy df/dparameter over ``axes``, and the sum of the sizes of its terms.

    ``axes`` has one entry per parameter. ``values`` broadcast against x.
    """
    wide = x.astype(np.float64)
    for slope, over in zip(case.row.param_slope, axes, strict=True):
        terms = dy.astype(np.float64) * slope(wide, *values)
        yield terms.sum(axis=over), np.abs(terms).sum(axis=over)


def assert_gradient(gradient, reference, dtype):
    expected, size = reference
    relative = {"float16": 2**-10, "bfloat16": 2**-7}.get(np.dtype(dtype).name, 0)
    smallest = inputs.smallest(np.dtype(dtype)) if relative else 0
    allowed = 1e-6 * size + relative * np.abs(expected) + smallest
    assert np.all(np.abs(np.asarray(gradient, np.float64) - expected) <= allowed)


def assert_gradients(gradients, references, dtype):
    for gradient, reference in zip(gradients, references, strict=True):
        assert_gradient(gradient, reference, dtype)


def trained(case, make):
    """The values of a case, those of trained parameters replaced by make(place, value)."""
    return [make(k, v) if k < case.row.trainable else v for k, v in enumerate(case.values)]


def rounded(case, dtype, values):
    """Numbers as the kernels compute with them."""
    kind = np.float64 if dtype == np.float64 else np.float32
    return [float(kind(v)) if isinstance(v, float) else v for v in values]


@each_trainable
def test_gradient_of_a_number_is_a_number(case, isa, dtype):
    x, dy = inputs.normal((31, 257), dtype), inputs.normal((31, 257), dtype, seed=9, mean=0.1)
    dx, *gradients = case.row.backward(dy, *case.values, x=x)
    assert all(type(gradient) is float for gradient in gradients)
    assert_same_bits(dx, case.backward(dy, x, None))
    everything = [None] * case.row.trainable
    assert_gradients(gradients, parameter_references(case, x, dy, case.parameters(dtype), everything), np.float32)


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@each_trainable
def test_gradient_of_one_value_has_its_shape_and_dtype(case, isa, dtype, shape):
    x, dy = inputs.normal((31, 57), dtype), inputs.normal((31, 57), dtype, seed=10, mean=0.1)
    values = trained(case, lambda _, v: np.full(shape, v).astype(dtype))
    _, *gradients = case.row.backward(dy, *values, x=x)
    assert all((gradient.shape, gradient.dtype) == (shape, dtype) for gradient in gradients)
    numbers = rounded(case, dtype, [float(np.reshape(v, -1)[0]) for v in values])
    assert_gradients(gradients, parameter_references(case, x, dy, numbers, [None] * case.row.trainable), dtype)


SHAPES = pytest.mark.parametrize(
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


def per_channel(case, channels, dtype, seed=12):
    return trained(case, lambda k, v: inputs.normal(channels, dtype, mean=v, sd=0.3, seed=seed + 100 * k))


def placed(values, rank, axis):
    """Arrays of one value per channel in float64, in a shape that broadcasts along ``axis``; the rest as it is."""
    shape = [1] * rank
    shape[axis] = -1
    return [np.asarray(v, np.float64).reshape(shape) if np.ndim(v) else v for v in values]


@SHAPES
@each_trainable
def test_gradient_per_channel_is_the_sum_over_the_other_axes(case, isa, dtype, shape, axis):
    x, dy = inputs.normal(shape, dtype), inputs.normal(shape, dtype, seed=11, mean=0.1)
    channels, values = shape[axis], per_channel(case, shape[axis], dtype)
    dx, *gradients = case.row.backward(dy, *values, x=x, channel_axis=axis)
    others = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    assert all((gradient.shape, gradient.dtype) == ((channels,), dtype) for gradient in gradients)
    spread = rounded(case, dtype, placed(values, len(shape), axis))
    assert_gradients(gradients, parameter_references(case, x, dy, spread, [others] * case.row.trainable), dtype)
    # one channel at a time with its own numbers: the same elements
    for c in (0, channels - 1):
        part = (slice(None),) * (axis % len(shape)) + (c,)
        numbers = [float(v[c]) if np.ndim(v) else v for v in values]
        alone, *_ = case.row.backward(np.ascontiguousarray(dy[part]), *numbers, x=np.ascontiguousarray(x[part]))
        assert_same_bits(np.ascontiguousarray(dx[part]), alone)
        y = case.row(x, *values, channel_axis=axis)
        assert_same_bits(np.ascontiguousarray(y[part]), case.row(np.ascontiguousarray(x[part]), *numbers))


SEVERAL = [case for case in TRAINABLE if case.row.trainable > 1]


@SHAPES
@pytest.mark.parametrize("case", SEVERAL, ids=str)
def test_each_parameter_is_a_number_one_value_or_one_per_channel_of_its_own(case, isa, dtype, shape, axis):
    """Every parameter in turn is the one that varies, or the one that does not."""
    x, dy = inputs.normal(shape, dtype), inputs.normal(shape, dtype, seed=15, mean=0.1)
    varying = per_channel(case, shape[axis], dtype, seed=16)
    others = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    count = case.row.trainable
    for chosen in range(count):
        for alone in (True, False):
            varies = [(k == chosen) == alone for k in range(count)]
            single = trained(case, lambda k, v: v if k % 2 else np.array(v).astype(dtype))
            values = [a if k < count and varies[k] else b for k, (a, b) in enumerate(zip(varying, single, strict=True))]
            dx, *gradients = case.row.backward(dy, *values, x=x, channel_axis=axis)
            for value, gradient, each in zip(values, gradients, varies, strict=False):
                if isinstance(value, float):
                    assert type(gradient) is float
                else:
                    assert (gradient.shape, gradient.dtype) == ((shape[axis],) if each else (), dtype)
            spread = rounded(case, dtype, placed([v if np.ndim(v) else float(v) for v in values], len(shape), axis))
            axes = [others if each else None for each in varies]
            assert_gradients(gradients, parameter_references(case, x, dy, spread, axes), dtype)
            everywhere = [np.full(shape[axis], v).astype(dtype) if k < count and not np.ndim(v) else v
                          for k, v in enumerate(values)]  # fmt: skip
            if dtype not in NARROW:  # where a number is not rounded as an array is
                assert_same_bits(dx, case.row.backward(dy, *everywhere, x=x, channel_axis=axis)[0])
            assert case.row(x, *values, channel_axis=axis).shape == shape


@each_trainable
def test_statistics_do_not_change_the_gradients(case, isa, dtype):
    x, dy = inputs.normal((64, 37, 9), dtype), inputs.normal((64, 37, 9), dtype, seed=13)
    values = per_channel(case, 37, dtype, seed=14)
    dx, *gradients = case.row.backward(dy, *values, x=x)
    for per, axis in (("tensor", -1), ("channel", 1), ("channel", 2), ("row", 1)):
        stats = geoact.GradientStats(per=per, channel_axis=axis)
        dx_measured, *measured = case.row.backward(dy, *values, x=x, stats=stats)
        assert_same_bits(dx, dx_measured)
        for a, b in zip(measured, gradients, strict=True):
            np.testing.assert_allclose(
                a.astype(float),
                b.astype(float),
                rtol=float(np.finfo(np.float32).eps * 64) if dtype not in NARROW else 2**-7,
                atol=1e-5,
            )


@each_trainable
def test_fewer_than_two_axes_are_one_channel(case, isa):
    x = inputs.normal(50, DTYPES["float32"])
    values = trained(case, lambda _, v: np.array([v], np.float32))
    assert_same_bits(case.row(x, *values), case(x))
    assert all(gradient.shape == (1,) for gradient in case.row.backward(x, *values, x=x)[1:])


@pytest.mark.parametrize("case", SEVERAL, ids=str)
def test_gradients_of_nothing_are_zero(case, isa):
    x = np.zeros((5, 0), np.float32)
    values = trained(case, lambda k, v: np.zeros(0, np.float32) if k == 0 else np.array([v], np.float32))
    dx, *gradients = case.row.backward(x, *values, x=x)
    assert dx.shape == x.shape
    assert [g.shape for g in gradients] == [(0,), *[(1,)] * (case.row.trainable - 1)]
    assert all((g == 0).all() for g in gradients)


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
