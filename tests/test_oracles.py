"""The statistics of normal data against closed forms and quadrature: numbers that no code of ours computed."""

from math import asin, e, exp, pi, sqrt

import geoact
import numpy as np
import pytest
from scipy.special import ndtr, ndtri

SAMPLES = 1 << 20


def normal(s, mean=0.0):
    """Stratified N(mean, s^2): the midpoints of equal slices of probability; moments converge like log(n) / n."""
    return mean + s * ndtri((np.arange(SAMPLES) + 0.5) / SAMPLES)


def pdf(z):
    return exp(-z * z / 2) / sqrt(2 * pi)


def relu(s):
    square = s * s / 2
    return {
        "mean_y": s / sqrt(2 * pi),
        "var_y": (0.5 - 1 / (2 * pi)) * s * s,
        "mean_slope": 0.5,
        "mean_sq_slope": 0.5,
        "cosine": 1 / sqrt(2),
        "linear_share": pi / (2 * (pi - 1)),
        "gain": 0.5 - 1 / (2 * pi),
        "mean_sq_pos_x": square,
        "mean_sq_neg_x": square,
        "positive_fraction": 0.5,
    }


def leaky(s, a):
    return {
        "mean_y": (1 - a) * s / sqrt(2 * pi),
        "norm_ratio": sqrt((1 + a * a) / 2),
        "mean_slope": (1 + a) / 2,
        "mean_sq_slope": (1 + a * a) / 2,
        "cosine": (1 + a) / sqrt(2 * (1 + a * a)),
    }


def elu(s):
    one, two = exp(s * s / 2) * ndtr(-s), exp(2 * s * s) * ndtr(-2 * s)
    return {
        "mean_y": s / sqrt(2 * pi) + one - 0.5,
        "square_y": s * s / 2 + two - 2 * one + 0.5,
        "mean_slope": 0.5 + one,
        "mean_sq_slope": 0.5 + two,
    }


def gelu(s):
    q = s * s
    root = (1 + q) * sqrt(1 + 2 * q)
    return {
        "mean_y": q / sqrt(2 * pi * (1 + q)),
        "square_y": q / 4 + q / (2 * pi) * (asin(q / (1 + q)) + 2 * q / root),
        "mean_slope": 0.5,
        "mean_sq_slope": 0.25 + asin(q / (1 + q)) / (2 * pi) + q / pi / root + q / (2 * pi * (1 + 2 * q) ** 1.5),
    }


def relu_squared(s):
    q = s * s
    return {
        "mean_y": q / 2,
        "square_y": 1.5 * q * q,
        "mean_slope": 2 * s / sqrt(2 * pi),
        "mean_sq_slope": 2 * q,
    }


# Found by quadrature.
TABLE = {
    ("sigmoid", 1): {
        "var_y": 0.043379036,
        "mean_slope": 0.206621,
        "mean_sq_slope": 0.044836,
        "linear_share": 0.9842,
    },
    ("sigmoid", 4): {
        "var_y": 0.158815,
        "mean_slope": 0.091185,
        "mean_sq_slope": 0.015997,
        "linear_share": 0.8377,
    },
    ("silu", 1): {
        "mean_y": 0.206621,
        "square_y": 0.355776,
        "mean_sq_slope": 0.379482,
        "linear_share": 0.7985,
    },
    ("tanh", 1): {
        "square_y": 0.394294,
        "mean_slope": 0.605706,
        "mean_sq_slope": 0.464403,
        "linear_share": 0.9305,
    },
}


def measure(name, s, dtype, *values, mean=0.0):
    stats = geoact.GeometryStats()
    geoact.get(name)(normal(s, mean).astype(dtype), *values, stats=stats)
    return stats


def assert_close(stats, expected, relative):
    for name, value in expected.items():
        actual = stats.var_y + stats.mean_y**2 if name == "square_y" else getattr(stats, name)
        assert actual == pytest.approx(value, rel=relative, abs=1e-5), name


CLOSED = {"relu": relu, "elu": elu, "gelu": gelu, "relu_squared": relu_squared}


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("s", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name, s, kind):
    assert_close(measure(name, s, kind), CLOSED[name](s), 1e-4)


@pytest.mark.parametrize("a", [0.01, 0.3, -0.5])
def test_closed_forms_of_leaky_slopes(a):
    for name in ("leaky_relu", "prelu"):
        assert_close(measure(name, 1.5, "float32", a), leaky(1.5, a), 1e-4)


def test_closed_form_of_relu_with_a_mean():
    s, m = 1.3, 0.7
    stats = measure("relu", s, "float32", mean=m)
    expected = {
        "mean_y": m * ndtr(m / s) + s * pdf(m / s),
        "square_y": (m * m + s * s) * ndtr(m / s) + m * s * pdf(m / s),
    }
    assert_close(stats, expected, 1e-5)


@pytest.mark.parametrize(("name", "s"), TABLE, ids=str)
def test_quadrature(name, s):
    assert_close(measure(name, float(s), "float32"), TABLE[name, s], 1e-4)


@pytest.mark.parametrize("name", [name for name in geoact.activations() if name != "prelu"])
def test_stein_ratio_of_normal_data_is_one(name):
    # E x f = s^2 E f' for any f: the value and the slope of every kernel check each other
    assert measure(name, 1.2, "float32").stein_ratio == pytest.approx(1, abs=1e-4)


def test_sigmoid_is_a_tanh_of_half_the_argument():
    for s in (0.5, 2.0, 8.0):
        half = measure("tanh", s / 2, "float64").linear_share
        for name in ("sigmoid", "centered_sigmoid"):
            assert measure(name, s, "float64").linear_share == pytest.approx(half, rel=1e-9)


def test_norm_of_x_splits_into_that_of_relu_and_the_rest():
    stats = measure("relu", 1.7, "float64")
    rest = stats.mean_sq_neg_x * stats.n
    assert stats.norm_x**2 == pytest.approx(stats.norm_y**2 + rest, rel=1e-12)


# Largest ratio |f(a) - f(b)| / |a - b| squared bounds the gain.
LARGEST_SLOPE = {
    "sigmoid": 0.25,
    "relu": 1,
    "leaky_relu": 1,
    "elu": 1,
    "tanh": 1,
    "silu": 1.0999,
    "gelu": 1.1290,
}


@pytest.mark.parametrize("name", LARGEST_SLOPE)
def test_invariants(name):
    for s in (1e-3, 1.0, e, 50.0):
        stats = measure(name, s, "float32")
        assert 0 <= stats.linear_share <= 1
        assert -1 <= stats.cosine <= 1
        assert 0 < stats.gain <= LARGEST_SLOPE[name] ** 2 * (1 + 1e-6)


def test_resolution_of_relu_and_sigmoids_in_bfloat16():
    """The table that motivates centered_sigmoid: bits kept of unit normal data."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = {
        name: measure(name, 1.0, ml_dtypes.bfloat16).effective_bits for name in ("relu", "sigmoid", "centered_sigmoid")
    }
    assert bits["centered_sigmoid"] > bits["sigmoid"]
