"""The engine that times contenders, on a simulated device: when it stops, and that everybody has the same chances."""

import ast
import itertools
import sys
from pathlib import Path

import pytest
from geoact.bench import engine
from geoact.bench.bars import evaluate, judge
from geoact.bench.contenders import Bar, Contender
from geoact.bench.engine import Budget, StopRule
from support.simulated import COPY, RULE, SimulatedClock, contender, group, run

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
    case = group(
        contender("kernel", 1.1 * COPY), contender("copy", COPY), bars=[Bar("share", "kernel", ("copy",), share=True)]
    )
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


# --- what it needs --------------------------------------------------------------------------------

CORE = {
    "suite",
    "contenders",
    "clocks",
    "ceilings",
    "engine",
    "bars",
    "summary",
    "runner",
    "results",
    "environment",
    "timing",
}


@pytest.mark.parametrize("name", sorted(CORE))
def test_what_measures_needs_the_standard_library_and_numpy_alone(name):
    """A worker of the gate loads it beside any version of geoact, or none."""
    tree = ast.parse((Path(engine.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            inside = node.module == "geoact.bench"
            imported |= {f"geoact.bench.{alias.name}" for alias in node.names} if inside else {node.module}
    ours = {module for module in imported if module.partition(".")[0] == "geoact"}
    assert ours <= {f"geoact.bench.{module}" for module in CORE | {"device_clock"}} | {"geoact._files"}
    assert {m.partition(".")[0] for m in imported - ours} <= set(sys.stdlib_module_names) | {"numpy"}
