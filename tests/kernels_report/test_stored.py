"""The stored form: read back unchanged, one line per kernel, refused when it is not a report, never half written."""

import json
import os

import pytest
from geoact.bench.kernels_report import COLUMNS, Report, ReportError, joined
from support.machine_code import kernel, report

STORED = report(
    kernel(name="b<int>", arch="sm_100", loads={}, stores={8: 3}, mix={"other": 1}, other_opcodes="FROB NICATE"),
    kernel(name="b<int>", arch="sm_90", compiler="ptxas of CUDA 12.8"),
    kernel(name="a", arch="sm_120a", loop_stored=0, loop_loaded=0),
    block=128,
    shared=1024,
)


def test_round_trip():
    assert Report.from_json(STORED.to_json()) == STORED


def test_one_sorted_line_per_kernel():
    lines = STORED.to_json().splitlines()
    rows = [json.loads(line.rstrip(",")) for line in lines if line.startswith("[")]
    assert [row[:2] for row in rows] == [["a", "sm_120a"], ["b<int>", "sm_90"], ["b<int>", "sm_100"]]
    assert all(len(row) == len(COLUMNS) for row in rows)


def test_the_order_of_reading_does_not_show():
    again = report(*reversed(STORED.kernels), block=128, shared=1024)
    assert again.to_json() == STORED.to_json()


def test_sixteen_hundred_rows_stay_small():
    many = report(
        *(
            kernel(name=f"forward<activation_{i}, statistics_of_moments, float>", arch=arch, code_hash=f"{i:016x}")
            for i in range(400)
            for arch in ("sm_80", "sm_90", "sm_100", "sm_120")
        )
    )
    assert len(many.to_json()) < 1_500_000


def test_the_full_form_has_what_is_derived():
    (first, *_) = STORED.full()["kernels"]
    assert first["name"] == "a"
    assert (first["block"], first["warps_per_sm"], first["occupancy"]) == (128, 48, 1.0)
    assert first["loop_instructions_per_16_bytes"] is None
    assert json.loads(json.dumps(STORED.full())) == STORED.full()


def test_a_kernel_is_found_by_name_and_architecture():
    assert STORED["b<int>", "sm_100"].stores == {8: 3}
    with pytest.raises(KeyError):
        STORED["b<int>", "sm_80"]


def test_two_kernels_of_one_name_are_refused():
    with pytest.raises(ReportError, match="two kernels are called a for sm_90"):
        report(kernel(name="a"), kernel(name="a"))


def test_reports_of_different_tools_are_not_joined():
    other = report(kernel(name="c"))
    assert len(joined([report(kernel(name="a")), other]).kernels) == 2
    with pytest.raises(ReportError, match="different tools"):
        joined([STORED, other])


def changed(**head):
    return json.dumps({**json.loads(STORED.to_json()), **head})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a kernel report"),
        ("{}", "not a kernel report"),
        ("[1, 2]", "not a kernel report"),
        ("null", "not a kernel report"),
        (STORED.to_json()[:-40], "not a kernel report"),
        (changed(schema=99), "schema 99"),
        (changed(columns=["name"]), "lacks the columns arch"),
        (changed(kernels=[["a", "sm_90"]]), "not a kernel report"),
        (STORED.to_json().replace(",128,", ',"many",', 1), "not a kernel report"),
        (STORED.to_json().replace('"sm_90",1,32', '"sm_90",7,32'), "not a kernel report"),
        (STORED.to_json().replace('"sm_90",1,32', '"sm_90",1,-32'), "registers of b<int> holds -32"),
    ],
)
def test_what_is_no_report_is_named(tmp_path, text, message):
    path = tmp_path / "kernels.json"
    path.write_text(text)
    with pytest.raises(ReportError, match=message) as caught:
        Report.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ReportError, match="nothing.json"):
        Report.load(tmp_path / "nothing.json")


def test_a_failed_save_keeps_the_earlier_report(tmp_path, monkeypatch):
    path = tmp_path / "kernels.json"
    STORED.save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report(kernel()).save(path)
    assert Report.load(path) == STORED
    assert list(tmp_path.iterdir()) == [path]
