"""Leaky rectifiers whose slope follows from what their input is, or is taken to be: formulas, on plain numbers.

- GAL, geometry-adaptive leaky unit: y = scale (x+ + a x- - shift), whose three numbers follow from the partial moments
  of the input: a keeps a given share of y linear in x, scale keeps the variance, shift centres (:func:`gal`).
- TAT: a sqrt(2 / (1 + a^2)) leaky rectifier whose slope follows from the depth, for Gaussian input (:func:`tat_slope`).

The modules that use them are in :mod:`geoact.torch.adaptive`; docs/adaptive.md derives what stands here without proof.

With A = Var x+, B = Var x-, C = Cov(x+, x-) = -E x+ E x- and V = Var x = A + B + 2 C, nothing of which is negative, and
the Gram determinant D = A B - C^2, the linear share of f = x+ + a x- is

    R2(a) = Cov(x, f)^2 / (Var x Var f) = 1 - (1 - a)^2 D / (V (A + a^2 B + 2 a C)),

increasing on [0, 1]. R2(a) = share is a quadratic in a; with k = 1 - share its root between 0 and 1 is

    a = (D - k V A) / (D + k V C + V sqrt(k share D)),

without subtractions but that in the numerator, which is negative where the share of a rectifier, R2(0), is enough.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import NamedTuple

from geoact.statistics import GeometryStats

__all__ = [
    "KAPPA",
    "Gal",
    "PartialMoments",
    "gal",
    "gaussian_gal",
    "linear_share",
    "share_for_depth",
    "tat_scale",
    "tat_slope",
]

#: Default of kappa. Of L layers each keeps the share 1 - kappa / L, so that all together multiply small correlations
#: of Gaussian input by (1 - kappa / L)^L, about exp(-1/2) = .61. Smaller than 1, so that it suits every depth; TAT with
#: eta = .9 corresponds to about 2.6.
KAPPA = 0.5


def _number(name: str, value: object) -> float:
    """A finite real number, or an error that names the argument."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def _depth(value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"depth must be an int, got {type(value).__name__}")
    depth = int(value.__index__())
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    return depth


@dataclass(frozen=True)
class PartialMoments:
    """First and second moments of the positive and of the negative part of x: E x+, E x-, E x+^2, E x-^2.

    Parameters
    ----------
    mean_pos, mean_neg : float
        E max(x, 0), not negative, and E min(x, 0), not positive.
    sq_pos, sq_neg : float
        E max(x, 0)^2 and E min(x, 0)^2, not negative.

    Raises
    ------
    TypeError, ValueError
        If one is no finite number, or of the wrong sign.
    """

    mean_pos: float
    mean_neg: float
    sq_pos: float
    sq_neg: float

    def __post_init__(self) -> None:
        for name, sign in (("mean_pos", 1), ("mean_neg", -1), ("sq_pos", 1), ("sq_neg", 1)):
            value = _number(name, getattr(self, name))
            if sign * value < 0:
                raise ValueError(f"{name} must not be {'negative' if sign > 0 else 'positive'}, got {value}")
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, stats: GeometryStats) -> PartialMoments:
        """The moments of all that ``stats`` has measured.

        Parameters
        ----------
        stats : GeometryStats
            With per="tensor" and level="moments".

        Raises
        ------
        TypeError
            If it is no GeometryStats.
        ValueError
            If it has other settings, has measured nothing yet, or has met NaN or infinity.
        """
        if not isinstance(stats, GeometryStats):
            raise TypeError(f"stats must be a geoact.GeometryStats, got {type(stats).__name__}")
        if stats.per != "tensor" or stats.level != "moments":
            raise ValueError(f"stats must have per='tensor' and level='moments', got {stats!r}")
        if not stats.groups or not stats.n:
            raise ValueError("stats has measured nothing yet")
        if stats.nonfinite_x:
            raise ValueError(f"stats has met {stats.nonfinite_x:.0f} inputs that are NaN or infinite")
        # The record has sums over x > 0; what is left of the sums over all x may be rounding, where no x is negative.
        if stats.negative_fraction == 0:
            return cls(stats.mean_pos_x, 0.0, stats.mean_sq_pos_x, 0.0)
        return cls(stats.mean_pos_x, min(stats.mean_neg_x, 0.0), stats.mean_sq_pos_x, stats.mean_sq_neg_x)

    @classmethod
    def gaussian(cls, mean: float = 0.0, sd: float = 1.0) -> PartialMoments:
        """Closed form for x of the law N(mean, sd^2).

        Raises
        ------
        TypeError, ValueError
            If one is no finite number, or sd is not positive.
        """
        mean, sd = _number("mean", mean), _number("sd", sd)
        if sd <= 0:
            raise ValueError(f"sd must be positive, got {sd}")
        z = mean / sd
        above, below = math.erfc(-z / math.sqrt(2)) / 2, math.erfc(z / math.sqrt(2)) / 2  # P(x > 0), P(x < 0)
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        # Far out in a tail the difference of two tiny numbers may have the wrong sign.
        return cls(
            sd * max(z * above + density, 0.0),
            sd * min(z * below - density, 0.0),
            sd * sd * max((z * z + 1) * above + z * density, 0.0),
            sd * sd * max((z * z + 1) * below - z * density, 0.0),
        )

    @property
    def mean(self) -> float:
        """E x."""
        return self.mean_pos + self.mean_neg

    @property
    def variance(self) -> float:
        """Var x, not negative; loses digits where x has one sign and is far from 0."""
        a, b, c = _covariances(self)
        return a + b + 2 * c


def _covariances(m: PartialMoments) -> tuple[float, float, float]:
    """Var x+, Var x-, Cov(x+, x-)."""
    return (
        max(m.sq_pos - m.mean_pos**2, 0.0),
        max(m.sq_neg - m.mean_neg**2, 0.0),
        -m.mean_pos * m.mean_neg,
    )


def _unit(m: PartialMoments) -> tuple[float, float, float, float]:
    """Var x+, Var x-, Cov(x+, x-) and their determinant for x / root mean square: products then stay in range."""
    square = m.sq_pos + m.sq_neg
    if square == 0:
        return 0.0, 0.0, 0.0, 0.0
    a, b, c = (value / square for value in _covariances(m))
    return a, b, c, max(a * b - c * c, 0.0)


def linear_share(moments: PartialMoments, slope: float) -> float:
    """R2 of f(x) = x+ + slope x-: the share of Var f(x) that a straight line in x explains.

    Parameters
    ----------
    moments : PartialMoments
    slope : float

    Returns
    -------
    float
        Between 0 and 1; 1 where slope is 1. NaN where x or f(x) does not vary.

    Raises
    ------
    TypeError, ValueError
        If moments are none, or slope is no finite number.
    """
    _check(moments)
    slope = _number("slope", slope)
    a, b, c, determinant = _unit(moments)
    product = (a + b + 2 * c) * (a + slope * slope * b + 2 * slope * c)
    if product <= 0:
        return math.nan
    return min(max(1 - (1 - slope) ** 2 * determinant / product, 0.0), 1.0)


class Gal(NamedTuple):
    """y = scale (x+ + slope x- - shift)."""

    slope: float
    scale: float
    shift: float


def gal(moments: PartialMoments, share: float, max_scale: float = math.inf) -> Gal:
    """Slope, scale and shift for which y = scale (x+ + slope x- - shift) has the share, the variance of x and mean 0.

    Parameters
    ----------
    moments : PartialMoments
        Of x.
    share : float
        What :func:`linear_share` of y is to be, above 0 and at most 1. Where even a rectifier has more, slope is 0 and
        y has more: no slope is negative.
    max_scale : float
        At least 1. Where x is nearly always negative the share alone asks for a tiny slope, and a huge scale that
        undoes it (1200 for N(-5, 1) and the share .97), so that the next positive x explodes. Where scale would exceed
        max_scale the slope is larger, and the share with it.

    Returns
    -------
    Gal
        As scale^2 is Var x / Var f, the mean squared distance over all pairs of inputs stays what it is. Where x has
        one sign or does not vary, any slope has share 1 and x says nothing about which: then y = x - E x, that is
        Gal(1, 1, E x).

    Raises
    ------
    TypeError, ValueError
        If moments are none, or share or max_scale is not as said.
    """
    _check(moments)
    share = _number("share", share)
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    if max_scale != math.inf and _number("max_scale", max_scale) < 1:
        raise ValueError(f"max_scale must be at least 1, got {max_scale}")
    a, b, c, determinant = _unit(moments)
    if c <= 0 or a < sys.float_info.min:  # one sign, as far as these numbers can tell
        return Gal(1.0, 1.0, moments.mean)
    variance, lost = a + b + 2 * c, 1 - share
    below = determinant + lost * variance * c + variance * math.sqrt(lost * share * determinant)
    # 0 / 0: nothing may be lost, and of two values nothing can be
    slope = max(determinant - lost * variance * a, 0.0) / below if below > 0 else 1.0
    short = variance / max_scale**2 - a  # what slope^2 B + 2 slope C must at least be
    if short > slope * (slope * b + 2 * c):
        slope = short / (c + math.sqrt(c * c + b * short))
    scale = math.sqrt(variance / (a + slope * slope * b + 2 * slope * c))
    return Gal(slope, scale, moments.mean_pos + slope * moments.mean_neg)


def gaussian_gal(depth: int, kappa: float = KAPPA, sd: float = 1.0) -> Gal:
    """GAL for input taken to be N(0, sd^2) instead of measured: what measuring has to be compared with.

    Parameters
    ----------
    depth, kappa
        As for :func:`share_for_depth`.
    sd : float
        Standard deviation; positive.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """
    return gal(PartialMoments.gaussian(0.0, sd), share_for_depth(depth, kappa))


def share_for_depth(depth: int, kappa: float = KAPPA) -> float:
    """1 - kappa / depth: the share of each of depth layers, so that all together lose about the same at any depth.

    Parameters
    ----------
    depth : int
        Number of activations one after the other; at least 1.
    kappa : float
        Above 0 and below depth.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """
    depth, kappa = _depth(depth), _number("kappa", kappa)
    if not 0 < kappa < depth:
        raise ValueError(f"kappa must be above 0 and below depth, which is {depth}, got {kappa}")
    return 1 - kappa / depth


def tat_slope(depth: int, eta: float = 0.9) -> float:
    """Negative slope of the leaky rectifier of Tailored Activation Transformation.

    Over one layer with Gaussian weights the cosine c of two inputs becomes
    c + (1 - a)^2 / (pi (1 + a^2)) (sqrt(1 - c^2) - c arccos c); a is such that depth layers take 0 to eta.

    Parameters
    ----------
    depth : int
        Number of activations one after the other; at least 1.
    eta : float
        Between 0 and 1.

    Returns
    -------
    float
        From 0 to 1; 0 where depth rectifiers do not take the cosine as far as eta (up to 9 layers for .9).

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Notes
    -----
    Source: Zhang, Botev, Martens (2022), Deep learning without shortcuts: shaping the kernel with tailored rectifiers.
    """
    depth, eta = _depth(depth), _number("eta", eta)
    if not 0 < eta < 1:
        raise ValueError(f"eta must be between 0 and 1, got {eta}")
    if _cosine_after(depth, 0.0) <= eta:
        return 0.0
    low, high = 0.0, 1.0  # where the cosine goes beyond eta, and where it does not
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _cosine_after(depth, middle) > eta else (low, middle)
    return high


def _cosine_after(depth: int, slope: float) -> float:
    """Where depth layers take two orthogonal inputs."""
    curvature = (1 - slope) ** 2 / (math.pi * (1 + slope * slope))
    cosine = 0.0
    for _ in range(depth):
        cosine += curvature * max(math.sqrt(1 - cosine * cosine) - cosine * math.acos(cosine), 0.0)
        cosine = min(cosine, 1.0)
    return cosine


def tat_scale(slope: float) -> float:
    """sqrt(2 / (1 + slope^2)): with it a leaky rectifier keeps the mean square of N(0, s^2).

    Raises
    ------
    TypeError, ValueError
        If slope is no finite number.
    """
    slope = _number("slope", slope)
    return math.sqrt(2 / (1 + slope * slope))


def _check(moments: object) -> None:
    if not isinstance(moments, PartialMoments):
        raise TypeError(f"moments must be PartialMoments, got {type(moments).__name__}")
