"""A device that is not there: it says how long a run takes, with noise, drift and throttling as wanted."""

import random

from engine import Sample, Untimeable


class SimulatedClock:
    """Times a run by what it returns: its name and true seconds. Everything is seeded."""

    def __init__(self, *, noise=0.0, drift=0.0, hertz=1.5e9, throttled=(), broken=(), slow_down=0.0, seed=0):
        self.label = "simulated"
        self.noise, self.drift, self.hertz, self.throttled = noise, drift, hertz, tuple(throttled)
        self.broken, self.slow_down = broken, slow_down
        self.random, self.taken, self.order = random.Random(seed), 0, []

    def sample(self, runs, repeat):
        self.taken += 1
        name, seconds = runs[0]()
        for i in range(1, repeat):
            runs[i % len(runs)]()
        self.order.append(name)
        if name in self.broken:
            raise Untimeable("waits for the device")
        # What slows the device slows everybody: more with every sample.
        seconds *= (1 + self.slow_down * self.taken) * max(0.01, self.random.gauss(1, self.noise))
        rate = self.hertz * (1 + self.drift * self.random.random()) if self.hertz else None
        return Sample(seconds, rate, self.throttled)
