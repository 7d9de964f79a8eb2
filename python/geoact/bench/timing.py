"""How a case is timed: the settings, the clock of each device, and the copy that the case is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geoact.bench.ceilings import Traffic, contestants, flush, named
from geoact.bench.ceilings import ceiling as fastest_copy
from geoact.bench.clocks import Clock, HostClock
from geoact.bench.contenders import Contender, Unavailable
from geoact.bench.engine import StopRule
from geoact.bench.suite import Call


@dataclass(frozen=True)
class Settings:
    """How a suite is run.

    Parameters
    ----------
    seconds : float
        What one case may cost at most.
    rule : StopRule
        When its samples are enough.
    cold : bool
        Flush the caches ahead of every sample.
    batches : int
        A sample of the host clock is the fastest of so many batches.
    shortest : float
        Seconds that a batch lasts at least: short calls are repeated.
    device_shortest : float
        The same of a sample of a GPU's clock, which needs less and finds the cache cold once per buffer.
    seed : int
        Of the order of the contenders.
    """

    seconds: float = 3.0
    rule: StopRule = field(default_factory=lambda: StopRule(seconds=0.2, most=400))
    cold: bool = False
    batches: int = 5
    shortest: float = 3e-4
    device_shortest: float = 2e-5
    seed: int = 0

    def shortest_of(self, device: str) -> float:
        """Seconds that a batch lasts at least on a device."""
        return self.shortest if device == "cpu" else self.device_shortest

    @classmethod
    def quick(cls, cold: bool = False) -> Settings:
        """Few samples: to see that everything runs, not to quote."""
        return cls(seconds=0.2, rule=StopRule(least=3, seconds=0.0, most=5), cold=cold, batches=2, shortest=5e-5)


class Devices:
    """The clock of every device, made when the first case asks for it.

    ``made`` may hold clocks already: a simulated one in tests.
    """

    def __init__(self, settings: Settings, made: Mapping[str, Clock] | None = None) -> None:
        self._settings, self._made = settings, dict(made or {})
        self._why: dict[str, str] = {}

    def clock(self, device: str) -> Clock:
        """The clock of a device; raises Unavailable where there is none."""
        if device in self._why:
            raise Unavailable(self._why[device])
        if device not in self._made:
            try:
                self._made[device] = self._make(device)
            except Unavailable as error:
                self._why[device] = str(error)
                raise
        return self._made[device]

    def facts(self) -> dict[str, Any]:
        """What is known of the GPU, if a case has asked for its clock."""
        facts = getattr(self._made.get("cuda"), "facts", None)
        return {"gpu": facts()} if facts else {}

    def _make(self, device: str) -> Clock:
        settings = self._settings
        if device == "cuda":
            from geoact.bench.device_clock import device_clock

            return device_clock(cold=settings.cold)
        state = "caches cold" if settings.cold else "caches warm"
        return HostClock(f"CPU, {state}", batches=settings.batches, flush=flush if settings.cold else None)


def ceiling(call: Call, clock: Clock, cold: bool, *, name: str | None = None, least: int = 0) -> Contender:
    """The copy, or what there is instead, that a call is held against.

    Parameters
    ----------
    call : Call
    clock : Clock
        That of its device.
    cold : bool
        The state of the caches in which the fastest is sought.
    name : str, optional
        Of the kernel to take without a race: the one that another process has found.
    least : int
        Bytes to copy where the call moves fewer, or declares none.

    Raises
    ------
    Unavailable
        Where there is none.
    """
    traffic = Traffic(call.read, call.written, call.threads)
    if not traffic.total and not least:
        raise Unavailable("the case declares no bytes")
    if traffic.total < least:
        traffic = Traffic(least // 2, least // 2, call.threads)
    if call.device == "cpu":
        if name is None:
            return fastest_copy(traffic, cold=cold)
        return named(contestants(traffic), name)
    from geoact.bench.device_clock import device_ceiling

    return device_ceiling(traffic, clock, buffers=len(call.runs), name=name)
