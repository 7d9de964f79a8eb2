"""What is read from a record: one row per derived value, computed in float64 when it is asked for.

A row's ``of`` receives the cells of all groups by name (each a float64 array of one entry per group) and returns one
value per group, or one number for the whole layer. Formulas and sources: docs/statistics.md, whose table is generated
from these rows. Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Cells = Mapping[str, Array]

# Bits of the significand, hidden bit included, and exponent of the smallest normal number.
_FORMATS = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}


@dataclass(frozen=True)
class Derived:
    """One derived value: its public name, formula for the documentation, and function of the cells."""

    name: str
    formula: str
    of: Callable[[Cells, str], Array | float]
    doc: str = ""


def _group(name: str, formula: str, of: Callable[[Cells], Array], doc: str = "") -> Derived:
    return Derived(name, formula, lambda c, dtype: of(c), doc)


def _layer(name: str, formula: str, of: Callable[[Cells], Any], doc: str = "") -> Derived:
    return Derived(name, formula, lambda c, dtype: float(of(c)), doc)


def _var_x(c: Cells) -> Array:
    return c["m2_x"] / c["n"]


def _var_y(c: Cells) -> Array:
    return c["m2_y"] / c["n"]


def _square_x(c: Cells) -> Array:
    return _var_x(c) + c["mean_x"] ** 2


def _square_y(c: Cells) -> Array:
    return _var_y(c) + c["mean_y"] ** 2


def _linear_share(c: Cells) -> Array:
    # The quotients first: the product of two sums of squares may overflow where its root would not.
    return np.minimum(1.0, (c["c_xy"] / c["m2_x"]) * (c["c_xy"] / c["m2_y"]))


def _cosine(c: Cells) -> Array:
    product = c["c_xy"] / c["n"] + c["mean_x"] * c["mean_y"]
    return np.asarray(np.clip(product / (np.sqrt(_square_x(c)) * np.sqrt(_square_y(c))), -1.0, 1.0))


def _firing(c: Cells) -> Array:
    return c["positive"] / c["n"]


def _on_entropy(c: Cells) -> Array:
    p = _firing(c)
    q = 1 - p
    return -(p * np.log2(np.where(p > 0, p, 1)) + q * np.log2(np.where(q > 0, q, 1)))


def ulp(magnitude: Array, dtype: str) -> Array:
    """Distance between neighbours of a format at a magnitude.

    Parameters
    ----------
    magnitude : float64 array
    dtype : {"float16", "bfloat16", "float32", "float64"}
    """
    precision, smallest = _FORMATS[dtype]
    _, exponent = np.frexp(magnitude)  # magnitude = m 2^exponent with 1/2 <= m < 1
    return np.asarray(np.ldexp(1.0, np.maximum(exponent - 1, smallest) - (precision - 1)))


def effective_bits(c: Cells, dtype: str) -> Array:
    """log2 of the standard deviation of y in steps of its format at the size of y; 0 where y is constant."""
    spread = np.sqrt(_var_y(c))
    steps = spread / ulp(np.maximum(np.abs(c["mean_y"]), spread), dtype)
    return np.where(np.isnan(spread), np.nan, np.log2(np.maximum(steps, 1.0)))


COUNTS: tuple[Derived, ...] = (
    _group("n", "n", lambda c: c["n"], "elements measured"),
    _group("negative_fraction", "#{x < 0} / n", lambda c: c["negative"] / c["n"]),
    _group("positive_fraction", "p = #{x > 0} / n", _firing, "firing rate of a rectifier"),
    _group("zero_fraction", "#{y = 0} / n", lambda c: c["zero"] / c["n"], "sparsity of the output"),
    _group("saturation_fraction", "#{|f'| < saturation} / n", lambda c: c["saturated"] / c["n"]),
    _group("subnormal_fraction", "#{y subnormal in its dtype} / n", lambda c: c["subnormal"] / c["n"]),
    _group("nonfinite_x", "#{x NaN or infinite}", lambda c: c["nonfinite_x"]),
    _group("nonfinite_y", "#{y NaN or infinite}", lambda c: c["nonfinite_y"]),
    _group("x_min", "min x", lambda c: c["x_min"], "NaN ignored"),
    _group("x_max", "max x", lambda c: c["x_max"], "NaN ignored"),
    _group("y_min", "min y", lambda c: c["y_min"], "NaN ignored"),
    _group("y_max", "max y", lambda c: c["y_max"], "NaN ignored"),
    _group("absmax_x", "max |x|", lambda c: np.maximum(-c["x_min"], c["x_max"])),
    _group("absmax_y", "max |y|", lambda c: np.maximum(-c["y_min"], c["y_max"])),
    _group("on_entropy", "H(p) in bits", _on_entropy, "information of the on/off code of one unit"),
    _group(
        "dead_rate_bound",
        "3 / n where x > 0 never happened",
        lambda c: np.where(c["positive"] == 0, 3 / c["n"], np.nan),
        "95 % upper bound of the firing rate of a unit never seen firing (rule of three); NaN for the others",
    ),
)

MOMENTS: tuple[Derived, ...] = (
    _group("mean_x", "E x", lambda c: c["mean_x"]),
    _group("mean_y", "E y", lambda c: c["mean_y"]),
    _group("var_x", "Var x = M2 / n", _var_x, "population variance"),
    _group("var_y", "Var y", _var_y),
    _group("sd_x", "sqrt(Var x)", lambda c: np.sqrt(_var_x(c))),
    _group("sd_y", "sqrt(Var y)", lambda c: np.sqrt(_var_y(c))),
    _group("covariance", "Cov(x, y)", lambda c: c["c_xy"] / c["n"]),
    _group(
        "gain",
        "G = Var y / Var x",
        lambda c: c["m2_y"] / c["m2_x"],
        "scale: the ratio of mean squared distances over all pairs",
    ),
    _group(
        "linear_share",
        "R2 = Cov(x, y)^2 / (Var x Var y)",
        _linear_share,
        "shape: 1 where f is affine on the data",
    ),
    _group("cosine", "sum xy / (|x| |y|)", _cosine),
    _group("norm_ratio", "|y| / |x|", lambda c: np.sqrt(_square_y(c)) / np.sqrt(_square_x(c))),
    _group("norm_x", "|x|", lambda c: np.sqrt(c["n"] * _square_x(c)), "Euclidean norm"),
    _group("norm_y", "|y|", lambda c: np.sqrt(c["n"] * _square_y(c)), "Euclidean norm"),
    _group("l1_x", "sum |x|", lambda c: 2 * c["sum_pos_x"] - c["n"] * c["mean_x"]),
    _group("l1_y", "sum |y|", lambda c: c["sum_abs_y"]),
    _group("mean_pos_x", "E x+", lambda c: c["sum_pos_x"] / c["n"], "x+ = max(x, 0)"),
    _group("mean_neg_x", "E x-", lambda c: c["mean_x"] - c["sum_pos_x"] / c["n"], "x- = min(x, 0)"),
    _group("mean_sq_pos_x", "E x+^2", lambda c: c["sum_sq_pos_x"] / c["n"]),
    _group("mean_sq_neg_x", "E x-^2", lambda c: np.maximum(0, _square_x(c) - c["sum_sq_pos_x"] / c["n"])),
    _group("mean_slope", "E f'", lambda c: c["sum_slope"] / c["n"], "gradient, to first order"),
    _group(
        "mean_sq_slope",
        "E f'^2",
        lambda c: c["sum_sq_slope"] / c["n"],
        "gradient: mean-field chi / sigma_w^2 (Schoenholz et al. 2017)",
    ),
    _group("normalised_chi", "Var x E f'^2 / Var y", lambda c: _var_x(c) * c["sum_sq_slope"] / c["m2_y"]),
    _group(
        "stein_ratio",
        "Cov(x, y) / (Var x E f')",
        lambda c: c["c_xy"] * c["n"] / (c["m2_x"] * c["sum_slope"]),
        "1 for Gaussian x and any f (Stein 1981): how far from Gaussian the input is",
    ),
    Derived(
        "effective_bits",
        "log2(sd(y) / ulp(max(|E y|, sd(y))))",
        effective_bits,
        "resolution: how many bits of the dtype of y tell values apart",
    ),
)

LAYER_COUNTS: tuple[Derived, ...] = (
    _layer("dead_fraction", "channels with x > 0 never / channels", lambda c: np.mean(c["positive"] == 0)),
    _layer(
        "always_on_fraction",
        "channels with x > 0 always / channels",
        lambda c: np.mean(c["positive"] == c["n"]),
    ),
    _layer(
        "hamming_distance",
        "2 n / (n - 1) sum_c p_c (1 - p_c)",
        lambda c: np.sum(2 * c["n"] / (c["n"] - 1) * _firing(c) * (1 - _firing(c))),
        "mean over all pairs of samples of the number of units that differ in on/off",
    ),
)

LAYER_MOMENTS: tuple[Derived, ...] = (
    _layer(
        "layer_gain",
        "sum_c Var y_c / sum_c Var x_c",
        lambda c: np.sum(_var_y(c)) / np.sum(_var_x(c)),
        "scale of the whole layer: exactly the ratio of mean squared pair distances",
    ),
    _layer(
        "layer_linear_share",
        "sum_c Var y_c R2_c / sum_c Var y_c",
        lambda c: np.sum(np.where(c["m2_y"] > 0, _linear_share(c) * _var_y(c), 0)) / np.sum(_var_y(c)),
        "a channel that does not move counts nothing",
    ),
    _layer(
        "dc_ratio",
        "sum_c (E y_c)^2 / sum_c E y_c^2",
        lambda c: np.sum(c["mean_y"] ** 2) / np.sum(_square_y(c)),
        "share of the output's energy that is the same for every sample",
    ),
    Derived(
        "layer_effective_bits",
        "mean_c effective_bits_c",
        lambda c, dtype: float(np.mean(effective_bits(c, dtype))),
    ),
)

GRADIENT: tuple[Derived, ...] = (
    _group("n", "n", lambda c: c["n"], "elements measured"),
    _group("zero_fraction", "#{dx = 0} / n", lambda c: c["zero"] / c["n"]),
    _group(
        "underflow_fraction",
        "#{dx subnormal, or 0 although dy and f' are not} / n",
        lambda c: c["underflow"] / c["n"],
    ),
    _group("nonfinite_dy", "#{dy NaN or infinite}", lambda c: c["nonfinite_dy"]),
    _group("nonfinite_dx", "#{dx NaN or infinite}", lambda c: c["nonfinite_dx"]),
    _group("absmax_dy", "max |dy|", lambda c: c["absmax_dy"], "NaN ignored"),
    _group("absmax_dx", "max |dx|", lambda c: c["absmax_dx"], "NaN ignored"),
    _group("norm_dy", "|dy|", lambda c: np.sqrt(c["sum_sq_dy"]), "Euclidean norm"),
    _group("norm_dx", "|dx|", lambda c: np.sqrt(c["sum_sq_dx"]), "Euclidean norm"),
    _group("realised_gain", "|dx|^2 / |dy|^2", lambda c: c["sum_sq_dx"] / c["sum_sq_dy"]),
    _group("mean_slope", "E f'", lambda c: c["sum_slope"] / c["n"]),
    _group("mean_sq_slope", "E f'^2", lambda c: c["sum_sq_slope"] / c["n"]),
    _group(
        "gain_over_slope",
        "(|dx|^2 / |dy|^2) / E f'^2",
        lambda c: c["sum_sq_dx"] / c["sum_sq_dy"] * c["n"] / c["sum_sq_slope"],
        "1 where the incoming gradient does not depend on where the slope is small",
    ),
)

LAYER_GRADIENT: tuple[Derived, ...] = (
    _layer(
        "layer_realised_gain",
        "sum_c |dx_c|^2 / sum_c |dy_c|^2",
        lambda c: np.sum(c["sum_sq_dx"]) / np.sum(c["sum_sq_dy"]),
    ),
)
