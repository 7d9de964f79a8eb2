"""What one call does on a device, counted: launches and waits are read from a trace."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import counting


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


def test_a_trace_without_the_counted_range_is_an_error():
    with pytest.raises(RuntimeError, match="0 times"):
        counting.of_trace([], 1)


def test_sizes_are_rounded_as_the_allocator_does():
    assert [counting.rounded(n) for n in (0, 1, 512, 513)] == [0, 512, 512, 1024]
