"""A whole suite on a simulated device: what is told of every case and group, and that nothing stops the others."""

import json

import pytest
from geoact.bench import Bar, Call, Contender, Group, Suite, Unavailable, ceilings, runner, timing
from geoact.bench.clocks import HostClock
from geoact.bench.engine import StopRule
from geoact.bench.results import checked, dumps
from geoact.bench.runner import failures
from geoact.bench.timing import Devices, Settings
from support.simulated import COPY, SimulatedClock

QUICK = Settings(seconds=2.0, rule=StopRule(least=4, seconds=0.0, most=6), shortest=0.0)
SIZE = 1 << 19  # enough for the copy to be a limit


def run(suite, clock=None, *, settings=QUICK, **options):
    devices = Devices(settings, {"cpu": clock or SimulatedClock(noise=0.001)})
    document = runner.run(suite, settings, environment={"cpu": "simulated"}, devices=devices, **options)
    assert checked(json.loads(dumps(document)), "document") == json.loads(json.dumps(document))
    return document


def timed(seconds, **options):
    return Call(lambda: ("case", seconds), **{"read": SIZE, "written": SIZE} | options)


def suite_of(**makes):
    """Cases by name, each a function without axes."""
    suite = Suite("toy")
    for name, make in makes.items():
        make.__name__ = name
        suite.case()(make)
    return suite


def entries(document):
    return {case["name"]: case for case in document["cases"]}


# --- cases ----------------------------------------------------------------------------------------


def test_a_case_is_measured_against_the_copy_of_its_bytes():
    suite = Suite("toy")

    @suite.case(n=[SIZE])
    def scale(n):
        return timed(COPY / 0.8, flops=100, check=lambda: 7, code="abc")

    document = run(suite)
    (case,) = document["cases"]
    assert (case["name"], case["status"], case["axes"]) == (f"scale[n={SIZE}]", "measured", {"n": SIZE})
    assert (case["read"], case["written"], case["flops"], case["threads"], case["code"]) == (SIZE, SIZE, 100, 1, "abc")
    assert (case["device"], case["clock"], case["cache"], case["output"]) == ("cpu", "simulated", "warm", 7)
    assert case["score"]["median"] == pytest.approx(0.8, rel=0.01)
    assert case["score"]["low"] <= case["score"]["median"] <= case["score"]["high"]
    assert case["GB/s"] == pytest.approx(2 * SIZE / (COPY / 0.8) / 1e9, rel=0.01)
    assert case["GFLOP/s"] == pytest.approx(100 / (COPY / 0.8) / 1e9, rel=0.01)
    assert len(case["ns"]) == len(case["ceiling_ns"]) == case["rounds"] >= 4
    assert case["summary"]["median"] == pytest.approx(1e9 * COPY / 0.8, rel=0.01)
    assert case["ceiling"] in {c.name for c in ceilings.contestants(ceilings.Traffic(SIZE, SIZE))}
    assert (document["suite"], document["cache"], document["environment"]) == ("toy", "warm", {"cpu": "simulated"})
    assert failures(document) == []


def failing_when_timed():
    """Right while it is checked for the first time and warms up, then an error."""
    left = iter(range(4))

    def call():
        if next(left, None) is None:
            raise OSError("the device fell off")
        return ("case", COPY)

    return call


def raises(error):
    def make():
        raise error

    return make


def wrong(message="the third value is wrong", *, after=0):
    calls = []

    def check():
        calls.append(1)
        assert len(calls) <= after, message

    return check


PLANTED = {
    "raises": (raises(KeyError("no such thing")), "error", "KeyError: 'no such thing'"),
    "refuses": (raises(Unavailable("no such device")), "skipped", "no such device"),
    "no_call": (lambda: 3, "error", "SuiteError: no_call returned int, a case must return a geoact.bench.Call"),
    "wrong_call": (lambda: timed(1, threads=0), "error", "ValueError: threads is 0; it must be at least 1"),
    "wrong": (lambda: timed(COPY, check=wrong()), "error", "WRONG RESULT: the third value is wrong"),
    "wrong_later": (
        lambda: timed(COPY, check=wrong(after=1)), "error", "WRONG RESULT after it was timed: the third"),
    "fails": (lambda: Call(failing_when_timed(), read=SIZE, written=SIZE), "error", "OSError: the device fell off"),
    "too_fast": (lambda: timed(COPY / 1.2), "error", "too_fast runs at 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_goes_wrong_with_a_case_is_told_in_its_place_and_the_rest_is_measured(name):
    make, status, reason = PLANTED[name]
    found = run(suite_of(first=lambda: timed(2 * COPY), **{name: make}, last=lambda: timed(3 * COPY)))
    cases = entries(found)
    assert list(cases) == ["first", name, "last"]
    assert cases[name]["status"] == status
    assert cases[name]["reason"].startswith(reason)
    assert [cases[other]["status"] for other in ("first", "last")] == ["measured", "measured"]
    told = [] if status == "skipped" else [f"{name}: {cases[name]['reason']}"]
    assert failures(found) == told


def test_faster_than_the_copy_keeps_its_samples_and_asks_for_the_threads():
    (case,) = run(suite_of(f=lambda: timed(COPY / 1.2)))["cases"]
    assert case["status"] == "error"
    assert f"of the best copy of the same bytes ({case['ceiling']})" in case["reason"]
    assert case["reason"].endswith("or use more threads than it declares?")
    assert case["score"]["median"] == pytest.approx(1.2, rel=0.01)
    assert len(case["ns"]) >= 4
    (case,) = run(suite_of(f=lambda: timed(COPY / 1.2, threads=2)))["cases"]
    assert not case["reason"].endswith("?")


@pytest.mark.parametrize("speed", [1.0, 1.04])
def test_a_little_faster_than_the_copy_is_within_its_noise(speed):
    (case,) = run(suite_of(f=lambda: timed(COPY / speed)))["cases"]
    assert case["status"] == "measured"


def test_another_ratio_of_reads_to_writes_may_beat_the_copy():
    (case,) = run(suite_of(f=lambda: timed(COPY / 1.3, read=SIZE, written=SIZE // 4)))["cases"]
    assert case["status"] == "measured"
    assert case["score"]["median"] == pytest.approx(1.3, rel=0.01)


def test_a_case_without_bytes_has_no_copy():
    (case,) = run(suite_of(f=lambda: timed(COPY, read=0, written=0)))["cases"]
    assert (case["status"], case["ceiling_missing"]) == ("measured", "the case declares no bytes")
    assert not {"ceiling", "ceiling_ns", "score", "GB/s"} & set(case)


def test_a_case_without_a_ceiling_here_is_measured_without(monkeypatch):
    def missing(*_, **__):
        raise Unavailable("the compiled copy kernels: not built")

    monkeypatch.setattr(timing, "fastest_copy", missing)
    (case,) = run(suite_of(f=lambda: timed(COPY)))["cases"]
    assert (case["status"], case["ceiling_missing"]) == ("measured", "the compiled copy kernels: not built")


def test_times_are_those_of_one_call():
    (case,) = run(suite_of(f=lambda: timed(50 * COPY, calls=50, read=0, written=0)))["cases"]
    assert case["summary"]["median"] == pytest.approx(1e9 * COPY, rel=0.01)


def test_what_cannot_be_timed_is_skipped_with_the_reason():
    (case,) = run(suite_of(f=lambda: timed(COPY)), SimulatedClock(broken={"case"}))["cases"]
    assert (case["status"], case["reason"]) == ("skipped", "waits for the device")


def test_a_device_that_changes_is_flagged():
    (case,) = run(suite_of(f=lambda: timed(2 * COPY)), SimulatedClock(throttled=["power cap"]))["cases"]
    assert case["flags"] == ["throttled: power cap"]


def test_an_axis_that_is_no_plain_value_is_stored_as_its_text():
    suite = Suite("toy")
    suite.case(shape=[(2, 3)], per=[None], on=[True])(lambda shape, per, on: timed(COPY))
    (case,) = run(suite)["cases"]
    assert case["axes"] == {"shape": "(2, 3)", "per": None, "on": True}


def test_a_case_ends_at_its_time_and_says_so():
    settings = Settings(seconds=0.0, rule=StopRule(least=50, seconds=0.0), shortest=0.0)
    (case,) = run(suite_of(f=lambda: timed(2 * COPY)), SimulatedClock(noise=0.2), settings=settings)["cases"]
    assert (case["status"], case["rounds"], case["flags"]) == ("measured", 3, ["cut short"])


def test_cases_may_be_chosen_and_setup_is_called_once_ahead_of_them():
    calls = []
    suite = suite_of(a=lambda: timed(calls.append("a") or COPY), b=lambda: timed(calls.append("b") or COPY))
    suite.setup = lambda: calls.append("setup")
    assert list(entries(run(suite, cases=[suite.cases["b"]]))) == ["b"]
    assert calls == ["setup", "b"]


def test_progress_is_told_from_the_first_to_the_end():
    suite = suite_of(a=lambda: timed(COPY), b=raises(KeyError("x")))
    suite.group("bars")(lambda: Group("bars"))
    told = []
    run(suite, told=lambda *what: told.append(what))
    assert told == [("a", 0, 3), ("b", 1, 3), ("bars", 2, 3), ("", 3, 3)]


# --- devices --------------------------------------------------------------------------------------


def test_without_a_gpu_a_case_of_one_is_skipped_and_others_are_not(monkeypatch):
    asked = []

    def refuse(self, device):
        asked.append(device)
        raise Unavailable("CuPy is not installed")

    monkeypatch.setattr(Devices, "_make", refuse)
    suite = suite_of(
        gpu=lambda: timed(COPY, device="cuda"), cpu=lambda: timed(COPY), too=lambda: timed(COPY, device="cuda")
    )
    cases = entries(run(suite))
    assert [case["status"] for case in cases.values()] == ["skipped", "measured", "skipped"]
    assert {cases[name]["reason"] for name in ("gpu", "too")} == {"CuPy is not installed"}
    assert asked == ["cuda"]  # one that is not there is not looked for again


@pytest.mark.parametrize(("cold", "label"), [(False, "CPU, caches warm"), (True, "CPU, caches cold")])
def test_the_clock_of_the_cpu_says_in_which_state_the_caches_are(cold, label):
    devices = Devices(Settings(cold=cold))
    clock = devices.clock("cpu")
    assert isinstance(clock, HostClock)
    assert clock.label == label
    assert devices.clock("cpu") is clock


def test_a_cold_run_says_so_everywhere(monkeypatch):
    asked = []
    monkeypatch.setattr(timing, "fastest_copy", lambda traffic, cold: asked.append(cold) or ceilings.ceiling(traffic))
    settings = Settings.quick(cold=True)
    document = run(suite_of(f=lambda: timed(COPY)), settings=settings)
    assert (document["cache"], document["cases"][0]["cache"], asked) == ("cold", "cold", [True])


# --- groups ---------------------------------------------------------------------------------------


def contender(name, seconds):
    return Contender(name, [lambda: (name, seconds)])


def group(name="two", **options):
    bars = [Bar("a vs b", "a", ("b",), at_most=2.5), Bar("time of a", "a")]
    return Group(name, [contender("a", 2 * COPY), contender("b", COPY)], bars, **options)


def grouped(*makes):
    suite = Suite("toy")
    for make in makes:
        suite.group()(make)
    return suite


def test_a_group_gives_its_rows_and_its_samples():
    document = run(grouped(lambda: group(labels={"dtype": "float32"})))
    first, second = document["rows"]
    assert (first["group"], first["bar"], first["limit"], first["met"]) == ("two", "a vs b", "<= 2.5", "yes")
    assert first["median"] == pytest.approx(2, rel=0.01)
    assert first["labels"] == {"dtype": "float32", "clock": "simulated"}
    assert (second["unit"], "met" in second) == (" us", False)
    assert set(document["groups"]["two"]["contenders"]) == {"a", "b"}
    assert len(document["groups"]["two"]["contenders"]["a"]["ns"]) == first["rounds"] >= 4


def test_settings_that_a_group_changed_are_put_back_whatever_happens():
    put_back = []

    def broken():
        raise OSError("the device fell off")

    failing = Group("failing", [Contender("x", [broken])], after=lambda: put_back.append("failing"))
    document = run(grouped(lambda: group(after=lambda: put_back.append("two")), lambda: failing))
    assert put_back == ["two", "failing"]
    assert failures(document) == ["failing: ran to its end: OSError: the device fell off"]


def test_a_group_that_fails_is_a_row_and_the_others_are_measured():
    def cannot_be_made():
        raise RuntimeError("no data")

    document = run(grouped(lambda: group("first"), cannot_be_made, lambda: group("last")))
    assert [row["group"] for row in document["rows"]] == ["first", "first", "cannot_be_made", "last", "last"]
    assert failures(document) == ["cannot_be_made: ran to its end: RuntimeError: no data"]


def test_the_time_is_shared_by_weight(monkeypatch):
    given = []

    def measure(group, clock, rule, seconds, **_):
        given.append(seconds)
        raise RuntimeError("not measured")

    monkeypatch.setattr(runner, "measure", measure)
    suite = Suite("toy")
    for weight in (2, 1, 1):
        suite.group(weight=weight)(group)
    run(suite, group_seconds=100)
    assert given == pytest.approx([50, 50, 100], abs=1)


def test_groups_may_be_chosen():
    suite = grouped(lambda: group("first"))
    suite.group("second")(lambda: group("second"))
    document = run(suite, families=suite.select_families(["second"]))
    assert {row["group"] for row in document["rows"]} == {"second"}


def test_few_bytes_may_be_moved_faster_than_by_a_call_of_copy():
    """Calling the copy takes longer than moving them: what is cheaper to call beats it honestly."""
    (case,) = run(suite_of(f=lambda: timed(COPY / 1.5, read=64, written=64)))["cases"]
    assert case["status"] == "measured"
    assert case["score"]["low"] > 1.05
