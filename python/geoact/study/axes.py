"""Section c: the four axes at initialisation, by input, depth, activation and storage precision.

Both data sets of the study are fed in, because what depth leaves of an order of distances depends on how far
those distances differ to begin with. The axes of trained networks are measured where those are trained
(sections b and d).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from geoact.study.config import Choice, StudyConfig
from geoact.study.data import digits, two_moons
from geoact.study.measurement import QUANTITIES, LayerAxes, measure_untrained
from geoact.study.network import Network
from geoact.study.spread import mean_and_sd

INPUTS = {"two moons": two_moons, "digits": digits}
INPUT_SEED = 42
OUTPUTS = 10
BITS = {"float64": 53, "float32": 24, "bfloat16": 8, "float16": 11}
"""Significand bits of each type, the implicit one included."""


@dataclass(frozen=True)
class DepthRow:
    """Mean over seeds of every quantity of ``LayerAxes`` at one depth, and the sd of the rank correlation."""

    data: str
    activation: str
    dtype: str
    depth: int
    quantities: dict[str, float]
    spearman_sd: float


@dataclass(frozen=True)
class InitialAxes:
    """All rows, and the sizes they were measured at."""

    width: int
    depth: int
    input_rows: int
    seeds: int
    inputs: list[str]
    dtypes: list[str]
    activations: list[str]
    rows: list[DepthRow]

    def curve(self, data: str, activation: str, dtype: str, quantity: str) -> list[float]:
        """One quantity at depths 1 .. ``depth``."""
        wanted = (data, activation, dtype)
        rows = [row for row in self.rows if (row.data, row.activation, row.dtype) == wanted]
        return [row.quantities[quantity] for row in sorted(rows, key=lambda row: row.depth)]

    def at(self, data: str, activation: str, dtype: str, quantity: str, depth: int) -> float:
        """One quantity at one depth, counted in hidden layers from 1."""
        return self.curve(data, activation, dtype, quantity)[depth - 1]


def run(config: StudyConfig, advance: Callable[[], None]) -> InitialAxes:
    """Measure every activation in every precision; weights are drawn in float64 and then rounded."""
    rows: list[DepthRow] = []
    for data, choice, dtype in product(INPUTS, config.choices, config.init_dtypes):
        x = INPUTS[data](INPUT_SEED).x_train[: config.init_rows]
        nets = []
        for seed in range(config.init_seeds):
            nets.append(_measure_one(config, choice, dtype, seed, x))
            advance()
        rows += [_depth_row(data, choice, dtype, same_depth) for same_depth in zip(*nets, strict=True)]
    return InitialAxes(
        width=config.init_width,
        depth=config.init_depth,
        input_rows=config.init_rows,
        seeds=config.init_seeds,
        inputs=list(INPUTS),
        dtypes=list(config.init_dtypes),
        activations=[choice.label for choice in config.choices],
        rows=rows,
    )


def steps(config: StudyConfig) -> int:
    """How many times ``run`` reports progress."""
    return len(INPUTS) * len(config.choices) * len(config.init_dtypes) * config.init_seeds


def _measure_one(config: StudyConfig, choice: Choice, dtype: str, seed: int, x: NDArray[Any]) -> list[LayerAxes]:
    stored = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    draw = np.random.default_rng([seed, 2])
    widths = (x.shape[1],) + (config.init_width,) * config.init_depth + (OUTPUTS,)
    network = Network(choice, widths, 1, stored).initialise([draw])
    dscores = draw.standard_normal((len(x), OUTPUTS))
    return measure_untrained(network, x.astype(stored), dscores.astype(stored))


def _depth_row(data: str, choice: Choice, dtype: str, layers: Sequence[LayerAxes]) -> DepthRow:
    sample = {name: mean_and_sd([getattr(axes, name) for axes in layers]) for name in QUANTITIES}
    return DepthRow(
        data=data,
        activation=choice.label,
        dtype=dtype,
        depth=layers[0].layer,
        quantities={name: value.mean for name, value in sample.items()},
        spearman_sd=sample["spearman"].sd,
    )
