"""The look of every figure: light and dark theme, colour-blind safe palette, labels beside the curves."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from geoact._pages.figures import Theme, styled

WIDTH = 7.0
"""Inches; shown at 700 CSS pixels, so one point of type is 1.4 pixels."""
DOTS_PER_INCH = 200
SMALL = 8.0


# Okabe and Ito (2008), the yellow replaced by an olive that shows on white. Shapes repeat what the colours
# say.
_PALETTE = {
    "sigmoid": ("#0072b2", "o"),
    "centered_sigmoid": ("#009e73", "s"),
    "tanh": ("#56b4e9", "^"),
    "relu": ("#d55e00", "D"),
    "leaky_relu": ("#e69f00", "v"),
    "elu": ("#8a7a1f", "P"),
    "silu": ("#cc79a7", "X"),
    "gelu": ("#7d7d7d", "d"),
    "bn_relu": ("#a3273d", "*"),
    "tat": ("#5b4fa3", "<"),
    "gal": ("#006b4f", ">"),
    "gaussian_gal": ("#4fa36b", "h"),
    "gal(2.6)": ("#2f8fa3", "p"),
}
_PRINTED = {
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "elu": "ELU",
    "silu": "SiLU",
    "gelu": "GELU",
    "bn_relu": "BN + ReLU",
    "tat": "TAT",
    "gal": "GAL",
    "gaussian_gal": "Gaussian GAL",
    "gal(2.6)": "GAL κ = 2.6",
}


@dataclass(frozen=True)
class FigureSpec:
    """A figure by name: how to draw it, its height in inches, and its caption."""

    name: str
    draw: Callable[[Figure, Theme], None]
    height: float
    caption: str


def shown(label: str) -> str:
    """Name an activation as read in a figure: ``leaky_relu(0.1)`` -> ``leaky ReLU``."""
    name = label if label in _PRINTED else label.partition("(")[0]
    return _PRINTED.get(name, name.replace("_", " "))


def colour(label: str, theme: Theme) -> str:
    """Choose the colour of an activation; on dark a little white is mixed in."""
    base = _look(label)[0]
    red, green, blue = to_rgb(base)
    lift = theme.lift
    return to_hex((red + (1 - red) * lift, green + (1 - green) * lift, blue + (1 - blue) * lift))


def marker(label: str) -> str:
    """Choose the symbol of an activation."""
    return _look(label)[1]


def _look(label: str) -> tuple[str, str]:
    return _PALETTE.get(label, _PALETTE.get(label.partition("(")[0], ("#7d7d7d", "o")))


def render(draw: Callable[[Figure, Theme], None], height: float, theme: Theme) -> bytes:
    """Draw on a figure 7 inches wide and return it as PNG, without a display or global figure state."""
    with styled(theme):
        figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        draw(figure, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], x: float, gap: float = 0.078) -> None:
    """Write names to the right of where their curves end, pushed apart so that none overlap.

    ``ends``: (y in data units, text, colour); ``x``: where the curves end, in data units; ``gap``: least
    distance between two names as a share of the axes' height. Call it after the limits are final.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    wanted = sorted((float(to_share.transform((x, y))[1]), text, tint) for y, text, tint in ends if np.isfinite(y))
    places = spread_out([min(max(share, 0.02), 0.97) for share, _, _ in wanted], gap)
    start = float(to_share.transform((x, axes.get_ylim()[0]))[0])
    for place, (share, text, tint) in zip(places, wanted, strict=True):
        axes.annotate(
            text,
            xy=(start + 0.01, min(max(share, 0.0), 1.0)),
            xytext=(start + 0.1, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=SMALL,
            color=tint,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": tint,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def logarithmic_ticks(axes: Axes) -> None:
    """Label a logarithmic y axis with few plain numbers: 1 and 3 per decade, or powers of ten."""
    low, high = axes.get_ylim()
    axes.yaxis.set_minor_locator(NullLocator())
    if np.log10(high / low) < 5:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending positions at least ``gap`` apart, each cluster centred on what its members wanted."""
    clusters: list[list[float]] = []
    for position in wanted:
        clusters.append([position])
        while len(clusters) > 1 and _start(clusters[-1], gap) < _start(clusters[-2], gap) + gap * len(clusters[-2]):
            last = clusters.pop()
            clusters[-1] += last
    return [_start(cluster, gap) + gap * index for cluster in clusters for index in range(len(cluster))]


def _start(cluster: Sequence[float], gap: float) -> float:
    """Where the first of a cluster goes: centred on the mean, inside the axes where it fits."""
    length = gap * (len(cluster) - 1)
    centre = float(np.mean(cluster)) - length / 2
    return max(min(centre, 0.97 - length), 0.02)
