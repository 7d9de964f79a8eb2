"""Activations x optimiser settings x seeds on one task: the experiment shared by sections b and d."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from geoact.study.config import Choice, Setting
from geoact.study.data import Split
from geoact.study.measurement import QUANTITIES, measure
from geoact.study.network import Network
from geoact.study.spread import Spread, mean_and_sd, spread
from geoact.study.training import OPTIMISERS, Head, train


@dataclass(frozen=True)
class Task:
    """What is trained: one data split per seed, layer sizes, the loss, and how long."""

    splits: Sequence[Split]
    widths: Sequence[int]
    head: Head
    epochs: int
    batch: int
    dtype: DTypeLike


@dataclass(frozen=True)
class Cell:
    """Test accuracy of one activation under one setting, over seeds."""

    activation: str
    setting: str
    accuracy: Spread


@dataclass(frozen=True)
class AxesRow:
    """The quantities of ``LayerAxes`` for one trained layer, each with its spread over seeds."""

    activation: str
    setting: str
    layer: int
    quantities: dict[str, Spread]


@dataclass(frozen=True)
class GridResult:
    """All cells and all layers of one task. ``settings`` and ``activations`` are in display order."""

    settings: list[str]
    activations: list[str]
    seeds: int
    epochs: int
    cells: list[Cell]
    axes: list[AxesRow]

    def cell(self, activation: str, setting: str) -> Cell:
        """Return the accuracy of one activation under one setting."""
        return next(cell for cell in self.cells if (cell.activation, cell.setting) == (activation, setting))

    def best(self, activation: str) -> Cell:
        """Return the setting under which an activation scored highest on average (the first of equals)."""
        return max((cell for cell in self.cells if cell.activation == activation), key=lambda c: c.accuracy.mean)

    def layer(self, activation: str, setting: str, layer: int) -> AxesRow:
        """Return the axes of one layer, counted from 1."""
        wanted = (activation, setting, layer)
        return next(row for row in self.axes if (row.activation, row.setting, row.layer) == wanted)


def steps(choices: Sequence[Choice], settings: Sequence[Setting], epochs: int) -> int:
    """How many times ``run_grid`` reports progress."""
    return len(choices) * len({setting.method for setting in settings}) * epochs


def run_grid(
    task: Task, choices: Sequence[Choice], settings: Sequence[Setting], advance: Callable[[], None]
) -> GridResult:
    """Train every combination; the settings of one method and all seeds are one stack of networks."""
    cells: list[Cell] = []
    axes: list[AxesRow] = []
    for choice in choices:
        for method, group in groupby(settings, key=lambda setting: setting.method):
            same_method = list(group)
            # A step size too large for an activation is a result of this study, not a fault: overflow is
            # expected.
            with np.errstate(over="ignore", invalid="ignore"):
                network = _train_stack(task, choice, method, same_method, advance)
                judged = [_judge(task, network, choice, s, index) for index, s in enumerate(same_method)]
            cells += [cell for cell, _ in judged]
            axes += [row for _, rows in judged for row in rows]
    return GridResult(
        settings=[setting.label for setting in settings],
        activations=[choice.label for choice in choices],
        seeds=len(task.splits),
        epochs=task.epochs,
        cells=cells,
        axes=axes,
    )


def _train_stack(
    task: Task, choice: Choice, method: str, settings: Sequence[Setting], advance: Callable[[], None]
) -> Network:
    """Train (settings x seeds) networks, setting-major.

    Seeds repeat over settings and activations, which makes comparisons paired.
    """
    copies = len(settings)
    seeds = range(len(task.splits))
    network = Network(choice, task.widths, copies * len(seeds), task.dtype)
    network.initialise([np.random.default_rng([seed, 0]) for _ in range(copies) for seed in seeds])
    rates = np.repeat([setting.learning_rate for setting in settings], len(seeds))
    x = _stacked([split.x_train for split in task.splits], copies).astype(task.dtype, copy=False)
    labels = _stacked([split.labels_train for split in task.splits], copies)
    orders = np.stack([np.tile(_permutations(seed, task.epochs, x.shape[1]), (1, copies, 1)) for seed in seeds], axis=2)
    orders = orders.reshape(task.epochs, copies * len(seeds), x.shape[1])
    optimiser = OPTIMISERS[method](network, rates)
    for _ in train(network, optimiser, task.head, x, labels, orders, task.batch):
        advance()
    return network


def _permutations(seed: int, epochs: int, rows: int) -> NDArray[np.int64]:
    """(epochs, 1, rows): the order in which the networks of a seed see their rows."""
    draw = np.random.default_rng([seed, 1])
    return np.stack([draw.permutation(rows) for _ in range(epochs)])[:, None]


def _stacked(parts: Sequence[NDArray[Any]], copies: int) -> NDArray[Any]:
    """(seeds, ...) arrays as (copies * seeds, ...), copy-major."""
    return np.concatenate([np.stack(parts)] * copies)


def _judge(task: Task, network: Network, choice: Choice, setting: Setting, index: int) -> tuple[Cell, list[AxesRow]]:
    """Accuracy and axes of the seeds trained under one setting, the ``index``-th block of the stack."""
    accuracies, layers = [], []
    for seed, split in enumerate(task.splits):
        alone = network.take(index * len(task.splits) + seed)
        x = split.x_test.astype(task.dtype, copy=False)
        accuracies.append(float(task.head.accuracies(alone, x[None], split.labels_test[None])[0]))
        layers.append(measure(alone, x, split.labels_test, task.head))
    rows = [
        AxesRow(
            choice.label,
            setting.label,
            same_layer[0].layer,
            {name: mean_and_sd([getattr(axes, name) for axes in same_layer]) for name in QUANTITIES},
        )
        for same_layer in zip(*layers, strict=True)
    ]
    return Cell(choice.label, setting.label, spread(accuracies)), rows
