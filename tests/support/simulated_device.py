"""A CUDA device that is not there: a stream, its kernels and its events, with time that is counted and never slept.

The host has a time that grows by what it does: queueing a kernel costs it ``launch`` nanoseconds. The stream runs what
was queued in order, no earlier than it was queued. A hold stops the stream until the host releases it; if the host
waits for the stream instead, the hold ends by itself after ``LONGEST``. A kernel may be slower where its buffer is not
in the cache, which a flush empties. Times are whole nanoseconds, so tests can ask for equality.
"""

import itertools
from dataclasses import dataclass, field
from functools import partial

from geoact.bench.devices import FILL, Held, flushed_bytes

LAUNCH, RECORD = 5_000, 1_000  # ns of the host
LEAST, LONGEST = 50_000, 200_000_000  # ns of a hold
FLUSH = 300_000  # ns
BANDWIDTH = 1_000  # bytes per ns
HERTZ = 1.5e9


@dataclass
class Work:
    """Something that was queued: when, for how long it runs, and what it does then."""

    name: str
    queued: int
    run: object = lambda: 0  # returns how long it lasts
    begin: int = 0
    end: int = 0


class Event:
    """When the stream came to it."""

    def __init__(self, device):
        self._device, self.at = device, None

    def record(self):
        self.at = None
        self._device.queue("event", lambda: setattr(self, "at", self._device.free) or 0, RECORD)

    def synchronize(self):
        self._device.synchronize()
        assert self.at is not None, "it was not recorded"

    def seconds_since(self, earlier):
        return (self.at - earlier.at) / 1e9


@dataclass
class SimulatedDevice:
    """One stream. ``done`` is what has run, in order; ``now`` is the time of the host, ``free`` that of the stream."""

    launch: int = LAUNCH
    rates: object = field(default_factory=lambda: itertools.repeat(HERTZ))  # clock rate of every hold
    speeds: dict = field(default_factory=dict)  # of its copy kernels, 1 where not named
    wrong: frozenset = frozenset()  # kernels of its own that do nothing
    memory: int = 1 << 30
    name: str = "Simulated GPU"
    identity: str = "GPU-simulated"
    l2_bytes: int = 50 << 20
    multiprocessors: int = 4

    def __post_init__(self):
        self.now = self.free = 0
        self.waiting, self.done, self.cached = [], [], set()
        self._released, self._held = None, Held(True)

    # --- the stream ---

    def queue(self, name, run, cost=None):
        self.now += self.launch if cost is None else cost
        self.waiting.append(Work(name, self.now, run))

    def _hold(self, begin):
        end = begin + LONGEST if self._released is None else max(begin + LEAST, self._released)
        whole = self._released is not None and end <= begin + LONGEST
        self._held = Held(whole, next(self.rates))
        return min(end, begin + LONGEST) - begin

    def synchronize(self):
        """The host waits until everything has run; what has begun to wait for the host ends by itself."""
        for work in self.waiting:
            work.begin = self.free = max(self.free, work.queued)
            work.end = self.free = work.begin + work.run()
            self.done.append(work)
        self.waiting.clear()
        self.now = max(self.now, self.free)

    def event(self):
        return Event(self)

    def hold(self):
        self._released = None
        self.queue("hold", lambda: self._hold(self.free))

    def release(self):
        self._released = self.now

    def held(self):
        return self._held

    def flush(self):
        self.queue("flush", lambda: self.cached.clear() or FLUSH)

    @property
    def order(self):
        """Names of what has run."""
        return [work.name for work in self.done]

    # --- kernels ---

    def kernel(self, name, lasts, *, cold=None, buffer=None, effect=lambda: None):
        """A call that queues a kernel of so many nanoseconds, ``cold`` where its buffer is not in the cache."""

        def run():
            effect()
            missed = cold is not None and buffer not in self.cached
            self.cached.add(buffer)
            return cold if missed else lasts

        return lambda: self.queue(name, run)

    def array(self, data):
        self.memory -= data.nbytes
        if self.memory < 0:
            raise MemoryError("out of memory")
        return data.copy()

    def host(self, array):
        self.synchronize()
        return array.copy()

    def kernels(self, kind):
        """Two of each kind; those that are ``wrong`` leave everything as it is."""

        def move(*arrays):
            *read, out = arrays
            out[...] = read[0] if len(read) == 1 else read[0] ^ read[1]

        effects = {"copy": move, "merge": move, "read": lambda a: None, "fill": lambda c: c.fill(FILL)}

        def run(name, *arrays):
            lasts = 1_000 + round(sum(a.nbytes for a in arrays) / BANDWIDTH / self.speeds.get(name, 1))
            effect = (lambda: None) if name in self.wrong else partial(effects[kind], *arrays)
            cold = lasts + 500 if self.speeds.get("cold") else None
            self.kernel(name, lasts, effect=effect, cold=cold, buffer=id(arrays[-1]))()

        return {name: partial(run, name) for name in (kind, f"{kind}_streaming")}

    def facts(self):
        return {"name": self.name, "l2_bytes": self.l2_bytes, "flushed_bytes": flushed_bytes(self.l2_bytes)}


class Unheld(SimulatedDevice):
    """A device without a blocker: a hold does nothing, and nobody notices."""

    def hold(self):
        self._held = Held(True)


@dataclass
class Evidence:
    """What NVML would tell."""

    throttled: tuple = ()
    memory: float | None = 2.6e9

    def throttling(self):
        return self.throttled

    def memory_hertz(self):
        return self.memory

    def describe(self):
        return {"driver": "none"}
