"""Bars on a simulated device: what is reported, what is an error, what a reader is told of the measurement."""

import itertools
import statistics

import pytest
from geoact.bench.bars import judge, raw
from geoact.bench.contenders import Bar
from support.simulated import COPY, SimulatedClock, contender, group, run

SHARE = Bar("share of copy", "kernel", ("copy", "other copy"), at_least=0.95, share=True)

# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("speed", "met"), [(0.99, "yes"), (0.90, "no")])
def test_a_share_of_the_best_copy(speed, met):
    case = group(
        contender("kernel", COPY / speed), contender("copy", COPY), contender("other copy", 1.3 * COPY),
        bars=[SHARE], ceilings=("copy", "other copy"),
    )  # fmt: skip
    (row,) = judge(case, run(case))
    assert (row.met, row.against, row.limit, row.unit) == (met, "copy", ">= 95%", "%")
    assert row.median == pytest.approx(speed, rel=0.01)
    assert row.low <= row.q1 <= row.median <= row.q3 <= row.high
    assert row.measured.startswith(f"{row.median:.1%} (")


def test_a_limit_inside_the_interval_is_open():
    case = group(contender("kernel", COPY / 0.95), contender("copy", COPY), bars=[SHARE], ceilings=("copy",))
    (row,) = judge(case, run(case, SimulatedClock(noise=0.05)))
    assert row.met == "open"


@pytest.mark.parametrize(("bar", "met"), [
    (Bar("r", "a", ("b",), at_most=2.1), "yes"),
    (Bar("r", "a", ("b",), at_most=1.9), "no"),
    (Bar("r", "a", ("b",), at_least=1.9), "yes"),
    (Bar("r", "a", ("b",), at_least=2.1), "no"),
    (Bar("r", "a", ("b",)), ""),
])  # fmt: skip
def test_ratios(bar, met):
    case = group(contender("a", 2 * COPY), contender("b", COPY), bars=[bar])
    (row,) = judge(case, run(case))
    assert row.met == met
    assert row.median == pytest.approx(2, rel=0.01)


def test_times_are_those_of_one_call():
    """A run of 50 calls: a graph."""
    case = group(contender("a", 50 * 3e-6, calls=50), bars=[Bar("time", "a", at_most=4)])
    measured = run(case)
    (row,) = judge(case, measured)
    assert (row.met, row.limit, row.unit) == ("yes", "<= 4 us", " us")
    assert row.median == pytest.approx(3, rel=0.01)
    assert raw(case, measured)["contenders"]["a"]["ns"][0] == pytest.approx(3000, rel=0.02)


def test_faster_than_the_copy_is_an_error_and_no_success():
    case = group(contender("kernel", COPY / 1.12), contender("copy", COPY), bars=[SHARE], ceilings=("copy",))
    (row,) = judge(case, run(case))
    assert row.met == "error"
    assert "of the best copy of the same bytes (copy)" in row.reason


def test_whoever_beats_the_ceiling_is_named_though_no_bar_times_it():
    case = group(
        contender("kernel", COPY), contender("torch", COPY / 1.2), contender("copy", COPY),
        bars=[SHARE], ceilings=("copy",),
    )  # fmt: skip
    rows = judge(case, run(case))
    assert [row.met for row in rows] == ["yes", "error"]
    assert rows[1].reason.startswith("torch runs at 1")


def test_a_little_faster_than_the_copy_is_within_its_noise():
    case = group(contender("kernel", COPY / 1.03), contender("copy", COPY), bars=[SHARE], ceilings=("copy",))
    assert [row.met for row in judge(case, run(case))] == ["yes"]


# --- evidence -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clock", "flag"), [
    (SimulatedClock(drift=0.10), "clock rate moved by"),
    (SimulatedClock(throttled=["power cap"]), "throttled: power cap"),
])  # fmt: skip
def test_a_device_that_changes_is_flagged(clock, flag):
    case = group(contender("a", COPY), bars=[Bar("time", "a")])
    (row,) = judge(case, run(case, clock))
    assert len(row.flags) == 1
    assert row.flags[0].startswith(flag)


@pytest.mark.parametrize("clock", [SimulatedClock(drift=0.01), SimulatedClock(hertz=None)])
def test_a_device_that_does_not_is_not(clock):
    case = group(contender("a", COPY), bars=[Bar("time", "a")])
    assert judge(case, run(case, clock))[0].flags == []


def test_samples_are_stored_as_they_were_taken():
    case = group(contender("a", COPY), contender("b", COPY))
    case.missing["c"] = "not installed"
    measured = run(case, SimulatedClock(noise=0.01))
    stored = raw(case, measured)
    assert stored["missing"] == {"c": "not installed"}
    entry = stored["contenders"]["a"]
    assert entry["ns"] == pytest.approx([1e9 * s for s in measured.seconds("a")], rel=1e-5)
    assert entry["median"] == pytest.approx(1e9 * statistics.median(measured.seconds("a")), rel=1e-5)
    assert entry["GB/s"] == pytest.approx((1 << 20) / statistics.median(measured.seconds("a")) / 1e9, rel=1e-3)
    assert entry["MHz"] == [1500, 1500]


# --- what goes wrong ------------------------------------------------------------------------------


def failing_after(times):
    calls = itertools.count()

    def check():
        assert next(calls) < times, "the output differs"

    return check


@pytest.mark.parametrize(("times", "reason"), [(0, "WRONG RESULT: the output"), (1, "WRONG RESULT after it was timed")])
def test_a_wrong_result_is_no_measurement(times, reason):
    case = group(contender("kernel", COPY, check=failing_after(times)), contender("copy", COPY), bars=[SHARE])
    (row,) = judge(case, run(case))
    assert (row.met, row.median) == ("error", None)
    assert reason in row.reason
    assert row.measured == "not measured"


def test_an_output_that_changes_is_a_wrong_result_and_one_that_does_not_is_stored():
    outputs = itertools.count()
    case = group(contender("kernel", COPY, check=lambda: next(outputs)), contender("copy", COPY, check=lambda: "f00"))
    case.bars = [SHARE]
    measured = run(case)
    assert judge(case, measured)[0].reason == "kernel: WRONG RESULT after it was timed: the output is not what it was"
    assert raw(case, measured)["contenders"]["copy"]["output"] == "f00"


def test_what_cannot_be_timed_is_left_out_and_the_rest_is_measured():
    case = group(contender("kernel", COPY), contender("copy", COPY), bars=[SHARE, Bar("time", "copy")])
    rows = judge(case, run(case, SimulatedClock(broken={"kernel"})))
    assert rows[0].reason == "kernel: waits for the device"
    assert rows[0].met == ""
    assert rows[1].median == pytest.approx(100, rel=0.01)


def test_a_missing_contender_gives_its_reason():
    case = group(contender("kernel", COPY), bars=[SHARE, Bar("vs x", "x", ("kernel",))])

    def absent():
        raise KeyError("no such package")

    case.add("copy", absent, KeyError)
    case.missing["x"] = "gone"
    rows = judge(case, run(case))
    assert [row.reason for row in rows] == ["copy: 'no such package'", "x: gone"]
    assert all(row.document().get("median") is None for row in rows)


def test_all_missing_is_not_an_endless_loop():
    case = group(bars=[SHARE])
    assert judge(case, run(case))[0].median is None
