"""The ceilings of a CPU case: what only moves the same bytes, the fastest of several ways, found by a race.

A case is held against a kernel with its kind of traffic: copy where it reads about as much as it writes, merge (two
streams read, one written) where it reads more, read or fill where it does one of the two alone. Contestants are
``np.copyto``, C ``memcpy`` and the loops of csrc/stream with ordinary and with non-temporal stores; they move the same
number of bytes as the case, with as many threads as it declares.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from geoact.bench.clocks import HostClock
from geoact.bench.contenders import Contender, Unavailable

ALIGNED = 64
RACE = 5  # samples of every contestant
SMALL = 1 << 20
"""Bytes below which a copy on a CPU says little: its call takes as long as moving them, and where two small arrays lie
moves its time by tens of per cents."""


@dataclass(frozen=True)
class Traffic:
    """Bytes that one call reads and writes, each counted once, and the threads that do it."""

    read: int
    written: int
    threads: int = 1

    @property
    def total(self) -> int:
        """Bytes moved."""
        return self.read + self.written

    @property
    def kind(self) -> str:
        """The kernel that has this kind of traffic: copy, merge, read or fill."""
        if self.written == 0:
            return "read"
        if self.read == 0:
            return "fill"
        return "copy" if self.read < 1.5 * self.written else "merge"

    @property
    def bounded(self) -> bool:
        """Whether nothing with this traffic can beat that kernel: it has the same ratio of reads to writes."""
        ratio = {"read": 0.0, "fill": 0.0, "copy": 1.0, "merge": 2.0}[self.kind]
        return self.kind in ("read", "fill") or abs(self.read / self.written - ratio) <= 0.1 * ratio


def streams() -> ctypes.CDLL:
    """The compiled loops, of the best instruction set that this processor has. Raises Unavailable without them."""
    return _streams(Path(__file__).parent)


@cache
def _streams(folder: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(folder / "_stream_baseline.so"))
        library.best.restype = ctypes.c_char_p  # asked of the one that runs everywhere
        best = library.best().decode()
        if best != "baseline":
            library = ctypes.CDLL(str(folder / f"_stream_{best}.so"))
    except OSError as error:
        raise Unavailable(f"the compiled copy kernels: {error}") from error
    address, size = ctypes.c_void_p, ctypes.c_size_t
    for name, arrays in {"copy": 2, "merge": 3, "fill": 1}.items():
        for variant in (name, f"{name}_nt"):
            function = getattr(library, variant)
            function.argtypes, function.restype = [*([address] * arrays), size], None
    library.read.argtypes, library.read.restype = [address, size], ctypes.c_uint64
    return library


def aligned(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes that begin at a multiple of 64, already mapped."""
    whole = np.ones(size + ALIGNED, np.uint8)
    start = -whole.ctypes.data % ALIGNED
    return whole[start : start + size]


@lru_cache(maxsize=2)
def _buffers(size: int, streams_read: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], ...]:
    """Arrays of ``size`` bytes: those that are read, random, and the one that is written."""
    random = np.random.default_rng(0)
    read = []
    for _ in range(streams_read):
        data = aligned(size)
        data[...] = np.frombuffer(random.bytes(size), np.uint8)
        read.append(data)
    return (*read, aligned(size))


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="geoact-ceiling")


def _shared(call: Callable[[int, int], object], size: int, threads: int) -> Callable[[], object]:
    """``call(begin, end)`` on parts of whole vectors, one per thread; ctypes releases the interpreter lock."""
    if threads == 1:
        return lambda: call(0, size)
    step = -(-size // threads // ALIGNED) * ALIGNED
    parts = [(begin, min(begin + step, size)) for begin in range(0, size, step)]

    def run() -> None:
        waiting = [_helpers(threads - 1).submit(call, *part) for part in parts[1:]]
        call(*parts[0])
        for other in waiting:
            other.result()

    return run


def contestants(traffic: Traffic) -> list[Contender]:
    """Every way there is here to do nothing but this traffic. Raises Unavailable where there is none."""
    kind = traffic.kind
    reading = {"copy": 1, "merge": 2, "read": 1, "fill": 0}[kind]
    arrays = reading + (kind != "read")
    size = max(1, traffic.total // arrays)
    *sources, out = _buffers(size, reading)
    addresses = [a.ctypes.data for a in (sources if kind == "read" else [*sources, out])]

    def same() -> bool:
        if kind == "copy":
            return bool(np.array_equal(sources[0], out))
        if kind == "merge":
            return bool(np.array_equal(sources[0] ^ sources[1], out))
        return kind == "read" or bool((out == 0x5A).all())

    def of(name: str, call: Callable[[int, int], object]) -> Contender:
        run = _shared(call, size, traffic.threads)

        def check() -> None:
            out.fill(0)
            run()
            assert same(), f"{name} gives a wrong result"

        return Contender(name, [run], check)

    def compiled(name: str) -> Contender:
        function = getattr(streams(), name)
        return of(f"stream {name}", lambda b, e: function(*(a + b for a in addresses), e - b))

    found, absent = [], ""
    if kind == "copy":
        memcpy = ctypes.CDLL(None).memcpy
        memcpy.argtypes, memcpy.restype = [ctypes.c_void_p] * 2 + [ctypes.c_size_t], ctypes.c_void_p
        to, source = out.ctypes.data, sources[0].ctypes.data
        found += [
            of("np.copyto", lambda b, e: np.copyto(out[b:e], sources[0][b:e])),
            of("memcpy", lambda b, e: memcpy(to + b, source + b, e - b)),
        ]
    if kind == "merge":
        found.append(of("np.bitwise_xor", lambda b, e: np.bitwise_xor(sources[0][b:e], sources[1][b:e], out=out[b:e])))
    try:
        found += [compiled(name) for name in ((kind,) if kind == "read" else (kind, f"{kind}_nt"))]
    except Unavailable as error:
        absent = str(error)
    if not found:
        raise Unavailable(absent)
    return found


def named(found: Sequence[Contender], name: str) -> Contender:
    """The contestant of this name; raises Unavailable where there is none."""
    by_name = {contestant.name: contestant for contestant in found}
    if name not in by_name:
        raise Unavailable(f"there is no kernel {name} here, only {', '.join(by_name)}")
    return by_name[name]


@lru_cache(maxsize=64)
def _winner(traffic: Traffic, cold: bool) -> str:
    clock = HostClock(batches=1 if cold else 3, flush=flush if cold else None)
    times = {}
    for contestant in contestants(traffic):
        contestant.check()
        repeat = 1 if traffic.total > 1 << 22 else max(1, (1 << 21) // max(1, traffic.total))
        times[contestant.name] = statistics.median(clock.sample(contestant.runs, repeat).seconds for _ in range(RACE))
    return min(times, key=lambda name: times[name])


def ceiling(traffic: Traffic, *, cold: bool = False) -> Contender:
    """The fastest contestant; the race is run once per kind and size of traffic in a process."""
    return named(contestants(traffic), _winner(traffic, cold))


def last_level_cache() -> int:
    """Bytes of the largest cache of the first processor; 32 MiB where the system does not say."""
    sizes = [32 << 20]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KMG")) * unit)
    return max(sizes)


@cache
def _unrelated() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return aligned(2 * last_level_cache())


def flush() -> None:
    """Read twice the last-level cache, so that it holds nothing of what is timed."""
    data = _unrelated()
    try:
        streams().read(data.ctypes.data, data.nbytes)
    except Unavailable:
        data.sum()
