"""The figures of the report: each function draws one, ``all_figures`` lists what exists."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geoact._pages.figures import Theme
from geoact.study import plotting, replica
from geoact.study.axes import InitialAxes
from geoact.study.data import two_moons
from geoact.study.grid import GridResult
from geoact.study.network import Network
from geoact.study.overhead import RATIOS, Overhead
from geoact.study.panels import Curves, Panel, draw_panels
from geoact.study.plotting import FigureSpec, colour, label_ends, logarithmic_ticks, marker, shown
from geoact.study.questions.figures import question_figures
from geoact.study.results import StudyResults
from geoact.study.training import BinaryHead


def all_figures(results: StudyResults) -> list[FigureSpec]:
    """List every figure of the sections that were run, in the order of the report."""
    figures: list[FigureSpec] = []
    if results.replica:
        figures += _replica_figures(results.replica)
    if results.learning_rates:
        figures += _grid_figures("moons", "two moons", results.learning_rates)
    if results.axes:
        figures += _initial_figures(results.axes)
    if results.digits:
        figures += _grid_figures("digits", "digits", results.digits)
    if results.overhead:
        figures.append(_overhead_figure(results.overhead))
    if results.questions:
        figures += question_figures(results.questions)
    return figures


def _replica_figures(result: replica.Replica) -> list[FigureSpec]:
    return [
        FigureSpec(
            "replica-loss",
            partial(_draw_losses, result),
            2.9,
            "Mean batch loss per epoch (line: mean over 20 epochs; faint: every epoch). Rings are the "
            "published values.",
        ),
        FigureSpec(
            "replica-boundary",
            partial(_draw_boundaries, result),
            3.2,
            "What the two networks learned: probability of the second class (shade), the boundary at one "
            "half (line) and "
            "the 100 test points (shape and shade of the point: true class; crossed: misclassified).",
        ),
    ]


def _draw_losses(result: replica.Replica, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    epochs = len(result.networks[0].losses)
    window = min(20, epochs)
    for network in result.networks:
        tint = colour(network.activation, theme)
        smooth = np.convolve(network.losses, np.ones(window) / window, mode="valid")
        axes.plot(range(1, epochs + 1), network.losses, color=tint, alpha=0.25, linewidth=0.7)
        axes.plot(np.arange(len(smooth)) + (window + 1) / 2, smooth, color=tint)
        printed = [float(value) for value in replica.PRINTED_LOSS[network.activation]]
        axes.plot(replica.CHECKPOINTS, printed, "o", color=theme.ink, markerfacecolor="none", markersize=7)
    axes.set_yscale("log")
    logarithmic_ticks(axes)
    axes.set_xlim(0, max(epochs, replica.CHECKPOINTS[-1]) * 1.13)
    axes.set_xticks([0, *replica.CHECKPOINTS])
    axes.set_xlabel("epoch")
    axes.set_ylabel("binary cross-entropy")
    ends = [(np.mean(n.losses[-window:]), shown(n.activation), colour(n.activation, theme)) for n in result.networks]
    label_ends(axes, [(float(y), text, tint) for y, text, tint in ends], x=epochs * 1.01, gap=0.08)


def _draw_boundaries(result: replica.Replica, figure: Figure, theme: Theme) -> None:
    split, head = two_moons(replica.SEED), BinaryHead()
    ticks = np.linspace(-2.6, 2.6, 160)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(1, -1, 2)
    shades = LinearSegmentedColormap.from_list("classes", ["#3a7fb5", theme.surface, "#c9713a"])
    panels: Sequence[Axes] = figure.subplots(1, len(result.networks), sharey=True)
    for axes, outcome, choice in zip(panels, result.networks, replica.NETWORKS, strict=True):
        network = Network(choice, replica.WIDTHS, nets=1)
        network.parameters[0] = outcome.parameters
        shade = head.probabilities(network.forward(grid).scores)[0, :, 0].reshape(len(ticks), -1)
        axes.pcolormesh(ticks, ticks, shade, cmap=shades, vmin=0, vmax=1, alpha=0.75, rasterized=True)
        axes.contour(ticks, ticks, shade, levels=[0.5], colors=[theme.ink], linewidths=1.4)
        wrong = head.predictions(head.probabilities(network.forward(split.x_test[None]).scores))[0] != split.labels_test
        for label, shape, tint in ((0, "o", "#1f5f91"), (1, "^", "#a84f1b")):
            points = split.x_test[split.labels_test == label]
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=16,
                marker=shape,
                color=tint,
                edgecolors=theme.surface,
                linewidths=0.5,
            )
        axes.scatter(split.x_test[wrong, 0], split.x_test[wrong, 1], s=46, marker="x", color=theme.ink, linewidths=1.3)
        axes.set_title(f"{shown(outcome.activation)}: {outcome.test_accuracy:.0%} correct")
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_xticks([-2, 0, 2])
        axes.set_yticks([-2, 0, 2])


def _grid_figures(key: str, title: str, result: GridResult) -> list[FigureSpec]:
    rows = len(result.activations)
    accuracy = FigureSpec(
        f"{key}-accuracy",
        partial(_draw_accuracy, result),
        0.75 + 0.27 * rows,
        f"Test accuracy on {title} over {result.seeds} seeds: mean (symbol), 95 % bootstrap interval of the "
        "mean (bar), "
        "single seeds (faint). Seeds that fall below the axis are drawn at its left edge.",
    )
    trained = [
        FigureSpec(
            f"{key}-axes-{index}",
            partial(_draw_trained, result, setting),
            5.0,
            f"The four axes of the networks trained on {title} with {setting}, per hidden layer, mean over "
            f"{result.seeds} seeds. Rank correlation: pair distances at the input against those after the "
            "layer.",
        )
        for index, setting in enumerate((result.settings[0], result.settings[-1]), start=1)
    ]
    return [accuracy, *trained]


def _draw_accuracy(result: GridResult, figure: Figure, theme: Theme) -> None:
    panels: Sequence[Axes] = figure.subplots(1, len(result.settings), sharey=True, squeeze=False)[0]
    low = min(cell.accuracy.mean for cell in result.cells)
    floor = max(0.0, np.floor((low - 0.02) * 20) / 20)
    for axes, setting in zip(panels, result.settings, strict=True):
        for row, name in enumerate(result.activations):
            accuracy, tint = result.cell(name, setting).accuracy, colour(name, theme)
            seeds = np.maximum(accuracy.values, floor)
            axes.plot(seeds, [row] * len(seeds), "|", color=tint, alpha=0.35, markersize=7, clip_on=False)
            axes.plot([accuracy.low, accuracy.high], [row, row], color=tint, linewidth=2.4, solid_capstyle="butt")
            axes.plot(accuracy.mean, row, marker(name), color=tint, markersize=5.5)
        axes.set_title(setting)
        axes.set_xlim(floor, 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(result.activations)), [shown(name) for name in result.activations])
    panels[0].set_ylim(len(result.activations) - 0.5, -0.5)


PANELS = (
    Panel("Scale: distance² per coordinate, kept", "distance", logarithmic=True),
    Panel("Shape: rank correlation of distances", "spearman"),
    Panel("Resolution: effective bits", "effective_bits"),
    Panel("Gradient: |dx|² / |dy|² of one layer", "realised_gain", logarithmic=True),
)


def _draw_trained(result: GridResult, setting: str, figure: Figure, theme: Theme) -> None:
    layers = sorted({row.layer for row in result.axes})
    curves: dict[str, Curves] = {
        panel.quantity: {
            name: (
                layers,
                [result.layer(name, setting, layer).quantities[panel.quantity].mean for layer in layers],
            )
            for name in result.activations
        }
        for panel in PANELS
    }
    draw_panels(curves, PANELS, figure, theme, x_label="hidden layer", x_ticks=layers)


def _initial_figures(result: InitialAxes) -> list[FigureSpec]:
    wide = result.dtypes[0]
    by_depth = [
        FigureSpec(
            f"init-axes-{index}",
            partial(_draw_initial, result, data, wide),
            5.0,
            f"The four axes at initialisation by depth: {data} into layers of width {result.width}, {wide}, "
            "mean over "
            f"{result.seeds} seeds. Effective bits: mean over units, a unit that never moves counts 0. ",
        )
        for index, data in enumerate(result.inputs, start=1)
    ]
    precision = FigureSpec(
        "init-precision",
        partial(_draw_precision, result),
        1.0 + 1.9 * len(result.inputs),
        "The same networks stored in other precisions: rank correlation of pair distances, input against "
        "layer. Grey: "
        "the other activations.",
    )
    return [*by_depth, precision]


def _draw_initial(result: InitialAxes, data: str, dtype: str, figure: Figure, theme: Theme) -> None:
    depths = list(range(1, result.depth + 1))
    curves: dict[str, Curves] = {
        panel.quantity: {name: (depths, result.curve(data, name, dtype, panel.quantity)) for name in result.activations}
        for panel in PANELS
    }
    ticks = [depth for depth in depths if depth == 1 or depth % 5 == 0 or result.depth < 5]
    draw_panels(curves, PANELS, figure, theme, x_label="depth (hidden layers)", x_ticks=ticks)


HIGHLIGHTED = ("sigmoid", "centered_sigmoid", "tanh", "relu")


def _draw_precision(result: InitialAxes, figure: Figure, theme: Theme) -> None:
    # The last column is wider: the names of the curves stand there.
    room = {"width_ratios": [1.0] * (len(result.dtypes) - 1) + [1.62]}
    grid = figure.subplots(len(result.inputs), len(result.dtypes), sharey=True, squeeze=False, gridspec_kw=room)
    depths = list(range(1, result.depth + 1))
    for data, line in zip(result.inputs, grid, strict=True):
        for dtype, axes in zip(result.dtypes, line, strict=True):
            for name in sorted(result.activations, key=lambda label: label in HIGHLIGHTED):
                front = name in HIGHLIGHTED
                tint = colour(name, theme) if front else theme.grid
                axes.plot(
                    depths,
                    result.curve(data, name, dtype, "spearman"),
                    color=tint,
                    linewidth=1.8 if front else 1.2,
                )
            axes.set_title(f"{data}, {dtype}", fontsize=9)
            axes.set_ylim(-0.08, 1.03)
            axes.set_xlim(0, result.depth)
            axes.set_xticks([0, result.depth / 2, result.depth])
        line[0].set_ylabel("rank correlation")
    for axes in grid[-1]:
        axes.set_xlabel("depth")
    names = [name for name in HIGHLIGHTED if name in result.activations]
    for line, data in zip(grid, result.inputs, strict=True):
        line[-1].set_xlim(0, result.depth * 1.62)
        line[-1].set_xticks([0, result.depth / 2, result.depth])
        figure.canvas.draw()
        ends = [
            (result.curve(data, name, result.dtypes[-1], "spearman")[-1], shown(name), colour(name, theme))
            for name in names
        ]
        label_ends(line[-1], ends, x=result.depth, gap=0.1)


def _overhead_figure(result: Overhead) -> FigureSpec:
    return FigureSpec(
        "overhead",
        partial(_draw_overhead, result),
        0.9 + 0.62 * len(result.cases),
        f"Time ratios in one interleaved run of {result.rounds} rounds, one thread, {result.dtype}: ratio of "
        "medians "
        "(symbol) and quartiles of the ratios within rounds (bar). At 1 measuring would cost nothing.",
    )


def _draw_overhead(result: Overhead, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    tints = [colour(name, theme) for name in ("sigmoid", "tanh", "relu", "leaky_relu")]
    height = 0.2
    for row, case in enumerate(result.cases):
        for index, (ratio, tint) in enumerate(zip(case.ratios, tints, strict=True)):
            y = row + (index - (len(tints) - 1) / 2) * height
            axes.plot([ratio.lower, ratio.upper], [y, y], color=tint, linewidth=2.2, solid_capstyle="butt")
            axes.plot(
                ratio.ratio,
                y,
                "osD^"[index],
                color=tint,
                markersize=5,
                label=ratio.name if row == 0 else None,
            )
            edge = max(ratio.ratio, ratio.upper)
            axes.annotate(
                f"{ratio.ratio:.2f}" if ratio.ratio < 10 else f"{ratio.ratio:.0f}",
                (edge, y),
                xytext=(5, 0),
                textcoords="offset points",
                fontsize=7.5,
                va="center",
                color=theme.muted,
            )
    axes.axvline(1, color=theme.muted, linewidth=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low = min(low, 0.8)
    ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100) if low <= tick <= high * 1.3]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high * 1.25)
    axes.set_yticks(
        range(len(result.cases)),
        [f"{shown(c.activation)}\n{c.rows * c.columns:,} values" for c in result.cases],
    )
    axes.set_ylim(len(result.cases) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("ratio of times")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=SMALL_LEGEND, handletextpad=0.3)
    if len(RATIOS) != len(tints):  # a new ratio needs a colour of its own
        raise ValueError("every ratio needs a colour")


SMALL_LEGEND = plotting.SMALL + 0.5
