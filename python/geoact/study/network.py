"""A multilayer perceptron on geoact kernels: many networks of one shape, stacked in the leading axis.

Stacking is what makes the study quick: thirty 2-8-8-1 networks cost one batched product, not thirty small
ones. The activations are geoact's, forward and backward; NumPy does the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

import geoact
from geoact.study.config import Choice


class NormalSource(Protocol):
    """What draws weights: ``numpy.random.Generator`` or, for the replica, the legacy ``RandomState``."""

    def standard_normal(self, size: tuple[int, ...]) -> NDArray[np.float64]:
        """Independent N(0, 1) values of the given shape."""


@dataclass
class Trace:
    """One forward pass: hidden layer i before and after its activation, each (nets, rows, width)."""

    x: NDArray[Any]
    before: list[NDArray[Any]]
    after: list[NDArray[Any]]
    scores: NDArray[Any]


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Multiply ``a @ b``; 16-bit types multiply and add in float32 and round once, as tensor cores do."""
    if a.dtype.itemsize > 2:
        return np.asarray(np.matmul(a, b))
    return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype))


class Network:
    """``nets`` perceptrons of layer sizes ``widths``; hidden layers share one activation, the last is linear.

    ``parameters`` (nets, count) holds everything; ``weights[i]`` (nets, fan_in, fan_out) and ``biases[i]``
    (nets, 1, fan_out) are views of it, and ``gradients`` is laid out alike, so that an optimiser updates one
    array.
    """

    def __init__(self, choice: Choice, widths: Sequence[int], nets: int, dtype: DTypeLike = np.float64) -> None:
        self.choice = choice
        self.widths = tuple(widths)
        self.activation: Any = geoact.get(choice.name)
        count = sum((fan_in + 1) * fan_out for fan_in, fan_out in zip(self.widths, self.widths[1:], strict=False))
        self.parameters: NDArray[Any] = np.zeros((nets, count), dtype)
        self.gradients: NDArray[Any] = np.zeros((nets, count), dtype)
        self.weights, self.biases = self._views(self.parameters)
        self._weight_gradients, self._bias_gradients = self._views(self.gradients)

    def _views(self, flat: NDArray[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        nets, weights, biases, start = len(flat), [], [], 0
        for fan_in, fan_out in zip(self.widths, self.widths[1:], strict=False):
            stop = start + fan_in * fan_out
            weights.append(flat[:, start:stop].reshape(nets, fan_in, fan_out))
            start, stop = stop, stop + fan_out
            biases.append(flat[:, start:stop].reshape(nets, 1, fan_out))
            start = stop
        return weights, biases

    def initialise(self, sources: Sequence[NormalSource]) -> Network:
        """Draw net i from ``sources[i]``, layer by layer, N(0, weight_gain / fan_in); biases 0."""
        for net, source in enumerate(sources):
            for weight in self.weights:
                scale = np.sqrt(self.choice.weight_gain / weight.shape[1])
                weight[net] = source.standard_normal(weight.shape[1:]) * scale
        return self

    def take(self, net: int) -> Network:
        """Copy network ``net`` alone."""
        alone = Network(self.choice, self.widths, 1, self.parameters.dtype)
        alone.parameters[0] = self.parameters[net]
        return alone

    def forward(self, x: NDArray[Any], stats: Sequence[Any] | None = None) -> Trace:
        """Run x (nets, rows, features); ``stats`` has one ``GeometryStats`` per hidden layer to fill."""
        trace = Trace(x, [], [], x)
        value = x
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            trace.scores = product(value, weight)
            trace.scores += bias
            if layer < len(self.weights) - 1:
                measured = {} if stats is None else {"stats": stats[layer]}
                value = self.activation(trace.scores, **self.choice.options, **measured)
                trace.before.append(trace.scores)
                trace.after.append(value)
        return trace

    def backward(self, trace: Trace, dscores: NDArray[Any], stats: Sequence[Any] | None = None) -> None:
        """Fill ``gradients`` from the gradient of the loss by the scores (nets, rows, outputs).

        ``stats``: one ``GradientStats`` per hidden layer, filled while dx is written.
        """
        gradient = dscores
        for layer in reversed(range(len(self.weights))):
            below = trace.after[layer - 1] if layer else trace.x
            self._weight_gradients[layer][...] = product(below.swapaxes(-1, -2), gradient)
            self._bias_gradients[layer][...] = gradient.sum(axis=-2, keepdims=True)
            if layer:
                gradient = product(gradient, self.weights[layer].swapaxes(-1, -2))
                gradient = self._through_activation(trace, layer - 1, gradient, stats)

    def _through_activation(
        self, trace: Trace, hidden: int, dy: NDArray[Any], stats: Sequence[Any] | None
    ) -> NDArray[Any]:
        saved = {"x": trace.before[hidden]} if self.activation.saves == "x" else {"y": trace.after[hidden]}
        measured = {} if stats is None else {"stats": stats[hidden]}
        dx: NDArray[Any] = self.activation.backward(dy, **saved, **self.choice.options, **measured)
        return dx
