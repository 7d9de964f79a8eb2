"""The engine that times contenders, on a simulated device: what it reports, when it stops, what it does not believe."""

import itertools
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import engine
from engine import Bar, Budget, Contender, Group, StopRule, Summary, evaluate, interval, judge, measure, noise, raw
from support.simulated import SimulatedClock

RULE = StopRule(seconds=0.0, most=200)
COPY = 1e-4


def contender(name, seconds, **options):
    return Contender(name, [lambda: (name, seconds)], **options)


def group(*contenders, bars=(), ceilings=()):
    return Group("a case", list(contenders), list(bars), ceilings=ceilings, bytes_moved=1 << 20)


def run(group, clock=None, rule=RULE, seconds=5.0, **options):
    return measure(group, clock or SimulatedClock(noise=0.002), rule, seconds, **options)


SHARE = Bar("share of copy", "kernel", ("copy", "other copy"), at_least=0.95, share=True)


# --- statistics -----------------------------------------------------------------------------------


def test_a_summary_is_numpys():
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0, 100.0]
    summary = Summary.of(values)
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    assert (summary.q1, summary.median, summary.q3) == pytest.approx((q1, median, q3))
    assert (summary.n, summary.minimum, summary.outliers) == (8, 1.0, 1)
    assert summary.mad == pytest.approx(np.median(np.abs(np.array(values) - median)))
    assert Summary.of([2.0]).median == 2.0


def test_the_interval_of_a_median_holds_it_with_95_percent():
    random = np.random.default_rng(0)
    for n in (6, 10, 25, 60):
        held = 0
        for _ in range(2000):
            low, high = interval(sorted(random.standard_normal(n)))
            held += low <= 0 <= high
        assert 0.94 <= held / 2000 <= 1.0
        assert interval(sorted(range(n)))[1] - interval(sorted(range(n)))[0] <= n - 1


def test_noise_of_one_sample_is_not_known():
    assert noise([1.0]) == math.inf
    assert noise([1.0, 1.0, 1.0]) == 0


# --- stopping -------------------------------------------------------------------------------------


def test_a_quiet_contender_stops_as_soon_as_it_may():
    measured = run(group(contender("a", COPY)), SimulatedClock(noise=1e-4))
    assert len(measured.samples["a"]) == RULE.least
    assert measured.stopped == "relative sd <= 0.5%"
    assert not measured.cut


def test_steady_noise_stops_when_it_no_longer_changes():
    measured = run(group(contender("a", COPY)), SimulatedClock(noise=0.05), StopRule(seconds=0.0, most=5000))
    assert measured.stopped == "noise is stable"
    assert 20 <= len(measured.samples["a"]) < 2000


def test_the_number_of_samples_is_bounded():
    measured = run(group(contender("a", COPY)), SimulatedClock(noise=0.3), StopRule(seconds=0.0, change=0.0, most=40))
    assert (len(measured.samples["a"]), measured.stopped) == (40, "40 samples")


def test_a_quiet_one_waits_for_a_noisy_one():
    class Two(SimulatedClock):
        def sample(self, runs, repeat):
            self.noise = 0.2 if runs[0]()[0] == "noisy" else 1e-4
            return super().sample(runs, repeat)

    measured = run(group(contender("quiet", COPY), contender("noisy", COPY)), Two())
    assert len(measured.samples["quiet"]) == len(measured.samples["noisy"]) > RULE.least


def test_without_time_a_group_gets_the_floor_and_says_so():
    measured = run(group(contender("a", COPY)), SimulatedClock(noise=0.2), seconds=0.0, floor=3)
    assert (len(measured.samples["a"]), measured.cut) == (3, True)
    row = evaluate(group(contender("a", COPY)), Bar("time", "a"), measured)
    assert row.flags == ["cut short"]


def test_enough_work_is_timed():
    rule = StopRule(seconds=0.5, most=10_000)
    measured = run(group(contender("a", 1e-2)), SimulatedClock(noise=1e-4), rule)
    assert sum(measured.seconds("a")) >= 0.5
    assert len(measured.samples["a"]) == pytest.approx(50, abs=2)


def test_short_runs_are_repeated_and_rotate_their_buffers():
    seen = []
    runs = [lambda i=i: (seen.append(i), ("a", 2e-6))[1] for i in range(4)]
    measured = run(group(Contender("a", runs)), SimulatedClock(), shortest=1.9e-5)
    assert measured.seconds("a")[0] == pytest.approx(2e-6)
    assert seen[-10:] == [*range(4), *range(4), 0, 1]


def test_the_budget_goes_on_to_those_that_are_left():
    now = itertools.count(0, 10)  # every look at the watch is ten seconds later
    budget = Budget(100, 4, now=lambda: next(now))
    assert [budget.part(), budget.part(2), budget.part(), budget.part()] == pytest.approx([22.5, 80 * 2 / 3, 70, 60])


# --- rounds ---------------------------------------------------------------------------------------


def test_rounds_are_shuffled_and_everybody_runs_once_in_each():
    clock, names = SimulatedClock(noise=0.2), ["a", "b", "c"]
    run(group(*(contender(n, COPY) for n in names)), clock, StopRule(seconds=0.0, change=0.0, most=30), seed=3)
    rounds = [tuple(clock.order[i : i + 3]) for i in range(len(clock.order) - 90, len(clock.order), 3)]
    assert all(sorted(r) == names for r in rounds)
    assert len(set(rounds)) == 6
    again = SimulatedClock(noise=0.2)
    run(group(*(contender(n, COPY) for n in names)), again, StopRule(seconds=0.0, change=0.0, most=30), seed=3)
    assert again.order == clock.order


def test_what_slows_the_device_down_cancels_in_the_ratio():
    """The device gets four times slower while it is measured."""
    clock = SimulatedClock(noise=0.001, slow_down=0.02)
    case = group(contender("kernel", 1.1 * COPY), contender("copy", COPY), ceilings=("copy",), bars=[SHARE])
    measured = run(case, clock, StopRule(seconds=0.0, quiet=0.0, change=0.0, most=60))
    assert max(measured.seconds("copy")) > 1.5 * min(measured.seconds("copy"))
    (row,) = judge(case, measured)
    assert row.median == pytest.approx(1 / 1.1, rel=0.02)


def test_before_is_called_ahead_of_every_sample():
    calls = []
    case = group(contender("a", COPY, before=lambda: calls.append("before")))
    clock = SimulatedClock()
    run(case, clock)
    assert len(calls) >= clock.taken


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


def test_the_engine_needs_nothing_but_the_standard_library():
    source = Path(engine.__file__).read_text(encoding="utf-8")
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names) | {"__future__"}
