"""CUDA devices behind the clock: CuPy's on a stand-in that records, torch's likewise, and which is found."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from geoact.bench import Unavailable, devices
from geoact.bench.clocks import Untimeable
from geoact.bench.device_clock import DeviceClock, device_clock
from geoact.bench.devices import FILL, cupy_device, find, torch_device
from geoact.bench.devices.cupy_device import OURS, CupyDevice
from geoact.bench.devices.torch_device import FASTEST, LONGEST, SHORTEST, SPARE, TorchDevice
from support.recording_cupy import USED, Recorder
from support.simulated_device import Evidence

CHOSEN, BORROWED = 0x7700, 0x5500  # addresses of streams


def no_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.fixture
def recorder(monkeypatch):
    """CuPy as a stand-in, and no torch."""
    made = Recorder()
    monkeypatch.setitem(sys.modules, "cupy", made.cupy)
    monkeypatch.setitem(sys.modules, "cupyx", made.cupyx)
    no_torch(monkeypatch)
    return made


def clock_of(device, recorder, cold=True):
    clock = DeviceClock(device, cold=cold, management=Evidence())
    recorder.log.clear()
    return clock


# --- CuPy -----------------------------------------------------------------------------------------


def test_what_is_used_of_cupy_exists(recorder, monkeypatch):
    def missing(modules):
        for path, names in USED.items():
            thing = modules[path.partition(".")[0]]
            for part in path.split(".")[1:]:
                thing = getattr(thing, part)
            yield from (f"{path}.{name}" for name in names if not hasattr(thing, name))

    absent = set(missing({"cupy": recorder.cupy, "cupyx": recorder.cupyx}))
    assert absent == {"cupy.cuda.Device.id", "cupy.ndarray.data"}  # the stand-ins have them once they are made
    monkeypatch.undo()
    modules = {name: pytest.importorskip(name) for name in ("cupy", "cupyx")}
    assert list(missing(modules)) == []


def test_every_kernel_of_the_source_is_used():
    source = cupy_device.SOURCE.read_text(encoding="utf-8")
    defined = set(re.findall(r"__global__ void (\w+)\(", source))
    launched = set(re.findall(r'_launch\("(\w+)"', Path(cupy_device.__file__).read_text(encoding="utf-8")))
    assert launched | {name for names in OURS.values() for name in names} == defined


def test_cupy_alone_times_in_this_order(recorder):
    device = CupyDevice()
    clock = clock_of(device, recorder)
    word = recorder.pinned[0]

    def run():
        assert not word[0], "released before everything was queued"
        recorder.queue("run")

    sample = clock.sample([run], 2)
    assert recorder.order == ["synchronize", "blocker", "flush", "event", "run", "run", "event", "wait"]
    assert recorder.streams == {0}
    assert (sample.seconds, sample.hertz) == (1e-3, 1.5e9)
    assert word[0] == 1


def test_everything_is_on_cupys_current_stream(recorder):
    device = CupyDevice()
    clock = clock_of(device, recorder)
    with recorder.cupy.cuda.Stream(CHOSEN):
        clock.sample([lambda: recorder.queue("run")], 1)
    assert recorder.streams == {CHOSEN}


def torch_with_stream(monkeypatch, address, initialised=True):
    torch = types.ModuleType("torch")
    stream = types.SimpleNamespace(cuda_stream=address)
    torch.cuda = types.SimpleNamespace(is_initialized=lambda: initialised, current_stream=lambda index: stream)
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.mark.parametrize("protocol", [True, False], ids=["CuPy 14", "CuPy 13"])
def test_everything_is_on_the_stream_that_torch_has_chosen(recorder, monkeypatch, protocol):
    device = CupyDevice()
    clock = clock_of(device, recorder)
    torch_with_stream(monkeypatch, BORROWED)
    if not protocol:
        monkeypatch.delattr(recorder.cupy.cuda.Stream, "from_external")
        recorder.cupy.cuda.ExternalStream = recorder.cupy.cuda.Stream
    clock.sample([lambda: recorder.queue("run", stream=BORROWED)], 1)
    assert recorder.streams == {BORROWED}
    device.kernels("copy")["cudaMemcpyAsync"](*(device.array(np.zeros(16, np.uint8)) for _ in range(2)))
    assert recorder.streams == {BORROWED}


@pytest.mark.parametrize(("address", "initialised"), [(0, True), (BORROWED, False)])
def test_torch_that_has_chosen_no_stream_leaves_it_to_cupy(recorder, monkeypatch, address, initialised):
    device = CupyDevice()
    clock = clock_of(device, recorder)
    torch_with_stream(monkeypatch, address, initialised)
    with recorder.cupy.cuda.Stream(CHOSEN):
        clock.sample([lambda: recorder.queue("run")], 1)
    assert recorder.streams == {CHOSEN}


def test_the_blocker_gets_what_it_needs_to_know(recorder):
    device = CupyDevice()
    clock_of(device, recorder)
    device.hold()
    ((_, _, (grid, block, arguments)),) = recorder.log
    assert (grid, block) == ((1,), (1,))
    word, report = recorder.pinned
    assert arguments == (word.ctypes.data, report.ctypes.data, cupy_device.LEAST_HELD, cupy_device.LONGEST_HELD)


def test_the_flush_reads_twice_the_cache_by_whole_blocks(recorder):
    recorder.properties["l2CacheSize"] = 200 << 20
    device = CupyDevice()
    device.flush()
    name, _, (grid, block, (_, vectors, _)) = recorder.log[-1]
    assert (name, grid, block, vectors * 16) == ("flush", (8 * 132,), (256,), 400 << 20)


def test_a_stream_that_was_not_held_back_long_enough_is_no_sample(recorder):
    device = CupyDevice()
    clock = clock_of(device, recorder, cold=False)
    with pytest.raises(Untimeable, match="waits for the device"):
        clock.sample([device.synchronize], 1)
    assert recorder.order.count("blocker") == 3


def test_a_device_whose_stream_cannot_be_held_back_is_not_used(recorder):
    recorder.works = False
    with pytest.raises(RuntimeError, match="a word that the host writes does not reach"):
        CupyDevice()


@pytest.mark.parametrize(("kind", "arrays"), [("copy", 2), ("merge", 3), ("read", 1), ("fill", 1)])
def test_every_kernel_covers_all_bytes_and_knows_where_they_are(recorder, kind, arrays):
    device = CupyDevice()
    size = 16 * 1025
    memory = [device.array(np.zeros(size, np.uint8)) for _ in range(arrays)]
    addresses = tuple(array.data.ptr for array in memory)
    kernels = device.kernels(kind)
    assert set(OURS[kind]) < set(kernels) or kind in ("merge", "read")
    for name in OURS[kind]:
        kernels[name](*memory)
        launched, _, (grid, block, arguments) = recorder.log[-1]
        assert (launched, grid, block) == (name, (2,), (256,))
        assert arguments[: arrays + 1] == (*addresses, 1025)
        assert arguments[arrays + 1 : arrays + 2] == ((1 << 32,) if kind == "read" else ())


def test_the_drivers_own_copy_and_fill_race_too(recorder):
    device = CupyDevice()
    a, c = (device.array(np.zeros(32, np.uint8)) for _ in range(2))
    device.kernels("copy")["cudaMemcpyAsync"](a, c)
    device.kernels("fill")["cudaMemsetAsync"](c)
    assert recorder.log[-2:] == [("memcpy", 0, (c.data.ptr, a.data.ptr, 32, 3)), ("memset", 0, (c.data.ptr, FILL, 32))]


def test_bytes_come_back_from_the_device_as_they_were(recorder):
    data = np.arange(64, dtype=np.uint8)
    assert np.array_equal(CupyDevice().host(CupyDevice().array(data)), data)


def test_the_facts_name_the_device(recorder):
    facts = CupyDevice().facts()
    assert facts["name"] == "NVIDIA Test"
    assert (facts["pci"], facts["capability"], facts["cuda"]) == ("0000:3B:00.0", "9.0", "13.1")
    assert facts["blocked_by"] == "a kernel that waits for the host"
    assert facts["reached_by"] == "CuPy 14.0"
    assert facts["persisting_l2"]


# --- torch ----------------------------------------------------------------------------------------


class FakeTorch(types.ModuleType):
    """Enough of torch for the device: ``now`` is the time of the host, ``log`` what was queued."""

    def __init__(self):
        super().__init__("torch")
        self.log, self.now, self.version = [], 0.0, types.SimpleNamespace(cuda="13.0")
        self.int32, self.int64, self.__version__ = "int32", "int64", "2.13"
        self.OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})
        properties = {"name": "NVIDIA Test", "uuid": "1-2", "L2_cache_size": 50 << 20, "multi_processor_count": 132}
        properties |= {"major": 9, "minor": 0, "total_memory": 80 << 30}
        self.cuda = types.SimpleNamespace(
            is_available=lambda: True,
            is_initialized=lambda: True,
            current_device=lambda: 0,
            current_stream=lambda index: types.SimpleNamespace(cuda_stream=0),
            get_device_properties=lambda index: types.SimpleNamespace(**properties),
            synchronize=lambda index: self.log.append("synchronize"),
            _sleep=lambda cycles: self.log.append(("sleep", cycles)),
            Event=lambda enable_timing: self,
        )

    def zeros(self, shape, **_):
        return shape

    def sum(self, data, **_):
        self.log.append(("flush", data * 4))

    def device(self, kind, index):
        return f"{kind}:{index}"

    def from_numpy(self, data):
        return self

    def to(self, device):
        raise self.OutOfMemoryError("CUDA out of memory")

    # as an event
    def record(self):
        self.log.append("event")

    def synchronize(self):
        self.log.append("wait")

    def elapsed_time(self, other):
        return 2.0


@pytest.fixture
def torch(monkeypatch):
    """Torch as a stand-in, and no CuPy."""
    made = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", made)
    monkeypatch.setitem(sys.modules, "cupy", None)
    return made


def torch_clock(torch, cold=True):
    clock = DeviceClock(TorchDevice("CuPy: none", now=lambda: torch.now), cold=cold, management=Evidence())
    torch.log.clear()
    return clock


def queueing(torch, seconds):
    """A run that takes so long to be queued, each time."""
    left = iter(seconds)

    def run():
        torch.now += next(left)

    return run


def sleeps(torch):
    return [entry[1] / FASTEST for entry in torch.log if entry[0] == "sleep"]


def test_torch_alone_times_in_this_order(torch):
    sample = torch_clock(torch).sample([lambda: torch.log.append("run")], 1)
    cycles = int(SPARE * SHORTEST * FASTEST)
    order = ["synchronize", ("sleep", cycles), ("flush", 256 << 20), "event", "run", "event", "wait"]
    assert torch.log == order
    assert (sample.seconds, sample.hertz) == (2e-3, None)


def test_a_sample_whose_queueing_took_too_long_is_taken_again_with_a_longer_sleep(torch):
    clock = torch_clock(torch)
    clock.sample([queueing(torch, [1e-3, 1e-3])], 1)
    assert sleeps(torch) == pytest.approx([SPARE * SHORTEST, SPARE * 1e-3])


def test_a_call_that_compiles_does_not_make_every_later_sleep_long(torch):
    clock = torch_clock(torch)
    run = queueing(torch, [30.0, *[0.0] * 100])
    for _ in range(60):
        clock.sample([run], 1)
    assert max(sleeps(torch)) == pytest.approx(SPARE * LONGEST)
    assert sleeps(torch)[-1] == pytest.approx(SPARE * SHORTEST)


def test_with_torch_too_what_waits_cannot_be_timed(torch):
    clock = torch_clock(torch)
    with pytest.raises(Untimeable, match="waits for the device"):
        clock.sample([queueing(torch, [1.0] * 3)], 1)
    assert len(sleeps(torch)) == 3


def test_the_facts_say_why_the_stream_only_sleeps(torch):
    facts = TorchDevice("CuPy: ImportError: gone").facts()
    assert facts["blocked_by"] == "torch.cuda._sleep (CuPy: ImportError: gone)"
    assert (facts["name"], facts["uuid"], facts["cuda"]) == ("NVIDIA Test", "1-2", "13.0")


def test_memory_that_torch_does_not_get_is_a_memory_error(torch):
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        TorchDevice().array(np.zeros(16, np.uint8))


def test_torchs_kernels_move_what_they_say():
    """Of the real torch, on tensors of the CPU."""
    torch = pytest.importorskip("torch.distributed") and pytest.importorskip("torch")
    device = torch_device.TorchDevice.__new__(torch_device.TorchDevice)
    device._torch = torch
    a, b, c = (torch.from_numpy(np.random.default_rng(i).integers(0, 256, 64).astype(np.uint8)) for i in range(3))
    for kind, arrays, right in (
        ("copy", (a, c), lambda: a),
        ("merge", (a, b, c), lambda: a ^ b),
        ("fill", (c,), lambda: torch.full((64,), FILL, dtype=torch.uint8)),
    ):
        (kernel,) = device.kernels(kind).values()
        kernel(*arrays)
        assert torch.equal(c, right())
    assert device.kernels("read") == {}
    assert np.array_equal(device.host(c[:8]), np.full(8, FILL, np.uint8))


# --- which one ------------------------------------------------------------------------------------


def test_cupy_is_preferred_and_torch_is_not_imported(recorder):
    assert isinstance(find(), CupyDevice)
    assert "torch" not in sys.modules


def test_torch_is_taken_where_cupy_is_not_there_and_says_why(torch):
    found = find()
    assert isinstance(found, TorchDevice)
    assert "CuPy: " in found.facts()["blocked_by"]
    assert "cupy" in found.facts()["blocked_by"]


def test_torch_is_taken_where_cupy_cannot_hold_the_stream_back(torch, monkeypatch):
    broken = Recorder()
    broken.works = False
    monkeypatch.setitem(sys.modules, "cupy", broken.cupy)
    monkeypatch.setitem(sys.modules, "cupyx", broken.cupyx)
    assert "RuntimeError: a word that the host writes" in find().facts()["blocked_by"]


def test_without_a_device_both_reasons_are_told_in_one_line(torch):
    torch.cuda.is_available = lambda: False
    with pytest.raises(Unavailable, match="no CUDA device can be timed: CuPy: .*; torch: RuntimeError: .* is False$"):
        device_clock(cold=True)


def test_a_long_error_is_one_line():
    assert devices.reason(RuntimeError("\n  first \n second")) == "RuntimeError: first"
    assert devices.reason(RuntimeError()) == "RuntimeError"


# --- importing ------------------------------------------------------------------------------------


def test_importing_the_clock_imports_no_framework(python):
    program = """
import sys
import geoact.bench.device_clock, geoact.bench.devices.cupy_device, geoact.bench.devices.torch_device
print(sorted({"torch", "cupy", "cupyx", "pynvml"} & set(sys.modules)))
"""
    assert python(program) == "[]\n"
