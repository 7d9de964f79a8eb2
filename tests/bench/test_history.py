"""Series of results: which runs belong together, where they changed, and what a person is told."""

import io
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("ruptures")
pytest.importorskip("rich")
pytest.importorskip("typer")

import typer
from geoact.bench import results
from geoact.bench.history import History, register
from geoact.bench.history.changes import changes
from geoact.bench.history.show import print_history
from geoact.bench.results import ResultError
from rich.console import Console
from support import documents
from typer.testing import CliRunner

FLAT = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results")
    documents.history(path)
    return path


@pytest.fixture(scope="module")
def history(folder):
    return History.read(folder)


# --- changes of level ---


NOISE = {
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "heavy tails": lambda rng, n: rng.standard_t(3, n) / 3**0.5,
    "one-sided": lambda rng, n: rng.exponential(1, n),
    "interrupted runs": lambda rng, n: rng.normal(0, 1, n) + 6 * (rng.random(n) < 0.1),
}


@pytest.mark.parametrize("n", [6, 12, 30])
@pytest.mark.parametrize("noise", NOISE)
def test_noise_makes_no_change(noise, n):
    rng = np.random.default_rng([7, n])
    alarms = sum(bool(changes(0.8 * np.exp(0.01 * NOISE[noise](rng, n)))) for _ in range(FLAT))
    assert alarms / FLAT < 0.05


@pytest.mark.parametrize("factor", [1.05, 1 / 1.05], ids=["faster", "slower"])
@pytest.mark.parametrize(("before", "after"), [(10, 10), (20, 20), (20, 5), (7, 30)])
def test_a_step_of_five_percent_in_one_percent_of_noise_is_found_in_its_place(before, after, factor):
    rng = np.random.default_rng([8, before])
    found = wrong = 0
    for _ in range(100):
        values = np.exp(0.01 * rng.normal(0, 1, before + after))
        values[before:] *= factor
        told = changes(values)
        found += len(told) == 1 and abs(told[0].index - before) <= 1 and abs(told[0].ratio / factor - 1) < 0.02
        wrong += len(told) > 1
    assert found >= 95
    assert wrong <= 5


def test_two_steps_are_two_changes():
    rng = np.random.default_rng(9)
    values = np.exp(0.01 * rng.normal(0, 1, 45))
    values[15:30] *= 0.9
    told = changes(values)
    assert [change.index for change in told] == [15, 30]
    assert told[0].after < told[0].before
    assert told[1].after > told[1].before


def test_one_slow_run_is_no_change_and_neither_are_two():
    rng = np.random.default_rng(10)
    for slow in (1, 2):
        for place in (0, 12, 30 - slow):
            values = np.exp(0.005 * rng.normal(0, 1, 30))
            values[place : place + slow] *= 0.7
            assert changes(values) == []


def test_a_change_that_is_sure_but_small_is_not_told():
    values = [1.0] * 20 + [1.005] * 20
    assert changes(values) == []
    assert [change.index for change in changes(values, least=0.001)] == [20]


def test_equal_values_and_short_series_have_no_change():
    assert changes([0.5] * 40) == []
    assert changes([1.0, 1.0, 1.0, 2.0, 2.0]) == []
    assert changes([]) == []


def test_more_series_ask_for_more_evidence():
    values = np.exp(0.01 * np.random.default_rng(3).normal(0, 1, 12))
    values[6:] *= 1.05
    (alone,) = changes(values)
    assert changes(values, series=100_000) == []
    (among,) = changes(values, series=2)
    assert among.p == pytest.approx(2 * alone.p)


@pytest.mark.parametrize("values", [[1.0, 0.0, 1.0], [1.0, -1.0], [1.0, float("nan")], [float("inf")], [[1.0]]])
def test_values_that_are_no_speeds_are_refused(values):
    with pytest.raises(ValueError, match="^values must be a sequence of positive numbers$"):
        changes(values)


# --- reading ---


def test_runs_are_in_the_order_of_their_dates_not_of_their_names(history):
    assert history.files == 20
    assert history.notes == []
    for series in history.series:
        dates = [run.date for run in series.runs]
        assert dates == sorted(dates)
        assert [run.commit[:2] for run in series.runs] == [f"{i:02d}" for i in range(20)]


def test_the_planted_changes_are_found_and_no_others(history):
    told = {series.case: [shift.index for shift in series.shifts] for series in history.series}
    assert told == {
        "steady[n=4096]": [],
        "slower[n=4096]": [12],
        "faster[n=4096]": [6],
        documents.NASTY: [],
        "no_copy": [],
    }
    (series, shift), (_, earlier) = history.shifts
    assert series.case == "slower[n=4096]"
    assert shift.slower
    assert shift.percent == pytest.approx(100 * (1 / 1.06 - 1), abs=0.7)
    assert shift.commits == "11cccccccc..12cccccccc"
    assert earlier.percent == pytest.approx(20, abs=1.5)


def test_a_case_without_a_copy_is_absolute(history):
    assert {series.case for series in history.series if series.absolute} == {"no_copy"}
    series = next(series for series in history.series if series.absolute)
    assert series.runs[0].value == pytest.approx(1 / 3e-6, rel=0.05)
    assert series.text(series.runs[0].value).endswith(" calls/s")


def test_machines_and_cache_states_are_not_mixed(tmp_path):
    for i in range(4):
        found = documents.small(isa="avx2" if i % 2 else "avx512", date=f"2026-01-0{i + 1}T00:00:00+00:00")
        if i == 2:
            found["cache"] = "cold"
            for case in found["cases"]:
                case["cache"] = "cold"
        results.save(tmp_path / f"{i}.json", found)
    series = History.read(tmp_path).series
    assert sorted(len(one.runs) for one in series) == [1, 1, 1, 1, 2, 2]


def test_one_machine_on_another_day_is_the_same_series(tmp_path):
    for i in range(3):
        found = documents.small(seed=i, date=f"2026-01-0{i + 1}T00:00:00", python=f"3.1{i}", load_average=[i, i, i])
        results.save(tmp_path / f"{i}.json", found)
    assert [len(one.runs) for one in History.read(tmp_path).series] == [3, 3]


def test_a_score_and_a_time_are_never_in_one_series(tmp_path):
    for i in range(2):
        found = documents.small(date=f"2026-01-0{i + 1}T00:00:00+00:00")
        if i:
            del found["cases"][0]["score"], found["cases"][0]["ceiling_ns"]
        results.save(tmp_path / f"{i}.json", found)
    series = [one for one in History.read(tmp_path).series if one.case == "scale[n=4096]"]
    assert {one.absolute: len(one.runs) for one in series} == {True: 1, False: 1}


BROKEN = {
    "half.json": ('{"schema": 2,', "is no JSON"),
    "other.json": ('{"rows": []}', "is no result of geoact bench"),
    "old.json": ('{"kind": "geoact-bench", "schema": 1}', "has schema 1"),
    "list.json": ("[1, 2]", "is no result of geoact bench"),
    "bytes.json": (b"\xff\xfe\x00", "cannot be read"),
    "undated.json": (results.dumps(documents.small(date="yesterday")), "has no date that can be read: 'yesterday'"),
    "theirs.json": ('{"benchmarks": [3], "machine_info": {}}', "is not laid out as pytest-benchmark does"),
}


def test_files_that_cannot_be_used_are_named_and_the_others_are_used(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "runs")
    for name, (text, _) in BROKEN.items():
        (tmp_path / "runs" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    shutil.copy(tmp_path / "runs" / "run00.json", tmp_path / "runs" / "latest.json")
    found = History.read(tmp_path)
    assert found.files == 20
    assert len(found.notes) == len(BROKEN) + 1
    for name, (_, why) in BROKEN.items():
        (note,) = [note for note in found.notes if name in note]
        assert why in note
    assert any("run00.json is a copy of" in note or "latest.json" in note for note in found.notes)
    assert [len(one.runs) for one in found.series] == [20] * 5


def test_no_usable_file_is_an_error_that_names_them(tmp_path):
    with pytest.raises(ResultError, match="there is no usable result in "):
        History.read(tmp_path)
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(ResultError, match="half.json is no JSON"):
        History.read(tmp_path)
    with pytest.raises(ResultError, match="there is no result file .*absent.json"):
        History.read([tmp_path / "absent.json"])


def test_files_of_pytest_benchmark_are_read(folder, tmp_path):
    for i, path in enumerate(sorted(folder.glob("*.json"))[:3]):
        theirs = results.to_pytest_benchmark(results.load(path))
        (tmp_path / f"{i:04d}_x.json").write_text(json.dumps(theirs))
    found = History.read(tmp_path)
    assert [len(one.runs) for one in found.series] == [3] * 5
    assert {one.suite for one in found.series} == {"pytest-benchmark"}


def test_the_same_commit_on_both_sides_says_that_it_was_not_the_sources(tmp_path):
    documents.history(tmp_path)
    for path in tmp_path.glob("*.json"):
        found = results.load(path)
        found["environment"]["commit"] = "d" * 40
        results.save(path, found)
    assert {shift.commits for _, shift in History.read(tmp_path).shifts} == {"both dddddddddd: not the sources"}


# --- shown ---


def test_the_terminal_has_the_changes_first_and_every_series(history):
    console = Console(file=io.StringIO(), width=160, color_system=None)
    print_history(history, console)
    text = console.file.getvalue()
    assert text.startswith("20 result files, 2026-02-01 to 2026-02-20, 5 series")
    assert text.index("11cccccccc..12cccccccc") < text.index("steady[n=4096]")
    assert documents.NASTY in text
    assert "calls/s" in text


@pytest.fixture
def command():
    app = typer.Typer()
    app.command("other")(lambda: None)
    register(app)

    def run(*arguments):
        return CliRunner().invoke(app, ["history", *map(str, arguments)])

    return run


def test_command_prints_and_ends_well(command, folder):
    done = command(folder)
    assert done.exit_code == 0
    assert "slower[n=4096]" in done.stdout
    assert done.stderr == ""


def test_command_prints_json(command, folder):
    done = command(folder, "--json", "--only", "slower", "--only", "no_copy")
    found = json.loads(done.stdout)
    assert [one["case"] for one in found["series"]] == ["slower[n=4096]", "no_copy"]
    assert [change["run"] for change in found["series"][0]["changes"]] == [12]
    assert found["series"][0]["changes"][0]["slower"] is True
    assert len(found["series"][0]["runs"]) == found["files"] == 20


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 10), (["--within", "8"], 10), (["--within", "7"], 0), (["--only", "faster"], 0), (["--only", "steady"], 0)],
)
def test_command_fails_on_a_late_slowdown_only(command, folder, arguments, code):
    done = command(folder, "--fail-on-regression", *arguments)
    assert done.exit_code == code, done.output
    assert ("slower[n=4096] is slower by 5." in done.stderr) == (code == 10)
    assert command(folder, *arguments).exit_code == 0


def test_command_says_what_is_wrong(command, folder, tmp_path):
    done = command(tmp_path)
    assert done.exit_code == 12
    assert done.stderr.startswith("geoact bench history: there is no usable result in ")
    assert len(done.stderr.splitlines()) == 1
    done = command(folder, "--only", "nothing")
    assert done.exit_code == 2
    assert "--only nothing matches no measured case" in done.stderr
    assert command(folder, "--within", "0").exit_code == 2
    precious = tmp_path / "page.html"
    precious.write_text("precious")
    done = command(folder, "--html", precious)
    assert done.exit_code == 2
    assert "is not overwritten" in done.stderr
    assert precious.read_text() == "precious"


def test_command_with_results_in_which_nothing_was_measured(command, tmp_path):
    results.save(tmp_path / "a.json", documents.document([]))
    done = command(tmp_path)
    assert done.exit_code == 12
    assert "no result has a measured case" in done.stderr
