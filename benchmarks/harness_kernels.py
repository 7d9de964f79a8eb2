"""What every harness of harnesses.py is given to measure: the same callables, each as it is and slowed down.

Four kernels: two in the cache, one that is bound by memory, and a call that is all overhead. "slowed" waits inside the
call for a share of the time that its work takes; "plain" runs through the same code with a share of nothing,
so that the two differ by the wait alone. ``suite`` declares both for geoact.bench; the gate finds in the folder of
each side, as ``planted_slowdown.SHARE``, by how much that side is slowed.

Read from the environment, because sessions are processes of several programs: HARNESSES_DEVICE ("cpu", "cuda", or
"dry-run": what runs on a device, on CPU tensors), HARNESSES_SEED (the order of the cases), HARNESSES_QUICK.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import geoact
import numpy as np
from geoact.bench import Call, Suite

SHARE = 0.05
VARIANTS = ("plain", "slowed")
SEED = 20240229
Run = Callable[[], object]


def device() -> str:
    return os.environ.get("HARNESSES_DEVICE", "cpu")


def quick() -> bool:
    return os.environ.get("HARNESSES_QUICK") == "1"


# --- slowing down -------------------------------------------------------------------------------------------


def fastest(run: Run, batches: int = 10) -> float:
    """Seconds of a call in the fastest of some batches of a millisecond or more."""
    timer, number = timeit.Timer(run), 1
    while timer.timeit(number) < 1e-3:
        number *= 4
    return min(timer.repeat(batches, number)) / number


def waiting(work: Run, share: float) -> Run:
    """``work``, and then a wait for ``share`` of the time that it takes.

    It counts instead of looking at the clock, because reading that takes as long as the wait of a short call.
    """
    many = (None,) * 1000

    def count_to_1000() -> None:
        for _ in many:
            pass

    steps = (None,) * round(share * fastest(work) / fastest(count_to_1000) * 1000 if share else 0)

    def call() -> None:
        work()
        for _ in steps:
            pass

    return call


def planted(work: Run, share: float, seconds: float) -> float:
    """By how much ``waiting`` really makes a call longer: the fastest of batches that take turns."""
    runs = waiting(work, 0.0), waiting(work, share)
    number, end = max(1, round(1e-3 / fastest(runs[0]))), time.perf_counter() + seconds
    batches: tuple[list[float], list[float]] = ([], [])
    while time.perf_counter() < end or len(batches[1]) < 5:
        for run, taken in zip(runs, batches, strict=True):
            taken.append(timeit.timeit(run, number=number))
    return min(batches[1]) / min(batches[0]) - 1


def waiting_on_device(work: Run, share: float) -> Run:
    """The same for a CUDA device, where waiting on the host lengthens nothing: a kernel that spins."""
    import torch

    def seconds(run: Run) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        run()
        torch.cuda.synchronize()
        begin.record()
        for _ in range(20):
            run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / 20

    rate = 1_000_000 / seconds(lambda: torch.cuda._sleep(1_000_000))
    cycles = round(share * seconds(work) * rate)

    def call() -> None:
        work()
        torch.cuda._sleep(cycles)

    return call


# --- the kernels --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """``work`` is the call; ``check`` makes it and raises AssertionError if its result is wrong."""

    work: Run
    check: Run
    read: int = 0
    written: int = 0


def _array(count: int, seed: int = 0) -> Any:
    x = np.random.default_rng(SEED + seed).standard_normal(count, dtype=np.float32)
    if device() == "cpu":
        return x
    import torch

    return torch.from_numpy(x).to("cuda" if device() == "cuda" else "cpu")


def _host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _empty_like(x: Any) -> Any:
    return np.empty_like(x) if isinstance(x, np.ndarray) else x.new_empty(x.shape)


def _checked(work: Run, expected: Callable[[], np.ndarray], output: Any) -> Run:
    def check() -> None:
        work()
        assert np.allclose(_host(output)[:65536], expected(), rtol=1e-5, atol=1e-6), "a wrong value"

    return check


def _size(count: int) -> int:
    return min(count, 4096) if quick() else count


def add() -> Kernel:
    x, y = _array(_size(65536)), _array(_size(65536), 1)
    out = _empty_like(x)
    if isinstance(x, np.ndarray):
        work = partial(np.add, x, y, out)
    else:
        import torch

        work = partial(torch.add, x, y, out=out)
    expected = partial(np.add, _host(x), _host(y))
    return Kernel(work, _checked(work, expected, out), 2 * x.nbytes, x.nbytes)


def sigmoid() -> Kernel:
    x = _array(_size(65536))
    out = _empty_like(x)
    work = partial(geoact.sigmoid, x, out=out, stats=geoact.GeometryStats())
    return Kernel(work, _checked(work, lambda: 1 / (1 + np.exp(-_host(x))), out), x.nbytes, x.nbytes)


def negative() -> Kernel:
    x = _array(_size(1 << 24))
    out = _empty_like(x)
    if isinstance(x, np.ndarray):
        work = partial(np.negative, x, out)
    else:
        import torch

        work = partial(torch.neg, x, out=out)
    return Kernel(work, _checked(work, lambda: -_host(x)[:65536], out), x.nbytes, x.nbytes)


def call() -> Kernel:
    """No traffic is declared: against a copy of 256 bytes it would be a ratio of two overheads."""
    x = _array(64)
    work = partial(geoact.relu, x, stats=geoact.GeometryStats())

    def check() -> None:
        assert (_host(work()) == np.maximum(_host(x), 0)).all(), "a wrong value"

    return Kernel(work, check)


KERNELS: dict[str, Callable[[], Kernel]] = {"add": add, "sigmoid": sigmoid, "negative": negative, "call": call}
TITLES = {
    "add": "add, 256 KiB",
    "sigmoid": "sigmoid + statistics, 256 KiB",
    "negative": "negative, 128 MiB moved",
    "call": "relu + statistics, 64 elements",
}


def share_of(variant: str) -> float:
    """By how much a variant is slowed in this process."""
    if variant == "plain":
        return 0.0
    if importlib.util.find_spec("planted_slowdown") is None:
        return SHARE
    return float(importlib.import_module("planted_slowdown").SHARE)


def slowed(work: Run, variant: str) -> Run:
    return (waiting_on_device if device() == "cuda" else waiting)(work, share_of(variant))


def names() -> list[str]:
    """``kernel/variant``, in the order of this session."""
    found = [f"{kernel}/{variant}" for kernel in KERNELS for variant in VARIANTS]
    random.Random(os.environ.get("HARNESSES_SEED", "0")).shuffle(found)
    return found


def prepared(name: str) -> Run:
    """The callable of a name, once it has been seen to give the right result."""
    kernel, variant = name.split("/")
    made = KERNELS[kernel]()
    made.check()
    return slowed(made.work, variant)


suite = Suite("harnesses", setup=partial(geoact.set_num_threads, 1))


@suite.case(kernel=list(KERNELS), variant=list(VARIANTS))
def measured(kernel: str, variant: str) -> Call:
    made = KERNELS[kernel]()
    where = "cuda" if device() == "cuda" else "cpu"
    return Call(slowed(made.work, variant), made.read, made.written, check=made.check, device=where)
