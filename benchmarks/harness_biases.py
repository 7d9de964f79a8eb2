"""What moves a measured time without the code having changed, one function and one number after the other.

    python harness_biases.py NAME FILE

Each function answers one question with medians of ratios that were taken in turns (but for "order", which is about
that), and names every number it gives. ``BIASES`` lists them; harnesses.py runs each in a process of its own.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from geoact.bench.ceilings import flush
from geoact.bench.clocks import HostClock
from geoact.bench.contenders import Contender, Group, Unavailable
from geoact.bench.engine import StopRule, measure, warm_up
from harness_kernels import SEED, Run, quick, waiting
from harness_session import HARNESSES, by_timeit, by_torch, pytest_benchmark, thin

SHORTEST = 3e-4  # seconds of a batch, as in geoact.bench


def _size(count: int) -> int:
    return min(count, 4096) if quick() else count


def _seconds(seconds: float) -> float:
    return 0.02 if quick() else seconds


def _random(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(SEED + seed).standard_normal(_size(count), dtype=np.float32)


def number(label: str, value: float, unit: str) -> dict[str, Any]:
    """One result: ``x`` is a ratio, ``%`` a relative change, ``ns`` a time."""
    return {"label": label, "value": float(f"{value:.4g}"), "unit": unit}


def in_turns(runs: dict[str, Run], seconds: float) -> dict[str, list[float]]:
    """Nanoseconds of every contender, round by round."""
    group = Group("bias", [Contender(name, [run]) for name, run in runs.items()])
    seconds = _seconds(seconds)
    rule = StopRule(least=5 if quick() else 20, seconds=seconds, limit=3 * seconds)
    found = measure(group, HostClock(batches=3), rule, seconds, shortest=SHORTEST)
    return {name: [s * 1e9 for s in found.seconds(name)] for name in runs}


def ratios(samples: dict[str, list[float]], base: str) -> dict[str, float]:
    """Medians of the ratios within rounds, of everything but the base."""
    return {
        name: statistics.median(t / b for t, b in zip(times, samples[base], strict=True))
        for name, times in samples.items()
        if name != base
    }


# --- (a) how many calls one reading of the clock holds --------------------------------------------------------


def _empty() -> None:
    pass


def _by_geoact(run: Run, calibrated: bool) -> list[float]:
    clock, contender = HostClock(batches=5 if calibrated else 1), Contender("one", [run])
    if calibrated:
        warm_up(contender, clock, SHORTEST, _seconds(0.2))
    return [clock.sample(contender.runs, contender.repeat).seconds for _ in range(5 if quick() else 200)]


TESTS = """import pytest
from harness_biases import granularity_runs

RUNS = granularity_runs()

@pytest.mark.parametrize("name", ["once " + name for name in RUNS])
def test_once(benchmark, name):
    benchmark.pedantic(RUNS[name[5:]], rounds={rounds}, iterations=1, warmup_rounds=10)

@pytest.mark.parametrize("name", list(RUNS))
def test_calibrated(benchmark, name):
    benchmark(RUNS[name])
"""


def granularity_runs() -> dict[str, Run]:
    """A function of about a microsecond, and one of nothing."""
    return {"short": partial(math.fsum, tuple(i / 7 for i in range(48))), "empty": _empty}


def granularity() -> dict[str, Any]:
    """What of the others is not installed has no line here; harnesses.py says so."""
    rounds = 5 if quick() else 2000
    there = {name for name, harness in HARNESSES.items() if not harness.absent}
    by_pytest = pytest_benchmark(TESTS.replace("{rounds}", str(rounds))) if "pytest-benchmark" in there else {}
    found: dict[str, dict[str, list[float]]] = {}
    for name, run in granularity_runs().items():
        found[name] = {
            "timeit, calibrated": by_timeit(run),
            "timeit, number=1": timeit.Timer(run).repeat(rounds, 1),
            "geoact, calibrated": _by_geoact(run, True),
            "geoact, one call": _by_geoact(run, False),
        }
        if by_pytest:
            found[name]["pytest-benchmark, calibrated"] = [ns / 1e9 for ns in by_pytest[name]]
            found[name]["pytest-benchmark, iterations=1"] = [ns / 1e9 for ns in by_pytest[f"once {name}"]]
        if "torch.utils.benchmark" in there:
            found[name]["torch, blocked_autorange"] = by_torch(run)
    reference = statistics.median(found["short"]["timeit, calibrated"])
    numbers = [number("the function, by timeit", reference * 1e9, "ns")]
    for way, seconds in found["short"].items():
        if way != "timeit, calibrated":
            numbers.append(number(f"it by {way}", statistics.median(seconds) / reference, "x"))
    numbers += [
        number(f"an empty function by {way}", statistics.median(seconds) * 1e9, "ns")
        for way, seconds in found["empty"].items()
    ]
    raw = {
        f"{name}: {way}": [s * 1e9 for s in seconds] for name, ways in found.items() for way, seconds in ways.items()
    }
    return {"numbers": numbers, "raw": raw}


# --- (b) what the input holds ---------------------------------------------------------------------------------


def content() -> dict[str, Any]:
    """np.zeros hands out pages that were never written: all are one page of zeros, which stays in the cache."""
    big, small = 1 << 24, 65536
    x, out = _random(big), np.empty(_size(big), np.float32)
    written = np.zeros(_size(big), np.float32)
    written[...] = 0
    large = in_turns({
        "random": partial(np.negative, x, out),
        "zeros that were written": partial(np.negative, written, out),
        "np.zeros, untouched": partial(np.negative, np.zeros(_size(big), np.float32), out),
    }, 2.0)  # fmt: skip
    y, half = _random(small), np.float32(0.5)
    tiny, result = np.full(_size(small), 1e-39, np.float32), np.empty(_size(small), np.float32)
    little = in_turns({
        "normal": partial(np.multiply, y, half, result),
        "subnormal": partial(np.multiply, tiny, half, result),
    }, 1.0)  # fmt: skip
    numbers = [number(f"negative, 64 MiB: {name} / random", r, "x") for name, r in ratios(large, "random").items()]
    numbers += [number(f"multiply, 256 KiB: {name} / normal", r, "x") for name, r in ratios(little, "normal").items()]
    return {"numbers": numbers, "raw": large | little}


# --- (c) what the caches hold ---------------------------------------------------------------------------------


def cache() -> dict[str, Any]:
    x, y, out = _random(65536), _random(65536, 1), np.empty(_size(65536), np.float32)
    run = Contender("add", [partial(np.add, x, y, out)])
    clocks = {"warm": HostClock(batches=3), "cold": HostClock(flush=flush)}
    warm_up(run, clocks["warm"], SHORTEST, _seconds(0.2))
    raw: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(2 if quick() else 20):
        for name, clock in clocks.items():
            raw[name].append(clock.sample(run.runs, run.repeat).seconds * 1e9)
    return {"numbers": [number("add, 256 KiB: cold / warm", ratios(raw, "warm")["cold"], "x")], "raw": raw}


# --- (d) who allocates the output -----------------------------------------------------------------------------


def allocation() -> dict[str, Any]:
    numbers: list[dict[str, Any]] = []
    raw: dict[str, list[float]] = {}
    for title, count, seconds in (("256 KiB", 65536, 1.0), ("64 MiB", 1 << 24, 2.0)):
        x, y = _random(count), _random(count, 1)
        samples = in_turns(
            {"given": partial(np.add, x, y, np.empty_like(x)), "allocated": partial(np.add, x, y)}, seconds
        )
        numbers.append(number(f"add, {title}: output allocated / given", ratios(samples, "given")["allocated"], "x"))
        raw |= {f"{title}: {name}": times for name, times in samples.items()}
    return {"numbers": numbers, "raw": raw}


# --- (e), (f) other processes ---------------------------------------------------------------------------------

BUSY = """import os, sys, time
cpu, busy, idle = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
os.sched_setaffinity(0, {cpu})
import numpy
x = numpy.ones(1 << 22)
y = x.copy()
print(flush=True)
while True:
    end = time.perf_counter() + busy
    while time.perf_counter() < end:
        numpy.negative(x[:1 << 14], out=y[:1 << 14]) if idle else numpy.negative(x, out=y)
    time.sleep(idle)
"""


@contextmanager
def load(cpu: int, busy: float = 1.0, idle: float = 0.0) -> Iterator[None]:
    """A process that keeps a processor busy, and memory with it; it rests ``idle`` seconds after every ``busy``."""
    command = [sys.executable, "-c", BUSY, str(cpu), str(busy), str(idle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("the process that makes the load has not started")
            yield
        finally:
            process.kill()


@contextmanager
def pinned() -> Iterator[tuple[int, int | None]]:
    """This process on one processor; gives that one and another, or None where there is none."""
    if not hasattr(os, "sched_setaffinity"):
        raise Unavailable("this system cannot pin a process to a processor")
    before = os.sched_getaffinity(0)
    first, *others = sorted(before)
    os.sched_setaffinity(0, {first})
    try:
        yield first, others[0] if others else None
    finally:
        os.sched_setaffinity(0, before)


def alternate(a: Run, b: Run, seconds: float, calls: int) -> tuple[list[float], list[float]]:
    """Nanoseconds of A and of B, taken in turns for so long; every sample is of so many calls."""
    found: tuple[list[float], list[float]] = ([], [])
    now, end = time.perf_counter_ns, time.perf_counter() + _seconds(seconds)
    while time.perf_counter() < end or len(found[1]) < 3:
        for run, samples in zip((a, b), found, strict=True):
            start = now()
            for _ in range(calls):
                run()
            samples.append((now() - start) / calls)
    return found


def order() -> dict[str, Any]:
    """The same call as A and B; halfway a neighbour starts. Both designs are read from the same samples."""
    numbers: list[dict[str, Any]] = []
    raw: dict[str, list[float]] = {}
    with pinned() as (own, other):
        small, large = _random(65536), _random(1 << 24)
        places = [("the same processor", own, partial(np.negative, small, np.empty_like(small)), 20)]
        if other is not None:
            places.append(("another processor", other, partial(np.negative, large, np.empty_like(large)), 1))
        for place, cpu, run, calls in places:
            run()
            quiet = alternate(run, run, 1.5, calls)
            with load(cpu):
                loaded = alternate(run, run, 1.5, calls)
            blocks = statistics.median(loaded[1]) / statistics.median(quiet[0]) - 1
            pairs = [b / a for half in (quiet, loaded) for a, b in zip(*half, strict=True)]
            numbers.append(number(f"load on {place}: first all of A, then all of B", blocks, "%"))
            numbers.append(number(f"load on {place}: A and B in turns", statistics.median(pairs) - 1, "%"))
            halves = zip(("A quiet", "B quiet", "A loaded", "B loaded"), (*quiet, *loaded), strict=True)
            raw |= {f"{place}: {name}": samples for name, samples in halves}
    return {"numbers": numbers, "raw": raw}


def _every_fourth(work: Run, share: float) -> Run:
    """A call that is slower by ``share`` every fourth time."""
    calls = itertools.cycle([waiting(work, 0.0)] * 3 + [waiting(work, share)])
    return lambda: next(calls)()


def statistic() -> dict[str, Any]:
    """A neighbour that works a fifth of the time; then a change that only every fourth call shows."""
    said: dict[str, Callable[[Sequence[float]], float]] = {
        "min": min, "median": statistics.median, "mean": statistics.fmean,
    }  # fmt: skip
    with pinned() as (own, _):
        x = _random(65536)
        work = partial(np.negative, x, np.empty_like(x))
        quiet: list[float] = []
        loaded: list[float] = []
        for _ in range(1 if quick() else 4):
            quiet += alternate(work, work, 0.4, 20)[0]
            with load(own, 0.005, 0.02):
                loaded += alternate(work, work, 0.4, 20)[0]
        plain, slower = alternate(_every_fourth(work, 0.0), _every_fourth(work, 0.2), 1.0, 1)
    numbers = [number(f"{name} under a neighbour's load", f(loaded) / f(quiet) - 1, "%") for name, f in said.items()]
    numbers += [
        number(f"{name}, if every fourth call is 20 % slower", f(slower) / f(plain) - 1, "%")
        for name, f in said.items()
    ]
    raw = {"quiet": quiet, "loaded": loaded, "plain": plain, "every fourth call slower": slower}
    return {"numbers": numbers, "raw": raw}


BIASES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "granularity": ("Calls in one reading of the clock", granularity),
    "content": ("What the input holds", content),
    "cache": ("What the caches hold", cache),
    "allocation": ("Who allocates the output", allocation),
    "order": ("In blocks or in turns, when a neighbour starts", order),
    "statistic": ("Minimum, median or mean", statistic),
}


def main() -> int:
    name, path = sys.argv[1], Path(sys.argv[2])
    title, run = BIASES[name]
    try:
        found = run()
    except Unavailable as error:
        found = {"skipped": str(error)}
    found["raw"] = {label: thin(samples, 60) for label, samples in found.get("raw", {}).items()}
    path.write_text(json.dumps({"name": name, "title": title} | found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
