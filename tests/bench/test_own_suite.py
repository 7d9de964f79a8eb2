"""geoact's own suite: every activation is a case that checks itself, every bar of the design a row with its limit."""

import sys
from pathlib import Path

import geoact
import numpy as np
import pytest
from geoact.bench import runner
from geoact.bench.suite import load
from geoact.bench.timing import Devices, Settings
from support.simulated import RULE, SimulatedClock

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SUITE = load(str(BENCHMARKS / "suite.py"))
MODULE = sys.modules[SUITE.cases[next(iter(SUITE.cases))].make.__module__]
cases, peers = MODULE.cases, MODULE.peers
SMALL = {
    "64Ki": (1 << 12,), "1Mi": (3 << 12,), "2Mi": (3000,), "8Mi": (5000,), "32Mi": (1 << 13,),
    "1024x1024": (24, 32), "4096x4096": (33, 70),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Everything on little data, and two processors whatever the machine is doing."""
    for size, shape in SMALL.items():
        monkeypatch.setitem(MODULE.SIZES, size, shape)
    monkeypatch.setattr(MODULE, "processors_to_be_had", lambda: 2.0)


@pytest.fixture
def uncompiled(monkeypatch):
    """Compiling takes a minute, and torch's own compiler warns of itself."""

    def missing(*_):
        raise MODULE.Unavailable("torch.compile: left out of this test")

    monkeypatch.setitem(peers.PEERS, "torch.compile", missing)


def groups():
    return [family.make() for family in SUITE.families]


# --- cases ----------------------------------------------------------------------------------------


def test_every_activation_is_measured_in_both_directions_with_and_without_statistics():
    for name in geoact.activations():
        for direction in ("forward", "backward"):
            for statistics in ("none", "tensor"):
                assert f"{direction}[activation={name},dtype=float32,size=64Ki,statistics={statistics}]" in SUITE.cases
        for dtype in cases.DTYPES:
            assert f"forward[activation={name},dtype={dtype},size=64Ki,statistics=tensor]" in SUITE.cases


def test_every_case_says_all_of_its_axes():
    assert {tuple(case.axes) for case in SUITE.cases.values()} == {("activation", "dtype", "size", "statistics")}
    chosen = SUITE.select(axes=[("size", "2Mi"), ("activation", "relu"), ("dtype", "float32")])
    assert len(list(chosen)) == 4


@pytest.mark.parametrize("name", SUITE.cases)
def test_a_case_is_right_and_gives_the_same_output_again(name, small):
    call = SUITE.cases[name].prepare()
    first = call.check()
    assert isinstance(first, int)
    call.runs[0]()
    assert call.check() == first


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("per", [None, "tensor"])
def test_bytes_are_those_of_the_arrays(dtype, per):
    size = 1000 * cases.DTYPES[dtype].itemsize
    forward = cases.Pass("gelu", (1000,), dtype, per=per).call()
    assert (forward.read, forward.written, forward.threads) == (size, size, 1)
    for name in ("gelu", "sigmoid"):  # one reads x, the other y
        backward = cases.Pass(name, (1000,), dtype, "backward", per).call()
        assert (backward.read, backward.written) == (2 * size, size)


def test_operations_are_claimed_where_the_formula_says_them_and_not_elsewhere():
    assert set(cases.OPERATIONS) <= set(geoact.activations())
    assert cases.Pass("relu", (1000,)).call().flops == 1000
    assert cases.Pass("hardswish", (1000,)).call().flops == 5000
    for other in (
        cases.Pass("sigmoid", (1000,)), cases.Pass("relu", (1000,), per="tensor"),
        cases.Pass("relu", (1000,), direction="backward"),
    ):  # fmt: skip
        assert other.call().flops == 0


class Wrong:
    """A row that computes something else than it promises."""

    def __init__(self, row):
        self._row = row

    def __getattr__(self, name):
        return getattr(self._row, name)

    def __call__(self, x, *values, out, stats=None):
        self._row(x, *values, out=out, stats=stats)
        out *= np.float32(1.001)
        return out

    def backward(self, dy, *values, out, stats=None, **saved):
        self._row.backward(dy, *values, out=out, stats=stats, **saved)
        out *= np.float32(1.001)
        return out


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_kernel_that_is_wrong_by_a_thousandth_is_found(direction, monkeypatch):
    cases.Pass("gelu", (1000,), direction=direction).call().check()
    right = geoact.get
    monkeypatch.setattr(cases.geoact, "get", lambda name: Wrong(right(name)))
    call = cases.Pass("gelu", (1000,), direction=direction).call()
    with pytest.raises(AssertionError):
        call.check()


class Mismeasured(Wrong):
    """A row whose values are right and whose record is that of other data."""

    def __call__(self, x, *values, out, stats=None):
        self._row(x * np.float32(1.01), *values, stats=stats)
        return self._row(x, *values, out=out)

    def backward(self, dy, *values, out, stats=None, **saved):
        self._row.backward(dy * np.float32(1.01), *values, stats=stats, **saved)
        return self._row.backward(dy, *values, out=out, **saved)


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_statistics_that_are_wrong_by_a_hundredth_are_found(direction, per, monkeypatch):
    right = geoact.get
    cases.Pass("gelu", (30, 50), direction=direction, per=per).call().check()
    monkeypatch.setattr(cases.geoact, "get", lambda name: Mismeasured(right(name)))
    call = cases.Pass("gelu", (30, 50), direction=direction, per=per).call()
    with pytest.raises(AssertionError):
        call.check()


def test_the_setting_is_one_thread():
    geoact.set_num_threads(2)
    SUITE.setup()
    assert geoact.num_threads() == 1


# --- bars -----------------------------------------------------------------------------------------

LIMITS = {
    "ReLU + statistics vs the best copy": "<= 1.1",
    "sigmoid + statistics vs the best copy": "<= 1.8",
    "ReLU + statistics, x and y misaligned by 4 bytes vs aligned": "<= 1.1",
    "ReLU + statistics, x and y misaligned by 16 bytes vs aligned": "<= 1.1",
    "sigmoid + statistics vs torch without": "<= 1",
    "sigmoid without statistics vs torch": "<= 0.6",
    "torch eager, sigmoid + statistics vs geoact": ">= 30",
    "torch eager, relu + statistics vs geoact": ">= 30",
    "torch.compile, sigmoid + statistics vs geoact": ">= 8",
    "torch.compile, relu + statistics vs geoact": ">= 8",
    "relu per channel vs per tensor": "<= 1.5",
    "sigmoid per channel vs per tensor": "<= 1.5",
    "relu backward + GradientStats vs the best 2-read-1-write kernel": "<= 1.2",
    "sigmoid backward + GradientStats vs the best 2-read-1-write kernel": "<= 1.2",
    "silu backward + GradientStats vs the best 2-read-1-write kernel": "<= 1.2",
    "relu + statistics, bfloat16 vs float32, L2": "<= 1",
    "sigmoid + statistics, bfloat16 vs float32, L2": "<= 1",
    "relu + statistics, bfloat16 vs float32, 32 Mi elements": "<= 1",
    "sigmoid + statistics, bfloat16 vs float32, 32 Mi elements": "<= 1",
    "one call without statistics": "<= 1.5 us",
    "one call with statistics": "<= 3 us",
    "sigmoid + statistics: speed of 2 threads vs 1": ">= 1.7",
    "gelu + statistics: speed of 2 threads vs 1": ">= 1.7",
}
"""What the design asks of a CPU, by the title of the row."""


def test_every_bar_of_the_design_is_a_row_with_its_limit(small, uncompiled):
    found = {bar.title: bar.limit for group in groups() for bar in group.bars if bar.limit}
    assert found == LIMITS


def test_a_bar_is_made_of_contenders_that_are_there_or_say_why(small, uncompiled):
    for group in groups():
        names = {contender.name for contender in group.contenders}
        assert len(names) == len(group.contenders), group.name
        assert not names & set(group.missing), group.name
        for bar in group.bars:
            for name in (bar.timed, *bar.against):
                assert name in names or group.missing[name], f"{group.name}: {name}"


def test_names_of_groups_are_different_and_families_are_what_may_be_chosen(small, uncompiled):
    names = [group.name for group in groups()]
    assert len(set(names)) == len(names)
    assert {family.name for family in SUITE.families} == {
        "memory", "cache", "alignment", "channel", "backward", "narrow", "peers", "call", "threads",
    }  # fmt: skip


def test_everything_runs_and_is_right(small, uncompiled):
    """On a clock that says the same of all: no bar is judged here, but every check is made and every call."""
    geoact.set_num_threads(1)
    settings = Settings(rule=RULE, shortest=0.0)
    document = runner.run(
        SUITE, settings, environment={}, cases=[], devices=Devices(settings, {"cpu": SimulatedClock()}),
        group_seconds=60,
    )  # fmt: skip
    assert runner.failures(document) == []
    missing = {name for taken in document["groups"].values() for name in taken.get("missing", {})}
    assert all(any(word in name for word in ("torch", "numexpr", "onnxruntime", "stream")) for name in missing)
    rows = {row["bar"]: row for row in document["rows"]}
    assert set(LIMITS) <= set(rows)
    assert rows["ReLU + statistics vs the best copy"]["median"] == 1
    assert geoact.num_threads() == 1


def test_the_best_copy_has_ordinary_and_non_temporal_stores_among_it(small):
    found = {family.name: family for family in SUITE.families}
    memory, backward = found["memory"].make(), found["backward"].make()
    for group, names in ((memory, ("np.copyto", "memcpy", "stream copy_nt")), (backward, ("stream merge_nt",))):
        assert all(name in group.ceilings or group.missing[name] for name in names)
        assert set(group.bars[0].against) == set(group.ceilings)
    size = 4 * SMALL["32Mi"][0]
    assert (memory.bytes_moved, backward.bytes_moved) == (2 * size, 3 * size)


def test_without_two_processors_threads_are_not_measured(monkeypatch):
    monkeypatch.setattr(MODULE, "processors_to_be_had", lambda: 1.2)
    monkeypatch.setitem(MODULE.SIZES, "1Mi", (4096,))
    group = MODULE.threads()
    assert group.contenders == []
    assert set(group.missing.values()) == {
        "two busy threads got 1.20 processors: too few, or other work has them"
    }  # fmt: skip


def test_the_number_of_threads_is_set_ahead_of_every_sample_and_put_back(small):
    group = MODULE.threads()
    for contender in group.contenders:
        contender.before()
        assert str(geoact.num_threads()) == contender.name[-1]
    group.after()
    assert geoact.num_threads() == 1
