"""A CUDA device reached with torch alone: what there is where CuPy is missing.

``torch.cuda._sleep`` stands in for the blocker. It spins for a number of cycles given beforehand, so how long queueing
takes is guessed from the samples before; a sample whose queueing took longer is void. The clock rate is not known, and
nothing here only reads, so such cases have no ceiling.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from geoact.bench.devices import FILL, Bytes, Held, flushed_bytes
from geoact.bench.nvml import reset_persisting_lines

FASTEST = 3e9  # Hz, above the clock of any device: a hold lasts at least as long as was asked for
SHORTEST, LONGEST = 1e-4, 0.2  # seconds of a hold
SPARE = 1.5  # of the time that queueing is expected to take


class TorchEvent:
    """An event of torch, on its current stream."""

    def __init__(self, cuda: Any) -> None:
        self.event = cuda.Event(enable_timing=True)

    def record(self) -> None:
        """Queue it on the current stream."""
        self.event.record()

    def synchronize(self) -> None:
        """Wait for it."""
        self.event.synchronize()

    def seconds_since(self, earlier: TorchEvent) -> float:
        """Device time between two events."""
        return float(earlier.event.elapsed_time(self.event)) / 1e3


class TorchDevice:
    """Torch's current device; ``because`` says why it is not reached with CuPy.

    Raises
    ------
    ImportError
        There is no torch.
    RuntimeError
        There is no device.
    """

    def __init__(self, because: str = "", now: Callable[[], float] = time.perf_counter) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._cuda = self._torch.cuda
        if not self._cuda.is_available():
            raise RuntimeError("torch.cuda.is_available() is False")
        self._because, self._now = because, now
        self._index = self._cuda.current_device()
        self._properties = self._cuda.get_device_properties(self._index)
        self.name = str(self._properties.name)
        self.identity = str(getattr(self._properties, "uuid", ""))
        self.l2_bytes = int(self._properties.L2_cache_size)
        self.multiprocessors = int(self._properties.multi_processor_count)
        self._expected = SHORTEST  # seconds of queueing
        self._begin, self._lasts, self._late = 0.0, 0.0, False
        self._cuda.synchronize(self._index)  # there is a context now
        self._persisting = reset_persisting_lines()

    @cached_property
    def _flushed(self) -> Any:
        size = flushed_bytes(self.l2_bytes)
        return self._torch.zeros(size // 4, dtype=self._torch.int32, device=self._index)

    @cached_property
    def _sum(self) -> Any:
        return self._torch.zeros((), dtype=self._torch.int64, device=self._index)

    # --- the stream ---

    def synchronize(self) -> None:
        """Wait for all that the device has to do."""
        self._cuda.synchronize(self._index)

    def event(self) -> TorchEvent:
        """Make an event."""
        return TorchEvent(self._cuda)

    def hold(self) -> None:
        """Let the stream sleep for longer than queueing is expected to take."""
        self._lasts = SPARE * self._expected
        self._begin = self._now()
        self._cuda._sleep(int(self._lasts * FASTEST))

    def release(self) -> None:
        """Nothing is released: it is seen whether queueing took longer than the stream was held."""
        queueing = self._now() - self._begin
        self._late = queueing > self._lasts
        # Soon forgotten, so that one call that compiled something does not make every later hold long.
        self._expected = min(LONGEST, max(SHORTEST, queueing, 0.8 * self._expected))

    def held(self) -> Held:
        """Whether it slept long enough."""
        return Held(not self._late)

    def flush(self) -> None:
        """Queue a pass that reads ``flushed_bytes``."""
        self._torch.sum(self._flushed, dim=0, dtype=self._torch.int64, out=self._sum)

    # --- memory, and what only moves it ---

    def array(self, data: Bytes) -> Any:
        """The bytes as a tensor; MemoryError if there is no room for it."""
        try:
            return self._torch.from_numpy(data).to(self._cuda_device())
        except self._torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    def _cuda_device(self) -> Any:
        return self._torch.device("cuda", self._index)

    def host(self, array: Any) -> Bytes:
        """A copy on the host."""
        copy: Bytes = array.cpu().numpy()
        return copy

    def kernels(self, kind: str) -> dict[str, Callable[..., object]]:
        """By name, those with this kind of traffic."""
        torch = self._torch
        words = int.from_bytes([FILL] * 4, "little")
        found: dict[str, dict[str, Callable[..., object]]] = {
            "copy": {"torch copy_": lambda a, c: c.copy_(a)},
            "merge": {"torch bitwise_xor": lambda a, b, c: torch.bitwise_xor(*(t.view(torch.int32) for t in (a, b)),
                                                                             out=c.view(torch.int32))},
            "fill": {"torch fill_": lambda c: c.view(torch.int32).fill_(words)},
        }  # fmt: skip
        return found.get(kind, {})

    def facts(self) -> dict[str, Any]:
        """For the environment block."""
        return {
            "name": self.name,
            "uuid": self.identity or "not known",
            "capability": f"{self._properties.major}.{self._properties.minor}",
            "multiprocessors": self.multiprocessors,
            "memory_bytes": int(self._properties.total_memory),
            "l2_bytes": self.l2_bytes,
            "flushed_bytes": flushed_bytes(self.l2_bytes),
            "persisting_l2": self._persisting,
            "cuda": str(self._torch.version.cuda),
            "reached_by": f"torch {self._torch.__version__}",
            "blocked_by": f"torch.cuda._sleep ({self._because})" if self._because else "torch.cuda._sleep",
        }
