"""Four panels, one per axis of geometry: a curve per activation, named where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geoact._pages.figures import Theme
from geoact.study.plotting import colour, label_ends, logarithmic_ticks, marker, shown

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Activation label -> (x, y)."""


@dataclass(frozen=True)
class Panel:
    """One of the four axes as drawn: its title, its quantity, and whether its scale is logarithmic."""

    title: str
    quantity: str
    logarithmic: bool = False


def draw_panels(
    curves: Mapping[str, Curves],
    panels: Sequence[Panel],
    figure: Figure,
    theme: Theme,
    x_label: str,
    x_ticks: Sequence[float],
) -> None:
    """Draw every panel's curves and name them."""
    grid = figure.subplots(2, 2).ravel()
    for axes, panel in zip(grid, panels, strict=True):
        _draw_lines(axes, curves[panel.quantity], theme, panel.logarithmic, x_ticks)
        axes.set_title(panel.title, fontsize=9)
    for axes in grid[2:]:
        axes.set_xlabel(x_label)
    figure.canvas.draw()  # labels are placed in final axes coordinates, which the layout engine settles here
    for axes, panel in zip(grid, panels, strict=True):
        _label_lines(axes, curves[panel.quantity], theme, panel.logarithmic)


def _draw_lines(axes: Axes, curves: Curves, theme: Theme, logarithmic: bool, x_ticks: Sequence[float]) -> None:
    sparse = len(x_ticks) <= 3
    for name, (x, y) in curves.items():
        values = _positive(y) if logarithmic else np.asarray(y, dtype=float)
        shape = marker(name) if sparse else ""
        axes.plot(x, values, color=colour(name, theme), marker=shape, markersize=4.5, linewidth=1.5)
    if logarithmic:
        axes.set_yscale("log")
        logarithmic_ticks(axes)
    axes.set_xticks(x_ticks)
    first, last = x_ticks[0], x_ticks[-1]
    # Room on the right for the names.
    axes.set_xlim(first - 0.05 * (last - first), last + 0.72 * (last - first))


def _label_lines(axes: Axes, curves: Curves, theme: Theme, logarithmic: bool) -> None:
    ends = []
    for name, (_, y) in curves.items():
        values = _positive(y) if logarithmic else np.asarray(y, dtype=float)
        ends.append((float(values[-1]), shown(name), colour(name, theme)))
    label_ends(axes, ends, x=max(x[-1] for x, _ in curves.values()), gap=0.08)


def _positive(values: Sequence[float]) -> np.ndarray:
    """Values as drawn on a logarithmic scale: what is 0 there has no place and is left out."""
    array = np.asarray(values, dtype=float)
    return np.where(array > 0, array, np.nan)
