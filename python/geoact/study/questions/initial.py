"""Units of untrained networks: the four axes by depth, and the crossing of the shapes of sigmoid and ReLU."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

import geoact
from geoact.study.config import CHOICES
from geoact.study.questions.deep import DeepNetwork, dtype_of
from geoact.study.questions.geometry import QUANTITIES, layers
from geoact.study.questions.specs import Crossing, Initial
from geoact.study.questions.tasks import classes, fold

BRACKET = (5.0, 20.0)
"""Standard deviations between which the linear shares of sigmoid and ReLU cross."""


def initial(spec: Initial) -> dict[str, Any]:
    """Measure each seed's network on its own data: {"layers": {depth: {quantity: values by seed}}}."""
    dtype = dtype_of(spec.dtype)
    found: dict[str, dict[str, list[float]]] = {str(depth): {name: [] for name in QUANTITIES} for depth in spec.read}
    with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
        for seed in range(spec.seeds):
            x = fold(spec.data, seed).train.x[: spec.rows]
            draw = np.random.default_rng([seed, 2])
            widths = (x.shape[1], *(spec.width,) * spec.depth, classes(spec.data))
            dscores = draw.standard_normal((len(x), widths[-1]))
            network = DeepNetwork(spec.activation, widths, 1, dtype).draw([draw], spec.init)
            measured, _ = layers(network, x.astype(dtype), spec.read, dscores.astype(dtype))
            for depth, quantities in zip(spec.read, measured, strict=True):
                for name, value in quantities.items():
                    found[str(depth)][name].append(value)
    return {"layers": found}


def crossing(spec: Crossing) -> dict[str, Any]:
    """Measure the linear share on the quantiles of N(0, sd^2), and solve for the sd where sigmoid has that of ReLU."""
    normal = ndtri((np.arange(spec.points) + 0.5) / spec.points)
    options = {choice.label: choice for choice in CHOICES}

    def share(name: str, deviation: float) -> float:
        stats = geoact.GeometryStats(per="tensor")
        activation: Any = geoact.get(options[name].name)
        activation(deviation * normal, **options[name].options, stats=stats)
        return float(stats.linear_share)

    return {
        "shares": {name: [share(name, sd) for sd in spec.deviations] for name in spec.activations},
        "crossing": float(brentq(lambda sd: share("sigmoid", sd) - share("relu", sd), *BRACKET, xtol=1e-6)),
    }
