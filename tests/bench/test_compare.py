"""Two sides in real processes, with code whose speed is known: what is slower is found, what is not is not."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from geoact.bench.gate import compare as module
from geoact.bench.gate import show
from geoact.bench.gate.compare import Plan, compare, verdict_of
from geoact.bench.gate.decide import MISSING, PASSED, REGRESSED, Rule
from geoact.bench.gate.process import WorkerError
from geoact.bench.gate.selftest import selftest
from geoact.bench.gate.sides import Side
from geoact.bench.results import ResultError
from support import toy_project

STEADY, OTHER = "work[kind=steady]", "work[kind=other]"
PLAN = Plan(incarnations=3, placements=1, rounds=5, seconds=0.1, batches=1)
# Sleeping for a millisecond is not exact: what is to be found is far larger than this.
RULE = Rule(least=0.6, resamples=500)


@pytest.fixture
def sides(tmp_path):
    """Folders with modules that take one and two milliseconds."""
    found = {}
    for name, seconds in (("fast", 0.001), ("slow", 0.004), ("fast again", 0.001)):
        folder = tmp_path / name
        folder.mkdir()
        toy_project.write(folder, seconds)
        found[name] = Side(name, paths=(str(folder / "src"),))
    (tmp_path / "suite.py").write_text(toy_project.SUITE)
    return found


def run(a, b, folder, **options):
    options = {"rule": RULE, "plan": PLAN, "environment": {"cpu": "here"}, **options}
    return compare(a, b, "suite.py", folder=folder, **options)


def verdicts(found):
    return {case.name: case.verdict for case in found.verdict.cases}


def test_what_is_slower_is_found_and_the_rest_is_the_same(sides, tmp_path):
    found = run(sides["fast"], sides["slow"], tmp_path)
    assert verdicts(found)[STEADY] == "regressed"
    assert verdicts(found)[OTHER] in ("same", "open")
    assert found.verdict.code == REGRESSED
    steady = next(case for case in found.verdict.cases if case.name == STEADY)
    assert 1.5 < steady.change < 4.5
    assert (steady.rounds, steady.incarnations) == (sum(map(len, found.samples[STEADY].times["B"])), 3)
    assert not found.same_code
    assert verdicts(run(sides["slow"], sides["fast"], tmp_path))[STEADY] == "faster"


def test_the_same_code_is_noise_unless_that_is_what_is_tested(sides, tmp_path):
    slowed = {"slowdown": {STEADY: 3.0}}
    found = run(sides["fast"], sides["fast again"], tmp_path, **slowed)
    assert found.same_code
    assert verdicts(found)[STEADY] == "noise"
    assert found.verdict.code == PASSED
    assert (
        verdicts(run(sides["fast"], sides["fast again"], tmp_path, same_code_is_noise=False, **slowed))[STEADY]
        == "regressed"
    )


def test_another_interpreter_is_another_code_whatever_the_package_is(sides, tmp_path):
    """Its libraries may be others: here it is a second name of the same one, so that only the name differs."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    other = replace(sides["fast"], python=str(python))
    found = run(sides["fast"], other, tmp_path, slowdown={STEADY: 3.0})
    assert not found.same_code
    assert verdicts(found)[STEADY] == "regressed"


def test_the_selftest_passes_what_is_equal_and_catches_what_is_slowed(sides, tmp_path):
    side = sides["fast"]
    outcome = selftest(
        lambda slowed: run(side, side, tmp_path, slowdown=slowed, same_code_is_noise=False), slowdown=3.0, cases=1
    )
    assert outcome.code == PASSED
    assert len(outcome.caught) == 1
    assert outcome.headline.startswith("the gate works here: 0 false alarms; 1 of 1 slowdowns of 300% were caught")
    assert outcome.as_document()["slowed"]["headline"].startswith("REGRESSED: 1 regressed")


def test_a_selftest_that_misses_a_slowdown_does_not_pass(sides, tmp_path):
    side = sides["fast"]
    outcome = selftest(
        lambda slowed: run(side, side, tmp_path, slowdown={}, same_code_is_noise=False), slowdown=3.0, cases=2
    )
    assert outcome.code == 11
    assert "NOT to be trusted" in outcome.headline
    assert STEADY in outcome.headline


def test_a_case_is_prepared_anew_for_every_placement(sides, tmp_path):
    plan = Plan(incarnations=1, placements=3, rounds=4, seconds=0.01, batches=1)
    found = run(sides["fast"], sides["slow"], tmp_path, plan=plan)
    assert [len(rounds) >= 4 for rounds in found.samples[STEADY].times["B"]] == [True] * 3
    assert next(case.incarnations for case in found.verdict.cases if case.name == STEADY) == 3


def test_only_chosen_cases_are_measured(sides, tmp_path):
    found = run(sides["fast"], sides["slow"], tmp_path, choose=lambda name, axes: axes == {"kind": "other"})
    assert list(verdicts(found)) == [OTHER]
    nothing = run(sides["fast"], sides["slow"], tmp_path, choose=lambda name, axes: False)
    assert nothing.verdict.code == MISSING


def broken(folder, sides, text):
    """Side B with another module."""
    (folder / "broken").mkdir()
    (folder / "broken" / "sleeper.py").write_text(text)
    return Side("broken", paths=(str(folder / "broken"),))


@pytest.mark.parametrize(("text", "reason"), [
    ("def work(): raise RuntimeError('out of order')", "RuntimeError: out of order"),
    ("def work(): return 43", "WRONG RESULT"),
    ("import os\ndef work(): os.abort()", "broken: the process ended with signal SIGABRT"),
])  # fmt: skip
def test_a_case_that_breaks_has_vanished_and_the_other_side_stays(sides, tmp_path, text, reason):
    found = run(sides["fast"], broken(tmp_path, sides, text), tmp_path)
    assert verdicts(found)[STEADY] == "vanished"
    assert found.verdict.code == MISSING
    assert reason in next(case.reason for case in found.verdict.cases if case.name == STEADY)
    backwards = run(broken_again(tmp_path), sides["fast"], tmp_path)
    assert verdicts(backwards)[STEADY] == "new"


def broken_again(folder):
    return Side("broken", paths=(str(folder / "broken"),))


def test_a_case_that_breaks_while_it_is_timed_spoils_no_other(sides, tmp_path):
    text = "import os\ncount = []\ndef work():\n    count.append(1)\n    if len(count) > 4: os.abort()\n    return 42\n"
    found = run(sides["fast"], broken(tmp_path, sides, text), tmp_path)
    assert "SIGABRT" in next(case.reason for case in found.verdict.cases if case.name == STEADY)
    assert found.samples[OTHER].missing == {} or "SIGABRT" in str(found.samples[OTHER].missing)


def test_a_side_that_cannot_start_is_an_error(sides, tmp_path):
    with pytest.raises(WorkerError, match="No module named 'sleeper'"):
        run(sides["fast"], Side("empty"), tmp_path)


def test_rounds_end_when_the_estimate_is_narrow_and_not_before_they_are_enough():
    def rounds(spread):
        return [{"A": {"ns": 100.0}, "B": {"ns": 100.0 + spread * (i % 2)}} for i in range(20)]

    assert module._narrow(rounds(0.1), 0.002)
    assert not module._narrow(rounds(10.0), 0.002)


@pytest.mark.parametrize(
    ("options", "message"), [({"incarnations": 0}, "incarnations is 0"), ({"rounds": 0}, "rounds is 0")]
)
def test_a_plan_that_measures_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Plan(**options)


# --- what is told ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A comparison with a case of every kind, without measuring."""
    from geoact.bench.gate.decide import VERDICTS, Judged, Verdict

    cases = [
        Judged(f"case_{verdict}[n=1,kind=<b>|*]", verdict, change=0.1 * i, low=0.1 * i - 0.01, high=0.1 * i + 0.01,
               delta=0.03, width=0.01, p=0.01, detectable=0.04, rounds=50, incarnations=5, reason=f"why {verdict}")
        for i, verdict in enumerate(VERDICTS) if verdict not in ("vanished", "new", "skipped")
    ]  # fmt: skip
    return Verdict([*cases, *(Judged(v, v, reason="gone | *") for v in ("vanished", "new", "skipped"))])


def test_the_table_shows_what_needs_attention_first(example, capsys):
    from rich.console import Console

    show.print_verdict(example, Console(width=200), "v1 -> v2")
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if "case_" in line or line.startswith(("vanished", "new", "skipped"))]
    assert lines[0].startswith("case_regressed[n=1,kind=<b>|*]")
    assert "REGRESSED: 1 regressed, 1 faster" in shown
    assert "could have seen a slowdown of 4.0% in its steadiest case" in shown


def test_markdown_has_no_cell_that_breaks_the_table(example):
    text = show.markdown(example, "a|b -> c", ["a note"])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for row in rows:
        assert row.replace("\\|", "").count("|") == len(show.HEADS) + 1, row
    assert "**REGRESSED: 1 regressed" in text
    assert "<b>" not in text.replace("\\<b>", "")
    assert text.index("case_regressed") < text.index("<details>") < text.index("case_same")


def test_junit_has_a_failure_for_what_regressed_and_errors_for_what_is_missing(example):
    root = ElementTree.fromstring(show.junit(example, "toy"))
    (suite,) = root.iter("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "9",
        "1",
        "2",
        "1",
    )
    (failed,) = [case for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed.get("name") == "case_regressed[n=1,kind=<b>|*]"


def test_the_plot_is_a_picture(example, tmp_path):
    from geoact.bench.gate.decide import Verdict

    assert show.write_plot(example, tmp_path / "plot.png", "v1 -> v2")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert show.write_plot(example, tmp_path / "plot.svg", "v1 -> v2")
    assert b"case_regressed" in (tmp_path / "plot.svg").read_bytes() or b"<svg" in (tmp_path / "plot.svg").read_bytes()
    assert not show.write_plot(Verdict([]), tmp_path / "none.png", "")
    assert not (tmp_path / "none.png").exists()


def test_a_stored_comparison_says_the_same(sides, tmp_path):
    found = run(sides["fast"], sides["slow"], tmp_path)
    stored = json.loads(json.dumps(found.as_document()))
    again = verdict_of(stored, "x.json")
    assert (again.code, again.headline) == (found.verdict.code, found.verdict.headline)
    assert set(stored["samples"][STEADY]["ns"]) == {"A", "A'", "B"}
    assert str(tmp_path) not in json.dumps(stored)


@pytest.mark.parametrize(("change", "message"), [
    ({"schema": 9}, "schema 1"), ({"cases": [{"name": "x", "verdict": "splendid"}]}, "splendid"),
    ({"cases": [{"unknown": 1}]}, "cannot be read"),
])  # fmt: skip
def test_a_stored_comparison_that_is_broken_is_told(change, message):
    whole = {"schema": 1, "kind": "geoact-compare", "cases": []}
    with pytest.raises(ResultError, match=message):
        verdict_of(whole | change, "x.json")
