"""The rule of the gate, on seeded measurements whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from geoact.bench.gate import decide
from geoact.bench.gate.decide import (
    INCONCLUSIVE,
    MISSING,
    PASSED,
    REFUSED,
    REGRESSED,
    Measurement,
    Rule,
    Verdict,
    judge,
)

RULE = Rule(resamples=1000)


def groups(random, effect, incarnations=5, rounds=30, noise=0.01, between=0.001):
    """Log-ratios with an effect, noise within processes and between them."""
    return [list(effect + random.normal(0, between) + random.normal(0, noise, rounds)) for _ in range(incarnations)]


def measured(name="case", change=0.0, seed=0, control=0.0, twin=0.0, **options):
    random = np.random.default_rng(seed)
    effect = math.log1p(change)
    return Measurement(
        name,
        ratios=groups(random, effect, **options),
        twin=groups(random, twin, **options),
        control=groups(random, math.log1p(control), **options),
    )


def one(measurement, rule=RULE):
    (found,) = judge([measurement], rule)
    return found


# --- Holm -----------------------------------------------------------------------------------------


def test_holm_is_the_step_down_procedure():
    adjusted = decide.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert decide.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert decide.holm({}) == {}


# --- the bootstrap --------------------------------------------------------------------------------


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(100):
        found = one(measured(change=0.02, seed=seed, between=0.005))
        held += found.low <= 0.02 <= found.high
    assert held / 100 >= 0.90  # five incarnations are few: the percentile bootstrap is known to be a little narrow


def test_incarnations_of_unequal_length_count_alike():
    many = decide.medians([[0.0] * 100, [1.0] * 5, [1.0] * 5], 2000, seed=1)
    few = decide.medians([[0.0] * 5, [1.0] * 5, [1.0] * 5], 2000, seed=1)
    assert np.mean(many) == pytest.approx(np.mean(few), abs=0.05)


def test_an_effect_in_one_pair_of_processes_is_not_one_of_the_code():
    """One of five incarnations is 20 % slower: where its process lay in memory, say."""
    found = measured(change=0.0)
    odd = [[r + 0.2 for r in found.ratios[0]], *found.ratios[1:]]
    assert one(Measurement("case", odd, found.twin, found.control)).verdict != "regressed"
    pooled = [[r for group in odd for r in group]]
    assert max(decide.medians(odd, 2000, 0)) > max(decide.medians(pooled, 2000, 0)) + 0.05


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "verdict"), [
    (0.0, "same"), (0.02, "same"), (0.06, "regressed"), (-0.06, "faster"), (1.0, "regressed"),
])  # fmt: skip
def test_a_change_counts_above_delta(change, verdict):
    found = one(measured(change=change))
    assert found.verdict == verdict
    assert found.change == pytest.approx(change, abs=0.01)
    assert found.low <= found.change <= found.high
    assert found.delta == pytest.approx(0.03, abs=0.005)


def test_an_interval_around_delta_is_open():
    found = one(measured(change=0.032, noise=0.03))
    assert found.low < found.delta < found.high
    assert found.verdict == "open"


def test_delta_grows_with_what_a_against_a_shows():
    """The twin lies 2.5 % off: then 5 % are little to speak of."""
    found = one(measured(change=0.05, twin=0.025))
    assert found.width == pytest.approx(0.025 * decide.ALIKE, abs=0.003)
    assert found.delta == pytest.approx(3 * found.width, rel=0.05)
    assert found.verdict != "regressed"


def test_a_control_that_moves_makes_the_case_inconclusive():
    found = one(measured(change=0.2, control=0.1))
    assert found.verdict == "inconclusive"
    assert "the copy beside it moved by +" in found.reason


def test_a_twin_that_scatters_widens_delta_though_its_median_is_nothing():
    quiet = measured(change=0.05)
    random = np.random.default_rng(5)
    scattered = replace(
        quiet, twin=[[level + r for r in random.normal(0, 0.01, 30)] for level in (-0.05, -0.02, 0, 0.02, 0.05)]
    )
    found = one(scattered)
    assert found.width > 0.02
    assert found.verdict != "regressed"


def test_a_control_that_moves_no_farther_than_from_itself_is_steady():
    restless = measured(change=0.0, control=0.05)
    random = np.random.default_rng(3)
    twin = groups(random, math.log1p(0.04))
    found = one(replace(restless, control_twin=twin))
    assert found.verdict == "same"
    assert one(restless).verdict == "inconclusive"


def test_the_same_machine_code_is_noise():
    slow = measured(change=0.2)
    found = one(replace(slow, same_code=True))
    assert (found.verdict, found.reason) == ("noise", "would be regressed, but the machine code is the same")
    assert Verdict([found]).code == PASSED


def test_a_slowdown_of_five_percent_is_found_and_nothing_else():
    found = missed = alarms = 0
    for seed in range(15):
        cases = [measured(f"case {i}", 0.05 if i < 3 else 0.0, seed=100 * seed + i) for i in range(12)]
        regressed = {case.name for case in judge(cases, RULE) if case.verdict == "regressed"}
        slow = {f"case {i}" for i in range(3)}
        found, missed, alarms = (
            found + len(regressed & slow),
            missed + len(slow - regressed),
            alarms + len(regressed - slow),
        )
    assert found / (found + missed) >= 0.95
    assert alarms == 0


def test_a_suite_of_equal_cases_raises_no_alarm():
    for seed in range(8):
        cases = [measured(f"case {i}", seed=1000 * seed + i, between=0.005, noise=0.02) for i in range(30)]
        assert not [case for case in judge(cases, RULE) if case.verdict in ("regressed", "faster")]


def test_the_smallest_slowdown_that_could_have_been_seen_is_told():
    quiet, noisy = one(measured("quiet", noise=0.005)), one(measured("noisy", noise=0.05))
    assert 0.03 < quiet.detectable < 0.045 < noisy.detectable
    assert Verdict([quiet, noisy]).detectable == (quiet.detectable, noisy.detectable)


def test_the_same_measurements_give_the_same_verdict():
    assert judge([measured(change=0.05)], RULE) == judge([measured(change=0.05)], RULE)


# --- sessions -------------------------------------------------------------------------------------


def session(random, level, n=40):
    return list(level + random.normal(0, 0.01, n))


def apart(change, sessions, spread=0.004, seed=0):
    random = np.random.default_rng(seed)
    before = [session(random, -0.5 + random.normal(0, spread)) for _ in range(sessions)]
    return Measurement("case", before=before, after=[session(random, -0.5 + math.log1p(change))])


def test_one_session_gives_the_limit_of_the_unknown():
    assert [one(apart(c, 1)).verdict for c in (0.0, 0.06, 0.15)] == ["same", "same", "regressed"]
    assert one(apart(0.0, 1)).delta == pytest.approx(0.10)
    assert one(apart(0.0, 1)).width is None


def test_three_sessions_give_a_limit_of_their_own():
    found = one(apart(0.06, 5))
    assert found.verdict == "regressed"
    assert found.delta < 0.05
    assert one(apart(0.0, 5)).verdict == "same"
    assert one(apart(0.06, 5, spread=0.03)).verdict != "regressed"


# --- exit codes -----------------------------------------------------------------------------------


def decided(*verdicts, **options):
    return Verdict([decide.Judged(v, v, change=None if v in ("vanished", "new", "skipped") else 0.0) for v in verdicts],
                   **options)  # fmt: skip


@pytest.mark.parametrize(("verdicts", "options", "code"), [
    (["same", "faster", "open", "noise", "new", "skipped"], {}, PASSED),
    (["same", "open"], {"strict": True}, INCONCLUSIVE),
    (["same", "inconclusive"], {}, INCONCLUSIVE),
    (["same", "inconclusive", "vanished"], {}, MISSING),
    (["same", "inconclusive", "vanished", "regressed"], {}, REGRESSED),
    (["regressed"], {"refused": ["another machine"]}, REFUSED),
    ([], {}, MISSING),
    (["skipped", "new"], {}, MISSING),
])  # fmt: skip
def test_the_exit_code_is_that_of_the_worst(verdicts, options, code):
    found = decided(*verdicts, **options)
    assert found.code == code
    assert found.headline.split(":")[0] in ("passed", "REGRESSED", "INCONCLUSIVE", "MISSING", "refused")


def test_missing_cases_keep_their_reason():
    found = judge([measured(), Measurement("gone", missing="vanished", reason="it crashed")], RULE)
    assert [(case.verdict, case.reason) for case in found] == [("same", ""), ("vanished", "it crashed")]


# --- what cannot be judged ------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [
    Measurement("case"), Measurement("case", ratios=[[]]), Measurement("case", before=[[1.0]], after=[[]]),
])  # fmt: skip
def test_no_samples_is_an_error(broken):
    with pytest.raises(ValueError, match="case has no samples"):
        judge([broken], RULE)


def test_a_time_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="not finite"):
        judge([Measurement("case", ratios=[[math.nan, 0.0]])], RULE)


@pytest.mark.parametrize(("options", "message"), [
    ({"least": -1}, "least is -1"), ({"alpha": 0}, "alpha is 0"), ({"resamples": 5}, "resamples is 5"),
    ({"widths": math.nan}, "widths is nan"),
])  # fmt: skip
def test_a_rule_that_means_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Rule(**options)
