"""Units of trained networks: the rate is chosen on validation data, then other seeds are trained and tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoact.study.questions import tasks
from geoact.study.questions.deep import DeepNetwork, dtype_of
from geoact.study.questions.geometry import shepard, trained_layers
from geoact.study.questions.specs import Paired, Trained
from geoact.study.training import OPTIMISERS, Head, SoftmaxHead, train

DTYPE = np.float32
TUNING_SEEDS = 1000
"""Seeds that choose a rate start here; those that are reported start at 0."""
NOISE = (0.1, 0.2, 0.4)
"""Standard deviations of noise added to the standardised inputs."""
STORED = ("bfloat16", "float16")
"""Types that trained networks are rounded to."""
PAIR_ROWS = 128
CHUNK = 12
"""Networks trained in one stack: enough to share the work of a call, few enough for a cache."""


def trained(spec: Trained) -> dict[str, Any]:
    """Return the chosen rate, what every rate scored on validation data, and one record per seed."""
    head = SoftmaxHead(tasks.classes(spec.data))
    validation = tune(spec, head, spec.activation)
    rate = best_rate(spec.rates, validation)
    seeds = range(spec.seeds)
    networks = fit(spec, head, [(seed, rate) for seed in seeds], spec.activation)
    runs = [judge(spec, head, network, seed) for seed, network in zip(seeds, networks, strict=True)]
    result: dict[str, Any] = {"rate": rate, "validation": validation, "runs": runs}
    if spec.pairs:
        result["pairs"] = _pairs(spec, head, networks[0])
    return result


def best_rate(rates: Sequence[float], validation: Sequence[float]) -> float:
    """Return the rate with the highest validation accuracy, of equals the middle one: far from failing either way."""
    best = [rate for rate, score in zip(rates, validation, strict=True) if score == max(validation)]
    return sorted(best)[len(best) // 2]


def tune(spec: Trained | Paired, head: Head, activation: str) -> list[float]:
    """Return the mean validation accuracy of each rate over the tuning seeds; test data is not read."""
    runs = [(TUNING_SEEDS + seed, rate) for rate in spec.rates for seed in range(spec.tune_seeds)]
    scores = [
        accuracy(head, network, tasks.fold(spec.data, seed).validation)
        for network, (seed, _) in zip(fit(spec, head, runs, activation), runs, strict=True)
    ]
    return [float(part) for part in np.reshape(scores, (len(spec.rates), -1)).mean(axis=1)]


def fit(spec: Trained | Paired, head: Head, runs: Sequence[tuple[int, float]], activation: str) -> list[DeepNetwork]:
    """Train one network for each (seed, rate), ready to be tested; weights, data and order follow from the seed."""
    networks: list[DeepNetwork] = []
    for start in range(0, len(runs), CHUNK):
        part = runs[start : start + CHUNK]
        folds = [tasks.fold(spec.data, seed) for seed, _ in part]
        x = np.stack([fold.train.x for fold in folds]).astype(DTYPE)
        labels = np.stack([fold.train.labels for fold in folds])
        widths = (x.shape[-1], *(spec.width,) * spec.depth, tasks.classes(spec.data))
        stack = DeepNetwork(activation, widths, len(part), DTYPE)
        stack.draw([np.random.default_rng([seed, 0]) for seed, _ in part], spec.init)
        orders = np.stack([_orders(seed, spec.epochs, x.shape[1]) for seed, _ in part], axis=1)
        optimiser = OPTIMISERS[spec.method](stack, np.array([rate for _, rate in part]))
        # A rate too large for an activation is a result, not a fault.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            for _ in train(stack, optimiser, head, x, labels, orders, spec.batch):
                pass
            networks += [stack.take(net) for net in range(len(part))]
    return networks


def _orders(seed: int, epochs: int, rows: int) -> NDArray[np.int64]:
    draw = np.random.default_rng([seed, 1])
    return np.stack([draw.permutation(rows) for _ in range(epochs)])


def accuracy(head: Head, network: DeepNetwork, part: tasks.Part) -> float:
    """Return the share of rows whose label is predicted; of a diverged network those of class 0."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        x = part.x.astype(network.parameters.dtype)
        return float(head.accuracies(network, x[None], part.labels[None])[0])


def judge(spec: Trained, head: Head, network: DeepNetwork, seed: int) -> dict[str, Any]:
    """Test one trained network: accuracies, in narrow types and under noise, and the axes of first and last layer."""
    test = tasks.test_part(spec.data, seed)
    draw = np.random.default_rng([seed, 4])
    noise = draw.standard_normal(test.x.shape)
    clean = accuracy(head, network, test)
    noisy = [accuracy(head, network, tasks.Part(test.x + sd * noise, test.labels)) for sd in NOISE]
    first, last = measured(head, network, test)[0]
    narrow = {}
    for name in STORED:
        stored = network.cast(dtype_of(name))
        narrow[name] = {
            "accuracy": accuracy(head, stored, test),
            **{key: measured(head, stored, test)[0][1][key] for key in ("spearman", "effective_bits")},
        }
    return {
        "seed": seed,
        "train": accuracy(head, network, tasks.fold(spec.data, seed).train),
        "accuracy": clean,
        "noisy": noisy,
        "robustness": float(np.mean(noisy)) / clean if clean > 0 else float("nan"),
        "first": first,
        "last": last,
        "stored": narrow,
    }


def measured(
    head: Head, network: DeepNetwork, part: tasks.Part
) -> tuple[list[dict[str, float]], list[NDArray[np.float64]]]:
    """Measure first and last hidden layer on some rows; return their quantities and outputs."""
    x = part.x[:PAIR_ROWS].astype(network.parameters.dtype)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        return trained_layers(network, x, part.labels[: len(x)], head, (1, len(network.hidden)))


def _pairs(spec: Trained, head: Head, network: DeepNetwork) -> dict[str, dict[str, list[float]]]:
    test = tasks.test_part(spec.data, 0)
    x = test.x[:PAIR_ROWS]
    fresh = DeepNetwork(spec.activation, network.widths, 1, DTYPE).draw([np.random.default_rng([0, 0])], spec.init)
    return {
        when: shepard(x, measured(head, one, test)[1][1], spec.pairs)
        for when, one in (("initial", fresh), ("trained", network))
    }
