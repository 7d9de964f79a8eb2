"""The clock of a CUDA device, and the kernels that a case on one is held against.

``DeviceClock`` times by a pair of events on the stream that launches. The stream is held back until everything that is
timed has been queued, else below some 20 us the time between the events is that of Python queueing the next launch.
It knows the device by the ``Device`` protocol only: see ``devices``. NumPy and CuPy suffice.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from geoact.bench.ceilings import RACE, Traffic, named
from geoact.bench.clocks import Clock, Sample, Untimeable
from geoact.bench.contenders import Contender, Unavailable
from geoact.bench.devices import FILL, Bytes, Device, find
from geoact.bench.engine import warm_up
from geoact.bench.nvml import Management

ATTEMPTS = 3
SHORTEST = 2e-5  # seconds that a sample lasts at least
RACING = 0.5  # seconds in which a contestant warms up at most
READ = {"copy": 1, "merge": 2, "read": 1, "fill": 0}
"""Arrays that a kernel reads, by kind of traffic."""

WINDOW = 1 << 20  # bytes that are looked at in one place when a result is checked


class Evidence(Protocol):
    """What is known of a device besides its time; ``nvml.Management`` is one."""

    def throttling(self) -> tuple[str, ...]:
        """Why it is slower than it could be."""

    def memory_hertz(self) -> float | None:
        """Clock rate of its memory."""

    def describe(self) -> dict[str, Any]:
        """For the environment block."""


class DeviceClock:
    """Time between two events on the current CUDA stream.

    Parameters
    ----------
    device : Device
    cold : bool
        Ahead of every sample the L2 cache is emptied of what is timed. A sample of several short runs finds it cold as
        long as every run has buffers of its own.
    management : Evidence, optional
        Asked after every sample; default: NVML.
    """

    def __init__(self, device: Device, *, cold: bool = True, management: Evidence | None = None) -> None:
        self.device, self.cold = device, cold
        self.management: Evidence = Management(device.identity) if management is None else management
        self.label = "GPU events, L2 " + ("cold" if cold else "warm")
        self.winners: dict[tuple[str, int, int], str] = {}  # of races: see device_ceiling
        self._begin, self._end = device.event(), device.event()
        if cold:  # takes its memory now: a stream that is held back would make that wait
            device.flush()
            device.synchronize()

    def sample(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample:
        """Time runs; raises Untimeable if they wait for the device."""
        for _ in range(ATTEMPTS):  # memory that is allocated for the first time makes the host wait: then once more
            taken = self._attempt(runs, repeat)
            if taken is not None:
                return taken
        raise Untimeable("waits for the device within a call, so nothing can be queued ahead of it")

    def _attempt(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample | None:
        """A sample, or None if the stream was not held back until everything had been queued."""
        turns = [runs[i % len(runs)] for i in range(repeat)]
        device = self.device
        device.synchronize()
        device.hold()
        try:
            if self.cold:
                device.flush()
            self._begin.record()
            for run in turns:
                run()
            self._end.record()
        finally:  # also when a run fails: nothing would ever pass the stream
            device.release()
        self._end.synchronize()
        held = device.held()
        if not held.whole:
            return None
        seconds = self._end.seconds_since(self._begin) / repeat
        return Sample(seconds, held.hertz, self.management.throttling(), self.management.memory_hertz())

    def facts(self) -> dict[str, Any]:
        """The block ``gpu`` of an environment."""
        return self.device.facts() | self.management.describe()


def device_clock(*, cold: bool) -> DeviceClock:
    """The clock of the current CUDA device; raises Unavailable where there is none."""
    return DeviceClock(find(), cold=cold)


# --- ceilings -------------------------------------------------------------------------------------


def _tile(seed: tuple[int, int]) -> Bytes:
    """Random bytes that are repeated; their number divides no other, so that nothing copied to a wrong place fits."""
    return np.frombuffer(np.random.default_rng(seed).bytes((1 << 20) + 7), np.uint8)


def _part(seed: tuple[int, int], begin: int, end: int) -> Bytes:
    """What the array of this seed holds there."""
    part: Bytes = np.take(_tile(seed), np.arange(begin, end), mode="wrap")
    return part


def _expected(kind: str, turn: int, begin: int, end: int) -> Bytes:
    """What the kernel must have written there."""
    if kind == "fill":
        return np.full(end - begin, FILL, np.uint8)
    parts = [_part((turn, source), begin, end) for source in range(READ[kind])]
    return parts[0] if kind == "copy" else parts[0] ^ parts[1]


class _Memory:
    """Arrays of a device for one kind of traffic, one set for every turn."""

    def __init__(self, device: Device, kind: str, size: int, turns: int) -> None:
        self.device, self.kind, self.size = device, kind, size
        self.sets = [self._arrays(turn) for turn in range(turns)]

    def _arrays(self, turn: int) -> list[Any]:
        read = [np.resize(_tile((turn, source)), self.size) for source in range(READ[self.kind])]
        written = [] if self.kind == "read" else [np.zeros(self.size, np.uint8)]
        return [self.device.array(data) for data in (*read, *written)]

    def check(self, name: str, run: Callable[[], object], turn: int) -> None:
        """Run once; AssertionError if what it wrote is wrong at the begin, in the middle or at the end."""
        if self.kind == "read":  # whether it reads is seen in its machine code, here only whether it runs
            run()
            self.device.synchronize()
            return
        out = self.sets[turn][-1]
        out[...] = 0
        self.device.synchronize()
        run()
        middle = (self.size - WINDOW) // 2
        for begin in sorted({0, max(0, middle), max(0, self.size - WINDOW)}):
            end = min(self.size, begin + WINDOW)
            found = self.device.host(out[begin:end])
            assert np.array_equal(found, _expected(self.kind, turn, begin, end)), f"{name} gives a wrong result"


def size_of(traffic: Traffic) -> int:
    """Bytes of each array of the kernel with this traffic: whole vectors of 16 bytes."""
    kind = traffic.kind
    arrays = READ[kind] + (kind != "read")
    return max(16, traffic.total // arrays // 16 * 16)


def contestants(traffic: Traffic, device: Device, buffers: int = 1) -> list[Contender]:
    """Every way there is on the device to do nothing but this traffic. Raises Unavailable where there is none."""
    kind = traffic.kind
    kernels = device.kernels(kind)
    if not kernels:
        raise Unavailable(f"this device has no kernel that does nothing but {kind}")
    try:
        memory = _Memory(device, kind, size_of(traffic), buffers)
    except MemoryError as error:
        raise Unavailable(f"memory for a {kind} of the same bytes: {error}") from error

    def of(name: str, kernel: Callable[..., object]) -> Contender:
        runs = [partial(kernel, *arrays) for arrays in memory.sets]

        def check() -> None:
            for turn in sorted({0, buffers - 1}):
                memory.check(name, runs[turn], turn)

        return Contender(name, runs, check)

    return [of(name, kernel) for name, kernel in kernels.items()]


def _race(racing: Sequence[Contender], clock: DeviceClock) -> str:
    """The name of the fastest; Untimeable if none can be timed."""
    times, why = {}, Untimeable("nothing raced")
    for contestant in racing:
        contestant.check()
        try:
            warm_up(contestant, clock, SHORTEST, RACING)
            samples = [clock.sample(contestant.runs, contestant.repeat).seconds for _ in itertools.repeat(None, RACE)]
        except Untimeable as error:
            why = error
            continue
        times[contestant.name] = statistics.median(samples)
    if not times:
        raise why
    return min(times, key=lambda name: times[name])


def device_ceiling(traffic: Traffic, clock: Clock, *, buffers: int = 1, name: str | None = None) -> Contender:
    """The fastest kernel with this traffic on the device of the clock, in the cache state of the clock.

    The race is run once per clock, kind, size and number of buffers.

    Parameters
    ----------
    traffic : Traffic
    clock : DeviceClock
    buffers : int
        Sets of buffers that the case takes in turns: the ceiling takes as many, to find the caches as the case does.
    name : str, optional
        Of the kernel to take without a race: the one that another process has found.

    Raises
    ------
    Unavailable
        There is no such kernel, too little memory, or the clock is not that of a CUDA device.
    AssertionError
        A kernel gives a wrong result.
    """
    if not isinstance(clock, DeviceClock):
        raise Unavailable(f"the clock {clock.label!r} is not that of a CUDA device")
    found = contestants(traffic, clock.device, buffers)
    if name is not None:
        return named(found, name)
    key = (traffic.kind, size_of(traffic), buffers)
    if key not in clock.winners:
        try:
            clock.winners[key] = _race(found, clock)
        except Untimeable as error:
            raise Unavailable(f"no {traffic.kind} of the same bytes can be timed: {error}") from error
    return named(found, clock.winners[key])
