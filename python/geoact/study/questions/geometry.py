"""The four axes of one layer of one network, its activation and what normalises or scales it taken together.

The statistics are those fused into the activation, read again from the layer's output by a pass of the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import rankdata

import geoact
from geoact.study.measurement import correlation
from geoact.study.questions.deep import DeepNetwork
from geoact.study.training import Head

QUANTITIES = ("distance", "linear_share", "spearman", "effective_bits", "gradient", "dead")
"""What is measured in each layer (docs/study.md): scale, shape twice, resolution, gradient, and dead units."""


def layers(
    network: DeepNetwork, x: NDArray[Any], read: Sequence[int], dscores: NDArray[Any]
) -> tuple[list[dict[str, float]], list[NDArray[np.float64]]]:
    """Measure the layers ``read`` (from 1) of one network on x (rows, features), given a gradient at its end.

    Returns the quantities of each and its output. ``network`` is a stack of one.
    """
    depth = len(network.hidden)
    wanted: list[Any] = [geoact.GeometryStats(per="channel") if i + 1 in read else None for i in range(depth)]
    trace = network.forward(x[None], stats=wanted)
    gains: list[float] = []
    network.backward(trace, dscores[None], gains=gains)
    gains.reverse()
    inputs = x.astype(np.float64)
    ranks, variance = distance_ranks(inputs), float(inputs.var(axis=0).mean())
    measured, outputs = [], []
    for layer in read:
        stored = trace.after[layer - 1][0]
        output = stored.astype(np.float64)
        whole = geoact.GeometryStats(per="channel")
        geoact.leaky_relu(stored, negative_slope=1.0, stats=whole)
        measured.append(
            {
                "distance": float(np.mean(whole.var_y)) / variance,
                "linear_share": float(wanted[layer - 1].layer_linear_share),
                "spearman": correlation(ranks, distance_ranks(output)) if np.isfinite(output).all() else float("nan"),
                "effective_bits": float(whole.layer_effective_bits),
                "gradient": gains[layer - 1],
                "dead": float(np.mean(np.asarray(whole.var_y) == 0)),
            }
        )
        outputs.append(output)
    return measured, outputs


def trained_layers(
    network: DeepNetwork, x: NDArray[Any], labels: NDArray[np.int64], head: Head, read: Sequence[int]
) -> tuple[list[dict[str, float]], list[NDArray[np.float64]]]:
    """Like ``layers``, with the gradient of the loss."""
    probabilities = head.probabilities(network.forward(x[None]).scores)
    dscores = head.dscores(probabilities, head.targets(labels[None]).astype(x.dtype, copy=False))
    return layers(network, x, read, dscores[0])


def distance_ranks(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank all pair distances; ties share their mean rank."""
    return np.asarray(rankdata(pdist(rows)), dtype=np.float64)


def shepard(before: NDArray[np.float64], after: NDArray[np.float64], pairs: int) -> dict[str, list[float]]:
    """Return ``pairs`` distances at the input and after a layer, each in units of its median."""
    first, second = pdist(before), pdist(after)
    chosen = np.random.default_rng(0).choice(len(first), size=min(pairs, len(first)), replace=False)
    return {
        "before": [float(f"{d:.4g}") for d in first[chosen] / np.median(first)],
        "after": [float(f"{d:.4g}") for d in second[chosen] / (np.median(second) or 1.0)],
    }
