"""A device that is not there: it says how long a run takes, with noise, drift and throttling as wanted."""

import random

from geoact.bench.clocks import Sample, Untimeable
from geoact.bench.contenders import Contender, Group
from geoact.bench.engine import StopRule, measure

COPY = 1e-4  # seconds of the copy in most tests
RULE = StopRule(seconds=0.0, most=200)


class SimulatedClock:
    """Times a run by what it returns: its name and true seconds. Everything is seeded.

    A run that returns anything else, such as a real copy, takes ``copy`` seconds.
    """

    def __init__(self, *, noise=0.0, drift=0.0, hertz=1.5e9, throttled=(), broken=(), slow_down=0.0, seed=0, copy=COPY):
        self.label = "simulated"
        self.noise, self.drift, self.hertz, self.throttled = noise, drift, hertz, tuple(throttled)
        self.broken, self.slow_down, self.copy = broken, slow_down, copy
        self.random, self.taken, self.order = random.Random(seed), 0, []

    def sample(self, runs, repeat):
        self.taken += 1
        told = runs[0]()
        for i in range(1, repeat):
            runs[i % len(runs)]()
        name, seconds = told if isinstance(told, tuple) and isinstance(told[0], str) else ("copy", self.copy)
        self.order.append(name)
        if name in self.broken:
            raise Untimeable("waits for the device")
        # What slows the device slows everybody: more with every sample.
        seconds *= (1 + self.slow_down * self.taken) * max(0.01, self.random.gauss(1, self.noise))
        rate = self.hertz * (1 + self.drift * self.random.random()) if self.hertz else None
        return Sample(seconds, rate, self.throttled)


def contender(name, seconds, **options):
    return Contender(name, [lambda: (name, seconds)], **options)


def group(*contenders, bars=(), ceilings=()):
    return Group("a case", list(contenders), list(bars), ceilings=ceilings, bytes_moved=1 << 20)


def run(group, clock=None, rule=RULE, seconds=5.0, **options):
    """Measure a group, on a device with little noise."""
    return measure(group, clock or SimulatedClock(noise=0.002), rule, seconds, **options)
