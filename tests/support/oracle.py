"""Float64 references of the statistics, from x and y as stored: plain two-pass NumPy, one function per quantity.

``cells`` and ``gradient_cells`` give (expected, size) for every cell of a record: ``size`` is what an error is
compared with. Both arrays have the shape (groups,). The derived values are written from their definitions and not
from the cells.
"""

from __future__ import annotations

import numpy as np

from support.cases import FORMATS


def grouped(array, per, axis=-1):
    """The elements as float64, one row per group."""
    wide = array.astype(np.float64)
    if per == "tensor":
        return wide.reshape(1, -1)
    count = array.shape[axis]
    if per == "channel":
        return np.moveaxis(wide, axis, 0).reshape(count, -1)
    return np.moveaxis(wide, axis, -1).reshape(-1, count)


def _sum(values):
    return values.sum(axis=1), np.abs(values).sum(axis=1)


def _like_a_mean(values, m2):
    """Where y >= 0 the sum is n times the mean, which is right relative to max(|mean|, sd)."""
    total, size = _sum(values)
    return total, np.fmax(size, np.sqrt(m2 * values.shape[1]))


def _slope_sums(slope):
    """A slope is right to a few spacings at max(1, |f'|): near a zero of f' its relative error has no bound."""
    size = np.abs(slope)
    return {
        "sum_slope": (slope.sum(axis=1), np.maximum(size, 0.5).sum(axis=1)),
        "sum_sq_slope": ((slope**2).sum(axis=1), np.maximum(size**2, size).sum(axis=1)),
    }


def _mean_and_deviations(values):
    """Exact for equal values, and for values that differ in their last bits."""
    middle = values[:, values.shape[1] // 2, None]
    offsets = values - middle
    mean = offsets.mean(axis=1, keepdims=True)
    return (middle + mean)[:, 0], offsets - mean


def cells(x, y, slope, dtype, saturation=0.05):
    smallest = 2.0 ** FORMATS[dtype.name][1]
    with np.errstate(all="ignore"):
        n = np.full(len(x), float(x.shape[1]))
        (mean_x, dx), (mean_y, dy) = _mean_and_deviations(x), _mean_and_deviations(y)
        m2_x, m2_y = (dx * dx).sum(axis=1), (dy * dy).sum(axis=1)
        exact = {
            "n": n,
            "negative": (x < 0).sum(axis=1),
            "positive": (x > 0).sum(axis=1),
            "zero": (y == 0).sum(axis=1),
            "saturated": (np.abs(slope) < saturation).sum(axis=1),
            "subnormal": ((np.abs(y) < smallest) & (y != 0)).sum(axis=1),
            "nonfinite_x": (~np.isfinite(x)).sum(axis=1),
            "nonfinite_y": (~np.isfinite(y)).sum(axis=1),
            "x_min": np.fmin.reduce(x, axis=1, initial=np.inf),
            "x_max": np.fmax.reduce(x, axis=1, initial=-np.inf),
            "y_min": np.fmin.reduce(y, axis=1, initial=np.inf),
            "y_max": np.fmax.reduce(y, axis=1, initial=-np.inf),
        }
        positive = np.maximum(x, 0)
        return {
            **{name: (value.astype(float), 0.0) for name, value in exact.items()},
            "mean_x": (mean_x, np.maximum(np.abs(mean_x), np.sqrt(m2_x / n))),
            "mean_y": (mean_y, np.maximum(np.abs(mean_y), np.sqrt(m2_y / n))),
            "m2_x": (m2_x, m2_x),
            "m2_y": (m2_y, m2_y),
            "c_xy": ((dx * dy).sum(axis=1), np.sqrt(m2_x) * np.sqrt(m2_y)),
            "sum_abs_y": _like_a_mean(np.abs(y), m2_y),
            "sum_pos_x": _like_a_mean(positive, m2_x),
            "sum_sq_pos_x": _sum(positive**2),
            **_slope_sums(slope),
        }


def gradient_cells(dy, dx, slope, dtype):
    smallest = 2.0 ** FORMATS[dtype.name][1]
    with np.errstate(all="ignore"):
        lost = np.where(dx == 0, (np.abs(dy) > 0) & (slope != 0), np.abs(dx) < smallest)
        exact = {
            "n": np.full(len(dy), dy.shape[1]),
            "zero": (dx == 0).sum(axis=1),
            "underflow": lost.sum(axis=1),
            "nonfinite_dy": (~np.isfinite(dy)).sum(axis=1),
            "nonfinite_dx": (~np.isfinite(dx)).sum(axis=1),
            "absmax_dy": np.fmax.reduce(np.abs(dy), axis=1, initial=0),
            "absmax_dx": np.fmax.reduce(np.abs(dx), axis=1, initial=0),
        }
        return {
            **{name: (value.astype(float), 0.0) for name, value in exact.items()},
            "sum_sq_dy": _sum(dy**2),
            "sum_sq_dx": _sum(dx**2),
            **_slope_sums(slope),
        }


def assert_cells(actual, expected, relative=1e-6, *, context=""):
    """Every cell agrees; what is not finite in one is not finite in the other."""
    for name, (value, size) in expected.items():
        if name not in actual:
            continue
        got = actual[name]
        assert got.shape == value.shape, (context, name)
        finite = np.isfinite(value) | (np.asarray(size) == 0)  # an infinite extreme is exact
        assert not np.isfinite(got[~finite]).any(), (context, name, got[~finite])
        with np.errstate(invalid="ignore"):
            error, allowed = np.abs(got - value), relative * np.broadcast_to(size, value.shape)
        good = (got == value) | (error <= allowed) | ~finite
        if not good.all():
            first = np.argmin(good)
            share = np.max((error / np.maximum(allowed, 1e-300))[~good])
            message = f"{got[first]!r}, expected {value[first]!r}; at most {share:.3g} times what is allowed"
            raise AssertionError(f"{context} {name} of group {first}: {message}")


# --- derived values, from their definitions -------------------------------------------------------


def _entropy(p):
    return -sum(q * np.log2(q) if q > 0 else 0.0 for q in (p, 1 - p))


def _effective_bits(y, dtype):
    precision, smallest = FORMATS[dtype.name]
    spread = np.std(y)
    if spread == 0:
        return 0.0
    step = 2.0 ** (max(np.floor(np.log2(max(abs(np.mean(y)), spread))), smallest) - (precision - 1))
    return np.log2(max(spread / step, 1))


# Of one group: x, y, f' (1-D float64) and the dtype.
GROUP = {
    "n": lambda x, y, f, dtype: x.size,
    "negative_fraction": lambda x, y, f, dtype: np.mean(x < 0),
    "positive_fraction": lambda x, y, f, dtype: np.mean(x > 0),
    "zero_fraction": lambda x, y, f, dtype: np.mean(y == 0),
    "saturation_fraction": lambda x, y, f, dtype: np.mean(np.abs(f) < 0.05),
    "subnormal_fraction": lambda x, y, f, dtype: np.mean((np.abs(y) < 2.0 ** FORMATS[dtype.name][1]) & (y != 0)),
    "nonfinite_x": lambda x, y, f, dtype: np.sum(~np.isfinite(x)),
    "nonfinite_y": lambda x, y, f, dtype: np.sum(~np.isfinite(y)),
    "x_min": lambda x, y, f, dtype: x.min(),
    "x_max": lambda x, y, f, dtype: x.max(),
    "y_min": lambda x, y, f, dtype: y.min(),
    "y_max": lambda x, y, f, dtype: y.max(),
    "absmax_x": lambda x, y, f, dtype: np.abs(x).max(),
    "absmax_y": lambda x, y, f, dtype: np.abs(y).max(),
    "on_entropy": lambda x, y, f, dtype: _entropy(np.mean(x > 0)),
    "dead_rate_bound": lambda x, y, f, dtype: np.nan if (x > 0).any() else 3 / x.size,
    "mean_x": lambda x, y, f, dtype: np.mean(x),
    "mean_y": lambda x, y, f, dtype: np.mean(y),
    "var_x": lambda x, y, f, dtype: np.var(x),
    "var_y": lambda x, y, f, dtype: np.var(y),
    "sd_x": lambda x, y, f, dtype: np.std(x),
    "sd_y": lambda x, y, f, dtype: np.std(y),
    "covariance": lambda x, y, f, dtype: np.cov(x, y, bias=True)[0, 1],
    "gain": lambda x, y, f, dtype: np.var(y) / np.var(x),
    "linear_share": lambda x, y, f, dtype: np.corrcoef(x, y)[0, 1] ** 2,
    "cosine": lambda x, y, f, dtype: x @ y / (np.linalg.norm(x) * np.linalg.norm(y)),
    "norm_ratio": lambda x, y, f, dtype: np.linalg.norm(y) / np.linalg.norm(x),
    "norm_x": lambda x, y, f, dtype: np.linalg.norm(x),
    "norm_y": lambda x, y, f, dtype: np.linalg.norm(y),
    "l1_x": lambda x, y, f, dtype: np.abs(x).sum(),
    "l1_y": lambda x, y, f, dtype: np.abs(y).sum(),
    "mean_pos_x": lambda x, y, f, dtype: np.mean(np.maximum(x, 0)),
    "mean_neg_x": lambda x, y, f, dtype: np.mean(np.minimum(x, 0)),
    "mean_sq_pos_x": lambda x, y, f, dtype: np.mean(np.maximum(x, 0) ** 2),
    "mean_sq_neg_x": lambda x, y, f, dtype: np.mean(np.minimum(x, 0) ** 2),
    "mean_slope": lambda x, y, f, dtype: np.mean(f),
    "mean_sq_slope": lambda x, y, f, dtype: np.mean(f**2),
    "normalised_chi": lambda x, y, f, dtype: np.var(x) * np.mean(f**2) / np.var(y),
    "stein_ratio": lambda x, y, f, dtype: np.cov(x, y, bias=True)[0, 1] / (np.var(x) * np.mean(f)),
    "effective_bits": lambda x, y, f, dtype: _effective_bits(y, dtype),
}

# Of one group: dy, dx, f' and the dtype.
GRADIENT = {
    "n": lambda dy, dx, f, dtype: dy.size,
    "zero_fraction": lambda dy, dx, f, dtype: np.mean(dx == 0),
    "underflow_fraction": lambda dy, dx, f, dtype: (
        gradient_cells(dy[None], dx[None], f[None], dtype)["underflow"][0][0] / dy.size
    ),
    "nonfinite_dy": lambda dy, dx, f, dtype: np.sum(~np.isfinite(dy)),
    "nonfinite_dx": lambda dy, dx, f, dtype: np.sum(~np.isfinite(dx)),
    "absmax_dy": lambda dy, dx, f, dtype: np.abs(dy).max(),
    "absmax_dx": lambda dy, dx, f, dtype: np.abs(dx).max(),
    "norm_dy": lambda dy, dx, f, dtype: np.linalg.norm(dy),
    "norm_dx": lambda dy, dx, f, dtype: np.linalg.norm(dx),
    "realised_gain": lambda dy, dx, f, dtype: np.sum(dx**2) / np.sum(dy**2),
    "mean_slope": lambda dy, dx, f, dtype: np.mean(f),
    "mean_sq_slope": lambda dy, dx, f, dtype: np.mean(f**2),
    "gain_over_slope": lambda dy, dx, f, dtype: np.sum(dx**2) / np.sum(dy**2) / np.mean(f**2),
}


def _pair_distances(units):
    """Mean over all pairs of samples of the squared distance between them; ``units`` is (channels, samples)."""
    samples = units.T
    gaps = samples[:, None, :] - samples[None, :, :]
    upper = np.triu_indices(len(samples), 1)
    return (gaps[upper] ** 2).sum(axis=1).mean()


def _shares(x, y):
    return np.array([np.corrcoef(a, b)[0, 1] ** 2 if np.ptp(b) else 0.0 for a, b in zip(x, y, strict=True)])


# Of the layer: x, y (channels, samples) and the dtype. Distances are taken between all pairs.
LAYER = {
    "dead_fraction": lambda x, y, dtype: np.mean(~(x > 0).any(axis=1)),
    "always_on_fraction": lambda x, y, dtype: np.mean((x > 0).all(axis=1)),
    "hamming_distance": lambda x, y, dtype: _pair_distances((x > 0).astype(float)),
    "layer_gain": lambda x, y, dtype: _pair_distances(y) / _pair_distances(x),
    "layer_linear_share": lambda x, y, dtype: np.average(_shares(x, y), weights=y.var(axis=1)),
    "dc_ratio": lambda x, y, dtype: np.sum(y.mean(axis=1) ** 2) / np.sum((y**2).mean(axis=1)),
    "layer_effective_bits": lambda x, y, dtype: np.mean([_effective_bits(row, dtype) for row in y]),
}
