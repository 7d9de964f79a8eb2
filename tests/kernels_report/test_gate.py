"""The gate on made-up kernels: every finding, its tolerance, explanations, and what is no finding."""

import json

import pytest
from geoact.bench.kernels_report import (
    METRICS,
    BaselineMissingError,
    Explanation,
    ReportError,
    Tolerances,
    compare,
    load_explanations,
)
from support.machine_code import BASE, TOOLS, kernel, report


def verdict(new, old=BASE, **options):
    return compare(report(old), report(new), **options)


def metrics(*arguments, **options):
    return [one.metric for one in verdict(*arguments, **options).regressions]


def test_the_same_code_passes():
    found = verdict(BASE)
    assert found.ok
    assert (found.code, found.unchanged, found.changed, found.improvements) == (0, 1, 0, ())


WORSE = [
    ({"local_loads": 1}, ["spills"]),
    ({"local_stores": 2}, ["spills"]),
    ({"stack": 8}, ["stack"]),
    ({"local": 8}, ["local"]),
    ({"registers": 33}, ["registers"]),  # 64 warps -> 48
    ({"shared": 100 * 1024}, ["shared"]),
    ({"dynamic_shared": 100 * 1024}, ["shared"]),
    ({"loads": {32: 9}}, ["load_width"]),
    ({"loads": {64: 5}}, ["load_width"]),
    ({"loads": {}}, ["load_width"]),
    ({"stores": {32: 8}}, ["store_width"]),
    ({"loop_load_width": 32}, ["loop_load_width"]),
    ({"loop_store_width": 64}, ["loop_store_width"]),
    ({"instructions": 103}, ["instructions"]),
    ({"loop_instructions": 41}, ["loop_instructions"]),
    ({"loop_instructions": 90, "loop_stored": 64, "loop_loaded": 64}, ["loop_instructions_per_16_bytes"]),
    ({"stack": 8, "local_loads": 1, "instructions": 200}, ["spills", "stack", "instructions"]),
]


@pytest.mark.parametrize(("changes", "expected"), WORSE)
def test_worse(changes, expected):
    found = verdict(kernel(**changes))
    assert [one.metric for one in found.regressions] == expected
    assert found.code == 10
    assert found.counts == dict.fromkeys(expected, 1)
    assert all(text in str(found) for text in ("REGRESSED", "scale<float> sm_90", *expected))
    # And the other way round it is an improvement, of the same metrics.
    back = verdict(BASE, kernel(**changes))
    assert back.ok
    assert [one.metric for one in back.improvements] == expected


def test_every_metric_is_tried_above():
    assert {metric for _, expected in WORSE for metric in expected} == set(METRICS)


@pytest.mark.parametrize(
    "changes",
    [
        {"registers": 30},
        {"instructions": 102},
        {"loads": {32: 1, 128: 1}},
        {"loads": {}, "bulk": 1},  # the copy engine loads instead
        {"loop_instructions": 0, "loop_loaded": 0, "loop_stored": 0, "loop_load_width": 0, "loop_store_width": 0},
        {"loop_instructions": 78, "loop_stored": 64, "loop_loaded": 64},  # unrolled twice
        {"branches": 50, "barriers": 3, "constant": 900, "code_bytes": 4096},
    ],
)
def test_not_worse(changes):
    assert metrics(kernel(**changes)) == []


def test_registers_count_only_where_they_cost_warps():
    assert metrics(kernel(registers=40), kernel(registers=34)) == []
    assert metrics(kernel(registers=41), kernel(registers=34)) == ["registers"]


def test_the_launch_of_the_current_report_decides():
    # At 1024 threads one block more or less is half the SM.
    old, new = kernel(registers=32), kernel(registers=33)
    found = compare(report(old, block=64), report(new, block=1024))
    assert [one.note for one in found.regressions] == ["warps per SM 64 -> 32"]
    # Both fit 32 warps at 1024 threads; that the first was once read for 256 is no change of code.
    assert compare(report(kernel(registers=33), block=256), report(kernel(registers=34), block=1024)).ok


def test_with_the_same_code_only_what_is_outside_it_counts():
    same = {"code_hash": BASE.code_hash}
    assert metrics(kernel(instructions=500, loads={8: 1}, **same)) == []
    assert metrics(kernel(registers=128, **same)) == ["registers"]


@pytest.mark.parametrize(
    ("changes", "tolerances"),
    [
        ({"instructions": 110}, Tolerances(instructions=0.1)),
        ({"loop_instructions": 44}, Tolerances(loop_instructions=0.1)),
        ({"local_loads": 2}, Tolerances(spills=2)),
        ({"stack": 16, "local": 16}, Tolerances(stack=16)),
        ({"registers": 33}, Tolerances(warps=16)),
    ],
)
def test_tolerances(changes, tolerances):
    assert metrics(kernel(**changes)) != []
    assert metrics(kernel(**changes), tolerances=tolerances) == []


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_tolerance_is_not_negative(value):
    with pytest.raises(ReportError, match="tolerance of instructions"):
        Tolerances(instructions=value)


def test_vanished_and_new():
    found = compare(report(BASE, kernel(name="gone")), report(BASE, kernel(name="fresh")))
    assert found.code == 12
    assert found.vanished == (("gone", "sm_90"),)
    assert found.new == (("fresh", "sm_90"),)
    assert not found.ok
    assert compare(report(BASE), report(BASE, kernel(name="fresh"))).ok
    worse = compare(report(BASE, kernel(name="gone")), report(kernel(stack=8)))
    assert worse.code == 10


def test_an_architecture_is_a_kernel_of_its_own():
    found = compare(report(BASE, kernel(arch="sm_80")), report(BASE))
    assert found.vanished == (("scale<float>", "sm_80"),)


def test_other_tools_are_refused():
    newer = report(kernel(stack=8), tools={**TOOLS, "cuobjdump": "14.0.1"})
    found = compare(report(BASE), newer)
    assert found.code == 13
    assert found.refused == ("cuobjdump was 13.1.80, is 14.0.1",)
    assert found.regressions == ()
    allowed = compare(report(BASE), newer, allow_other_tools=True)
    assert allowed.code == 10
    assert allowed.notes == found.refused


def test_another_compiler_is_refused_though_another_kernel_has_it():
    both = report(BASE, kernel(name="triton", compiler="ptxas of CUDA 12.8"))
    assert compare(both, both).ok
    found = compare(both, report(BASE, kernel(name="triton", compiler="ptxas 13.0.88")))
    assert found.refused == ("the compiler was ptxas of CUDA 12.8, is ptxas 13.0.88",)


# --- explanations -------------------------------------------------------------------------------------------


def explained(**changes):
    return Explanation(
        **({"kernel": "scale<*>", "arch": "*", "metric": "stack", "limit": 16, "reason": "why"} | changes)
    )


def test_an_explained_rise_passes_and_is_reported():
    found = verdict(kernel(stack=16), explanations=[explained()])
    assert found.ok
    assert found.unused == ()
    assert "explained: scale<float> sm_90: stack 0 -> 16: why" in str(found)


@pytest.mark.parametrize(
    "changes",
    [{"limit": 15}, {"kernel": "other*"}, {"arch": "sm_8?"}, {"metric": "spills"}],
)
def test_an_explanation_covers_only_what_it_says(changes):
    found = verdict(kernel(stack=16), explanations=[explained(**changes)])
    assert found.code == 10
    assert found.unused == (explained(**changes),)
    assert "explanation not needed" in str(found)


def test_the_limit_of_a_width_is_the_narrowest():
    narrow = kernel(loads={64: 4})
    assert verdict(narrow, explanations=[explained(metric="load_width", limit=64)]).ok
    assert not verdict(narrow, explanations=[explained(metric="load_width", limit=128)]).ok


def test_brackets_in_names_are_plain():
    old, new = kernel(name="add[*bf16, B=8]"), kernel(name="add[*bf16, B=8]", stack=16, code_hash="1" * 16)
    assert verdict(new, old, explanations=[explained(kernel="add[*bf16, B=8]")]).ok


GOOD = {"kernel": "*", "arch": "*", "metric": "stack", "limit": 8, "reason": "a table in local memory"}


def test_explanations_are_read_from_a_file(tmp_path):
    path = tmp_path / "explained.json"
    path.write_text(json.dumps([GOOD]))
    assert load_explanations(path) == (Explanation(**GOOD),)
    assert verdict(kernel(stack=8), explanations=path).ok


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("nonsense", "cannot read the explanations"),
        ("{}", "expected a list"),
        (json.dumps([{**GOOD, "reason": " "}]), "a reason must be given"),
        (json.dumps([{**GOOD, "metric": "speed"}]), "no metric is called 'speed'"),
        (json.dumps([{**GOOD, "limit": "8"}]), "limit must be a number"),
        (json.dumps([{**GOOD, "limit": True}]), "limit must be a number"),
        (json.dumps([GOOD, {"kernel": "*"}]), "entry 2: expected an object with exactly"),
    ],
)
def test_bad_explanations_are_named(tmp_path, stored, message):
    path = tmp_path / "explained.json"
    path.write_text(stored)
    with pytest.raises(ReportError, match=message) as caught:
        load_explanations(path)
    assert str(path) in str(caught.value)


def test_a_missing_baseline_has_its_own_error(tmp_path):
    with pytest.raises(BaselineMissingError, match="no baseline"):
        compare(tmp_path / "none.json", report(BASE))
    stored = tmp_path / "stored.json"
    report(BASE).save(stored)
    assert compare(stored, stored).ok
