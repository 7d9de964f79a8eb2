"""The clock of a CUDA device. Importing this imports neither torch nor CuPy.

``DeviceClock`` times by a pair of events on the stream that launches. The stream is held back by a blocker kernel until
everything that is timed has been queued, else below some 20 us the time between the events is that of Python queueing
the next launch. The blocker waits for a word that the host writes when it has queued the last launch, because nobody
knows beforehand how long queueing takes; torch.cuda._sleep, which spins for a number of cycles given beforehand, stands
in where CuPy is missing. While it waits it counts cycles against nanoseconds, so every sample knows its clock rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from geoact.bench.ceilings import Traffic
from geoact.bench.clocks import Clock, Sample, Untimeable
from geoact.bench.contenders import Contender, Unavailable

SOURCE = Path(__file__).with_name("stream.cu")
LEAST_FLUSHED = 256 << 20
THREADS = 256


class _Borrowed:
    """The address of a stream, as the CUDA stream protocol passes it."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


class Kernels:
    """The kernels of stream.cu, launched on torch's current stream. Raises ImportError where there is no CuPy."""

    def __init__(self, torch: Any) -> None:
        import cupy
        import cupyx

        self._torch, self._cupy = torch, cupy
        self._module = cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"))
        self.word = cupyx.zeros_pinned(1, "int32")  # written by the host, read by the device
        self.report = cupyx.zeros_pinned(3, "uint64")
        self.sink = torch.zeros(1, dtype=torch.int32, device="cuda")

    def launch(self, name: str, blocks: int, threads: int, *arguments: int) -> None:
        """Integers and addresses alike are passed as 64 bits."""
        cuda, address = self._cupy.cuda, self._torch.cuda.current_stream().cuda_stream
        stream = cuda.Stream.null
        if address:  # CuPy before 14 knows no protocol
            known = hasattr(cuda.Stream, "from_external")
            stream = cuda.Stream.from_external(_Borrowed(address)) if known else cuda.ExternalStream(address)
        kernel = self._module.get_function(name)
        with stream:
            kernel((blocks,), (threads,), tuple(self._cupy.uint64(a) for a in arguments))

    def move(self, name: str, *tensors: Any) -> None:
        """A copy or merge kernel over tensors of the same size, a multiple of 16 bytes, the last one written."""
        vectors = tensors[0].nbytes // 16
        blocks = -(-vectors // (4 * THREADS))
        self.launch(name, blocks, THREADS, *(t.data_ptr() for t in tensors), vectors)


class DeviceClock:
    """Time between two events on the current CUDA stream; cold: the L2 cache holds nothing of what is timed."""

    def __init__(self, torch: Any, *, cold: bool = True, throttling: Callable[[], tuple[str, ...]] = tuple) -> None:
        self._torch, self.cold, self._throttling = torch, cold, throttling
        self.l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
        self.label = "GPU events, L2 " + ("cold" if cold else "warm")
        self._queueing = 1e-4  # seconds, for _sleep
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.blocked_by = "a kernel that waits for the host"
        self.kernels: Kernels | None = None
        try:
            self.kernels = Kernels(torch)
            self.sample([self._nothing], 1)
        except Exception as error:  # whatever is wrong with CuPy here, the cases can still be timed
            self.kernels, self.blocked_by = None, f"torch.cuda._sleep ({type(error).__name__}: {error})"

    @cached_property
    def _flushed(self) -> Any:
        size = max(2 * self.l2_bytes, LEAST_FLUSHED)
        return self._torch.zeros(size // 4, dtype=self._torch.int32, device="cuda")

    @cached_property
    def _sum(self) -> Any:
        return self._torch.zeros((), dtype=self._torch.int64, device="cuda")

    def _nothing(self) -> None:
        """Keeps the driver from ending early."""

    def flush(self) -> None:
        data = self._flushed
        if self.kernels is None:
            self._torch.sum(data, dim=0, dtype=self._torch.int64, out=self._sum)
            return
        blocks = 8 * self._torch.cuda.get_device_properties(0).multi_processor_count
        self.kernels.launch("flush", blocks, THREADS, data.data_ptr(), data.nbytes // 16, self.kernels.sink.data_ptr())

    def sample(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample:
        for _ in range(3):  # memory that is allocated for the first time makes the host wait: then once more
            taken = self._attempt(runs, repeat)
            if taken is not None:
                return taken
        raise Untimeable("waits for the device within a call, so nothing can be queued ahead of it")

    def _attempt(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample | None:
        turns = [runs[i % len(runs)] for i in range(repeat)]
        self._torch.cuda.synchronize()
        if self.kernels is not None:
            self.kernels.word[0], self.kernels.report[:] = 0, 0
            longest = 200_000_000  # ns: what waits for the device never ends otherwise
            addresses = self.kernels.word.ctypes.data, self.kernels.report.ctypes.data
            self.kernels.launch("blocker", 1, 1, *addresses, 50_000, longest)
        else:
            self._torch.cuda._sleep(int(2e9 * 1.5 * self._queueing))
        start = time.perf_counter()
        if self.cold:
            self.flush()
        self._begin.record()
        for run in turns:
            run()
        self._end.record()
        queueing = time.perf_counter() - start
        if self.kernels is not None:
            self.kernels.word[0] = 1
        self._end.synchronize()
        seconds = self._begin.elapsed_time(self._end) / 1e3 / repeat
        if self.kernels is None:
            late, self._queueing = queueing > 1.4 * self._queueing, max(self._queueing, queueing)
            return None if late else Sample(seconds, None, self._throttling())
        cycles, nanoseconds, released = map(int, self.kernels.report)
        if not released:
            return None
        return Sample(seconds, cycles / nanoseconds * 1e9 if nanoseconds else None, self._throttling())


def device_clock(*, cold: bool) -> DeviceClock:
    """The clock of the first CUDA device; raises Unavailable where there is none."""
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"no CUDA device can be reached: {error}") from error
    if not torch.cuda.is_available():
        raise Unavailable("no CUDA device: torch.cuda.is_available() is False")
    return DeviceClock(torch, cold=cold)


def device_ceiling(traffic: Traffic, clock: Clock) -> Contender:
    """The fastest kernel with this traffic on the device of the clock."""
    raise Unavailable("no copy kernel on this device")
