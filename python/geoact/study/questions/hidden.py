"""What stands between two weight matrices: an activation, BatchNorm and ReLU, or a scaled leaky ReLU.

A ``Hidden`` serves one layer of a stack of networks. It adds the bias itself, because BatchNorm adds it after
normalising: its bias is the beta of BatchNorm, and gamma stays 1, since ReLU passes a positive factor on to the next
weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import geoact
from geoact import adaptive
from geoact.study.config import CHOICES, Choice

Array = NDArray[Any]
KAPPA = adaptive.KAPPA
KAPPA_OF_TAT = 2.6
"""With it GAL bends Gaussian input about as much as TAT does with its eta, .9: what measuring alone is worth."""
ETA = 0.9
EPSILON = 1e-5
"""Added to the variance by BatchNorm, as in the paper and in torch."""
MAX_SCALE = 10.0
"""Largest factor of GAL, as in ``geoact.torch.GAL``."""
MOMENTUM = 0.1
"""Weight of the newest pass in the running statistics of BatchNorm and GAL."""


class Hidden(Protocol):
    """One hidden layer of ``nets`` networks; arrays are (nets, rows, width)."""

    def forward(self, z: Array, bias: Array, training: bool, stats: geoact.GeometryStats | None = None) -> Array:
        """Return the output; ``stats`` measures the activation, of a single network."""

    def backward(self, dy: Array) -> tuple[Array, Array]:
        """Return the gradients by what the bias was added to and by z, of the last forward pass."""

    def take(self, net: int) -> Hidden:
        """Return the layer of one network alone."""

    @property
    def scale(self) -> float:
        """Factor on the output of the activation that ``stats`` measured (network 0)."""


class Plain:
    """A fixed activation of the registry."""

    scale = 1.0

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._activation: Any = geoact.get(choice.name)

    def forward(self, z: Array, bias: Array, training: bool, stats: geoact.GeometryStats | None = None) -> Array:
        """Add the bias and apply the activation."""
        z += bias
        self._z = z
        y: Array = self._activation(z, **self._choice.options, stats=stats)
        self._y = y
        return y

    def backward(self, dy: Array) -> tuple[Array, Array]:
        """Multiply by the slope."""
        saved = {"x": self._z} if self._activation.saves == "x" else {"y": self._y}
        dz: Array = self._activation.backward(dy, **saved, **self._choice.options)
        return dz, dz

    def take(self, net: int) -> Plain:
        """Nothing is kept per network."""
        return Plain(self._choice)


class BatchNormRelu:
    """ReLU of BatchNorm (Ioffe and Szegedy 2015, arXiv:1502.03167): batch statistics to train, running ones to test."""

    scale = 1.0

    def __init__(self) -> None:
        self._running: tuple[Array, Array] | None = None

    def forward(self, z: Array, bias: Array, training: bool, stats: geoact.GeometryStats | None = None) -> Array:
        """Normalise in float32 at least, shift, rectify. The first batch starts the running statistics."""
        wide = z.astype(np.promote_types(np.float32, z.dtype) if z.dtype.itemsize > 2 else np.float32, copy=False)
        if training or self._running is None:
            mean, variance = wide.mean(axis=1, keepdims=True), wide.var(axis=1, keepdims=True)
            if self._running is None:
                self._running = mean, variance
            elif training:
                old_mean, old_variance = self._running
                self._running = (
                    old_mean + MOMENTUM * (mean - old_mean),
                    old_variance + MOMENTUM * (variance - old_variance),
                )
        else:
            mean, variance = (part.astype(wide.dtype, copy=False) for part in self._running)
        self._inverse = 1 / np.sqrt(variance + EPSILON)
        self._normal = (wide - mean) * self._inverse
        shifted = (self._normal + bias.astype(wide.dtype, copy=False)).astype(z.dtype, copy=False)
        y: Array = geoact.relu(shifted, stats=stats)
        self._y = y
        return y

    def backward(self, dy: Array) -> tuple[Array, Array]:
        """Go back through ReLU and through the batch statistics."""
        dshifted: Array = geoact.relu.backward(dy, y=self._y)
        wide = dshifted.astype(self._normal.dtype, copy=False)
        centred = wide - wide.mean(axis=1, keepdims=True)
        dz = self._inverse * (centred - self._normal * (wide * self._normal).mean(axis=1, keepdims=True))
        return dshifted, dz.astype(dy.dtype, copy=False)

    def take(self, net: int) -> BatchNormRelu:
        """Copy the running statistics of one network."""
        alone = BatchNormRelu()
        if self._running is not None:
            mean, variance = self._running
            alone._running = mean[net : net + 1].copy(), variance[net : net + 1].copy()
        return alone


class ScaledLeaky:
    """scale * (leaky_relu(x) - shift) with the same numbers for ever: TAT, or GAL solved for Gaussian input."""

    def __init__(self, gal: adaptive.Gal) -> None:
        self._gal = gal
        self.scale = float(gal.scale)

    def forward(self, z: Array, bias: Array, training: bool, stats: geoact.GeometryStats | None = None) -> Array:
        """Add the bias, rectify, centre and scale."""
        z += bias
        self._z = z
        return _scaled_leaky(z, self._gal, stats)

    def backward(self, dy: Array) -> tuple[Array, Array]:
        """Multiply by slope and scale."""
        dz = _through_leaky(dy, self._z, self._gal)
        return dz, dz

    def take(self, net: int) -> ScaledLeaky:
        """Nothing is kept per network."""
        return ScaledLeaky(self._gal)


class GeometryAdaptive:
    """GAL: slope, scale and shift of each network follow the running moments of its training passes up to the last.

    Moments run as in ``geoact.torch.GAL``. The first pass measures itself, so that training starts from a network that
    keeps distances. To the kernel a network is a channel: one call serves the whole stack, and measures each by itself.
    """

    def __init__(self, share: float, nets: int) -> None:
        self._share = share
        self._gals: list[adaptive.Gal | None] = [None] * nets
        self._moments = np.zeros((nets, 4))
        self._calls = 0

    @property
    def scale(self) -> float:
        """Factor of network 0; 1 before it has measured anything."""
        return 1.0 if self._gals[0] is None else self._gals[0].scale

    def forward(self, z: Array, bias: Array, training: bool, stats: geoact.GeometryStats | None = None) -> Array:
        """Apply what the last pass found and, in training, measure for the next one."""
        z += bias
        flat = z.reshape(len(z), -1)
        if None in self._gals:
            measured = geoact.GeometryStats(per="channel", channel_axis=0)
            geoact.relu(flat, stats=measured)
            self._solve(measured, 1.0)
        used = np.array(self._gals, dtype=np.float64)
        self._flat, self._used = flat, used
        if len(z) == 1 and not (training and stats is None):
            return _scaled_leaky(z, adaptive.Gal(*used[0]), stats)
        self._slopes, self._scales, shifts = (column.astype(z.dtype) for column in used.T)
        if training:
            measured = geoact.GeometryStats(per="channel", channel_axis=0)
        y: Array = geoact.prelu(flat, self._slopes, channel_axis=0, stats=measured if training else None)
        y -= shifts[:, None]
        y *= self._scales[:, None]
        if training:
            self._calls += 1
            self._solve(measured, max(MOMENTUM, 1 / self._calls))
        return y.reshape(z.shape)

    def _solve(self, stats: geoact.GeometryStats, weight: float) -> None:
        """Take what one pass has measured into the moments, with a weight, and solve for the numbers of the next."""
        names = ("mean_pos_x", "mean_neg_x", "mean_sq_pos_x", "mean_sq_neg_x")
        new = np.stack([np.atleast_1d(getattr(stats, name)) for name in names], axis=1)
        whole = np.isfinite(new).all(axis=1) & (np.atleast_1d(stats.nonfinite_x) == 0)
        self._moments[whole] += weight * (new[whole] - self._moments[whole])
        for net, (mean_pos, mean_neg, sq_pos, sq_neg) in enumerate(self._moments.tolist()):
            # A network that has diverged has no moments: it keeps what it had, or stays as its input is.
            if whole[net]:
                moments = adaptive.PartialMoments(max(mean_pos, 0.0), min(mean_neg, 0.0), sq_pos, max(sq_neg, 0.0))
                self._gals[net] = adaptive.gal(moments, self._share, MAX_SCALE)
            elif self._gals[net] is None:
                self._gals[net] = adaptive.Gal(1.0, 1.0, 0.0)

    def backward(self, dy: Array) -> tuple[Array, Array]:
        """Multiply by slope and scale; the statistics carry no gradient."""
        if len(dy) == 1:
            dz = _through_leaky(dy, self._flat.reshape(dy.shape), adaptive.Gal(*self._used[0]))
            return dz, dz
        flat = dy.reshape(len(dy), -1) * self._scales[:, None]
        dx, _ = geoact.prelu.backward(flat, self._slopes, x=self._flat, channel_axis=0)
        dz = np.asarray(dx).reshape(dy.shape)
        return dz, dz

    def take(self, net: int) -> GeometryAdaptive:
        """Copy the numbers of one network."""
        alone = GeometryAdaptive(self._share, 1)
        alone._gals = [self._gals[net]]
        return alone


def _scaled_leaky(x: Array, gal: adaptive.Gal, stats: geoact.GeometryStats | None = None) -> Array:
    y: Array = geoact.leaky_relu(x, negative_slope=float(gal.slope), stats=stats)
    y -= y.dtype.type(gal.shift)
    y *= y.dtype.type(gal.scale)
    return y


def _through_leaky(dy: Array, x: Array, gal: adaptive.Gal) -> Array:
    dx: Array = geoact.leaky_relu.backward(dy, x=x, negative_slope=float(gal.slope))
    dx *= dx.dtype.type(gal.scale)
    return dx


@dataclass(frozen=True)
class Kind:
    """An activation of the questions: ``make(depth, nets)`` one hidden layer; the gain of its weights.

    ``by_depth``: the function depends on the depth of its network, so that a layer of a deep network says nothing
    about a shallow one.
    """

    make: Callable[[int, int], Hidden]
    weight_gain: float
    by_depth: bool = False


def _plain(choice: Choice) -> Kind:
    return Kind(lambda depth, nets: Plain(choice), choice.weight_gain)


def _tat(depth: int, nets: int) -> Hidden:
    slope = adaptive.tat_slope(depth, eta=ETA)
    return ScaledLeaky(adaptive.Gal(slope, adaptive.tat_scale(slope), 0.0))


def _share(depth: int, kappa: float) -> float:
    # Of a few layers each loses so much that a rectifier is enough.
    return adaptive.share_for_depth(depth, min(kappa, 0.9 * depth))


KINDS: dict[str, Kind] = {
    **{choice.label: _plain(choice) for choice in CHOICES},
    "leaky_relu(0.01)": _plain(Choice("leaky_relu", 2.0, {"negative_slope": 0.01})),
    "bn_relu": Kind(lambda depth, nets: BatchNormRelu(), 2.0),
    "tat": Kind(_tat, 1.0, by_depth=True),
    "gal": Kind(lambda depth, nets: GeometryAdaptive(_share(depth, KAPPA), nets), 1.0, by_depth=True),
    "gaussian_gal": Kind(lambda depth, nets: ScaledLeaky(adaptive.gaussian_gal(depth, KAPPA)), 1.0, by_depth=True),
    f"gal({KAPPA_OF_TAT:g})": Kind(
        lambda depth, nets: GeometryAdaptive(_share(depth, KAPPA_OF_TAT), nets), 1.0, by_depth=True
    ),
}
ACTIVATIONS = tuple(name for name in KINDS if name not in ("leaky_relu(0.01)", f"gal({KAPPA_OF_TAT:g})"))
"""What questions 1 and 2 compare; the other two are controls of questions 4 and 5."""
