"""How time is read. A clock times runs and says of which device, and in which cache state, its times are.

``HostClock`` is that of the processor; the one of a CUDA device is in ``device_clock.py``. Standard library only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Untimeable(Exception):
    """A contender cannot be timed by this clock; the message says why."""


@dataclass(frozen=True)
class Sample:
    """Seconds of one run, and what is known of the device at that moment."""

    seconds: float
    hertz: float | None = None
    throttled: tuple[str, ...] = ()
    memory_hertz: float | None = None


class Clock(Protocol):
    """Reads time. ``label`` says of which device and in which cache state."""

    label: str

    def sample(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample:
        """Time ``repeat`` runs in a row, taking turns among ``runs``; the seconds are those of one run."""


class HostClock:
    """Wall time of a call as Python sees it.

    Parameters
    ----------
    label : str
    wait : callable
        Lets a device finish what the calls queued.
    batches : int
        A sample is the fastest of so many batches of ``repeat`` runs: being interrupted is no property of a kernel.
        More are taken of short runs only: see ``patience``.
    patience : float
        Seconds that the batches of one sample may take together.
    flush : callable, optional
        Called untimed before every batch, to leave the caches cold; there is then one run in a batch.
    slowdown : float
        Share by which every batch is made longer, by waiting: how the gate is tested. 0 but in such tests.
    """

    def __init__(
        self,
        label: str = "host",
        wait: Callable[[], object] = lambda: None,
        *,
        batches: int = 1,
        patience: float = 0.03,
        flush: Callable[[], object] | None = None,
        slowdown: float = 0.0,
    ) -> None:
        self.label, self.slowdown = label, slowdown
        self._wait, self._batches, self._patience, self._flush = wait, batches, patience, flush

    def sample(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample:
        """Time runs; with more than one in a batch, after one that is not timed, so that all find a warm cache."""
        turns = [runs[i % len(runs)] for i in range(1 if self._flush else repeat)]
        best, end = math.inf, time.perf_counter() + self._patience
        if len(turns) > 1:
            turns[-1]()
        for _ in range(self._batches):
            if self._flush:
                self._flush()
            best = min(best, self._batch(turns))
            if time.perf_counter() > end:
                break
        return Sample(best / len(turns) / 1e9)

    def _batch(self, turns: Sequence[Callable[[], object]]) -> int:
        """Nanoseconds of one batch."""
        self._wait()
        start = time.perf_counter_ns()
        for run in turns:
            run()
        self._wait()
        elapsed = time.perf_counter_ns() - start
        if self.slowdown:
            end = start + round(elapsed * (1 + self.slowdown))
            while time.perf_counter_ns() < end:
                pass
            elapsed = time.perf_counter_ns() - start
        return elapsed
