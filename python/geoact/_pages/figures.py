"""The look of figures that matplotlib draws: the colours of the pages, light and dark, and little ink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib


@dataclass(frozen=True)
class Theme:
    """Colours of one mode of the page."""

    name: str
    ink: str
    muted: str
    grid: str
    surface: str
    lift: float


LIGHT = Theme("light", ink="#1c2126", muted="#5f6b76", grid="#e3e7eb", surface="#ffffff", lift=0.0)
DARK = Theme("dark", ink="#e8ebee", muted="#9aa5b0", grid="#2c333b", surface="#15191e", lift=0.25)
THEMES = (LIGHT, DARK)


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Settings of matplotlib while a figure is drawn."""
    # Any: newer matplotlib types the keys as literals, older ones as str.
    settings: Any = {
        "font.family": "sans-serif",
        "font.size": 9.5,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.surface,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "text.color": theme.ink,
        "figure.facecolor": theme.surface,
        "savefig.facecolor": theme.surface,
        "lines.linewidth": 1.7,
        "figure.constrained_layout.use": True,
    }
    with matplotlib.rc_context(settings):
        yield
