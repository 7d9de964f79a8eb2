"""Result files: what is read is what was written, and what cannot be used says why; those of pytest-benchmark too."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from geoact.bench import results
from geoact.bench.results import ResultError

DOCUMENT = {
    "schema": 2,
    "kind": "geoact-bench",
    "suite": "toy",
    "cache": "warm",
    "environment": {"cpu": "Some CPU", "processors": 2, "system": "Linux x86_64", "python": "3.11.7", "commit": "abc",
                    "sources_changed": False, "date": "2030-01-02T03:04:05+00:00"},
    "cases": [
        {"name": "f[n=1]", "axes": {"n": 1}, "status": "measured", "clock": "CPU, caches warm", "read": 8,
         "ns": [10.0, 11.5, 12.0], "ceiling_ns": [5.0, 5.5, 6.0], "ceiling": "np.copyto"},
        {"name": "g", "axes": {}, "status": "skipped", "reason": "no such device"},
        {"name": "h", "axes": {}, "status": "measured", "ns": [3.5]},
    ],
    "rows": [{"group": "a", "bar": "b | c", "limit": "<= 1", "median": 0.5}],
    "groups": {"a": {"stopped": "4 samples", "contenders": {"x": {"ns": [1.0, 2.0]}}}},
}  # fmt: skip


def stored(folder, document, name="result.json"):
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


# --- documents ------------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "new" / "folder" / "result.json"
    results.save(path, DOCUMENT)
    assert results.load(path) == DOCUMENT
    assert list(results.measured(DOCUMENT)) == ["f[n=1]", "h"]


@pytest.mark.parametrize("value", [
    {}, [], {"a": {}}, [[]], [{}, [1, [2]]], {"a": [1.5, None, True, "x\n\"ü"]}, {"a": {"b": [{"c": []}]}}, 1e-300, "",
])  # fmt: skip
def test_any_json_survives_being_laid_out(value):
    assert json.loads(results.dumps(value)) == value


def test_samples_take_one_line():
    text = results.dumps(DOCUMENT)
    assert '"ns": [10.0, 11.5, 12.0],' in text
    assert len(text.splitlines()) < 60


def test_an_earlier_file_is_kept_until_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    results.save(path, DOCUMENT)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        results.save(path, DOCUMENT | {"suite": object()})

    def no_space(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        results.save(path, DOCUMENT | {"suite": "other"})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("text", "message"), [
    ("", "result.json is no JSON"),
    ('{"schema": 2,', "result.json is no JSON: .*line 1"),
    ("[]", "result.json is no result of geoact bench"),
    ("{}", "result.json is no result of geoact bench"),
    ("3", "result.json is no result of geoact bench"),
    ("null", "result.json is no result of geoact bench"),
])  # fmt: skip
def test_a_file_that_is_no_result_is_named(tmp_path, text, message):
    with pytest.raises(ResultError, match=message):
        results.load(stored(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ResultError, match="there is no result file .*missing.json"):
        results.load(tmp_path / "missing.json")
    with pytest.raises(ResultError, match="cannot be read"):
        results.load(tmp_path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultError, match="binary.json cannot be read"):
        results.load(binary)


@pytest.mark.parametrize(("change", "message"), [
    ({"schema": 1}, "result.json has schema 1; this version reads schema 2"),
    ({"schema": 3}, "result.json has schema 3; this version reads schema 2"),
    ({"schema": None}, "has schema None"),
    ({"kind": "gpu"}, "is no result of geoact bench"),
    ({"cases": None}, "cases is missing or no list"),
    ({"cases": {}}, "cases is missing or no list"),
    ({"environment": []}, "environment is missing or no dict"),
    ({"rows": {}}, "rows is missing or no list"),
    ({"groups": []}, "groups is missing or no dict"),
    ({"cases": [3]}, "a case has no name"),
    ({"cases": [{"status": "measured"}]}, "a case has no name"),
    ({"cases": [{"name": "f"}]}, "the status of f is None, not measured, skipped, error"),
    ({"cases": [{"name": "f", "status": "fast"}]}, "the status of f is 'fast', not measured"),
    ({"rows": [3]}, "a row has no group and bar"),
    ({"rows": [{"group": "a"}]}, "a row has no group and bar"),
])  # fmt: skip
def test_what_is_wrong_with_a_document_is_named(tmp_path, change, message):
    with pytest.raises(ResultError, match=message):
        results.load(stored(tmp_path, DOCUMENT | change))


@pytest.mark.parametrize("key", ["schema", "kind", "cases", "environment", "rows", "groups"])
def test_a_document_without_one_of_its_parts_is_refused(tmp_path, key):
    with pytest.raises(ResultError, match=r"result\.json"):
        results.load(stored(tmp_path, {k: v for k, v in DOCUMENT.items() if k != key}))


@pytest.mark.parametrize(("change", "message"), [
    ({"ns": []}, r"f\[n=1\] has no samples"),
    ({"ns": None}, r"ns of f\[n=1\] must be a list of positive numbers"),
    ({"ns": [1.0, math.nan, 2.0]}, r"ns of f\[n=1\] must be a list of positive numbers"),
    ({"ns": [1.0, math.inf, 2.0]}, "must be a list of positive numbers"),
    ({"ns": [1.0, 0, 2.0]}, "must be a list of positive numbers"),
    ({"ns": [1.0, -1, 2.0]}, "must be a list of positive numbers"),
    ({"ns": [1.0, "2", 2.0]}, "must be a list of positive numbers"),
    ({"ns": [1.0, True, 2.0]}, "must be a list of positive numbers"),
    ({"ns": 3.0}, "must be a list of positive numbers"),
    ({"ceiling_ns": [1.0, math.nan, 2.0]}, r"ceiling_ns of f\[n=1\] must be a list of positive numbers"),
    ({"ceiling_ns": [1.0]}, r"f\[n=1\] has not as many samples of the copy as of the case"),
])  # fmt: skip
def test_samples_that_cannot_be_used_are_refused(tmp_path, change, message):
    document = copy.deepcopy(DOCUMENT)
    document["cases"][0] |= change
    with pytest.raises(ResultError, match=message):
        results.load(stored(tmp_path, document))


def test_samples_of_a_case_that_was_not_measured_do_not_matter(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    document["cases"][0] |= {"status": "error", "ns": []}
    assert list(results.measured(results.load(stored(tmp_path, document)))) == ["h"]


def test_every_stored_result_can_be_read():
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
    kinds = {path: json.loads(path.read_text()).get("kind") for path in sorted(folder.glob("*.json"))}
    ours = [path for path, kind in kinds.items() if kind == results.KIND]
    assert ours
    for path in ours:
        assert results.load(path)["suite"] == "geoact"


# --- pytest-benchmark -----------------------------------------------------------------------------

BENCHMARKS = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_sum(benchmark, n):
    benchmark.pedantic(sum, args=([n] * 100,), rounds=7, iterations=1)

def test_again(benchmark):
    benchmark.pedantic(sorted, args=([3, 1, 2],), rounds=4)
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Files that pytest-benchmark itself wrote: with the samples, and saved without them."""
    pytest.importorskip("pytest_benchmark")
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "test_theirs.py").write_text(BENCHMARKS)
    # -p would register it twice where plugins load themselves
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider"]
    options = ["--benchmark-json=samples.json", "--benchmark-storage=file://saved", "--benchmark-save=it"]
    done = subprocess.run(
        [*command, *options], cwd=folder, env=outside | alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (saved,) = folder.glob("saved/*/*.json")
    return folder / "samples.json", saved


def test_what_pytest_benchmark_stored_is_read(theirs):
    path, _ = theirs
    document, original = results.load(path), json.loads(path.read_text())
    cases = results.measured(document)
    names = [benchmark["fullname"] for benchmark in original["benchmarks"]]
    assert list(cases) == names
    assert sorted(name.partition("::")[2] for name in names) == ["test_again", "test_sum[1]", "test_sum[2]"]
    for benchmark in original["benchmarks"]:
        samples = [seconds * 1e9 for seconds in benchmark["stats"]["data"]]
        assert cases[benchmark["fullname"]]["ns"] == pytest.approx(samples, rel=1e-5)
        assert cases[benchmark["fullname"]]["axes"] == (benchmark["params"] or {})
    assert {len(case["ns"]) for case in cases.values()} == {4, 7}
    environment = document["environment"]
    assert environment["cpu"] == original["machine_info"]["cpu"]["brand_raw"]
    assert environment["date"] == original["datetime"]


def test_a_benchmark_saved_without_its_samples_says_how_to_save_them(theirs):
    _, path = theirs
    document = results.load(path)
    assert results.measured(document) == {}
    for case in document["cases"]:
        assert case["status"] == "error"
        assert case["reason"].endswith("has no samples: save with --benchmark-save-data or --benchmark-json")


def test_ours_go_to_pytest_benchmark_and_back(tmp_path):
    document = results.load(stored(tmp_path, results.to_pytest_benchmark(DOCUMENT)))
    assert document["environment"] == DOCUMENT["environment"]
    assert list(results.measured(document)) == ["f[n=1]", "h"]
    back = results.measured(document)["f[n=1]"]
    assert back["ns"] == pytest.approx([10.0, 11.5, 12.0])
    assert (back["axes"], back["read"], back["ceiling"]) == ({"n": 1}, 8, "np.copyto")


def test_pytest_benchmarks_own_command_compares_what_we_wrote(theirs, tmp_path):
    """Its compare prints what it computed of our file."""
    storage = tmp_path / "Linux-CPython-3.11-64bit"
    storage.mkdir()
    for number, factor in ((1, 1.0), (2, 2.0)):
        document = copy.deepcopy(DOCUMENT)
        document["cases"][0]["ns"] = [factor * ns for ns in document["cases"][0]["ns"]]
        stored(storage, results.to_pytest_benchmark(document), f"000{number}_ours.json")
    command = [sys.executable, "-m", "pytest_benchmark", "--storage", f"file://{tmp_path}", "compare"]
    columns = ["--columns=min,max,mean,stddev,median,iqr,outliers,ops,rounds,iterations", "--csv=out.csv"]
    done = subprocess.run([*command, *columns], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "f[n=1]" in line]
    assert len(lines) == 2
    csv = (tmp_path / "out.csv").read_text().splitlines()
    assert len(csv) == 5  # a head, two cases of two files
    assert "1.15e-08" in "".join(csv)


@pytest.mark.parametrize(("change", "message"), [
    ({"benchmarks": [{"stats": {"data": [1.0]}}]}, "a benchmark has no name"),
    ({"benchmarks": [{"name": "t", "stats": {"data": [1.0, math.nan]}}]}, "ns of t must be a list of positive numbers"),
    ({"benchmarks": [{"name": "t", "stats": {"data": [0.0]}}]}, "ns of t must be a list of positive numbers"),
    *(({"benchmarks": wrong}, "result.json is not laid out as pytest-benchmark does") for wrong in (
        None, 3, [3], [{"name": "t", "stats": 3}], [{"name": "t", "stats": {"data": ["x"]}}],
        [{"name": "t", "stats": {"data": [None]}}], [{"name": "t", "stats": {"data": 3}}])),
    ({"benchmarks": [], "machine_info": 3}, "is not laid out as pytest-benchmark does"),
    ({"benchmarks": [], "commit_info": 3}, "is not laid out as pytest-benchmark does"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_of_pytest_benchmark_is_named(tmp_path, change, message):
    with pytest.raises(ResultError, match=message):
        results.load(stored(tmp_path, {"machine_info": {}, "datetime": "2030"} | change))


def test_a_benchmark_that_failed_is_an_error_of_its_own(tmp_path):
    found = {"machine_info": {}, "benchmarks": [{"name": "t", "stats": {}}, {"name": "u", "stats": {"data": [1e-6]}}]}
    document = results.load(stored(tmp_path, found))
    assert [case["status"] for case in document["cases"]] == ["error", "measured"]
