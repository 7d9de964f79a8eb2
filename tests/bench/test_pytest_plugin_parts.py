"""The parts of the pytest plugin that need no pytest run: selection, devices of arrays, tables, pooled samples."""

import statistics
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from geoact.bench import environment, runner
from geoact.bench.gate import baseline
from geoact.bench.gate.decide import Judged
from geoact.bench.pytest_plugin import arrays, fixture, section
from geoact.bench.pytest_plugin.recorder import pooled
from geoact.bench.pytest_plugin.selection import Selection

# --- selection ------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    (tmp_path / "tests").mkdir()
    for name in ("here", "ignored"):
        (tmp_path / "tests" / f"test_{name}.py").touch()
    return tmp_path


def select(root, *paths, **options):
    found = [(root / path.partition("::")[0], path.partition("::")[2]) for path in paths or (".",)]
    defaults = {
        "files": {"tests", "tests/test_here.py"},
        "collected": {"tests/test_here.py::test_a", "tests/test_here.py::test_b[1]"},
        "chosen": {"tests/test_here.py::test_a"},
    }
    return Selection(root, [(path.resolve(), inside) for path, inside in found], **(defaults | options))


GONE = "tests/test_here.py::test_gone[1]"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["."], True),
        (["tests"], True),
        (["tests/test_here.py"], True),
        (["tests/test_here.py::test_gone"], True),
        (["tests/test_here.py::test_gone[1]"], True),
        (["tests/test_here.py::test_go"], False),
        (["tests/test_here.py::test_a"], False),
        (["tests/test_here.py::test_a", "tests"], True),
        (["other"], False),
    ],
)
def test_a_benchmark_that_is_gone_was_meant_where_a_path_leads_to_its_place(root, paths, expected):
    assert select(root, *paths).expected([GONE]) == ([GONE] if expected else [])


def test_what_was_collected_is_meant_if_it_was_chosen(root):
    names = ["tests/test_here.py::test_a", "tests/test_here.py::test_b[1]"]
    assert select(root).expected(names) == names[:1]


def test_a_file_that_was_not_looked_at_is_not_missed_and_one_that_was_deleted_is(root):
    names = ["tests/test_ignored.py::test_a", "tests/test_deleted.py::test_a"]
    assert select(root).expected(names) == names[1:]


def test_a_class_is_a_place_too(root):
    name = "tests/test_here.py::TestSpeed::test_gone"
    assert select(root, "tests/test_here.py::TestSpeed").expected([name]) == [name]
    assert select(root, "tests/test_here.py::TestOther").expected([name]) == []


def test_what_is_deselected_by_name_is_not_missed(root):
    assert select(root, deselected=("tests/test_here.py::test_gone",)).expected([GONE]) == []


def test_under_a_narrowing_option_nobody_can_tell(root):
    selection = select(root, narrowed="-k")
    assert selection.expected([GONE, "tests/test_here.py::test_a"]) == ["tests/test_here.py::test_a"]
    assert selection.unknown == [GONE]


# --- devices --------------------------------------------------------------------------------------


class Array:
    def __init__(self, kind):
        self.kind = kind

    def __dlpack_device__(self):
        if self.kind is None:
            raise ValueError("cannot be exchanged")
        return (self.kind, 0)


class OlderArray:
    __cuda_array_interface__ = None  # its being there is enough


@pytest.mark.parametrize(
    ("values", "device"),
    [
        ([], None),
        ([1, "x", None, int], None),
        ([np.ones(2)], "cpu"),
        ([1, [{"x": np.ones(2)}]], "cpu"),
        ([np.ones(2), Array(2)], "cuda"),
        ([Array(13)], "cuda"),
        ([Array(3)], "cpu"),
        ([Array(7)], None),
        ([Array(None)], None),
        ([(OlderArray(),)], "cuda"),
        ([Array], None),
    ],
)
def test_the_device_is_that_of_the_arrays(values, device):
    assert arrays.device_of(values) == device


def test_the_driver_tells_which_gpu_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "DRIVER", tmp_path)
    assert arrays.models() == []
    for number, text in enumerate(["Model: \t\t NVIDIA Test 100\nIRQ: 1\n", "IRQ: 2\n"]):
        (tmp_path / f"0000:0{number}").mkdir()
        (tmp_path / f"0000:0{number}" / "information").write_text(text)
    assert arrays.models() == ["NVIDIA Test 100", "NVIDIA GPU"]
    assert arrays.gpu_here()


def test_an_identity_that_was_stored_is_that_of_the_environment_it_is_of():
    described = {"cpu": "C", "processors": 2, "system": "Linux", "gpu": {"name": "NVIDIA Test", "uuid": "GPU-1"}}
    identity = environment.identity(described)
    assert environment.identity(identity) == identity
    assert environment.differences(identity, described) == []
    assert environment.differences(identity, {**described, "gpu": {"name": "Other"}}) == [
        "gpu was NVIDIA Test, is Other"
    ]


# --- samples --------------------------------------------------------------------------------------


def entry(ns, copied=(), **more):
    found = {"name": "a", "axes": {}, "status": "measured", "read": 4000, "flops": 1000}
    return found | runner.figures(ns, copied, moved=4000, flops=1000) | more


def test_figures_are_those_of_the_samples():
    found = runner.figures([200.0, 100.0, 400.0], [100.0, 100.0, 100.0], moved=4000, flops=1000)
    assert (found["rounds"], found["GB/s"], found["GFLOP/s"]) == (3, 20.0, 5.0)
    assert found["score"]["median"] == statistics.median([0.5, 1.0, 0.25])
    assert found["summary"]["median"] == 200.0
    assert "score" not in runner.figures([1.0], [])


def test_pooled_measurements_keep_every_sample_and_every_flag():
    first = entry([300.0, 300.0], [100.0, 100.0], flags=["cut short"])
    second = entry([100.0, 200.0, 200.0], [100.0, 100.0, 100.0], flags=["throttled"], stopped="quiet")
    whole = pooled([first, second])
    assert whole["ns"] == [300.0, 300.0, 100.0, 200.0, 200.0]
    assert (whole["rounds"], whole["measured"], whole["flags"]) == (5, 2, ["cut short", "throttled"])
    assert whole["summary"]["median"] == 200.0
    assert whole["score"]["median"] == 0.5
    assert whole["GB/s"] == 20.0


def test_a_pool_in_which_one_went_wrong_is_that_one():
    wrong = {"name": "a", "axes": {}, "status": "error", "reason": "WRONG RESULT"}
    assert pooled([entry([1.0]), wrong]) is wrong


def test_samples_without_a_copy_in_one_measurement_are_held_against_none():
    assert "score" not in pooled([entry([1.0], [1.0]), entry([2.0])])


def test_a_baseline_of_before_clocks_were_stored_fits_every_clock(tmp_path):
    path = tmp_path / "base.json"
    found = baseline.Baseline({"cpu": "C"}, {"a": [baseline.Session([0.5], clock="GPU")]})
    found.save(path)
    assert baseline.Baseline.load(path) == found
    path.write_text(path.read_text().replace(',\n    "clock": "GPU"', ""))
    (session,) = baseline.Baseline.load(path).cases["a"]
    assert session.clock is None


def test_nobody_traces_what_is_timed():
    seen, before = [], (sys.gettrace(), sys.getprofile())

    def tracer(*event):
        return None

    try:
        sys.settrace(tracer)
        sys.setprofile(tracer)
        with suppress(KeyError), fixture._untraced():
            seen.append((sys.gettrace(), sys.getprofile()))
            raise KeyError
        seen.append((sys.gettrace(), sys.getprofile()))
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    assert seen == [(None, None), (tracer, tracer)]


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(0.5, "0.5 ns"), (999.4, "999 ns"), (999.9, "1 us"), (12_345, "12.3 us"), (999_900, "1 ms"), (2.5e9, "2.5 s"),
     (1234e9, "1234 s")],
)  # fmt: skip
def test_a_time_has_three_digits_and_a_unit(nanoseconds, shown):
    assert section.duration(nanoseconds) == shown


def test_a_row_says_the_verdict_and_what_must_be_known():
    judged = Judged("a", "regressed", change=0.25, low=0.2, high=0.3, delta=0.03, notes=["a note"])
    measured = entry([200.0] * 3, [100.0] * 3, clock="CPU", flags=["cut short"], measured=3)
    assert section.row("a", measured, judged, clock=True) == (
        "a", "200 ns", "20", "50.0 (50.0 .. 50.0)", "regressed +25.0% (limit 3.0%)",
        "CPU; cut short; measured 3 times; a note",
    )  # fmt: skip
    gone = Judged("b", "vanished", reason="it is gone")
    assert section.row("b", None, gone, clock=True) == ("b", "-", "-", "-", "vanished", "it is gone")


def test_columns_are_aligned_and_empty_ones_left_out():
    lines = section.aligned([("benchmark", "time", "verdict"), ("a", "1 us", ""), ("longer name", "10 us", "")])
    assert lines == ["benchmark     time", "a             1 us", "longer name  10 us"]


def test_the_package_that_pytest_loads_is_installed_under_the_name_of_its_entry_point():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\npytest_geoact = "pytest_geoact"' in text
    assert '"pytest_geoact" = "python/pytest_geoact"' in text
