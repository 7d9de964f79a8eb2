"""Losses, plain gradient descent and Adam, for stacked networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geoact
from geoact.study.network import Network

Array = NDArray[Any]


class Head(ABC):
    """The end of a network: what the scores (nets, rows, outputs) mean, their loss and its gradient."""

    @abstractmethod
    def targets(self, labels: NDArray[np.int64]) -> Array:
        """Labels (nets, rows) as targets (nets, rows, outputs)."""

    @abstractmethod
    def probabilities(self, scores: Array) -> Array:
        """Scores as probabilities, same shape."""

    @abstractmethod
    def losses(self, probabilities: Array, targets: Array) -> Array:
        """Mean loss of each network, (nets,)."""

    @abstractmethod
    def predictions(self, probabilities: Array) -> NDArray[np.int64]:
        """Choose a label for each row, (nets, rows)."""

    def dscores(self, probabilities: Array, targets: Array) -> Array:
        """Gradient of the mean loss by the scores, (p - t) / rows for both heads; the 1e-9 is ignored."""
        gradient: Array = probabilities - targets
        gradient /= gradient.dtype.type(gradient.shape[-2])
        return gradient

    def accuracies(self, network: Network, x: Array, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of rows (nets, rows, features) whose label is predicted, per network (nets,)."""
        chosen = self.predictions(self.probabilities(network.forward(x).scores))
        return np.asarray((chosen == labels).mean(axis=-1), dtype=np.float64)


class BinaryHead(Head):
    """One sigmoid output and binary cross-entropy with 1e-9 inside the logs, as published."""

    floor = 1e-9

    def targets(self, labels: NDArray[np.int64]) -> Array:
        """Labels as 0.0 and 1.0, one output."""
        return np.asarray(labels[..., None], dtype=np.float64)

    def probabilities(self, scores: Array) -> Array:
        """Return the probability of class 1."""
        return np.asarray(geoact.sigmoid(scores))

    def losses(self, probabilities: Array, targets: Array) -> Array:
        """Mean binary cross-entropy."""
        hit = targets * np.log(probabilities + self.floor)
        miss = (1 - targets) * np.log(1 - probabilities + self.floor)
        return np.asarray(-(hit + miss).mean(axis=(-1, -2)))

    def predictions(self, probabilities: Array) -> NDArray[np.int64]:
        """1 where the probability exceeds one half."""
        return np.asarray(probabilities[..., 0] > 0.5, dtype=np.int64)


class SoftmaxHead(Head):
    """``classes`` scores and cross-entropy of their softmax."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def targets(self, labels: NDArray[np.int64]) -> Array:
        """Labels as one-hot rows."""
        return np.asarray(labels[..., None] == np.arange(self.classes), dtype=np.float32)

    def probabilities(self, scores: Array) -> Array:
        """Softmax of the scores."""
        # Subtracting the row maximum keeps exp finite and leaves the quotient as it is.
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray(weights)

    def losses(self, probabilities: Array, targets: Array) -> Array:
        """Mean cross-entropy."""
        chosen = (probabilities * targets).sum(axis=-1)
        return np.asarray(-np.log(np.maximum(chosen, np.finfo(chosen.dtype).tiny)).mean(axis=-1))

    def predictions(self, probabilities: Array) -> NDArray[np.int64]:
        """Choose the most probable class."""
        return np.asarray(probabilities.argmax(axis=-1))


class GradientDescent:
    """p -= rate * gradient; ``rates`` (nets,) may differ from network to network."""

    def __init__(self, network: Network, rates: NDArray[np.float64]) -> None:
        self._rates = rates[:, None].astype(network.parameters.dtype)

    def step(self, network: Network) -> None:
        """Update every parameter in place."""
        network.parameters -= self._rates * network.gradients


class Adam:
    """Adam with its published defaults (Kingma and Ba 2015, arXiv:1412.6980)."""

    decay_mean, decay_square, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, network: Network, rates: NDArray[np.float64]) -> None:
        self._rates = rates[:, None]
        self._mean = np.zeros_like(network.parameters)
        self._square = np.zeros_like(network.parameters)
        self._steps = 0

    def step(self, network: Network) -> None:
        """Update every parameter in place."""
        self._steps += 1
        gradient = network.gradients
        self._mean += (1 - self.decay_mean) * (gradient - self._mean)
        self._square += (1 - self.decay_square) * (gradient * gradient - self._square)
        # Both bias corrections folded into two scalars, as section 2 of the paper proposes.
        root = np.sqrt(1 - self.decay_square**self._steps)
        rate = (self._rates * root / (1 - self.decay_mean**self._steps)).astype(gradient.dtype)
        network.parameters -= rate * self._mean / (np.sqrt(self._square) + self.epsilon * root)


OPTIMISERS: dict[str, type[GradientDescent] | type[Adam]] = {"SGD": GradientDescent, "Adam": Adam}


def train(
    network: Network,
    optimiser: GradientDescent | Adam,
    head: Head,
    x: Array,
    labels: NDArray[np.int64],
    orders: NDArray[np.int64],
    batch: int,
) -> Iterator[NDArray[np.float64]]:
    """Train for ``len(orders)`` epochs, yielding the mean batch loss of every network (nets,) after each.

    x (nets, rows, features), labels (nets, rows), orders (epochs, nets, rows): the order in which each
    network sees the rows. Parameters change only after the whole backward pass of a batch.
    """
    targets = head.targets(labels).astype(x.dtype, copy=False)
    for order in orders:
        shuffled = np.take_along_axis(x, order[..., None], axis=1)
        wanted = np.take_along_axis(targets, order[..., None], axis=1)
        losses = []
        for start in range(0, x.shape[1], batch):
            part, target = shuffled[:, start : start + batch], wanted[:, start : start + batch]
            trace = network.forward(part)
            probabilities = head.probabilities(trace.scores)
            losses.append(head.losses(probabilities, target))
            network.backward(trace, head.dscores(probabilities, target))
            optimiser.step(network)
        yield np.mean(losses, axis=0)
