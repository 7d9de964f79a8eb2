"""The figures of trained networks; each is drawn from rows alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from geoact._pages.figures import Theme
from geoact.study.plotting import SMALL, colour, marker, shown
from geoact.study.questions.answers import ladder_depths
from geoact.study.questions.report import Questions
from geoact.study.questions.rows import Row

SHEPARD = ("sigmoid", "tanh", "relu", "bn_relu", "gal")


def draw_shepard(rows: Sequence[Row], figure: Figure, theme: Theme) -> None:
    """Draw pair distances before and after, at initialisation and trained."""
    shown_rows = [row for name in SHEPARD for row in rows if row["activation"] == name]
    panels = figure.subplots(2, len(shown_rows), sharex=True, sharey=True, squeeze=False)
    for column, row in enumerate(shown_rows):
        for line, when in enumerate(("initial", "trained")):
            axes, pairs = panels[line][column], row["pairs"][when]
            axes.scatter(
                pairs["before"], pairs["after"], s=5, alpha=0.5, color=colour(row["activation"], theme), linewidths=0
            )
            axes.plot([0, 2.2], [0, 2.2], color=theme.muted, linewidth=0.7)
            axes.set_xlim(0, 2.2)
            axes.set_ylim(0, 2.6)
            axes.set_xticks([0, 1, 2])
        panels[0][column].set_title(shown(row["activation"]), fontsize=9)
    panels[0][0].set_ylabel("at initialisation")
    panels[1][0].set_ylabel("trained")
    figure.supxlabel("distance at the input", fontsize=9, color=theme.muted)


def draw_correlation(rows: Sequence[Row], figure: Figure, theme: Theme) -> None:
    """Draw accuracy over preservation, one panel per data set."""
    data = list(dict.fromkeys(row["data"] for row in rows))
    panels = figure.subplots(-(-len(data) // 2), 2, squeeze=False).ravel()
    for axes, name in zip(panels, data, strict=False):
        for row in (row for row in rows if row["data"] == name):
            points = [(r["spearman"], r["accuracy"]) for r in row["runs"] if r["spearman"] is not None]
            if points:
                x, y = zip(*points, strict=True)
                label = row["activation"]
                axes.scatter(x, y, s=7, alpha=0.45, color=colour(label, theme), marker=marker(label), linewidths=0)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("rank correlation of distances")
        axes.set_ylabel("test accuracy")
    for axes in panels[len(data) :]:
        axes.set_visible(False)
    names = list(dict.fromkeys(row["activation"] for row in rows))
    handles = [
        axes.plot([], [], marker(name), color=colour(name, theme), markersize=4, label=shown(name))[0] for name in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=SMALL)


def draw_rates(result: Questions, figure: Figure, theme: Theme) -> None:
    """Draw validation accuracy over the rates."""
    sizes = result.sizes
    wanted = (max(sizes.trained_depths), sizes.trained_width, sizes.methods[0][0])
    rows = [row for row in result.rows["trained"] if (row["depth"], row["width"], row["method"]) == wanted]
    panels = figure.subplots(1, len(sizes.trained_data), sharey=True, squeeze=False)[0]
    for axes, data in zip(panels, sizes.trained_data, strict=True):
        for line, name in enumerate(sizes.activations):
            for row in (row for row in rows if (row["data"], row["activation"]) == (data, name)):
                tint, scores = colour(name, theme), list(row["validation"].values())
                axes.plot([min(scores), max(scores)], [line, line], color=tint, linewidth=4, alpha=0.3)
                axes.plot(scores, [line] * len(scores), "|", color=tint, markersize=7)
                axes.plot(row["validation"][str(row["rate"])], line, marker(name), color=tint, markersize=5.5)
        axes.set_title(data, fontsize=9)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(sizes.activations)), [shown(name) for name in sizes.activations])
    panels[0].set_ylim(len(sizes.activations) - 0.5, -0.5)


def draw_dead(rows: Sequence[Row], figure: Figure, theme: Theme) -> None:
    """Draw what leaky ReLU gains over dead units."""
    axes = figure.add_subplot()
    tints = dict(zip(("moons", "circles", "spirals", "digits"), ("tanh", "elu", "relu", "sigmoid"), strict=True))
    for row in rows:
        tint, gain = colour(tints[row["data"]], theme), row["difference"]
        face = tint if row["chosen"] else "none"
        bars = [[gain["value"] - gain["low"]], [gain["high"] - gain["value"]]]
        axes.errorbar(
            row["dead"]["value"], gain["value"], yerr=bars, fmt=marker(tints[row["data"]]), color=tint,
            markerfacecolor=face, markersize=5, elinewidth=1,
        )  # fmt: skip
    for data in dict.fromkeys(row["data"] for row in rows):
        axes.plot([], [], marker(tints[data]), color=colour(tints[data], theme), markersize=5, label=data)
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}")
    axes.set_xlabel("dead units of the ReLU network")
    axes.set_ylabel("leaky ReLU − ReLU,\npoints of accuracy")
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=SMALL)


def draw_ladder(result: Questions, figure: Figure, theme: Theme) -> None:
    """Draw training accuracy by depth, and the largest depth of every seed."""
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.5, 1]})
    sizes = result.sizes
    names = [name for name in sizes.ladder if any(row["activation"] == name for row in result.rows["ladder"])]
    for name in names:
        rows = sorted((r for r in result.rows["ladder"] if r["activation"] == name), key=lambda r: r["depth"])
        depths, tint = [row["depth"] for row in rows], colour(name, theme)
        left.plot(depths, [row["train"]["value"] for row in rows], marker=marker(name), markersize=4, color=tint)
        left.fill_between(
            depths, [r["train"]["low"] for r in rows], [r["train"]["high"] for r in rows], color=tint, alpha=0.12, lw=0
        )
    ticks = sorted(sizes.ladder_depths)
    left.axhline(sizes.ladder_threshold, color=theme.muted, linewidth=0.8, linestyle="--")
    left.set_xscale("log", base=2)
    left.set_xticks(ticks, [str(tick) for tick in ticks])
    left.set_xlabel("depth (hidden layers)")
    left.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    left.set_title("Training accuracy", fontsize=9)
    places = [0, *ticks]
    for line, (name, depths) in enumerate(ladder_depths(result.rows, sizes).items()):
        offsets = (np.arange(len(depths)) - (len(depths) - 1) / 2) * 0.7 / max(len(depths), 1)
        x = [places.index(depth) for depth in depths]
        right.plot(x, line + offsets, marker(name), color=colour(name, theme), markersize=3, alpha=0.8)
    right.set_xticks(range(len(places)), ["none", *(str(tick) for tick in ticks)])
    right.set_yticks(range(len(names)), [shown(name) for name in names])
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set_title("Largest depth that trains", fontsize=9)
