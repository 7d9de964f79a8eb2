"""Section a: the published two-moons experiment, reproduced in float64 to the printed digit.

Source: the two-moons comparison of sigmoid and ReLU that this project starts from (docs/study.md).
Conventions found by matching its digits: each network reseeds the legacy generator with 42 before its weights
are drawn (so both start from the same normal numbers); the permutations go on from where the second network
left off, one per epoch, shared by both; the printed loss is the mean over the batches of that epoch; the
gradient by the scores is (p - t) / rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import geoact
from geoact.study.config import Choice, StudyConfig
from geoact.study.data import Split, two_moons
from geoact.study.measurement import LayerAxes, measure
from geoact.study.network import Network
from geoact.study.training import BinaryHead, GradientDescent, train

SEED = 42
WIDTHS = (2, 8, 8, 1)
BATCH = 64
LEARNING_RATE = 0.05
NETWORKS = (Choice("sigmoid", 1.0), Choice("relu", 2.0))
CHECKPOINTS = (200, 400, 600, 800)

PRINTED_LOSS = {"sigmoid": (".3589", ".2875", ".2871", ".2822"), "relu": (".1549", ".0566", ".0450", ".0353")}
PRINTED_ACCURACY = {"sigmoid": "79.0", "relu": "96.0"}
PRINTED_SD = {"sigmoid": (".2593", ".1950"), "relu": ("1.1453", "1.6729")}


@dataclass(frozen=True)
class Check:
    """One published number as printed, as measured in full, and whether both round alike."""

    network: str
    quantity: str
    printed: str
    measured: float
    matches: bool


@dataclass(frozen=True)
class ReplicaNetwork:
    """One trained network: loss per epoch, test accuracy, sd and axes per hidden layer, all parameters.

    ``sd_numpy`` is ``np.std`` of the hidden layer over the test set, ``sd_fused`` the same number from the
    statistics gathered while the activation ran.
    """

    activation: str
    losses: list[float]
    test_accuracy: float
    sd_numpy: list[float]
    sd_fused: list[float]
    axes: list[LayerAxes]
    parameters: list[float]


@dataclass(frozen=True)
class Replica:
    """Both networks and the comparison with every published number."""

    networks: list[ReplicaNetwork]
    checks: list[Check]
    matched: int


def run(config: StudyConfig, advance: Callable[[], None]) -> Replica:
    """Train both networks and compare with the printed numbers; ``advance`` is called once per epoch."""
    split = two_moons(SEED)
    pairs = []
    for choice in NETWORKS:
        stream = np.random.RandomState(SEED)
        pairs.append(Network(choice, WIDTHS, nets=1).initialise([stream]))
    orders = np.stack([stream.permutation(len(split.x_train)) for _ in range(config.replica_epochs)])
    networks = [_train_one(network, split, orders, advance) for network in pairs]
    checks = [check for network in networks for check in _checks(network)]
    return Replica(networks, checks, matched=sum(check.matches for check in checks))


def steps(config: StudyConfig) -> int:
    """How many times ``run`` reports progress."""
    return len(NETWORKS) * config.replica_epochs


def _train_one(
    network: Network, split: Split, orders: NDArray[np.int64], advance: Callable[[], None]
) -> ReplicaNetwork:
    head = BinaryHead()
    optimiser = GradientDescent(network, np.array([LEARNING_RATE]))
    losses = []
    for loss in train(network, optimiser, head, split.x_train[None], split.labels_train[None], orders[:, None], BATCH):
        losses.append(float(loss[0]))
        advance()
    x_test, labels_test = split.x_test[None], split.labels_test[None]
    stats = [geoact.GeometryStats(per="tensor") for _ in WIDTHS[1:-1]]
    trace = network.forward(x_test, stats=stats)
    return ReplicaNetwork(
        activation=network.choice.name,
        losses=losses,
        test_accuracy=float(head.accuracies(network, x_test, labels_test)[0]),
        sd_numpy=[float(np.std(layer)) for layer in trace.after],
        sd_fused=[float(layer.sd_y) for layer in stats],
        axes=measure(network, split.x_test, split.labels_test, head),
        parameters=[float(value) for value in network.parameters[0]],
    )


def _checks(network: ReplicaNetwork) -> list[Check]:
    name = network.activation
    checks = [
        _check(name, f"loss at epoch {epoch}", printed, network.losses[epoch - 1])
        for epoch, printed in zip(CHECKPOINTS, PRINTED_LOSS[name], strict=True)
        if epoch <= len(network.losses)
    ]
    checks.append(_check(name, "test accuracy, %", PRINTED_ACCURACY[name], 100 * network.test_accuracy))
    checks += [
        _check(name, f"np.std of hidden layer {layer}", printed, measured)
        for layer, (printed, measured) in enumerate(zip(PRINTED_SD[name], network.sd_numpy, strict=True), start=1)
    ]
    return checks


def _check(network: str, quantity: str, printed: str, measured: float) -> Check:
    decimals = len(printed.partition(".")[2])
    return Check(network, quantity, printed, measured, f"{measured:.{decimals}f}" == f"{float(printed):.{decimals}f}")
