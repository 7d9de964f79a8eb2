"""dx of the Triton kernels against dy f'(x), in place; gradients of parameters; edges."""

import geoact
import ml_dtypes
import numpy as np
import pytest
import torch
from support import inputs
from support.cases import CASES, NARROW, PLAIN, TRAINABLE, Case, assert_same_bits
from support.interpreter import TritonCase, array, backend, tensor

SLOPE_ULP = 4  # largest error of a slope, in spacings of the compute type at max(1, |f'|)
each_case = pytest.mark.parametrize("case", [TritonCase(case.name, case.values) for case in CASES], ids=str)
each_row = pytest.mark.parametrize("case", [TritonCase(case.name, case.values) for case in PLAIN], ids=str)
each_trainable = pytest.mark.parametrize("case", [TritonCase(case.name, case.values) for case in TRAINABLE], ids=str)


def gradient_error(case, x, dy):
    """Dx - dy f'(x), in spacings at |dy| max(1, |f'|)."""
    expected = case.slope(x, x.dtype)
    dx = case.backward(dy, x, case(x)).astype(np.float64)
    scale = np.abs(dy.astype(np.float64)) * np.maximum(1, np.abs(expected)) * np.finfo(x.dtype).eps
    return np.abs(dx - dy.astype(np.float64) * expected) / scale


@pytest.mark.usefixtures("large_tiles")
@each_case
def test_float32_dx_is_dy_times_the_slope(case):
    x = inputs.float32_sample()
    x = x[np.abs(x) < 1e15]
    error = gradient_error(case, x, inputs.normal(x.size, np.float32, mean=0.5))
    worst = np.argmax(error)
    assert error[worst] <= SLOPE_ULP, f"{error[worst]:.2f} at x = {x[worst]!r}"


@pytest.mark.usefixtures("large_tiles")
@each_case
def test_float64_dx_is_dy_times_the_slope(case):
    random = np.random.default_rng(5)
    x = np.concatenate([random.uniform(-w, w, 2000) for w in (1, 6, 40, 800)] + [inputs.adversarial("float64", 4)])
    x = x[np.abs(x) < 1e100]
    error = gradient_error(case, x, random.standard_normal(x.size))
    worst = np.argmax(error)
    # NumPy's own reference is a few spacings off
    assert error[worst] <= 2 * SLOPE_ULP, f"{error[worst]:.2f} at x = {x[worst]!r}"


@pytest.mark.usefixtures("large_tiles")
@pytest.mark.parametrize("narrow", NARROW, ids=str)
@each_row
def test_every_16_bit_pattern_gives_the_rounded_float32_gradient(case, narrow):
    saved = inputs.every_pattern(narrow)
    dy = inputs.normal(saved.size, narrow, seed=6)
    wide = case.backward(dy.astype(np.float32), saved.astype(np.float32), saved.astype(np.float32))
    assert_same_bits(case.backward(dy, saved, saved), wide.astype(narrow))


@each_row
def test_edges_are_those_of_the_cpu(case, dtype):
    """Of dy and of x: NaN, infinities, both zeros and the kinks."""
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.0, -3.0, 1.0, -0.5])
    x, dy = (a.reshape(-1).astype(dtype) for a in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        twin = Case(case.name, case.values)
        y = twin(x)
        expected = twin.backward(dy, x, y)
    dx = case.backward(dy, x, y)
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(expected))
    # The CPU's slopes and these are each a few spacings from the truth.
    dx, expected = (a[~np.isnan(expected)].astype(np.float64) for a in (dx, expected))
    tolerance = 2 * SLOPE_ULP * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(dx, expected, tolerance, tolerance)


@pytest.mark.parametrize("target", ["dy", "saved"])
@each_row
def test_dx_may_overwrite_dy_or_the_saved_array(case, target):
    x, dy = inputs.normal(700, np.float32), inputs.normal(700, np.float32, seed=7)
    y = case(x)
    expected = case.backward(dy, x, y)
    dy, saved = dy.copy(), (x if case.row.saves == "x" else y).copy()
    out = tensor(dy if target == "dy" else saved)
    assert_same_bits(case.backward(dy, saved, saved, out=out), expected)
    assert_same_bits(array(out), expected)


# --- the gradient of a parameter ------------------------------------------------------------------


def expected_gradients(case, x, dy, values, axis):
    """Float64, per trained parameter: the sum of dy df/dp, over all axes but ``axis`` where the value is an array; and
    the sum of the sizes."""
    wide = [a.astype(np.float64) for a in (x, dy)]
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    spread = [v.astype(np.float64).reshape(shape) if np.ndim(v) else float(v) for v in values]
    for slope, value in zip(case.row.param_slope, values, strict=False):
        terms = wide[1] * slope(wide[0], *spread)
        axes = tuple(a for a in range(x.ndim) if a != axis) if np.ndim(value) else None
        yield terms.sum(axis=axes), np.abs(terms).sum(axis=axes)


@each_trainable
def test_gradient_of_a_number_and_of_one_value(case, dtype):
    x, dy = inputs.normal((9, 133), dtype, sd=2.5), inputs.normal((9, 133), dtype, seed=4)
    values, trained = case.parameters(dtype), case.row.trainable
    expected = list(expected_gradients(case, x, dy, values, None))
    _, *numbers = backend.backward(case.row, tensor(dy), tensor(x), values)
    weights = [torch.tensor([v], dtype=torch.float64) for v in values[:trained]]
    _, *ones = backend.backward(case.row, tensor(dy), tensor(x), (*weights, *values[trained:]))
    for number, one, (total, size) in zip(numbers, ones, expected, strict=True):
        assert number.dtype == one.dtype == torch.float64
        assert (number.shape, one.shape) == ((), (1,))
        assert abs(float(number) - total) <= 1e-6 * size
        assert float(one) == float(number)


@pytest.mark.parametrize(("shape", "axis"), [((40, 9), 1), ((5, 7, 11), 1)])
@each_trainable
def test_gradient_of_weights_per_channel(case, shape, axis):
    """All of them per channel, and each in turn beside tensors of one value and numbers."""
    x, dy = inputs.normal(shape, np.float32, sd=2.5), inputs.normal(shape, np.float32, seed=4)
    trained = case.row.trainable
    varying = [inputs.normal(shape[axis], np.float32, mean=v, sd=0.3, seed=20 + k) for k, v in enumerate(case.values)]
    for chosen in (None, *range(trained)) if trained > 1 else (None,):
        varies = [k < trained and chosen in (None, k) for k in range(len(case.values))]
        values = [a if v else b for v, a, b in zip(varies, varying, case.parameters(np.float32), strict=True)]
        expected = list(expected_gradients(case, x, dy, values, axis))
        given = [tensor(v) if np.ndim(v) else torch.tensor(v) if k % 2 and k < trained else v
                 for k, v in enumerate(values)]  # fmt: skip
        twin_dx, *_ = case.row.backward(dy, *values, x=x, channel_axis=axis)
        for per, stats_axis in (("tensor", 0), ("channel", axis), ("channel", axis - 1), ("row", axis)):
            groups = {"tensor": 1, "channel": shape[stats_axis], "row": x.size // shape[axis]}[per]
            state = None if (per, stats_axis) == ("channel", axis) else backend.new_state("backward", groups)
            options = {"state": state, "per": per, "channel_axis": stats_axis, "weight_axis": axis}
            dx, *gradients = backend.backward(case.row, tensor(dy), tensor(x), given, **options)
            for gradient, (total, size) in zip(gradients, expected, strict=True):
                assert (np.abs(gradient.numpy() - total) <= 1e-6 * size).all(), (per, state is None)
            np.testing.assert_allclose(dx.numpy(), twin_dx, 1e-6, 1e-6)


def test_gradient_of_a_weight_has_its_dtype_and_is_right_when_dx_overwrites_dy():
    x, dy = inputs.normal((20, 6, 5), np.float32), inputs.normal((20, 6, 5), np.float32, seed=4)
    weight = torch.linspace(-1, 1, 6).to(torch.bfloat16)
    for per in ("tensor", "channel", "row"):
        state = backend.new_state("backward", {"tensor": 1, "channel": 5, "row": 120}[per])
        target = tensor(dy.copy())
        options = {"state": state, "per": per, "channel_axis": 2}
        dx, gradient = backend.backward(geoact.prelu, target, tensor(x), (weight,), target, **options)
        assert dx is target
        assert gradient.dtype == torch.bfloat16
        expected = np.where(x > 0, 0, dy.astype(float) * x).sum(axis=(0, 2))
        np.testing.assert_allclose(gradient.float().numpy(), expected, rtol=2**-8)
