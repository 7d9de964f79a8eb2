"""Ceilings: which kernel a case is held against, that it moves the bytes it says, and that the fastest wins."""

import ctypes
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from geoact.bench import Traffic, Unavailable, ceilings
from support.simulated import SimulatedClock

FOLDER = Path(ceilings.__file__).parent
GUARD = 64
SIZES = (0, 1, 15, 16, 63, 64, 65, 255, 256, 257, 1000, 4099)


def supported():
    """The compiled libraries that this processor can run."""
    order = ["baseline", "avx2", "avx512"]
    if not (FOLDER / "_stream_baseline.so").exists():
        return []
    best = ctypes.CDLL(str(FOLDER / "_stream_baseline.so")).best
    best.restype = ctypes.c_char_p
    return order[: order.index(best().decode()) + 1]


@pytest.fixture(params=supported())
def library(request):
    return ctypes.CDLL(str(FOLDER / f"_stream_{request.param}.so"))


@pytest.fixture
def without_compiled_loops(monkeypatch):
    def missing():
        raise Unavailable("the compiled copy kernels: not built")

    monkeypatch.setattr(ceilings, "streams", missing)


def data(size, seed=0):
    array = ceilings.aligned(size)
    array[...] = np.random.default_rng(seed).integers(0, 256, size)
    return array


# --- the kind of traffic --------------------------------------------------------------------------


@pytest.mark.parametrize(("read", "written", "kind", "bounded"), [
    (100, 100, "copy", True),
    (105, 100, "copy", True),
    (120, 100, "copy", False),
    (50, 100, "copy", False),
    (149, 100, "copy", False),
    (150, 100, "merge", False),
    (200, 100, "merge", True),
    (219, 100, "merge", True),
    (400, 100, "merge", False),
    (100, 0, "read", True),
    (0, 100, "fill", True),
])  # fmt: skip
def test_a_case_is_held_against_its_kind_of_traffic(read, written, kind, bounded):
    traffic = Traffic(read, written)
    assert (traffic.kind, traffic.bounded, traffic.total) == (kind, bounded, read + written)


# --- the compiled loops ---------------------------------------------------------------------------


def test_every_library_that_this_processor_can_run_is_there():
    if not (FOLDER / "_stream_baseline.so").exists():
        pytest.skip("the compiled copy kernels are not built")
    assert supported()[0] == "baseline"
    assert all((FOLDER / f"_stream_{isa}.so").exists() for isa in supported())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["copy", "copy_nt", "merge", "merge_nt", "fill", "fill_nt"])
def test_a_loop_writes_its_bytes_and_no_others(library, name, size):
    a, b = data(size + GUARD, 1), data(size + GUARD, 2)
    out = ceilings.aligned(size + GUARD)
    out.fill(0x33)
    sources = {"copy": [a], "merge": [a, b], "fill": []}[name.removesuffix("_nt")]
    expected = {"copy": a, "merge": a ^ b, "fill": np.full(size + GUARD, 0x5A, np.uint8)}[name.removesuffix("_nt")]
    arguments = [ctypes.c_void_p(array.ctypes.data) for array in (*sources, out)]
    function = getattr(library, name)
    function.restype = None
    function(*arguments, ctypes.c_size_t(size))
    np.testing.assert_array_equal(out[:size], expected[:size])
    np.testing.assert_array_equal(out[size:], 0x33)


@pytest.mark.parametrize("size", SIZES)
def test_reading_reads_every_byte(library, size):
    """A byte that changes changes what is returned."""
    a = data(size)
    library.read.restype = ctypes.c_uint64

    def folded():
        return library.read(ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(size))

    before = folded()
    for place in {0, size // 2, size - 1} & set(range(size)):
        a[place] ^= 1
        assert folded() != before
        a[place] ^= 1
    assert folded() == before


# --- the contestants ------------------------------------------------------------------------------

TRAFFIC = [(4096, 4096), (4097, 4099), (8192, 4096), (8190, 4095), (5000, 0), (0, 5001), (1, 1), (100_003, 99_999)]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("read", "written"), TRAFFIC)
def test_every_contestant_is_right_for_any_size_and_number_of_threads(read, written, threads):
    contestants = ceilings.contestants(Traffic(read, written, threads))
    assert len({c.name for c in contestants}) == len(contestants) >= 1
    for contestant in contestants:
        contestant.check()


def test_ordinary_and_non_temporal_stores_take_part():
    if not supported():
        pytest.skip("the compiled copy kernels are not built")
    names = [c.name for c in ceilings.contestants(Traffic(1 << 16, 1 << 16))]
    assert names == ["np.copyto", "memcpy", "stream copy", "stream copy_nt"]
    names = [c.name for c in ceilings.contestants(Traffic(1 << 17, 1 << 16))]
    assert names == ["np.bitwise_xor", "stream merge", "stream merge_nt"]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("read", "written", "arrays"), [(3000, 3000, 2), (6000, 3000, 3)])
def test_a_contestant_moves_as_many_bytes_as_the_case(read, written, arrays, threads, monkeypatch):
    """What NumPy's one is given, counted: every part once, of arrays that are together as large as the traffic."""
    name, moved = {2: "copyto", 3: "bitwise_xor"}[arrays], []
    function = getattr(np, name)

    def counted(*given, **named):
        out = named["out"] if named else given[0]
        moved.append(out.nbytes * arrays)
        return function(*given, **named)

    contestant = next(c for c in ceilings.contestants(Traffic(read, written, threads)) if c.name == f"np.{name}")
    monkeypatch.setattr(ceilings.np, name, counted)
    contestant.runs[0]()
    assert sum(moved) == read + written
    assert len(moved) == threads


def test_more_threads_than_vectors_are_not_used():
    for contestant in ceilings.contestants(Traffic(70, 70, 16)):
        contestant.check()


def test_a_wrong_copy_is_found(monkeypatch):
    contestant = next(c for c in ceilings.contestants(Traffic(4096, 4096)) if c.name == "np.copyto")
    monkeypatch.setattr(ceilings.np, "copyto", lambda to, source: None)
    with pytest.raises(AssertionError, match=r"np\.copyto gives a wrong result"):
        contestant.check()


def test_without_the_compiled_loops_numpy_and_memcpy_are_left(without_compiled_loops):
    assert [c.name for c in ceilings.contestants(Traffic(64, 64))] == ["np.copyto", "memcpy"]
    assert [c.name for c in ceilings.contestants(Traffic(128, 64))] == ["np.bitwise_xor"]
    for read, written in ((64, 0), (0, 64)):
        with pytest.raises(Unavailable, match="the compiled copy kernels: not built"):
            ceilings.contestants(Traffic(read, written))


def test_libraries_that_are_not_built_are_named(tmp_path):
    with pytest.raises(Unavailable, match="the compiled copy kernels: .*_stream_baseline"):
        ceilings._streams(tmp_path)


# --- the race -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fastest", ["np.copyto", "memcpy"])
@pytest.mark.parametrize("cold", [False, True])
def test_the_fastest_is_the_ceiling(monkeypatch, fastest, cold):
    """On a clock that knows the contestants by the order in which they are timed."""
    traffic, clocks = Traffic(4096 + 64 * cold, 4096 + (fastest == "memcpy")), []
    names = [c.name for c in ceilings.contestants(traffic)]

    class Clock(SimulatedClock):
        def __init__(self, batches, flush):
            super().__init__()
            self.batches, self.flush = batches, flush
            clocks.append(self)

        def sample(self, runs, repeat):
            self.copy = 1.0 if names[self.taken // ceilings.RACE] == fastest else 1.5
            return super().sample(runs, repeat)

    monkeypatch.setattr(ceilings, "HostClock", Clock)
    ceilings._winner.cache_clear()
    try:
        assert ceilings.ceiling(traffic, cold=cold).name == fastest
        assert ceilings.ceiling(traffic, cold=cold).name == fastest
    finally:
        ceilings._winner.cache_clear()
    (clock,) = clocks  # one race, although it was asked for twice
    assert clock.taken == ceilings.RACE * len(names)
    assert (clock.flush is ceilings.flush) == cold


def test_a_wrong_contestant_cannot_win(monkeypatch):
    traffic = Traffic(4096, 4097)
    monkeypatch.setattr(ceilings.np, "copyto", lambda to, source: None)
    ceilings._winner.cache_clear()
    with pytest.raises(AssertionError, match=r"np\.copyto gives a wrong result"):
        ceilings.ceiling(traffic)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 64, 4097])
def test_memory_begins_at_a_multiple_of_64(size):
    array = ceilings.aligned(size)
    assert (array.ctypes.data % 64, array.nbytes) == (0, size)


def test_flushing_reads_twice_the_last_level_cache(monkeypatch):
    read = []
    monkeypatch.setattr(ceilings, "streams", lambda: SimpleNamespace(read=lambda address, size: read.append(size)))
    monkeypatch.setattr(ceilings, "last_level_cache", lambda: 1 << 20)
    ceilings._unrelated.cache_clear()
    try:
        ceilings.flush()
    finally:
        ceilings._unrelated.cache_clear()
    assert read == [2 << 20]


def test_flushing_needs_no_compiled_loop(monkeypatch, without_compiled_loops):
    read = []
    monkeypatch.setattr(ceilings, "_unrelated", lambda: SimpleNamespace(
        ctypes=SimpleNamespace(data=0), nbytes=0, sum=lambda: read.append("all")))  # fmt: skip
    ceilings.flush()
    assert read == ["all"]


def test_the_last_level_cache_is_that_of_the_system_or_32_mebibytes():
    assert ceilings.last_level_cache() >= 32 << 20
    caches = Path("/sys/devices/system/cpu/cpu0/cache")
    if not list(caches.glob("index*/size")):
        assert ceilings.last_level_cache() == 32 << 20
