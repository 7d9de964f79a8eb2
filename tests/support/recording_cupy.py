"""A stand-in for CuPy that records what is queued, in which order and on which stream.

Its arrays, streams and devices are those of ``fake_cupy``; here are the parts that a clock needs: events, kernels
compiled from source, pinned memory and the runtime. A blocker that was launched reports when somebody waits, as the
real one would: whether the word it waits for has been written by then. Tests hold the names against the real package.
"""

import types

import numpy as np

from support import fake_cupy
from support.cupy_memory import host, put

CYCLES, NANOSECONDS = 1_500_000, 1_000_000  # of every hold
MILLISECONDS = 2.0  # between any two events

# What geoact.bench.devices.cupy_device uses, by where it is found.
USED = {
    "cupy": ("RawModule", "__version__", "asarray", "asnumpy", "uint64", "zeros"),
    "cupy.cuda": ("Device", "Event", "Stream", "get_current_stream", "get_elapsed_time"),
    "cupy.cuda.Device": ("id", "pci_bus_id", "synchronize"),
    "cupy.cuda.Event": ("record", "synchronize"),
    "cupy.cuda.runtime": (
        *("getDeviceProperties", "memcpyAsync", "memcpyDeviceToDevice", "memsetAsync", "runtimeGetVersion"),
    ),
    "cupy.ndarray": ("data", "nbytes"),
    "cupy.RawModule": ("get_function",),
    "cupyx": ("zeros_pinned",),
}


class Recorder:
    """``log`` holds (what, address of the stream, arguments); of what waits the stream is None."""

    def __init__(self, **properties):
        self.log, self.pinned, self.blocking = [], [], None
        self.properties = {
            "name": b"NVIDIA Test",
            "l2CacheSize": 50 << 20,
            "multiProcessorCount": 132,
            "totalGlobalMem": 80 << 30,
            "major": 9,
            "minor": 0,
        } | properties
        self.works = True  # whether a word of the host reaches the device
        self.cupy, self.cupyx = self._modules()

    @property
    def order(self):
        return [what for what, *_ in self.log]

    @property
    def streams(self):
        """Of what was queued."""
        return {stream for _, stream, _ in self.log if stream is not None}

    def queue(self, what, *arguments, stream=None):
        self.log.append((what, fake_cupy.get_current_stream().ptr if stream is None else stream, arguments))

    def wait(self, what):
        if self.blocking is not None:
            word, report = self.blocking
            released = self.works and bool(self._pinned(word)[0])
            self._pinned(report)[:] = (CYCLES, NANOSECONDS, released)
            self.blocking = None
        self.log.append((what, None, ()))

    def _pinned(self, address):
        return next(a for a in self.pinned if a.ctypes.data == address)

    def zeros_pinned(self, shape, dtype):
        self.pinned.append(np.zeros(shape, dtype))
        return self.pinned[-1]

    def launch(self, name, grid, block, arguments):
        if name == "blocker":
            self.blocking = tuple(map(int, arguments[:2]))
        self.queue(name, grid, block, tuple(map(int, arguments)))

    def _modules(self):
        cupy = fake_cupy.module()
        cuda, recorder = cupy.cuda, self
        cuda.Device, cuda.Event = device_of(recorder), event_of(recorder)
        cuda.Stream = stream_of()
        cuda.get_elapsed_time = lambda begin, end: MILLISECONDS
        runtime = cuda.runtime
        runtime.getDeviceProperties = lambda index: recorder.properties
        runtime.runtimeGetVersion = lambda: 13010
        runtime.memcpyDeviceToDevice = 3
        runtime.memcpyAsync = lambda *arguments: recorder.queue("memcpy", *arguments[:-1], stream=arguments[-1])
        runtime.memsetAsync = lambda *arguments: recorder.queue("memset", *arguments[:-1], stream=arguments[-1])
        cupy.RawModule = module_of(recorder)
        cupy.__version__, cupy.uint64 = "14.0", np.uint64
        cupy.asarray = put
        cupy.asnumpy = lambda array: host(array).copy()
        cupyx = types.ModuleType("cupyx")
        cupyx.zeros_pinned = recorder.zeros_pinned
        return cupy, cupyx


def device_of(recorder):
    class Device(fake_cupy.Device):
        pci_bus_id = "0000:3B:00.0"

        def synchronize(self):
            recorder.wait("synchronize")

    return Device


def event_of(recorder):
    class Event:
        def record(self, stream=None):
            recorder.queue("event", stream=0 if stream is None else stream.ptr)

        def synchronize(self):
            recorder.wait("wait")

    return Event


def stream_of():
    class Stream(fake_cupy.Stream):
        @classmethod
        def from_external(cls, other):
            version, address = other.__cuda_stream__()
            assert version == 0
            return cls(address)

    return Stream


def module_of(recorder):
    class RawModule:
        def __init__(self, code):
            self.code = code

        def get_function(self, name):
            assert f"__global__ void {name}(" in self.code
            return lambda grid, block, arguments: recorder.launch(name, grid, block, arguments)

    return RawModule
