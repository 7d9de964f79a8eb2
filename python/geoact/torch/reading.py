"""What a monitor read: one record per layer, and the few numbers a table, a curve or an alert needs of each.

A reading is a snapshot. It holds statistics objects of its own, so it stays as it is while the model trains on.
Imports NumPy and :mod:`geoact.statistics`; no torch, so that readings can be pickled, stored and shown elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from geoact.statistics import GeometryStats, GradientStats, pandas

if TYPE_CHECKING:
    import pandas as pd

_Stats = GeometryStats | GradientStats


def _pooled(name: str) -> Callable[[_Stats], float]:
    """The value of all groups together: their mean, each weighted by its number of elements."""

    def of(stats: _Stats) -> float:
        if stats.groups == 0:
            return math.nan
        n, value = stats._record()["n"], getattr(stats, name)
        total = n.sum()
        return float((n * value).sum() / total) if total > 0 else math.nan

    return of


def _layer(name: str, within: str) -> Callable[[_Stats], float]:
    """The value of the whole layer where channels are kept apart, else that of all groups together."""

    def of(stats: _Stats) -> float:
        return float(getattr(stats, name)) if stats.per == "channel" else _pooled(within)(stats)

    return of


def _total(name: str) -> Callable[[_Stats], float]:
    return lambda stats: float(np.sum(getattr(stats, name)))


def _extreme(name: str) -> Callable[[_Stats], float]:
    return lambda stats: float(np.max(getattr(stats, name))) if stats.groups else math.nan


def _norm(name: str) -> Callable[[_Stats], float]:
    return lambda stats: float(np.linalg.norm(np.atleast_1d(getattr(stats, name))))


def _root_mean_square(cell: str) -> Callable[[_Stats], float]:
    def of(stats: _Stats) -> float:
        cells = stats._record()
        n = float(np.sum(cells["n"]))
        return math.sqrt(float(np.sum(cells[cell])) / n) if n else math.nan

    return of


@dataclass(frozen=True)
class Scalar:
    """One number per layer: its column name, a title for people, what it says, and how it is read."""

    name: str
    title: str
    doc: str
    of: Callable[[Any], float] = field(repr=False)
    moments: bool = False  # needs level="moments"
    channels: bool = False  # needs per="channel"


FORWARD: tuple[Scalar, ...] = (
    Scalar("scale", "scale", "gain: Var y / Var x", _layer("layer_gain", "gain"), moments=True),
    Scalar(
        "shape",
        "shape",
        "linear share: 1 where the layer is affine on its data",
        _layer("layer_linear_share", "linear_share"),
        moments=True,
    ),
    Scalar(
        "resolution",
        "bits",
        "effective bits of the output in its dtype",
        _layer("layer_effective_bits", "effective_bits"),
        moments=True,
    ),
    Scalar(
        "slope",
        "E f'^2",
        "mean squared slope: what the activation leaves of a gradient",
        _pooled("mean_sq_slope"),
        moments=True,
    ),
    Scalar("zero", "zero", "share of outputs that are 0", _pooled("zero_fraction")),
    Scalar(
        "saturated", "saturated", "share of inputs where |f'| is below the threshold", _pooled("saturation_fraction")
    ),
    Scalar(
        "dead",
        "dead",
        "share of channels whose input was never positive",
        lambda s: float(s.dead_fraction) if np.sum(s.n) else math.nan,
        channels=True,
    ),
    Scalar("mean_x", "mean x", "mean of the pre-activation", _pooled("mean_x"), moments=True),
    Scalar(
        "sd_x", "sd x", "standard deviation of the pre-activation, averaged over groups", _pooled("sd_x"), moments=True
    ),
    Scalar("mean_y", "mean y", "mean of the output", _pooled("mean_y"), moments=True),
    Scalar("sd_y", "sd y", "standard deviation of the output, averaged over groups", _pooled("sd_y"), moments=True),
    Scalar("absmax_y", "max |y|", "largest size of an output", _extreme("absmax_y")),
    Scalar(
        "subnormal", "subnormal", "share of outputs that are subnormal in their dtype", _pooled("subnormal_fraction")
    ),
    Scalar("nonfinite", "non-finite", "outputs that are NaN or infinite", _total("nonfinite_y")),
    Scalar("nonfinite_x", "non-finite x", "inputs that are NaN or infinite", _total("nonfinite_x")),
)

BACKWARD: tuple[Scalar, ...] = (
    Scalar("grad_gain", "grad gain", "|dx|^2 / |dy|^2 over the layer", _layer("layer_realised_gain", "realised_gain")),
    Scalar(
        "grad_rms",
        "grad rms",
        "root mean square of the gradient that leaves the layer, dx",
        _root_mean_square("sum_sq_dx"),
    ),
    Scalar("grad_norm_dy", "|dy|", "Euclidean norm of the gradient that arrives", _norm("norm_dy")),
    Scalar("grad_norm_dx", "|dx|", "Euclidean norm of the gradient that leaves", _norm("norm_dx")),
    Scalar("grad_zero", "grad zero", "share of dx that is 0", _pooled("zero_fraction")),
    Scalar("grad_underflow", "underflow", "share of dx lost to underflow", _pooled("underflow_fraction")),
    Scalar("grad_nonfinite", "grad non-finite", "entries of dx that are NaN or infinite", _total("nonfinite_dx")),
)

AXES = ("scale", "shape", "resolution", "slope")  # the four axes of docs/statistics.md, in that order
SUMMARY = (*AXES, "zero", "saturated", "dead", "grad_gain")  # what a table for people shows of a layer
COLUMNS = ("step", "layer", "activation", "index", "calls", *(scalar.name for scalar in FORWARD + BACKWARD))


def _read(scalars: tuple[Scalar, ...], stats: _Stats | None) -> dict[str, float]:
    values = dict.fromkeys((scalar.name for scalar in scalars), math.nan)
    if stats is None or stats.dtype == "":
        return values
    for scalar in scalars:
        if scalar.channels and stats.per != "channel":
            continue
        if scalar.moments and stats.level != "moments":
            continue
        values[scalar.name] = scalar.of(stats)
    return values


@dataclass(frozen=True)
class Alert:
    """Something wrong with one layer, in one line. ``scalar`` is the column that it judges, "" if none."""

    layer: str
    rule: str
    value: float
    threshold: float
    message: str
    scalar: str = ""

    def __str__(self) -> str:
        return f"{self.layer}: {self.message}"


@dataclass(frozen=True)
class Layer:
    """What was measured of one layer.

    Attributes
    ----------
    name : str
        Qualified name of the module in the model.
    activation : str
        Row of the registry.
    index : int
        Place in the order in which the layers first ran: the horizontal axis of a depth curve.
    calls : int
        Forward calls measured.
    forward, backward : GeometryStats, GradientStats or None
        The records; empty ones have dtype "". backward is None where it was not asked for.
    """

    name: str
    activation: str
    index: int
    calls: int
    forward: GeometryStats
    backward: GradientStats | None = None

    def scalars(self) -> dict[str, float]:
        """One number per row of FORWARD and BACKWARD; NaN where it was not measured."""
        return dict(self._scalars)

    @cached_property
    def _scalars(self) -> dict[str, float]:
        # Kept: every rule and every sink asks for them.
        return _read(FORWARD, self.forward) | _read(BACKWARD, self.backward)


@dataclass(frozen=True)
class Reading:
    """All layers at one step.

    Attributes
    ----------
    step : int
        Step of the monitor at which it was taken.
    layers : tuple of Layer
        In the order in which they first ran.
    alerts : tuple of Alert
    """

    step: int
    layers: tuple[Layer, ...]
    alerts: tuple[Alert, ...] = ()

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.layers) or "none"
        raise KeyError(f"{name!r} is not a measured layer (measured: {known})")

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary per layer: step, layer, activation, index, calls and every scalar."""
        return [
            {
                "step": self.step,
                "layer": layer.name,
                "activation": layer.activation,
                "index": layer.index,
                "calls": layer.calls,
                **layer.scalars(),
            }
            for layer in self.layers
        ]

    def metrics(self, prefix: str = "geoact") -> dict[str, float]:
        """Every scalar that was measured, under ``prefix/layer/scalar``: what a logger takes."""
        return {
            f"{prefix}/{layer.name or layer.activation}/{name}": value  # the model itself has no name
            for layer in self.layers
            for name, value in layer.scalars().items()
            if not math.isnan(value)
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, records included, as plain values that JSON can hold (NaN included)."""
        return {
            "step": self.step,
            "layers": [
                {
                    **row,
                    "forward": layer.forward.to_dict(),
                    "backward": None if layer.backward is None else layer.backward.to_dict(),
                }
                for row, layer in zip(self.rows(), self.layers, strict=True)
            ],
            "alerts": [vars(alert) for alert in self.alerts],
        }

    def to_dataframe(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = pandas()
        return pd.DataFrame(self.rows(), columns=list(COLUMNS))

    def __str__(self) -> str:
        titles = {scalar.name: scalar.title for scalar in FORWARD + BACKWARD}
        rows = self.rows()
        shown = [name for name in SUMMARY if any(not math.isnan(row[name]) for row in rows)]
        width = max([5, *(len(row["layer"]) for row in rows)])
        kind = max([10, *(len(row["activation"]) for row in rows)])
        lines = [f"step {self.step}, {len(rows)} layers"]
        lines.append(f"{'layer':<{width}}  {'activation':<{kind}}" + "".join(f"{titles[c]:>11}" for c in shown))
        for row in rows:
            values = "".join(f"{row[name]:>11.4g}" for name in shown)
            lines.append(f"{row['layer']:<{width}}  {row['activation']:<{kind}}{values}")
        return "\n".join(lines + [f"! {alert}" for alert in self.alerts])
