"""The clocks of the engine: the host's, and that of a CUDA device. Importing this imports neither torch nor CuPy.

``DeviceClock`` times by a pair of events on the stream that launches. The stream is held back by a blocker kernel until
everything that is timed has been queued, else below some 20 us the time between the events is that of Python queueing
the next launch. The blocker waits for a word that the host writes when it has queued the last launch, because nobody
knows beforehand how long queueing takes; torch.cuda._sleep, which spins for a number of cycles given beforehand, stands
in where CuPy is missing. While it waits it counts cycles against nanoseconds, so every sample knows its clock rate.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from engine import Sample, Untimeable

SOURCE = Path(__file__).with_name("stream.cu")
LEAST_FLUSHED = 256 << 20
THREADS = 256
THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
"""The bits of NVML's reasons that slow a device down against its will."""


class HostClock:
    """Wall time of a call as Python sees it; ``wait`` lets the device finish what the calls queued."""

    def __init__(self, label: str = "host", wait: Callable[[], object] = lambda: None) -> None:
        self.label, self._wait = label, wait

    def sample(self, runs: Sequence[Callable[[], object]], repeat: int) -> Sample:
        turns = [runs[i % len(runs)] for i in range(repeat)]
        self._wait()
        start = time.perf_counter_ns()
        for run in turns:
            run()
        self._wait()
        return Sample((time.perf_counter_ns() - start) / repeat / 1e9)


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


class Management:
    """What NVML tells of the first device: read only. ``reason`` says why it tells nothing."""

    def __init__(self, uuid: str = "") -> None:
        self.reason, self._handle = "", None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            try:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
            except pynvml.NVMLError:
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception as error:  # not installed, no library, no permission: nothing is measured by it
            self.reason = f"NVML: {type(error).__name__}: {error}"

    def _ask(self, question: Callable[[Any], Any], *more: Any) -> Any:
        try:
            return question(self._handle, *more)
        except self._nvml.NVMLError as error:
            return f"not known: {error}"

    def throttling(self) -> tuple[str, ...]:
        if self._handle is None:
            return ()
        bits = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        return () if isinstance(bits, str) else tuple(why for bit, why in THROTTLING.items() if bits & bit)

    def describe(self) -> dict[str, Any]:
        if self._handle is None:
            return {"nvml": self.reason}
        nvml, clocks = self._nvml, {}
        for name, kind in (("SM", nvml.NVML_CLOCK_SM), ("memory", nvml.NVML_CLOCK_MEM)):
            clocks[name] = {
                "now_MHz": self._ask(nvml.nvmlDeviceGetClockInfo, kind),
                "max_MHz": self._ask(nvml.nvmlDeviceGetMaxClockInfo, kind),
            }
        power = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
        return {
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "clocks": clocks,
            "power_cap_W": power if isinstance(power, str) else power / 1e3,
            "throttled": list(self.throttling()),
        }


def reset_persisting_lines() -> str:
    """Give back L2 lines that somebody asked to keep; what the driver answered."""
    try:
        code = ctypes.CDLL("libcuda.so.1").cuCtxResetPersistingL2Cache()
    except (OSError, AttributeError) as error:
        return f"not reset: {error}"
    return "reset" if code == 0 else f"not reset: CUDA error {code}"
