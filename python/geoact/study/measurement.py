"""The four axes of geometry of one network, layer by layer, from the statistics fused into its activations.

Only the rank correlation of distances is computed on the side: ranks need all pairs, which no single pass can
hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import rankdata

import geoact
from geoact.study.network import Network, Trace
from geoact.study.training import Head

PAIR_ROWS = 256
"""Rows used for the rank correlation: 32 640 pairs."""

QUANTITIES = (
    "gain",
    "distance",
    "linear_share",
    "spearman",
    "effective_bits",
    "mean_sq_slope",
    "realised_gain",
    "saturation_fraction",
    "zero_fraction",
    "dead_fraction",
)


@dataclass(frozen=True)
class LayerAxes:
    """What one hidden layer's activation did (docs/study.md). Fractions are in 0..1.

    * scale: ``gain``, the ratio of mean squared pair distances after / before the activation; ``distance``,
      the mean squared pair distance per coordinate of this layer's output over that of the network's input.
    * shape: ``linear_share`` R^2, 1 for an affine map; ``spearman``, rank correlation of pair distances,
      network input against this layer's output.
    * resolution: ``effective_bits``, log2(sd / spacing of the stored type there), 0 for a unit that never
      moves.
    * gradient: ``mean_sq_slope`` E f'^2 on the way forward; ``realised_gain`` |dx|^2 / |dy|^2 on the way
      back.
    """

    layer: int
    gain: float
    distance: float
    linear_share: float
    spearman: float
    effective_bits: float
    mean_sq_slope: float
    realised_gain: float
    saturation_fraction: float
    zero_fraction: float
    dead_fraction: float


def measure(network: Network, x: NDArray[Any], labels: NDArray[np.int64], head: Head) -> list[LayerAxes]:
    """Measure one trained network on x (rows, features); the gradient is that of the loss there."""
    forward = _geometry_stats(network)
    trace = network.forward(x[None], stats=forward)
    probabilities = head.probabilities(trace.scores)
    dscores = head.dscores(probabilities, head.targets(labels[None]).astype(x.dtype, copy=False))
    return _collect(network, trace, dscores, forward)


def measure_untrained(network: Network, x: NDArray[Any], dscores: NDArray[Any]) -> list[LayerAxes]:
    """Measure one untrained network on x (rows, features), given a gradient (rows, outputs) at its end."""
    forward = _geometry_stats(network)
    trace = network.forward(x[None], stats=forward)
    return _collect(network, trace, dscores[None], forward)


def _geometry_stats(network: Network) -> list[Any]:
    return [geoact.GeometryStats(per="channel") for _ in network.widths[1:-1]]


def _collect(network: Network, trace: Trace, dscores: NDArray[Any], forward: list[Any]) -> list[LayerAxes]:
    backward: list[Any] = [geoact.GradientStats(per="tensor") for _ in forward]
    network.backward(trace, dscores, stats=backward)
    x = trace.x[0].astype(np.float64)
    input_variance, input_ranks = float(x.var(axis=0).mean()), distance_ranks(x)
    layers = []
    for index, (stats, gradient, after) in enumerate(zip(forward, backward, trace.after, strict=True)):
        layers.append(
            LayerAxes(
                layer=index + 1,
                gain=float(stats.layer_gain),
                distance=float(np.mean(stats.var_y)) / input_variance,
                linear_share=float(stats.layer_linear_share),
                spearman=correlation(input_ranks, distance_ranks(after[0])),
                effective_bits=float(stats.layer_effective_bits),
                mean_sq_slope=float(np.mean(stats.mean_sq_slope)),
                realised_gain=float(gradient.realised_gain),
                saturation_fraction=float(np.mean(stats.saturation_fraction)),
                zero_fraction=float(np.mean(stats.zero_fraction)),
                dead_fraction=float(stats.dead_fraction),
            )
        )
    return layers


def distance_ranks(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rank all pair distances of the first ``PAIR_ROWS`` rows (rows, width); ties share their mean rank."""
    # float64 differences are exact for what the layer stored: only the layer's own precision is judged.
    return np.asarray(rankdata(pdist(rows[:PAIR_ROWS].astype(np.float64))), dtype=np.float64)


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Correlate two rank vectors (Spearman's rho); 0 where all ranks tie, as no order is left."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
