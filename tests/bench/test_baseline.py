"""Stored results as a side: what may be compared, what is refused, and that nothing is lost."""

import copy
import json
import math

import numpy as np
import pytest
from geoact.bench.gate import baseline
from geoact.bench.gate.baseline import Baseline, BaselineMissingError, compare
from geoact.bench.gate.decide import MISSING, PASSED, REFUSED, REGRESSED, Rule
from geoact.bench.results import KIND, SCHEMA, ResultError, save

HERE = {"cpu": "Some CPU", "processors": 2, "system": "Linux x86_64", "commit": "abc", "date": "2030-01-01"}
RULE = Rule(resamples=500)


def document(times, *, seed=0, ceiling=1000.0, environment=HERE, **more):
    """Cases by name: times in nanoseconds, or a reason why there is none."""
    random = np.random.default_rng(seed)
    cases = []
    for name, time in times.items():
        if isinstance(time, str):
            cases.append({"name": name, "axes": {}, "status": "error", "reason": time})
            continue
        noise = random.normal(1, 0.005, (2, 30))
        case = {"name": name, "axes": {"n": 1}, "status": "measured", "ns": list(time * noise[0])}
        cases.append(case | ({"ceiling_ns": list(ceiling * noise[1])} if ceiling else {}))
    whole = {"schema": SCHEMA, "kind": KIND, "suite": "s", "cache": "warm", "environment": environment}
    return whole | {"cases": cases, "rows": [], "groups": {}} | more


def sessions(count, **times):
    return Baseline.of([document(times, seed=i) for i in range(count)])


def verdicts(found):
    return {case.name: case.verdict for case in found.cases}


def test_what_is_slower_against_its_copy_regressed():
    found = compare(sessions(3, a=2000.0, b=1500.0), document({"a": 2300.0, "b": 1500.0}, seed=9), rule=RULE)
    assert verdicts(found) == {"a": "regressed", "b": "same"}
    assert found.code == REGRESSED


def test_a_machine_that_is_slower_altogether_is_no_regression():
    """The copy is slower by as much: another day, another clock rate."""
    before = sessions(3, a=2000.0)
    found = compare(before, document({"a": 3000.0}, ceiling=1500.0, seed=9), rule=RULE)
    assert verdicts(found) == {"a": "same"}
    assert found.code == PASSED


def test_one_session_says_that_its_limit_is_not_its_own():
    found = compare(sessions(1, a=2000.0), document({"a": 2100.0}, seed=9), rule=RULE)
    assert verdicts(found) == {"a": "same"}
    assert found.cases[0].notes == ["the baseline has 1 session of it: with three the limit is its own"]


def test_times_without_a_copy_are_compared_and_flagged():
    before = Baseline.of([document({"a": 2000.0}, ceiling=0)])
    found = compare(before, document({"a": 3000.0}, ceiling=0, seed=9), rule=RULE)
    assert verdicts(found) == {"a": "regressed"}
    assert baseline.ABSOLUTE in found.cases[0].notes


def test_times_with_and_without_a_copy_are_not_compared():
    found = compare(sessions(1, a=2000.0), document({"a": 3000.0}, ceiling=0, seed=9), rule=RULE)
    assert (verdicts(found), found.code) == ({"a": "vanished"}, MISSING)


def test_another_machine_is_refused():
    found = compare(sessions(1, a=2000.0), document({"a": 1.0}, environment=HERE | {"cpu": "Another"}), rule=RULE)
    assert (found.code, found.cases) == (REFUSED, [])
    assert found.headline == "refused: another machine: cpu was Some CPU, is Another"


def test_another_gpu_is_another_machine():
    gpu = HERE | {"gpu": {"name": "H200"}}
    before = Baseline.of([document({"a": 2000.0}, environment=gpu)])
    assert "gpu was H200, is not known" in compare(before, document({"a": 2000.0}), rule=RULE).headline
    assert compare(before, document({"a": 2000.0}, environment=gpu, seed=1), rule=RULE).code == PASSED


def test_cases_come_and_go():
    before = sessions(3, a=2000.0, gone=1.5e3, broken=1.5e3, other=1.5e3)
    after = document({"a": 2000.0, "added": 1e3, "broken": "it raised"}, seed=9)
    found = compare(before, after, rule=RULE)
    assert verdicts(found) == {
        "a": "same",
        "added": "new",
        "broken": "vanished",
        "gone": "vanished",
        "other": "vanished",
    }
    assert found.code == MISSING
    partly = compare(before, after, rule=RULE, expected=["a", "gone"])
    assert verdicts(partly) == {"a": "same", "added": "new", "broken": "vanished", "gone": "vanished"}


def test_the_same_machine_code_is_noise():
    before = Baseline.of([document({"a": 2000.0}, code="f00") for _ in range(3)])
    assert verdicts(compare(before, document({"a": 3000.0}, code="f00", seed=9), rule=RULE)) == {"a": "noise"}
    assert verdicts(compare(before, document({"a": 3000.0}, code="bad", seed=9), rule=RULE)) == {"a": "regressed"}


# --- files ----------------------------------------------------------------------------------------


def test_a_baseline_is_stored_and_read_again(tmp_path):
    before = sessions(3, a=2000.0)
    before.save(tmp_path / "b.json")
    again = Baseline.load(tmp_path / "b.json")
    assert again.identity == before.identity
    assert [s.values for s in again.cases["a"]] == [pytest.approx(s.values, abs=1e-4) for s in before.cases["a"]]
    assert "2000" not in (tmp_path / "b.json").read_text()  # no absolute time


def test_the_oldest_sessions_go():
    before = sessions(1, a=2000.0)
    for i in range(15):
        before.add(document({"a": 2000.0 + i}, seed=i))
    assert len(before.cases["a"]) == baseline.SESSIONS
    assert np.median(before.cases["a"][-1].values) == pytest.approx(math.log(2.014), abs=0.01)


def test_a_result_file_and_a_folder_of_them_are_baselines(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.json", document({"a": 2000.0}, seed=i))
    assert len(Baseline.load(tmp_path / "1.json").cases["a"]) == 1
    assert len(Baseline.load(tmp_path).cases["a"]) == 3
    save(tmp_path / "3.json", document({"a": 2000.0}, environment=HERE | {"cpu": "Another"}))
    with pytest.raises(ResultError, match=r"3\.json was measured on another machine than .*0\.json: cpu was"):
        Baseline.load(tmp_path)


def test_no_baseline_is_an_error_of_its_own(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BaselineMissingError, match="there is no"):
            Baseline.load(path)


WHOLE = {"schema": 1, "kind": "geoact-baseline", "identity": {"cpu": "x"},
         "cases": {"a": [{"values": [0.1], "normalised": True, "code": None, "commit": None}]}}  # fmt: skip


@pytest.mark.parametrize(("breakage", "message"), [
    (lambda d: d.update(schema=9), "schema 9"),
    (lambda d: d.pop("identity"), "no whole baseline"),
    (lambda d: d["cases"]["a"][0].pop("values"), "no whole baseline"),
    (lambda d: d["cases"]["a"][0].update(values=[]), "without samples"),
    (lambda d: d["cases"]["a"][0].update(values=[float("nan")]), "not finite"),
    (lambda d: d["cases"].update(a=[]), "without samples"),
    (lambda d: d.update(cases=[1]), "no whole baseline"),
    (lambda d: d.update(kind="something"), "no result of geoact bench"),
])  # fmt: skip
def test_a_broken_baseline_is_told_and_left_alone(tmp_path, breakage, message):
    broken = copy.deepcopy(WHOLE)
    breakage(broken)
    path = tmp_path / "b.json"
    path.write_text(json.dumps(broken))
    before = path.read_bytes()
    with pytest.raises(ResultError, match=message):
        Baseline.load(path)
    assert path.read_bytes() == before
