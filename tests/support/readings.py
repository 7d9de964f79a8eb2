"""Readings made of real statistics: the activations run on NumPy arrays."""

from dataclasses import replace

import geoact
import numpy as np
from geoact.torch.alerts import check
from geoact.torch.reading import Layer, Reading


def layer(
    name, activation="relu", index=0, *, x=None, dy=None, scale=1.0, shift=0.0, per="channel", level="moments", seed=0
):
    """A layer that saw x (default: 512 rows of 16 normal channels), and dy unless that is False."""
    rng = np.random.default_rng([seed, index])
    if x is None:
        x = (scale * rng.standard_normal((512, 16)) + shift).astype(np.float32)
    row = geoact.get(activation)
    forward, backward = geoact.GeometryStats(per=per, level=level), None
    y = row(x, stats=forward)
    if dy is not False:
        backward = geoact.GradientStats(per=per)
        dy = rng.standard_normal(x.shape).astype(x.dtype) if dy is None else dy
        row.backward(dy, x=x, y=y, stats=backward)
    return Layer(name, activation, index, 1, forward, backward)


def reading(step=10, layers=3, **options):
    """A healthy network of relu layers."""
    return Reading(step, tuple(layer(f"block.{i}.act", index=i, **options) for i in range(layers)))


def nothing_measured(name="idle", activation="relu", index=0):
    """A layer that has not run."""
    return Layer(name, activation, index, 0, geoact.GeometryStats(per="channel"))


def with_alerts(reading):
    """The reading as a monitor hands it out."""
    return replace(reading, alerts=check(reading))


NASTY = 'block,"0"\\.act\n<b>[red]'  # quotes, commas, a line end, mark-up of HTML and of rich


def two():
    """Two readings; in the second one layer is ill, one has not run, and one has an awkward name."""
    first = reading(10)
    ill = layer("block.1.act", shift=-3.5, index=1)
    second = Reading(20, (first.layers[0], ill, nothing_measured("idle", index=2), layer(NASTY, index=3)))
    return first, with_alerts(second)
