"""The comparison of harnesses: what follows from sessions, what a session is, and that all of it runs."""

import importlib.util
import inspect
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import harness_biases
import harness_kernels
import harness_session
import harnesses
from geoact.bench import environment, results
from geoact.bench.contenders import Unavailable
from harness_session import HARNESSES, Harness

NAMES = {f"{kernel}/{variant}" for kernel in harness_kernels.KERNELS for variant in harness_kernels.VARIANTS}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("HARNESSES_QUICK", "1")
    monkeypatch.setenv("HARNESSES_DEVICE", "cpu")


# --- what follows from sessions -----------------------------------------------------------------------------


def session(number, harness, plain, slowed, reported="min"):
    cases = {
        f"{kernel}/{variant}": {"reported": {reported: value}, "ns": [value], "n": 1}
        for kernel in harness_kernels.KERNELS
        for variant, value in (("plain", plain), ("slowed", slowed))
    }
    return {"harness": harness, "round": number, "seconds": 8.0, "cases": cases}


def comparison(plain, slowed, verdicts):
    cases = {}
    for kernel in harness_kernels.KERNELS:
        for variant, change, verdict in zip(harness_kernels.VARIANTS, (plain, slowed), verdicts, strict=True):
            cases[f"{kernel}/{variant}"] = {"change": change, "verdict": verdict}
    return {"seconds": 80.0, "cases": cases}


def test_every_two_sessions_are_a_gate_that_could_have_been():
    sessions = [session(0, "timeit", 100.0, 106.0), session(1, "timeit", 104.0, 109.0)]
    sessions.append(
        {"harness": "planted", "round": 0, "seconds": 1.0, "cases": dict.fromkeys(harness_kernels.KERNELS, 0.051)}
    )
    found = harnesses.rows({"sessions": sessions, "comparisons": []})
    assert [row["kernel"] for row in found] == list(harness_kernels.KERNELS)
    row = found[0]
    assert (row["sessions"], row["pairs"], row["spread"], row["seconds"]) == (2, 2, 0.04, 1.0)
    assert row["false_alarms"] == [0.5, 0.0, 0.0]  # 104 / 100 and 100 / 104, above 3, 5 and 10 %
    assert row["caught"] == [0.5, 0.5, 0.0]  # 109 / 100 and 106 / 104: never within a session
    assert row["seen"] == round((1.09 + 106 / 104) / 2 - 1, 4)
    assert row["planted"] == 0.051


def test_the_gate_is_told_by_its_estimates_and_its_verdicts():
    compared = [comparison(0.01, 0.06, ("same", "regressed")), comparison(-0.02, 0.04, ("open", "open"))]
    row = harnesses.rows({"sessions": [], "comparisons": compared})[0]
    assert (row["harness"], row["spread"]) == (harnesses.GATE, round(1.01 / 0.98 - 1, 4))
    assert row["verdicts"] == {"plain": ["same", "open"], "slowed": ["regressed", "open"]}
    assert row["caught"] == [1.0, 0.5, 0.0]
    assert row["seen"] == 0.05


def test_a_case_that_failed_in_a_session_is_in_no_pair():
    sessions = [session(n, "timeit", 100.0 + n, 105.0) for n in range(3)]
    sessions[1]["cases"]["add/plain"] = {"failed": "it raised"}
    found = {row["kernel"]: row for row in harnesses.rows({"sessions": sessions, "comparisons": []})}
    assert found["add"]["pairs"] == 2
    assert found["call"]["pairs"] == 6
    assert harnesses.rows({"sessions": sessions[:1], "comparisons": []}) == []


def test_time_is_spent_in_turns_and_not_overdrawn():
    clock = [0.0]
    costs, done = {"round": 30.0, "comparison": 80.0}, []
    for kind in harnesses.Budget(300.0, harnesses.LEAST, now=lambda: clock[0]).parts():
        done.append(kind)
        clock[0] += costs[kind]
    assert done == ["round", "round", "round", "comparison", "round", "round", "round"]
    assert clock[0] <= 300


def test_two_rounds_and_a_comparison_are_measured_however_short_the_time():
    parts = list(harnesses.Budget(-1.0, harnesses.LEAST, now=lambda: 0.0).parts())
    assert sorted(parts) == ["comparison", "round", "round"]


def test_samples_are_thinned_evenly_and_keep_their_ends():
    assert harness_session.thin(range(1000), 4) == [0, 333, 666, 999]
    assert harness_session.thin([1.23456789, 2.0], 4) == [1.23457, 2.0]


# --- the kernels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["cpu", "dry-run"])
@pytest.mark.parametrize("kernel", harness_kernels.KERNELS)
def test_a_kernel_gives_the_right_result_wherever_it_runs(monkeypatch, place, kernel):
    if place == "dry-run":
        pytest.importorskip("torch")
    monkeypatch.setenv("HARNESSES_DEVICE", place)
    made = harness_kernels.KERNELS[kernel]()
    made.check()
    assert (made.read + made.written > 0) == (kernel != "call")
    harness_kernels.prepared(f"{kernel}/slowed")()


def test_a_wrong_result_has_no_time():
    out = np.zeros(4, np.float32)
    check = harness_kernels._checked(lambda: out.fill(2), lambda: np.ones(4, np.float32), out)
    with pytest.raises(AssertionError, match="a wrong value"):
        check()


def test_a_slowed_call_counts_for_its_share_and_a_plain_one_for_nothing(monkeypatch):
    def work():
        calls.append(1)

    calls = []
    monkeypatch.setattr(harness_kernels, "fastest", lambda run: 1e-3 if run is work else 1e-5)
    for share, steps in ((0.0, 0), (0.05, 5000)):
        call = harness_kernels.waiting(work, share)
        assert len(inspect.getclosurevars(call).nonlocals["steps"]) == steps
        call()
    assert len(calls) == 2


def test_what_was_planted_is_measured():
    runs = []
    assert harness_kernels.planted(lambda: runs.append(1), 0.5, 0.0) > -1
    assert runs


def test_a_side_says_by_how_much_it_is_slowed(monkeypatch, tmp_path):
    assert harness_kernels.share_of("plain") == 0
    assert harness_kernels.share_of("slowed") == harness_kernels.SHARE
    (tmp_path / "planted_slowdown.py").write_text("SHARE = 0.25\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert (harness_kernels.share_of("plain"), harness_kernels.share_of("slowed")) == (0, 0.25)
    sys.modules.pop("planted_slowdown")


def test_every_session_has_an_order_of_its_own(monkeypatch):
    orders = []
    for seed in ("0", "1", "0"):
        monkeypatch.setenv("HARNESSES_SEED", seed)
        orders.append(harness_kernels.names())
    assert orders[0] == orders[2] != orders[1]
    assert set(orders[0]) == set(orders[1]) == NAMES


# --- sessions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timeit", "pytest-benchmark", "torch.utils.benchmark", "geoact bench"])
def test_a_session_holds_what_its_harness_reports_of_every_case(name):
    harness = HARNESSES[name]
    if harness.absent:
        pytest.skip(harness.absent)
    found = harness.session(harness)
    assert set(found) == NAMES
    for case, entry in found.items():
        if "failed" in entry:  # a loaded machine may make a copy slower than the case
            assert "of the best copy" in entry["failed"]
            continue
        wanted = set(harness.reports) - ({harness_session.COPIES} if case.startswith("call/") else set())
        assert set(entry["reported"]) == wanted
        assert 0 < len(entry["ns"]) <= harness_session.KEPT
        assert all(value > 0 for value in (*entry["ns"], *entry["reported"].values()))


def test_a_test_that_fails_under_pytest_benchmark_is_no_session():
    with pytest.raises(RuntimeError, match="pytest ended with 1"):
        harness_session.pytest_benchmark("def test_it(benchmark):\n    assert benchmark(int) == 1\n")


@pytest.fixture
def gpu_harnesses(monkeypatch):
    """The timers of Triton and CuPy, as far as they are used: they return milliseconds, and seconds."""
    asked = []

    def do_bench(run, return_mode):
        asked.append(return_mode)
        run()
        return [0.25, 0.5, 1.5]

    def benchmark(run, args, max_duration):
        run(*args)
        return types.SimpleNamespace(gpu_times=np.array([[1e-6, 3e-6]]))

    testing = types.SimpleNamespace(do_bench=do_bench, do_bench_cudagraph=do_bench)
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(testing=testing))
    monkeypatch.setitem(sys.modules, "triton.testing", testing)
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupyx.profiler", types.SimpleNamespace(benchmark=benchmark))
    return asked


@pytest.mark.parametrize(("name", "ns"), [
    ("triton do_bench", [2.5e5, 5e5, 1.5e6]),
    ("triton do_bench_cudagraph", [2.5e5, 5e5, 1.5e6]),
    ("cupyx.profiler", [1000, 3000]),
])  # fmt: skip
def test_timers_of_a_gpu_go_through_the_same_session(gpu_harnesses, monkeypatch, name, ns):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("HARNESSES_DEVICE", "dry-run")
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    harness = HARNESSES[name]
    found = harness.session(harness)
    assert set(found) == NAMES
    assert found["add/plain"]["ns"] == ns
    assert found["add/plain"]["reported"] == {"mean": pytest.approx(sum(ns) / len(ns))}
    assert set(gpu_harnesses) <= {"all"}


def test_what_is_not_there_says_why(monkeypatch):
    nothing = Harness(("min",), "no_such_package", lambda harness: {})
    assert nothing.absent == "no_such_package is not installed"
    if importlib.util.find_spec("triton") is None:
        assert HARNESSES["triton do_bench"].absent == "triton is not installed"
    monkeypatch.setenv("HARNESSES_DEVICE", "cuda")
    assert HARNESSES["timeit"].absent == "times cpu and dry-run only"


def test_a_process_that_fails_is_told_and_loses_nothing_else(monkeypatch):
    def ran(script, name, **variables):
        if name == "timeit":
            raise harnesses.SessionError("timeit ended with 1: no")
        return {"name": name, "numbers": [], "raw": {}} if script == "harness_biases.py" else {}

    said = []
    monkeypatch.setattr(harnesses, "ran", ran)
    monkeypatch.setattr(harnesses, "gate", lambda index, quick: types.SimpleNamespace())
    monkeypatch.setattr(harnesses, "kept", lambda found: comparison(0.0, 0.05, ("same", "regressed")))
    found = harnesses.measured(0.0, True, said.append)
    assert found["failed"] == ["timeit ended with 1: no"] * 2
    assert [bias["name"] for bias in found["biases"]] == list(harness_biases.BIASES)
    assert len(found["comparisons"]) == 1
    assert "FAILED: timeit ended with 1: no" in said


def test_the_last_words_of_a_process_are_the_reason(monkeypatch):
    monkeypatch.setenv("HARNESSES_DEVICE", "cpu")
    with pytest.raises(harnesses.SessionError, match=r"no such harness ended with 1: KeyError"):
        harnesses.ran("harness_session.py", "no such harness")


# --- biases -------------------------------------------------------------------------------------------------


def test_where_processes_cannot_be_pinned_nothing_is_measured_under_load(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(Unavailable, match="cannot pin"), harness_biases.pinned():
        pass
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["harness_biases.py", "order", str(path)])
    assert harness_biases.main() == 0
    assert "cannot pin" in json.loads(path.read_text())["skipped"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_affinity_is_put_back_and_the_load_is_gone():
    before = os.sched_getaffinity(0)
    with harness_biases.pinned() as (own, _), harness_biases.load(own, 0.001, 0.001):
        assert os.sched_getaffinity(0) == {own}
    assert os.sched_getaffinity(0) == before


def test_every_fourth_call_takes_the_slow_way(monkeypatch):
    taken = []
    monkeypatch.setattr(harness_biases, "waiting", lambda work, share: lambda: taken.append(share))
    call = harness_biases._every_fourth(lambda: None, 0.2)
    for _ in range(8):
        call()
    assert taken == [0, 0, 0, 0.2] * 2


# --- the whole ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Everything once, as quickly as it goes."""
    path = tmp_path_factory.mktemp("harnesses") / "found.json"
    before = dict(os.environ)
    try:
        status = harnesses.main(["--quick", "--json", str(path)])
    finally:
        os.environ.clear()
        os.environ.update(before)
    return status, json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def generate(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("generate_harnesses", ROOT / "docs" / "measured.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


@pytest.mark.slow
def test_all_of_it_runs_and_is_stored(document):
    status, found = document
    assert (status, found["failed"]) == (0, [])
    assert (found["kind"], found["quick"], found["device"]) == (harnesses.KIND, True, "cpu")
    assert environment.identity(found["environment"])
    measured = {row["harness"] for row in found["rows"]}
    assert measured == {harnesses.GATE, *HARNESSES} - set(found["skipped"])
    assert {s["harness"] for s in found["sessions"]} == {"planted", *measured} - {harnesses.GATE}
    verdicts = next(row["verdicts"] for row in found["rows"] if row["harness"] == harnesses.GATE)
    assert [len(v) for v in verdicts.values()] == [1, 1]
    for bias in found["biases"]:
        assert "skipped" in bias or (bias["numbers"] and all(bias["raw"].values()))
    assert all(case["log_ratios"] for case in found["comparisons"][0]["cases"].values())


@pytest.mark.slow
def test_the_tables_say_what_is_stored(document, generate, tmp_path):
    _, found = document
    results.save(tmp_path / "harnesses-quick.json", found)
    assert "Not measured yet" in generate.harnesses()
    results.save(tmp_path / "harnesses-full.json", found | {"quick": False})
    text = generate.harnesses()
    row = found["rows"][0]
    assert f"| {row['harness']}: {row['number']} | {row['spread']:.1%} |" in text
    assert "| geoact compare: its verdict | its own rule: " in text
    assert all(bias["title"] in text for bias in found["biases"])
    assert all(f"{name} was not measured: {why}." in text for name, why in found["skipped"].items())


def test_without_a_measurement_the_table_says_how_to_get_one(generate):
    assert generate.harnesses() == "Not measured yet: run `python benchmarks/harnesses.py`.\n"
