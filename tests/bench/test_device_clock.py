"""The clocks and the counts of the GPU benchmark: kernels that compile, a fake device that keeps the order, a trace."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import clocks
import counting
from engine import Untimeable


def test_the_kernels_compile(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    command = [
        "nvcc",
        "-cubin",
        "-arch=sm_90",
        "-Werror",
        "all-warnings",
        "-o",
        str(tmp_path / "a"),
        str(clocks.SOURCE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_kernel_that_is_launched_exists():
    source = clocks.SOURCE.read_text(encoding="utf-8")
    defined = set(re.findall(r"__global__ void (\w+)\(", source))
    callers = "".join((BENCHMARKS / name).read_text(encoding="utf-8") for name in ("clocks.py", "gpu_cases.py"))
    used = set(re.findall(r'launch\("(\w+)"', callers)) | {"copy", "copy_streaming", "merge", "merge_streaming"}
    assert used == defined


def test_the_host_clock_times_a_run():
    done = []
    sample = clocks.HostClock().sample([lambda: time.sleep(2e-3), lambda: done.append(1)], 4)
    assert 1e-3 < sample.seconds < 5e-2
    assert len(done) == 2


def test_nvml_that_is_not_there_says_why():
    management = clocks.Management()
    if not management.reason:
        pytest.skip("NVML is here")
    assert management.throttling() == ()
    assert management.describe() == {"nvml": management.reason}


def trace(*events):
    """Of the profiler: the counted range, from 100 to 200 on thread 7, and what else there is."""
    counted = {"cat": "user_annotation", "name": counting.RANGE, "ts": 100, "dur": 100, "tid": 7}
    return [counted, *({"ts": 150, "tid": 7, "name": name, "cat": cat} | more for cat, name, more in events)]


def test_launches_and_waits_are_read_from_a_trace():
    counts = counting.of_trace(
        trace(
            ("kernel", "forward", {"tid": 99}),
            ("kernel", "forward", {"tid": 99, "ts": 250}),  # on the device later than queued
            ("gpu_memset", "Memset", {"tid": 99}),
            ("cuda_runtime", "cudaLaunchKernel", {}),
            ("cuda_runtime", "cudaStreamSynchronize", {}),
            ("cuda_runtime", "cudaDeviceSynchronize", {"ts": 300}),  # ours, after the calls
            ("cuda_runtime", "cudaDeviceSynchronize", {"tid": 8}),
            ("cpu_op", "aten::relu", {}),
        ),
        calls=3,
    )
    assert counts.launched == ("forward", "forward", "Memset")
    assert counts.waits == ("cudaStreamSynchronize",)
    assert counts.launches_per_call == 1
    with pytest.raises(RuntimeError, match="0 times"):
        counting.of_trace([], 1)
    assert [counting.rounded(n) for n in (0, 1, 512, 513)] == [0, 512, 512, 1024]


class FakeDevice:
    """Enough of torch.cuda and of stream.cu for the device clock: time is counted in launches, the order is kept."""

    def __init__(self, queueing=0.0):
        self.log, self.cuda, self.int32, self.int64 = [], self, "int32", "int64"
        self.L2_cache_size, self.multi_processor_count, self.queueing = 50 << 20, 4, queueing
        self.word, self.report = np.zeros(1, np.int32), np.zeros(3, np.uint64)
        self.sink = self
        self.nbytes = 0

    def get_device_properties(self, index):
        return self

    def Event(self, enable_timing):
        return FakeEvent(self)

    def synchronize(self):
        self.log.append("synchronize")

    def zeros(self, size, **_):
        self.log.append(f"zeros {size}")
        return self

    def data_ptr(self):
        return 0

    def sum(self, *_, **__):
        self.log.append("sum")

    def _sleep(self, cycles):
        self.log.append("sleep")

    def launch(self, name, *_):
        self.log.append(name)


class FakeEvent:
    def __init__(self, device):
        self.device = device

    def record(self):
        self.device.log.append("event")

    def synchronize(self):
        released = bool(self.device.word[0])
        self.device.log.append("wait")
        self.device.report[:] = (1_500_000, 1_000_000, released)

    def elapsed_time(self, other):
        return 2.0


def device_clock(fake, monkeypatch, cold=True, kernels=True):
    def made(torch):
        if not kernels:
            raise ImportError("no CuPy")
        return fake

    monkeypatch.setattr(clocks, "Kernels", made)
    clock = clocks.DeviceClock(fake, cold=cold)
    fake.log.clear()
    return clock


def test_the_device_clock_queues_everything_while_the_stream_is_held_back(monkeypatch):
    fake = FakeDevice()
    clock = device_clock(fake, monkeypatch)

    def run():
        assert not fake.word[0], "released before everything was queued"
        fake.log.append("run")

    sample = clock.sample([run], 2)
    assert [word for word in fake.log if not word.startswith("zeros")] == [
        *("synchronize", "blocker", "flush", "event", "run", "run", "event", "wait"),
    ]
    assert (sample.seconds, sample.hertz) == (1e-3, 1.5e9)
    assert clock.label == "GPU events, L2 cold"


def test_the_flushed_memory_is_twice_the_cache_and_at_least_256_mebibytes(monkeypatch):
    for cache, size in ((50 << 20, 256 << 20), (200 << 20, 400 << 20)):
        fake = FakeDevice()
        fake.L2_cache_size = cache
        clock = clocks.DeviceClock.__new__(clocks.DeviceClock)
        clock._torch, clock.l2_bytes = fake, cache
        assert clock._flushed is fake
        assert fake.log == [f"zeros {size // 4}"]


def test_a_warm_clock_does_not_flush(monkeypatch):
    fake = FakeDevice()
    clock = device_clock(fake, monkeypatch, cold=False)
    clock.sample([lambda: None], 1)
    assert "flush" not in fake.log
    assert clock.label == "GPU events, L2 warm"


def test_what_waits_within_a_call_cannot_be_timed(monkeypatch):
    fake = FakeDevice()
    clock = device_clock(fake, monkeypatch)

    def end_of_patience(self):
        self.device.report[:] = (1_500_000, 1_000_000, 0)

    monkeypatch.setattr(FakeEvent, "synchronize", end_of_patience)
    with pytest.raises(Untimeable, match="waits for the device"):
        clock.sample([lambda: None], 1)
    assert fake.log.count("blocker") == 3


def test_without_cupy_the_stream_sleeps_and_a_late_sample_is_taken_again(monkeypatch):
    fake = FakeDevice()
    clock = device_clock(fake, monkeypatch, kernels=False)
    assert clock.blocked_by == "torch.cuda._sleep (ImportError: no CuPy)"
    slow = iter([0.01, 0.0, 0.0])
    sample = clock.sample([lambda: time.sleep(next(slow))], 1)
    assert (sample.seconds, sample.hertz) == (2e-3, None)
    assert fake.log.count("sleep") == 2
