"""Plots of a document as files: speed against bytes, the roofline, the price of an option, ratios to peers.

The same document gives the same bytes: no date, no random id, no state of matplotlib outside these figures.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from geoact._files import write_atomic
from geoact._pages.figures import LIGHT, styled
from geoact.bench.report.charts import (
    OVERHEAD_AXIS,
    PALETTE,
    Dot,
    Legend,
    Prices,
    Speeds,
    decades,
    dots,
    prices,
    speeds,
    spread,
)
from geoact.bench.report.content import bytes_text, machine, moment, number

FORMATS = ("png", "svg")
DOTS_PER_INCH = 150
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "d")
VERDICTS = {"yes": (PALETTE[0], "o"), "no": (PALETTE[1], "X"), "open": (PALETTE[5], "D"), "": (PALETTE[7], "o")}
"""Colour and symbol of a bar by its verdict; blue and vermilion are told apart by everyone."""
_COPY: Any = {"color": LIGHT.ink, "linewidth": 0.8, "linestyle": ":", "marker": "_", "markersize": 11}
"""The copy was measured where the dashes are; the dots between them only lead the eye."""
_MET = {"yes": "limit met", "no": "limit not met", "open": "open: the interval contains the limit", "": "no limit"}


@dataclass
class Plots:
    """What was written, and why a plot was not."""

    written: list[Path] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


class Absent(Exception):
    """A plot has nothing to show; the message says why."""


def write_plots(
    document: Mapping[str, Any],
    folder: Path,
    formats: Sequence[str] = FORMATS,
    *,
    overhead_axis: str = OVERHEAD_AXIS,
) -> Plots:
    """Draw everything that a document has data for.

    Parameters
    ----------
    document : mapping
    folder : Path
        Made if it is not there; files of the same names in it are replaced.
    formats : sequence of {"png", "svg"}
    overhead_axis : str
        Cases that differ in this axis only make the plot of what an option costs.

    Raises ValueError for another format.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"formats has {unknown[0]!r}; accepted: {', '.join(FORMATS)}")
    plots = Plots()
    drawers: dict[str, Callable[[], Figure]] = {
        "speed": lambda: _speed(speeds(document)),
        "roofline": lambda: _roofline(speeds(document)),
        "overhead": lambda: _overhead(prices(document, overhead_axis)),
        "peers": lambda: _peers(dots(document)),
    }
    # The salt makes the ids in an SVG file the same every time; text stays text.
    settings: Any = {"svg.hashsalt": "geoact", "svg.fonttype": "none"}
    with styled(LIGHT), rc_context(settings):
        for name, draw in drawers.items():
            try:
                figure = draw()
            except Absent as error:
                plots.missing[name] = str(error)
                continue
            _sign(figure, document)
            for kind in formats:
                path = folder / f"{name}.{kind}"
                write_atomic(path, _bytes(figure, kind))
                plots.written.append(path)
    return plots


def _bytes(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _figure(height: float, width: float = 8.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _sign(figure: Figure, document: Mapping[str, Any]) -> None:
    """Where and when, below the plot: a picture is passed on without its page."""
    text = f"{document.get('suite')}, caches {document.get('cache')} · {machine(document)} · {moment(document)}"
    figure.supxlabel("\n".join(textwrap.wrap(text, 125)), fontsize=7, color=LIGHT.muted, x=0.01, ha="left")


def _safe(text: str) -> str:
    """No mathematics: a dollar is a dollar."""
    return text.replace("$", r"\$")


def _shorter(text: str, room: int) -> str:
    return _safe(text if len(text) <= room else text[: room - 1] + "…")


# --- axes -----------------------------------------------------------------------------------------


def _bytes_axis(axes: Axes, counts: Sequence[int]) -> None:
    low, high = decades(counts)
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _log_axis(axes: Axes, which: str, limits: tuple[float, float]) -> None:
    """Plain numbers, more of them where few powers of ten are in sight."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
    span = limits[1] / limits[0]
    if span < 4:
        axis.set_major_locator(FixedLocator(MaxNLocator(nbins=7).tick_values(*limits)))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 300 else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _keys(axes: Axes, legend: Legend, more: Sequence[Line2D] = ()) -> None:
    """What colours and shapes stand for, beside the plot."""
    plain: Any = {"linestyle": "none", "markersize": 6}
    entries = [
        Line2D([], [], marker="o", color=PALETTE[i], label=_shorter(f"{legend.colour} {value}", 26), **plain)
        for i, value in enumerate(legend.colours)
    ]
    entries += [
        Line2D([], [], marker=MARKERS[i], color=LIGHT.muted, label=_shorter(f"{legend.shape} {value}", 26), **plain)
        for i, value in enumerate(legend.shapes)
    ]
    entries += more
    if entries:
        axes.legend(handles=entries, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8.5)


# --- the plots ------------------------------------------------------------------------------------


def _scatter(axes: Axes, data: Speeds, points: Sequence[tuple[float, float]]) -> None:
    for (x, y), point in zip(points, data.points, strict=True):
        axes.plot(x, y, MARKERS[point.shape], color=PALETTE[point.colour], markersize=5.5, alpha=0.8,
                  markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip


def _speed(data: Speeds) -> Figure:
    """GB/s against bytes, with the copy of as many bytes."""
    if not data.points:
        raise Absent("no case declares how many bytes it moves")
    figure, axes = _figure(4.4)
    if data.copies:
        axes.plot(*zip(*data.copies, strict=True), **_COPY, zorder=1.5)
    places = spread([(point.view.bytes, point.colour) for point in data.points])
    points = [(x, point.view.gigabytes or 0.0) for x, point in zip(places, data.points, strict=True)]
    _scatter(axes, data, points)
    _bytes_axis(axes, [point.view.bytes for point in data.points])
    _log_axis(axes, "y", decades([y for _, y in points] + [speed for _, speed in data.copies]))
    axes.set(title="Speed against bytes moved", xlabel="bytes read and written by one call", ylabel="GB/s")
    copy = [Line2D([], [], **_COPY, label="copy, same bytes")] if data.copies else []
    _keys(axes, data.legend, copy)
    return figure


def _roofline(data: Speeds) -> Figure:
    """GFLOP/s against FLOPs per byte, under the copy bandwidth of every cache that was used (Williams 2009)."""
    data = Speeds(data.legend, data.with_flops, data.copies, data.roofs)
    if not data.points:
        raise Absent("no case declares both bytes and floating-point operations")
    figure, axes = _figure(4.6)
    points = [(p.view.flops / p.view.bytes, p.view.gigaflops or 0.0) for p in data.points]
    left, right = decades([x for x, _ in points])
    top = max([y for _, y in points] + [roof * right for roof in data.roofs.values()])
    _log_axis(axes, "x", (left, right))
    _log_axis(axes, "y", decades([*(y for _, y in points), top]))
    styles: Any = ("-", "--", "-.", ":")
    lines = []
    for i, (name, roof) in enumerate(data.roofs.items()):
        axes.plot([left, right], [roof * left, roof * right], styles[i % 4], color=LIGHT.ink, linewidth=1.2, zorder=1.5)
        label = f"copy, {name}: {number(roof)} GB/s"
        lines.append(Line2D([], [], linestyle=styles[i % 4], color=LIGHT.ink, linewidth=1.2, label=label))
    _scatter(axes, data, points)
    axes.set(title="Roofline", xlabel="FLOP per byte moved", ylabel="GFLOP/s")
    _keys(axes, data.legend, lines)
    return figure


def _overhead(data: Prices) -> Figure:
    """Time with an option over time without."""
    if not data.pairs:
        raise Absent(f"no two measured cases differ in the axis {data.axis} only")
    figure, axes = _figure(4.4)
    places = spread([(pair.case.bytes or 1, pair.colour) for pair in data.pairs])
    for line in dict.fromkeys(pair.line for pair in data.pairs):
        chosen = [(x, pair) for x, pair in zip(places, data.pairs, strict=True) if pair.line == line]
        x, pairs = [x for x, _ in chosen], [pair for _, pair in chosen]
        tint, symbol = PALETTE[pairs[0].colour], MARKERS[pairs[0].shape]
        axes.plot(x, [p.ratio for p in pairs], "-", color=tint, linewidth=0.9, alpha=0.45)
        axes.vlines(x, [p.low for p in pairs], [p.high for p in pairs], color=tint, linewidth=1.0, alpha=0.6)
        axes.plot(x, [p.ratio for p in pairs], symbol, color=tint, markersize=5.5, alpha=0.85,
                  markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
    axes.axhline(1, color=LIGHT.ink, linewidth=1.2, zorder=1.5)
    values = [value for pair in data.pairs for value in (pair.low, pair.high)]
    _bytes_axis(axes, [pair.case.bytes or 1 for pair in data.pairs])
    _log_axis(axes, "y", decades([*values, 1.0]))
    base = data.base or "nothing"
    axes.set(title=_safe(f"The price of {data.axis}"), xlabel="bytes read and written by one call",
             ylabel=_safe(f"time / time with {data.axis} = {base}"))  # fmt: skip
    _keys(axes, data.legend, [Line2D([], [], color=LIGHT.ink, linewidth=1.2, label="costs nothing")])
    return figure


def _peers(data: Sequence[Dot]) -> Figure:
    """Bars as dots with their intervals, one line each, under the names of their groups."""
    if not data:
        raise Absent("no bar compares contenders that were measured in turns")
    lines: list[Dot | str] = []
    for dot in data:
        if not lines or (isinstance(lines[-1], Dot) and lines[-1].row.group != dot.row.group):
            lines.append(dot.row.group)
        lines.append(dot)
    figure, axes = _figure(1.5 + 0.27 * len(lines), 9.0)
    for y, line in enumerate(lines):
        if isinstance(line, Dot):
            _dot(axes, y, line)
    edges = [value for dot in data for value in (dot.low, dot.high, dot.limit[1] if dot.limit else 1.0)]
    _log_axis(axes, "x", decades([*edges, 1.0]))
    axes.axvline(1, color=LIGHT.ink, linewidth=1.2, zorder=1.5)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    labels = [_shorter(line if isinstance(line, str) else line.row.bar, 66) for line in lines]
    axes.set_yticks(range(len(lines)), labels, fontsize=8.5)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set(color=LIGHT.ink, fontweight="bold" if isinstance(line, str) else "normal")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("ratio with its 95 % interval; a bracket opens to where the limit is met")
    seen = [met for met in VERDICTS if any(dot.row.met == met for dot in data)]
    keys = [Line2D([], [], marker=VERDICTS[m][1], color=VERDICTS[m][0], linestyle="none", label=_MET[m]) for m in seen]
    figure.legend(handles=keys, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return figure


def _dot(axes: Axes, y: float, dot: Dot) -> None:
    tint, symbol = VERDICTS.get(dot.row.met, VERDICTS[""])
    if dot.limit:
        direction, limit = dot.limit
        side = 0.5 if direction == ">=" else -0.5
        bracket = Outline([(side, 1), (0, 1), (0, -1), (side, -1)])
        axes.plot(limit, y, marker=bracket, fillstyle="none", color=LIGHT.ink, markersize=9, markeredgewidth=1.3)
    axes.plot([dot.low, dot.high], [y, y], "-", color=tint, linewidth=2.2, alpha=0.5, solid_capstyle="butt")
    axes.plot(dot.median, y, symbol, color=tint, markersize=6.5, markeredgecolor="white", markeredgewidth=0.5)
