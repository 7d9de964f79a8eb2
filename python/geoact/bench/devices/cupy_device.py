"""A CUDA device reached with CuPy and the kernels of stream.cu; torch is not needed, and respected where it is.

The blocker is a kernel that waits for a word of pinned memory, which the host writes when it has queued the last
launch: nobody knows beforehand how long queueing takes. While it waits it counts cycles against nanoseconds, which
gives the clock rate of that moment.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from geoact.bench.devices import FILL, Bytes, Held, flushed_bytes
from geoact.bench.nvml import reset_persisting_lines

SOURCE = Path(__file__).parent.parent / "stream.cu"
THREADS = 256
PER_THREAD = 4  # vectors of 16 bytes
OURS = {
    "copy": ("copy", "copy_streaming"),
    "merge": ("merge", "merge_streaming"),
    "read": ("read", "read_streaming"),
    "fill": ("fill", "fill_streaming"),
}
"""The kernels of stream.cu by kind of traffic."""

LEAST_HELD = 50_000  # ns over which the clock rate is counted
LONGEST_HELD = 200_000_000  # ns: what waits for the device never ends otherwise
NO_SUM = 1 << 32  # what no sum of 32 bits is


class _Borrowed:
    """The address of a stream, as the CUDA stream protocol passes it."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


class CupyEvent:
    """An event of CuPy, recorded on the stream that is current at that moment."""

    def __init__(self, device: CupyDevice, cuda: Any) -> None:
        self._device, self._cuda, self.event = device, cuda, cuda.Event()

    def record(self) -> None:
        """Queue it on the current stream."""
        self.event.record(self._device.stream())

    def synchronize(self) -> None:
        """Wait for it."""
        self.event.synchronize()

    def seconds_since(self, earlier: CupyEvent) -> float:
        """Device time between two events."""
        return float(self._cuda.get_elapsed_time(earlier.event, self.event)) / 1e3


class CupyDevice:
    """CuPy's current device.

    Raises
    ------
    ImportError
        There is no CuPy.
    RuntimeError
        There is no device, the kernels cannot be compiled, or a stream cannot be held back.
    """

    def __init__(self) -> None:
        self._cupy: Any = importlib.import_module("cupy")
        cupyx: Any = importlib.import_module("cupyx")
        cuda = self._cupy.cuda
        self._device = cuda.Device()
        self._properties = cuda.runtime.getDeviceProperties(self._device.id)
        name = self._properties["name"]
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.identity = str(self._device.pci_bus_id)
        self.l2_bytes = int(self._properties["l2CacheSize"])
        self.multiprocessors = int(self._properties["multiProcessorCount"])
        self._module = self._cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"))
        self._word = cupyx.zeros_pinned(1, "int32")  # written by the host, read by the device
        self._report = cupyx.zeros_pinned(3, "uint64")
        self._sink = self._cupy.zeros(1, "uint32")
        self._persisting = reset_persisting_lines()
        self._try()

    def _try(self) -> None:
        """Hold the stream once. Compiling the blocker takes longer than any hold may last, so it happens here."""
        self.synchronize()
        self.hold()
        self.release()
        self.synchronize()
        if not self.held().whole:
            raise RuntimeError("a word that the host writes does not reach a kernel that waits for it")

    @cached_property
    def _flushed(self) -> Any:
        data = self._cupy.zeros(flushed_bytes(self.l2_bytes) // 4, "uint32")
        self.synchronize()  # it was zeroed on CuPy's stream, which may be another
        return data

    # --- the stream ---

    def stream(self) -> Any:
        """The current stream: torch's where it has chosen one, else CuPy's.

        Where neither has, both mean the default stream.
        """
        cuda, torch = self._cupy.cuda, sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            address = torch.cuda.current_stream(self._device.id).cuda_stream
            if address:
                known = hasattr(cuda.Stream, "from_external")  # CuPy before 14 knows no protocol
                return cuda.Stream.from_external(_Borrowed(address)) if known else cuda.ExternalStream(address)
        return cuda.get_current_stream(self._device.id)

    def _launch(self, name: str, blocks: int, threads: int, *arguments: int) -> None:
        """Integers and addresses alike are passed as 64 bits."""
        kernel = self._module.get_function(name)
        with self.stream():
            kernel((blocks,), (threads,), tuple(self._cupy.uint64(a) for a in arguments))

    def synchronize(self) -> None:
        """Wait for all that the device has to do."""
        self._device.synchronize()

    def event(self) -> CupyEvent:
        """Make an event."""
        return CupyEvent(self, self._cupy.cuda)

    def hold(self) -> None:
        """Launch the blocker."""
        self._word[0], self._report[:] = 0, 0
        addresses = self._word.ctypes.data, self._report.ctypes.data
        self._launch("blocker", 1, 1, *addresses, LEAST_HELD, LONGEST_HELD)

    def release(self) -> None:
        """Write the word that it waits for."""
        self._word[0] = 1

    def held(self) -> Held:
        """What the blocker reported."""
        cycles, nanoseconds, released = map(int, self._report)
        return Held(bool(released), cycles / nanoseconds * 1e9 if nanoseconds else None)

    def flush(self) -> None:
        """Queue a pass that reads ``flushed_bytes``."""
        data = self._flushed
        vectors = data.nbytes // 16
        self._launch("flush", 8 * self.multiprocessors, THREADS, data.data.ptr, vectors, self._sink.data.ptr)

    # --- memory, and what only moves it ---

    def array(self, data: Bytes) -> Any:
        """The bytes as an array of CuPy."""
        array = self._cupy.asarray(data)
        self.synchronize()
        return array

    def host(self, array: Any) -> Bytes:
        """A copy on the host."""
        self.synchronize()
        copy: Bytes = self._cupy.asnumpy(array)
        return copy

    def move(self, name: str, addresses: Sequence[int], size: int) -> None:
        """Launch a kernel of ``OURS`` over memory at these addresses, the last of which is written, if any is.

        Parameters
        ----------
        name : str
        addresses : sequence of int
            Multiples of 16.
        size : int
            Bytes of each, a multiple of 16.
        """
        vectors = size // 16
        more = (NO_SUM, self._sink.data.ptr) if name in OURS["read"] else ()
        self._launch(name, -(-vectors // (PER_THREAD * THREADS)), THREADS, *addresses, vectors, *more)

    def kernels(self, kind: str) -> dict[str, Callable[..., object]]:
        """By name, those with this kind of traffic."""
        runtime = self._cupy.cuda.runtime

        def launch(name: str, *arrays: Any) -> None:
            self.move(name, [array.data.ptr for array in arrays], arrays[0].nbytes)

        def memcpy(a: Any, c: Any) -> None:
            runtime.memcpyAsync(c.data.ptr, a.data.ptr, a.nbytes, runtime.memcpyDeviceToDevice, self.stream().ptr)

        def memset(c: Any) -> None:
            runtime.memsetAsync(c.data.ptr, FILL, c.nbytes, self.stream().ptr)

        found: dict[str, Callable[..., object]] = {name: partial(launch, name) for name in OURS[kind]}
        if kind == "copy":
            found["cudaMemcpyAsync"] = memcpy
        if kind == "fill":
            found["cudaMemsetAsync"] = memset
        return found

    def facts(self) -> dict[str, Any]:
        """For the environment block."""
        version = self._cupy.cuda.runtime.runtimeGetVersion()
        return {
            "name": self.name,
            "pci": self.identity,
            "capability": f"{self._properties['major']}.{self._properties['minor']}",
            "multiprocessors": self.multiprocessors,
            "memory_bytes": int(self._properties["totalGlobalMem"]),
            "l2_bytes": self.l2_bytes,
            "flushed_bytes": flushed_bytes(self.l2_bytes),
            "persisting_l2": self._persisting,
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
            "reached_by": f"CuPy {self._cupy.__version__}",
            "blocked_by": "a kernel that waits for the host",
        }
