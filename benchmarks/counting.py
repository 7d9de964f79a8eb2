"""What one call does on a CUDA device, counted and not timed: launches, waits, allocations.

Used by tests and benchmark. Launches and waits are read from the trace that CUPTI writes for torch's profiler,
which sees the calls of every library of the process; allocations are those of torch's allocator and, below it, of the
device itself. torch is imported only by what counts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
RANGE = "the calls that are counted"
WAITING = ("Synchronize", "cudaMalloc", "cudaFree", "cuMemAlloc", "cuMemFree")


@dataclass(frozen=True)
class Counts:
    """Of one call: what ran on the device, and what made the host wait."""

    launched: tuple[str, ...]
    waits: tuple[str, ...]
    calls: int

    @property
    def launches_per_call(self) -> float:
        return len(self.launched) / self.calls


def of_trace(events: list[dict[str, Any]], calls: int) -> Counts:
    """Counts of a chrome trace: device work anywhere, waits within the annotated range on its thread."""
    launched = tuple(str(e["name"]) for e in events if e.get("cat") in ON_DEVICE)
    ranges = [e for e in events if e.get("cat") == "user_annotation" and e.get("name") == RANGE]
    if len(ranges) != 1:
        raise RuntimeError(f"the trace holds the counted range {len(ranges)} times")
    begin, end = ranges[0]["ts"], ranges[0]["ts"] + ranges[0]["dur"]
    waits = tuple(
        str(e["name"])
        for e in events
        if e.get("cat") in ("cuda_runtime", "cuda_driver")
        and begin <= e["ts"] <= end
        and e.get("tid") == ranges[0]["tid"]
        and any(word in e["name"] for word in WAITING)
    )
    return Counts(launched, waits, calls)


def count(run: Callable[[], object], calls: int = 5) -> Counts:
    """Run ``run`` so many times under the profiler; it has run before."""
    import torch

    run()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        with torch.profiler.record_function(RANGE):
            for _ in range(calls):
                run()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    found = of_trace(events, calls)
    if not found.launched:
        raise RuntimeError("the profiler saw nothing on the device: CUPTI does not work here")
    return found


@dataclass(frozen=True)
class Allocated:
    """Of one call: blocks and bytes taken from torch's allocator, and bytes that the device lost."""

    blocks: int
    size: int
    from_device: int


def allocated(run: Callable[[], object]) -> Allocated:
    """What a call takes and has not given back when it returns its result; it has run before."""
    import torch

    def read() -> tuple[int, int, int]:
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        free, _ = torch.cuda.mem_get_info()
        return stats["allocation.all.allocated"], stats["allocated_bytes.all.allocated"], free

    run()
    before = read()
    result = run()
    after = read()
    del result
    return Allocated(after[0] - before[0], after[1] - before[1], before[2] - after[2])


def rounded(size: int) -> int:
    """What torch's allocator takes for so many bytes: it deals in blocks of 512."""
    return -(-size // 512) * 512
