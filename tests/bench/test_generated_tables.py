"""The tables that docs/measured.py makes of stored results of the suite."""

import importlib.util
from pathlib import Path

import pytest
from geoact.bench import results

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "cpu": "Some CPU", "cpu_model": "cpu family 1", "processors": 2, "compiler": "c++ 1", "commit": "0123456789abcdef",
    "date": "2030-01-02T03:04:05", "load_average": [0.1, 0.2, 0.3], "sources_changed": True,
}  # fmt: skip
ROWS = [
    {"group": "memory", "bar": "a vs b", "limit": "<= 1.1", "median": 1.0512, "q1": 1.01, "q3": 1.09, "met": "yes",
     "flags": ["cut short"]},
    {"group": "memory", "bar": "for information", "median": 2.0, "q1": 1.0, "q3": 3.0},
    {"group": "peers", "bar": "x vs y", "limit": ">= 8", "reason": "x: not installed"},
    {"group": "peers", "bar": "z vs y", "limit": ">= 8", "median": 123.4, "q1": 120.0, "q3": 125.0, "met": "error",
     "reason": "z runs at 120 %"},
    {"group": "call", "bar": "one call", "limit": "<= 1.5 us", "unit": " us", "median": 1.2, "q1": 1.1, "q3": 1.3,
     "met": "open"},
]  # fmt: skip
CASES = [
    {"name": "f[n=1]", "status": "measured", "ns": [1.0], "GB/s": 12.345, "rounds": 40, "ceiling": "stream copy_nt",
     "score": {"median": 0.912, "q1": 0.9, "q3": 0.92, "low": 0.9, "high": 0.92}},
    {"name": "g", "status": "measured", "ns": [1.0], "rounds": 12, "ceiling_missing": "the case declares no bytes"},
    {"name": "h", "status": "skipped", "reason": "no such device"},
]  # fmt: skip


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """docs/measured.py with a folder of results of its own."""
    spec = importlib.util.spec_from_file_location("generate_tables", ROOT / "docs" / "measured.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def store(folder, name="machine.json", **change):
    document = {
        "schema": results.SCHEMA, "kind": results.KIND, "suite": "geoact", "cache": "warm",
        "environment": ENVIRONMENT, "cases": CASES, "rows": ROWS, "groups": {},
    }  # fmt: skip
    results.save(folder / name, document | change)


def test_bars_with_a_limit_are_shown(generate, tmp_path):
    store(tmp_path)
    assert generate.bars().splitlines()[2:6] == [
        "| a vs b | memory | <= 1.1 | 1.05 (1.01 .. 1.09); cut short | yes |",
        "| x vs y | peers | >= 8 | not measured: x: not installed |  |",
        "| z vs y | peers | >= 8 | 123 (120 .. 125): z runs at 120 % | error |",
        "| one call | call | <= 1.5 us | 1.20 us (1.10 .. 1.30) | open |",
    ]
    assert "Measured on Some CPU (cpu family 1), 2 processors, c++ 1, commit `0123456789`" in generate.bars()
    assert "plus uncommitted changes" in generate.bars()


def test_cases_are_shown_with_their_share_of_the_copy(generate, tmp_path):
    store(tmp_path)
    assert generate.bench_cases().splitlines()[2:5] == [
        "| `f[n=1]` | 12.3 | 91% (90% .. 92%) | stream copy_nt | 40 |",
        "| `g` |  |  | the case declares no bytes | 12 |",
        "| `h` |  | skipped: no such device |  |  |",
    ]
    assert "\nCaches warm. Measured on Some CPU" in generate.bench_cases()


def test_every_machine_has_its_table(generate, tmp_path):
    store(tmp_path)
    store(tmp_path, "other.json", environment=ENVIRONMENT | {"cpu": "Another CPU"}, cases=[])
    assert generate.bars().count("Measured on") == 2
    assert generate.bench_cases().count("Measured on") == 1


def test_other_results_are_left_alone(generate, tmp_path):
    store(tmp_path, suite="geoact-gpu")
    store(tmp_path, "quick.json", quick=True)
    (tmp_path / "accuracy.json").write_text('{"schema": 1, "rows": []}')
    for table in (generate.bars, generate.bench_cases):
        assert table() == "Not measured yet: run `make bench`.\n"


def test_a_result_that_cannot_be_used_is_named(generate, tmp_path):
    store(tmp_path, schema=1)
    with pytest.raises(results.ResultError, match=r"machine\.json has schema 1"):
        generate.bars()


def test_the_stored_result_is_what_the_documentation_shows():
    """Converted to this schema as it was measured: no verdict has changed."""
    stored = results.load(ROOT / "benchmarks" / "results" / "amd-epyc-family-26-model-2-avx512.json")
    rows = {row["bar"]: row for row in stored["rows"]}
    assert rows["sigmoid + statistics vs torch without"]["against"].startswith("torch")
    assert len(rows) <= len(stored["rows"])
    for row in stored["rows"]:
        taken = stored["groups"][row["group"]]["contenders"]
        if row.get("median") is not None and row.get("against"):
            assert len(taken[row["against"]]["ns"]) == row["rounds"]
