"""A call that must fail: with which error, naming what, and leaving everything as it was."""

import pickle

import geoact
import numpy as np
import pytest

from support import inputs

X = inputs.normal((4, 6), np.float32)


class Untouched:
    """Arrays and accumulators that a failing call must leave as they are, to the last bit."""

    def __init__(self, *things):
        self.things = things

    def state(self):
        return [t.tobytes() if isinstance(t, np.ndarray) else pickle.dumps(t) for t in self.things]

    def __enter__(self):
        self.before = self.state()

    def __exit__(self, *error):
        if error[0] is None:
            assert self.state() == self.before


def used(kind=geoact.GeometryStats, **settings):
    stats = kind(**settings)
    if kind is geoact.GeometryStats:
        geoact.silu(X, stats=stats)
    else:
        geoact.silu.backward(X, x=X, stats=stats)
    return stats


def rejected(error, match, call, *arguments, out=None, stats=None, **named):
    """The call fails before it writes to ``out`` or adds to ``stats``; ``match`` begins the message."""
    kept = [
        thing
        for thing in (out, stats, X)
        if isinstance(thing, (np.ndarray, geoact.GeometryStats, geoact.GradientStats))
    ]
    with Untouched(*kept), pytest.raises(error, match=match):
        call(*arguments, out=out, stats=stats, **named)
