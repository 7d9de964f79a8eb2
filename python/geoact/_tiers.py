"""What is read from the opt-in tiers: histograms, pairs of rows, sketches. The record is csrc/ops/tiers.h.

A row of ``HISTOGRAM``, ``PAIRS`` or ``SKETCH`` is one number of the whole data, as a row of :mod:`geoact._derived` is
one of the moments: attribute, line of ``print(stats)`` and of the table in docs/tiers.md follow from it. Imports NumPy
and ``geoact._core``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEAST, OCTAVES, PER_OCTAVE = -32, 64, 4  # of the buckets, as in the compiled core
_OF_SIZE = OCTAVES * PER_OCTAVE + 2
SAMPLED_EVERY = 32


def _edges() -> Array:
    """Magnitudes between the buckets of one sign: 0, 2^-32, ..., 2^32, infinity."""
    octave, quarter = np.divmod(np.arange(OCTAVES * PER_OCTAVE + 1), PER_OCTAVE)
    return np.concatenate([[0.0], np.ldexp(1 + quarter / PER_OCTAVE, octave + LEAST), [np.inf]])


_EDGES = _edges()


class Histogram:
    """Counts of values in buckets of sign, exponent and two bits of the significand: four per octave.

    Buckets tell values of [2^-32, 2^32) apart, so a quantile there is known to within 1/4 of itself, and where data
    spread over a bucket, linear interpolation does much better. Zero and what is smaller share one bucket per sign.
    With ``histogram=True`` one value in 32 is counted; a rank error of eps then has a probability of at most
    2 exp(-2 m eps^2) for m independent values counted (Dvoretzky, Kiefer, Wolfowitz 1956; Massart 1990).

    Attributes
    ----------
    counts : float64 array of shape (516,)
        By ascending value.
    low, high : float64 arrays of shape (516,)
        The buckets' edges.
    nan : float
        NaNs counted; not part of ``counts``.
    """

    low: Array = np.concatenate([-_EDGES[:0:-1], _EDGES[:-1]])
    high: Array = np.concatenate([-_EDGES[-2::-1], _EDGES[1:]])

    def __init__(self, cells: Array) -> None:
        self.counts: Array = np.concatenate([cells[_OF_SIZE : 2 * _OF_SIZE][::-1], cells[:_OF_SIZE]])
        self.nan = float(cells[2 * _OF_SIZE])

    @property
    def total(self) -> float:
        """Values counted, NaNs apart."""
        return float(self.counts.sum())

    def bounds(self, q: float) -> tuple[float, float]:
        """The edges of the bucket that holds a quantile of what was counted; NaN where nothing was.

        Raises
        ------
        ValueError
            If q does not lie in [0, 1].
        """
        at = _bucket(self.counts, q)
        return (float("nan"),) * 2 if at is None else (float(self.low[at]), float(self.high[at]))

    def quantile(self, q: float) -> float:
        """A quantile, interpolated within its bucket; infinite beyond 2^32."""
        return _quantile(self.counts, self.low, self.high, q)

    def margin(self, q: float) -> float:
        """A quantile of |value|: of a pre-activation the distance from the hinge at 0."""
        counts = self.counts[_OF_SIZE:] + self.counts[:_OF_SIZE][::-1]
        return _quantile(counts, _EDGES[:-1], _EDGES[1:], q)

    @property
    def entropy(self) -> float:
        """Shannon entropy of the buckets, in bits; NaN where nothing was counted."""
        return _entropy(self.counts)


def _entropy(counts: Array) -> float:
    total = counts.sum()
    p = counts[counts > 0] / total if total else np.full(1, np.nan)
    return float(-(p * np.log2(p)).sum())


def _bucket(counts: Array, q: float) -> int | None:
    if isinstance(q, bool) or not isinstance(q, (int, float, np.integer, np.floating)):
        raise TypeError(f"q must be a number in [0, 1], got {type(q).__name__}")
    if not 0 <= q <= 1:
        raise ValueError(f"q must lie in [0, 1], got {q!r}")
    total = counts.sum()
    if not total:
        return None
    occupied = np.flatnonzero(counts)
    return int(occupied[np.searchsorted(np.cumsum(counts[occupied]), q * total).clip(max=len(occupied) - 1)])


def _quantile(counts: Array, low: Array, high: Array, q: float) -> float:
    at = _bucket(counts, q)
    if at is None:
        return float("nan")
    if max(-low[at], high[at]) <= 2.0**LEAST:
        return 0.0  # zero, and what no bucket tells from it
    if not np.isfinite(low[at]) or not np.isfinite(high[at]):
        return float(high[at] if np.isinf(high[at]) else low[at])
    share = (q * counts.sum() - counts[:at].sum()) / counts[at]
    return float(low[at] + (high[at] - low[at]) * min(max(share, 0.0), 1.0))


class PairDistances:
    """Distances of adjacent rows (2 i, 2 i + 1) before and after the activation.

    They are random pairs of samples only where rows were shuffled. Of float64 data the squares of distances must be
    normal numbers: below about 1e-154 rows count as identical, beyond about 1e154 as non-finite.

    Attributes
    ----------
    count, identical, collisions, nonfinite : float
        Pairs; those equal before; those told apart before and not after; those with NaN or infinity, left out of the
        rest.
    least_ratio, greatest_ratio : float
        Extremes of |y_i - y_j| / |x_i - x_j|: empirical bounds of a bi-Lipschitz map.
    mean_sq_x, mean_sq_y : float
        Mean squared distances.
    """

    def __init__(self, fields: dict[str, Array], prefix: str) -> None:
        def one(name: str) -> float:
            return float(fields[prefix + name][0])

        self.count, self.identical = one("count"), one("identical")
        self.collisions, self.nonfinite = one("collisions"), one("nonfinite")
        compared = self.count - self.nonfinite
        self.mean_sq_x = one("sum_sq_x") / compared if compared else float("nan")
        self.mean_sq_y = one("sum_sq_y") / compared if compared else float("nan")
        self.ratios = fields[prefix + "ratio"]
        known = bool(self.ratios.sum())
        self.least_ratio = one("least_ratio") if known else float("nan")
        self.greatest_ratio = one("greatest_ratio") if known else float("nan")

    def ratio(self, q: float) -> float:
        """A quantile of |y_i - y_j| / |x_i - x_j|, to within a bucket's width, within the extremes."""
        value = _quantile(self.ratios, _EDGES[:-1], _EDGES[1:], q)
        return float(np.clip(value, self.least_ratio, self.greatest_ratio))

    @property
    def collision_fraction(self) -> float:
        """Share of the pairs that differ before which are the same after."""
        apart = self.count - self.nonfinite - self.identical
        return self.collisions / apart if apart else float("nan")


class Sketch:
    """Sketches of all rows, summed up: covariance structure without keeping rows.

    The products of two independent sketches S and T are unbiased for those of the covariances, and so are, up to the
    noise of a ratio, participation ratio and linear CKA. Their relative standard deviation is about 2 / k for data of
    many directions, and grows where few directions dominate.

    Products are taken in the precision of the computation. Where squared deviations leave its range (float32: data
    that spread by less than about 1e-16 or more than about 1e17), participation ratio and linear CKA are NaN.

    Attributes
    ----------
    k : int
        Numbers per row.
    rows, nonfinite : float
        Rows summed up, and rows left out because they hold NaN or infinity.
    pairs : PairDistances
        Of the sketches of adjacent rows: x and y share a sketch, so the errors of a ratio largely cancel.
    """

    def __init__(self, fields: dict[str, Array], k: int, *, double: bool = False) -> None:
        self.k = k
        self._least = float(np.finfo(np.float64 if double else np.float32).tiny) * 2**20
        self.rows, self.nonfinite = float(fields["sketch_rows"][0]), float(fields["sketch_nonfinite"][0])
        self.pairs = PairDistances(fields, "sketch_pairs_")
        self._fields = fields

    def _squared_norm(self, which: str) -> float:
        """Of the product of sketches of two sides; NaN where one of them leaves the range of the computation."""
        norm = float(np.sum(self._fields[f"sketch_{which}"] ** 2))
        traces = [self._trace(sketch, of) for sketch, of in zip("st", which, strict=True)]
        resolved = min(traces) > self._least * self.rows * self.k and max(*traces, norm) < np.inf
        return norm if resolved else float("nan")

    def _trace(self, sketch: str, of: str) -> float:
        return float(self._fields[f"sketch_deviation_{sketch}_of_{of}"].sum())

    def participation_ratio(self, of: str = "y") -> float:
        """(tr C)^2 / |C|_F^2 of the covariance C between channels: in how many directions the data spread.

        Parameters
        ----------
        of : {"x", "y"}
        """
        if of not in ("x", "y"):
            raise ValueError(f"of is {of!r} (accepted: 'x', 'y')")
        norm = self._squared_norm(of * 2)
        return self._trace("s", of) * self._trace("t", of) / norm if norm else float("nan")

    @property
    def linear_cka(self) -> float:
        """Linear centred kernel alignment of x and y (Kornblith, Norouzi, Lee, Hinton 2019)."""
        below = np.sqrt(self._squared_norm("xx")) * np.sqrt(self._squared_norm("yy"))
        return self._squared_norm("xy") / float(below) if below else float("nan")


@dataclass(frozen=True)
class Tier:
    """One number of a tier: its public name, formula for the documentation, and function of the tier's view."""

    name: str
    formula: str
    of: Callable[..., float]
    doc: str = ""


HISTOGRAM: tuple[Tier, ...] = (
    Tier("median_x", "median of x", lambda x, y: x.quantile(0.5)),
    Tier("median_y", "median of y", lambda x, y: y.quantile(0.5)),
    Tier(
        "margin_median",
        "median of |x|",
        lambda x, y: x.margin(0.5),
        "distance of the pre-activation from the hinge at 0",
    ),
    Tier("entropy_x", "H(bucket of x) in bits", lambda x, y: x.entropy),
    Tier("entropy_y", "H(bucket of y) in bits", lambda x, y: y.entropy),
)
PAIRS: tuple[Tier, ...] = (
    Tier("pair_ratio_median", "median of |y_i - y_j| / |x_i - x_j|", lambda p: p.ratio(0.5), "adjacent rows"),
    Tier("pair_ratio_min", "min of the same", lambda p: p.least_ratio, "lower bi-Lipschitz bound seen"),
    Tier("pair_ratio_max", "max of the same", lambda p: p.greatest_ratio, "upper bi-Lipschitz bound seen"),
    Tier("collision_fraction", "P(y_i = y_j given x_i != x_j)", lambda p: p.collision_fraction),
)
SKETCH: tuple[Tier, ...] = (
    Tier(
        "participation_ratio_x",
        "(tr C)^2 / |C|_F^2 of x",
        lambda s: s.participation_ratio("x"),
        "directions the data spread in",
    ),
    Tier("participation_ratio_y", "the same of y", lambda s: s.participation_ratio("y")),
    Tier(
        "linear_cka",
        "|C_xy|_F^2 / (|C_xx|_F |C_yy|_F)",
        lambda s: s.linear_cka,
        "similarity of the geometry before and after",
    ),
    Tier(
        "sketched_ratio_median",
        "median of |S(y_i - y_j)| / |S(x_i - x_j)|",
        lambda s: s.pairs.ratio(0.5),
        "adjacent rows, sketched",
    ),
)


def unpack(cells: Array, fields: Sequence[tuple[str, int, int]]) -> dict[str, Array]:
    """The record of the tiers by field, each an array."""
    return {name: cells[first : first + size] for name, first, size in fields}
