"""The figures of the questions; each is drawn from rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geoact._pages.figures import Theme
from geoact.study.panels import Curves, Panel, draw_panels
from geoact.study.plotting import SMALL, FigureSpec, colour, label_ends, marker, shown
from geoact.study.questions.figures_trained import (
    draw_correlation,
    draw_dead,
    draw_ladder,
    draw_rates,
    draw_shepard,
)
from geoact.study.questions.report import Questions
from geoact.study.questions.rows import Row

CURVES = ("sigmoid", "centered_sigmoid", "tanh", "relu", "gelu", "bn_relu", "tat", "gal", "gaussian_gal")
PANELS = (
    Panel("Scale: distance² per coordinate, kept", "distance", logarithmic=True),
    Panel("Shape: rank correlation of distances", "spearman"),
    Panel("Resolution: effective bits", "effective_bits"),
    Panel("Gradient: |dx|² / |dy|² of one layer", "gradient", logarithmic=True),
)


def question_figures(result: Questions) -> list[FigureSpec]:
    """List the figures of the groups that have rows."""
    rows = result.rows
    figures: list[FigureSpec] = []
    if rows["crossing"]:
        figures.append(
            FigureSpec(
                "q-crossing",
                partial(_draw_crossing, rows["crossing"][0]),
                3.0,
                f"Linear share R² on Gaussian input by its standard deviation. Sigmoid keeps more of the shape than "
                f"ReLU up to {rows['crossing'][0]['crossing']:.2f} (line), less beyond.",
            )
        )
    if rows["initial"]:
        for data in (d for d in ("spirals", "digits") if d in result.sizes.initial_data):
            figures.append(
                FigureSpec(
                    f"q-depth-{data}",
                    partial(_draw_depth, result, data),
                    5.0,
                    f"The four axes at initialisation by depth: {data}, width {result.sizes.initial_width}, float32, "
                    f"mean over {result.sizes.initial_seeds} seeds.",
                )
            )
    first = next((answer for answer in result.answers if answer.number == 1), None)
    if first:
        figures.append(
            FigureSpec(
                "q-preservation",
                partial(_draw_situations, first.evidence),
                0.8 + 0.27 * len(result.sizes.activations),
                "Rank correlation of pair distances, mean over all cells of each situation: an open symbol is an "
                "activation that the best one (filled) is not told apart from.",
            )
        )
    for data in ("spirals", "digits"):
        drawn = [row for row in rows["trained"] if row["data"] == data and "pairs" in row]
        if drawn:
            figures.append(
                FigureSpec(
                    f"q-shepard-{data}",
                    partial(draw_shepard, drawn),
                    3.6,
                    f"Shepard plots on {data}, {drawn[0]['depth']} layers: each point is a pair of test rows, its "
                    "distance at the input and after the last hidden layer, in units of the median.",
                )
            )
    if rows["trained"]:
        figures.append(
            FigureSpec(
                "q-prediction",
                partial(draw_correlation, rows["trained"]),
                5.2,
                "Every trained network: what its last hidden layer keeps of the order of distances, and what it "
                "scores on test data. Colour and symbol: activation.",
            )
        )
        figures.append(
            FigureSpec(
                "q-rates",
                partial(draw_rates, result),
                0.8 + 0.27 * len(result.sizes.activations),
                f"Validation accuracy over the learning rates, {max(result.sizes.trained_depths)} layers, "
                f"{result.sizes.methods[0][0]}: from the worst rate to the best (bar), every rate (tick), the rate "
                "that was chosen (symbol).",
            )
        )
    if rows["paired"]:
        figures.append(
            FigureSpec(
                "q-dead",
                partial(draw_dead, rows["paired"]),
                3.0,
                "The intervention: dead units of the ReLU network, and how much more leaky ReLU scores from the same "
                "weights; 95 % intervals over seeds. Filled: the rate that suits ReLU.",
            )
        )
    if rows["ladder"]:
        figures.append(
            FigureSpec(
                "q-ladder",
                partial(draw_ladder, result),
                3.4,
                f"Two spirals, {result.sizes.ladder_epochs} epochs. Left: training accuracy by depth, mean over "
                f"{result.sizes.seeds} seeds; dashed: what counts as trained. Right: the largest depth that trains, "
                "seed by seed.",
            )
        )
    if rows["inference"]:
        figures.append(
            FigureSpec(
                "q-time",
                partial(_draw_time, rows["inference"]),
                0.9 + 0.25 * len({row["activation"] for row in rows["inference"]}),
                "Time at inference over that of sigmoid in the same round: median and 95 % interval.",
            )
        )
    if result.tiers:
        figures.append(
            FigureSpec(
                "q-tiers",
                partial(_draw_tiers, result.tiers),
                0.9 + 0.2 * len(result.tiers),
                "Stored measurements: time with each tier of statistics over the time without; median and quartiles.",
            )
        )
    return figures


def _draw_crossing(row: Row, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    ends = []
    for name, shares in row["shares"].items():
        front = name in ("sigmoid", "relu")
        axes.plot(row["deviations"], shares, color=colour(name, theme), linewidth=2.0 if front else 1.1)
        ends.append((shares[-1], shown(name), colour(name, theme)))
    axes.axvline(row["crossing"], color=theme.muted, linewidth=0.9, linestyle="--")
    axes.set_xscale("log")
    ticks = [0.3, 1, 3, 10, 30]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(row["deviations"][0], row["deviations"][-1] * 5)
    axes.set_ylim(0.4, 1.02)
    axes.set_xlabel("standard deviation of the input")
    axes.set_ylabel("linear share R²")
    figure.canvas.draw()
    label_ends(axes, ends, x=row["deviations"][-1], gap=0.085)


def _draw_depth(result: Questions, data: str, figure: Figure, theme: Theme) -> None:
    own = ("own", result.sizes.initial_width, "float32", data)
    rows = [r for r in result.rows["initial"] if (r["init"], r["width"], r["dtype"], r["data"]) == own]
    curves: dict[str, Curves] = {}
    for panel in PANELS:
        lines = {}
        for name in (n for n in CURVES if n in result.sizes.activations):
            part = sorted((r for r in rows if r["activation"] == name), key=lambda r: r["depth"])
            lines[name] = ([r["depth"] for r in part], [_number(r[panel.quantity]["value"]) for r in part])
        curves[panel.quantity] = lines
    deepest = max(result.sizes.initial_depths)
    ticks = [1, *(depth for depth in result.sizes.initial_depths if depth >= deepest / 4)]
    draw_panels(curves, PANELS, figure, theme, x_label="depth (hidden layers)", x_ticks=ticks)


def _draw_situations(evidence: Sequence[Row], figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    names = list(evidence[0]["means"])
    for column, row in enumerate(evidence):
        for line, name in enumerate(names):
            value, tint = row["means"].get(name, float("nan")), colour(name, theme)
            best, tied = name == row["best"], name in row["tied"]
            axes.barh(line, 0.9 * max(value, 0.0), left=column, height=0.55, color=tint, alpha=0.3)
            if best or tied:
                face = tint if best else "none"
                axes.plot(column + 0.9 * max(value, 0.0), line, marker(name), color=tint, markerfacecolor=face)
            axes.text(column + 0.02, line, f"{value:.2f}", va="center", fontsize=SMALL - 1, color=theme.ink)
    axes.set_yticks(range(len(names)), [shown(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xticks(
        [column + 0.02 for column in range(len(evidence))],
        [row["situation"].replace(", ", ",\n").replace(" to ", "\nto ") for row in evidence],
        fontsize=SMALL - 0.5,
        ha="left",
    )
    axes.set_xlim(0, len(evidence))
    axes.grid(visible=False)


def _draw_time(rows: Sequence[Row], figure: Figure, theme: Theme) -> None:
    panels = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(row["activation"] for row in rows))
    cases = list(dict.fromkeys((row["dtype"], row["values"]) for row in rows))
    for axes, where in zip(panels, ("alone", "network"), strict=True):
        for index, case in enumerate(cases):
            for row in (r for r in rows if r["where"] == where and (r["dtype"], r["values"]) == case):
                line = names.index(row["activation"]) + (index - (len(cases) - 1) / 2) * 0.7 / len(cases)
                ratio, tint = row["to_sigmoid"], colour(row["activation"], theme)
                axes.plot([ratio["low"], ratio["high"]], [line, line], color=tint, linewidth=2)
                axes.plot(ratio["value"], line, "osD^"[index % 4], color=tint, markersize=4)
        axes.axvline(1, color=theme.muted, linewidth=0.8)
        axes.set_title({"alone": "The activation alone", "network": "A whole network"}[where], fontsize=9)
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(names)), [shown(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    for index, (dtype, values) in enumerate(cases):
        panels[0].plot([], [], "osD^"[index % 4], color=theme.muted, markersize=4, label=f"{dtype}, {values:,} values")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=SMALL)


def _draw_tiers(rows: Sequence[Row], figure: Figure, theme: Theme) -> None:
    axes: Axes = figure.add_subplot()
    for line, row in enumerate(rows):
        tint = colour(row["activation"], theme)
        axes.plot([row["q1"], row["q3"]], [line, line], color=tint, linewidth=2.2)
        axes.plot(row["median"], line, marker(row["activation"]), color=tint, markersize=5)
    axes.axvline(1, color=theme.muted, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{shown(r['activation'])}, {r['tier']}, {r['dtype']}" for r in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("time with statistics / without")
    axes.grid(visible=False, axis="y")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
