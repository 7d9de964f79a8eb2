"""Deep networks for the questions: the stack of ``geoact.study.network`` with any ``Hidden`` between the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from geoact.study.config import Choice
from geoact.study.network import Network, NormalSource, Trace, product
from geoact.study.questions.hidden import KINDS

GAINS = {"lecun": 1.0, "he": 2.0}
"""Weight variance times fan_in (LeCun et al. 1998; He et al. 2015, arXiv:1502.01852)."""


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the NumPy type of a name, bfloat16 included."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


class DeepNetwork(Network):
    """``nets`` networks with ``depth`` hidden layers. ``training`` says which statistics BatchNorm and GAL use."""

    def __init__(self, activation: str, widths: Sequence[int], nets: int, dtype: DTypeLike = np.float32) -> None:
        self.kind = KINDS[activation]
        super().__init__(Choice("relu", self.kind.weight_gain), widths, nets, dtype)
        self.name = activation
        depth = len(self.widths) - 2
        self.hidden = [self.kind.make(depth, nets) for _ in range(depth)]
        self.training = True

    def draw(self, sources: Sequence[NormalSource], init: str) -> DeepNetwork:
        """Draw net i from ``sources[i]``; every init is made of the same normal numbers. Biases are 0."""
        gain = GAINS.get(init, self.kind.weight_gain)
        for net, source in enumerate(sources):
            for weight in self.weights:
                normal = source.standard_normal(weight.shape[1:])
                orthogonal = init == "orthogonal"
                weight[net] = _orthogonal(normal, gain) if orthogonal else normal * np.sqrt(gain / len(normal))
        return self

    def take(self, net: int) -> DeepNetwork:
        """Copy network ``net`` alone, to be tested."""
        return self.cast(self.parameters.dtype, net)

    def cast(self, dtype: DTypeLike, net: int = 0) -> DeepNetwork:
        """Copy network ``net`` alone with its parameters rounded to another type, to be tested."""
        alone = DeepNetwork(self.name, self.widths, 1, dtype)
        alone.parameters[0] = self.parameters[net].astype(dtype)
        alone.hidden = [layer.take(net) for layer in self.hidden]
        alone.training = False
        return alone

    def forward(self, x: NDArray[Any], stats: Sequence[Any] | None = None) -> Trace:
        """Run x (nets, rows, features); ``stats`` has one ``GeometryStats`` per hidden layer, or None to skip it."""
        trace = Trace(x, [], [], x)
        value = x
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = product(value, weight)
            if layer == last:
                z += bias
                trace.scores = z
                break
            value = self.hidden[layer].forward(z, bias, self.training, stats[layer] if stats is not None else None)
            trace.after.append(value)
        return trace

    def backward(
        self, trace: Trace, dscores: NDArray[Any], stats: Sequence[Any] | None = None, gains: list[float] | None = None
    ) -> None:
        """Fill ``gradients``; ``gains`` receives |dz|^2 / |dy|^2 of every hidden layer, the last one first."""
        gradient, dbias = dscores, dscores
        for layer in reversed(range(len(self.weights))):
            below = trace.after[layer - 1] if layer else trace.x
            self._weight_gradients[layer][...] = product(below.swapaxes(-1, -2), gradient)
            self._bias_gradients[layer][...] = dbias.sum(axis=-2, keepdims=True)
            if layer:
                dy = product(gradient, self.weights[layer].swapaxes(-1, -2))
                dbias, gradient = self.hidden[layer - 1].backward(dy)
                if gains is not None:
                    before, after = _squares(dy), _squares(gradient)
                    gains.append(after / before if before > 0 else float("nan"))


def _squares(values: NDArray[Any]) -> float:
    return float(np.square(values.astype(np.float64)).sum())


def _orthogonal(normal: NDArray[np.float64], gain: float) -> NDArray[np.float64]:
    """Orthonormal rows or columns (Saxe et al. 2014, arXiv:1312.6120), scaled to keep the variance times ``gain``."""
    fan_in, fan_out = normal.shape
    q, r = np.linalg.qr(normal if fan_in >= fan_out else normal.T)
    # The signs make the distribution uniform (Mezzadri 2007).
    q = q * np.sign(np.diagonal(r))
    turned = q if fan_in >= fan_out else q.T
    return np.asarray(turned * np.sqrt(gain * max(1.0, fan_out / fan_in)))
