"""What the clock of a CUDA device needs of one, and who provides it: CuPy, or torch where there is no CuPy.

``Device`` is the whole interface: a name and two sizes, a stream that can be held back and released, events on that
stream, memory that flushes the L2 cache, and the kernels that do nothing but move bytes. Tests implement it with a
simulated device, so everything above it runs where there is no GPU. Importing this imports neither torch nor CuPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from geoact.bench.contenders import Unavailable

LEAST_FLUSHED = 256 << 20
FILL = 0x5A
"""The byte that the kernels that only write leave everywhere."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Held:
    """How the stream was held back: ``whole`` if until everything was queued; and the clock rate meanwhile."""

    whole: bool
    hertz: float | None = None


class Event(Protocol):
    """A moment on the stream."""

    def record(self) -> None:
        """Queue it on the current stream."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""

    def seconds_since(self, earlier: Any) -> float:
        """Device time from an earlier event of the same kind to this one, of which both have passed."""


class Device(Protocol):
    """A CUDA device as the clock uses it.

    Attributes
    ----------
    name : str
        Of the model.
    identity : str
        By which NVML knows it: its UUID or its PCI bus address.
    l2_bytes, multiprocessors : int
    """

    name: str
    identity: str
    l2_bytes: int
    multiprocessors: int

    def synchronize(self) -> None:
        """Wait until the device has done everything."""

    def event(self) -> Event:
        """Make an event."""

    def hold(self) -> None:
        """Hold the current stream back: what is queued now waits for ``release``, though not for ever."""

    def release(self) -> None:
        """Let the stream go on."""

    def held(self) -> Held:
        """How the last hold went; asked when the stream has passed it."""

    def flush(self) -> None:
        """Queue a pass that reads ``flushed_bytes`` of something else."""

    def array(self, data: Bytes) -> Any:
        """The bytes in memory of the device, which can be sliced and assigned to; MemoryError if it has too little."""

    def host(self, array: Any) -> Bytes:
        """A copy of such an array, or of a slice of one, on the host."""

    def kernels(self, kind: str) -> Mapping[str, Callable[..., object]]:
        """Ways to copy (a, c), merge (a, b, c: the exclusive or), read (a) or fill (c) arrays; none if there is none.

        Each queues its work on the current stream. Arrays are whole vectors of 16 bytes and all of the same size.
        """

    def facts(self) -> dict[str, Any]:
        """What a reader of the results must know of it."""


def flushed_bytes(l2_bytes: int) -> int:
    """How much is read to empty an L2 cache of this size."""
    return max(2 * l2_bytes, LEAST_FLUSHED)


def reason(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def find() -> Device:
    """The current CUDA device. Raises Unavailable, with what CuPy and torch say, where there is none."""
    from geoact.bench.devices.cupy_device import CupyDevice
    from geoact.bench.devices.torch_device import TorchDevice

    try:
        return CupyDevice()
    except Exception as error:  # whatever is wrong with CuPy here, torch may do
        without_cupy = f"CuPy: {reason(error)}"
    try:
        return TorchDevice(without_cupy)
    except Exception as error:
        raise Unavailable(f"no CUDA device can be timed: {without_cupy}; torch: {reason(error)}") from error
