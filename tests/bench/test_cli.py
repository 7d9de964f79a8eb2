"""The commands as a user types them: what they print, write and end with, and what they say when they cannot."""

import json
import subprocess
import sys

import pytest
from geoact import cli
from geoact.bench import results
from support import toy_project
from typer.testing import CliRunner

SUITE = """import numpy as np
from geoact.bench import Bar, Call, Contender, Group, Suite, Unavailable

suite = Suite("toy", package="numpy")


@suite.case(n=[1000, 100_000], dtype=["float32"])
def double(n, dtype):
    x = np.ones(n, dtype)
    y = np.empty_like(x)

    def check():
        np.multiply(x, 2, out=y)
        assert (y == 2).all()
        return float(y.sum())

    return Call(lambda: np.multiply(x, 2, out=y), read=x.nbytes, written=y.nbytes, flops=n, check=check)


@suite.case()
def absent():
    raise Unavailable("no such device")


@suite.group()
def sums():
    x = np.ones(1000)
    group = Group("sums")
    group.contenders = [Contender("np.sum", [lambda: np.sum(x)]), Contender("method", [x.sum])]
    group.bars = [Bar("np.sum vs the method", "np.sum", ("method",), at_most=100)]
    return group
"""


@pytest.fixture
def geoact(monkeypatch):
    """Runs the command in this process; returns exit code, standard output and standard error."""

    def run(*words):
        done = CliRunner().invoke(cli.build_app(), list(map(str, words)))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    monkeypatch.setenv("COLUMNS", "200")
    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "suite.py").write_text(SUITE)
    (tmp_path / "pyproject.toml").write_text('[tool.geoact.bench]\nsuite = "suite.py"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "suite", raising=False)
    yield tmp_path
    sys.modules.pop("suite", None)
    sys.path[:] = [p for p in sys.path if p != str(tmp_path)]


# --- bench ----------------------------------------------------------------------------------------


def test_run_measures_shows_and_writes_everything(geoact, folder):
    files = {
        "--json": "r.json",
        "--html": "r.html",
        "--plots": "plots",
        "--markdown": "r.md",
        "--pytest-benchmark": "p.json",
    }
    code, out, err = geoact("bench", "run", "--quick", *(word for pair in files.items() for word in pair))
    assert code == 0, err
    for words in ("double[n=1000,dtype=float32]", "np.sum vs the method", "no such device", "wrote r.json"):
        assert words in out
    document = results.load(folder / "r.json")
    assert {c["name"]: c["status"] for c in document["cases"]} == {
        "double[n=1000,dtype=float32]": "measured", "double[n=100000,dtype=float32]": "measured", "absent": "skipped",
    }  # fmt: skip
    (row,) = document["rows"]
    assert (row["bar"], row["met"]) == ("np.sum vs the method", "yes")
    assert document["quick"] is True
    assert all((folder / name).exists() for name in files.values())
    assert results.load(folder / "p.json")["cases"][0]["name"] == "double[n=1000,dtype=float32]"


def test_run_takes_a_part_of_the_suite(geoact, folder):
    code, out, _ = geoact("bench", "run", "suite.py", "--quick", "--set", "n=1000", "--json", "r.json")
    assert code == 0
    assert [c["name"] for c in results.load(folder / "r.json")["cases"]] == ["double[n=1000,dtype=float32]"]
    code, out, _ = geoact("bench", "run", "--quick", "--no-cases")
    assert code == 0
    assert "double" not in out
    code, out, _ = geoact("bench", "run", "--quick", "--only", "sums")
    assert code == 0
    assert "np.sum vs the method" in out


def test_a_case_that_raises_makes_the_exit_status_1_and_the_rest_is_measured(geoact, folder):
    (folder / "suite.py").write_text(SUITE + "\n@suite.case()\ndef broken():\n    return Call(lambda: 1 / 0)\n")
    code, out, _ = geoact("bench", "run", "--quick", "--no-bars", "--json", "r.json")
    assert code == 1
    assert "ZeroDivisionError: division by zero" in out
    assert len(results.measured(results.load(folder / "r.json"))) == 2


@pytest.mark.parametrize(("text", "code", "message"), [
    ("import sys\nsys.exit(0)\n", 2, "fails when it is imported: SystemExit: 0"),
    ("suite.setup = lambda: 1 / 0\n", 2, "setup of toy failed: ZeroDivisionError"),
    ("@suite.case()\ndef leaving():\n    import sys\n    sys.exit(0)\n", 1, "SystemExit: 0"),
    ("@suite.case()\ndef false():\n    return Call(lambda: 1, check=lambda: False)\n", 1, "check returned False"),
    ("import os\n@suite.case()\ndef wanders():\n    os.chdir('/')\n    return Call(lambda: 1)\n", 0, "wrote r.json"),
    ("@suite.case()\ndef nan():\n    return Call(lambda: 1, check=lambda: float('nan'))\n", 0, "wrote r.json"),
])  # fmt: skip
def test_a_suite_that_misbehaves_hides_nothing(geoact, folder, text, code, message):
    (folder / "suite.py").write_text(SUITE + text)
    found, out, err = geoact("bench", "run", "--quick", "--no-bars", "--json", "r.json")
    assert found == code, (out, err)
    assert message in out + err
    assert (folder / "r.json").exists() == (code != 2)


def test_what_is_shown_to_nobody_is_stored_all_the_same(geoact, folder):
    program = "from geoact import cli; cli.main()"
    command = (
        f'{sys.executable} -c "{program}" bench run --quick --no-bars --json r.json | true; exit ${{PIPESTATUS[0]}}'
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert results.load(folder / "r.json")["cases"]


def test_assertions_that_are_left_out_are_no_checks(folder):
    command = [sys.executable, "-O", "-c", "from geoact import cli; cli.main()", "bench", "run", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert (done.returncode, done.stderr.strip()) == (
        2, "geoact bench run: python -O leaves out the assertions that checks are made of",
    )  # fmt: skip


@pytest.mark.parametrize(("words", "message"), [
    (["bench", "run", "missing.py"], "there is no suite file missing.py"),
    (["bench", "run", "--only", "nothing of that name"], "nothing of the suite toy is chosen"),
    (["bench", "run", "--set", "n"], "--set takes axis=value, got 'n'"),
    (["bench", "show", "missing.json"], "there is no result file missing.json"),
    (["bench", "show", "suite.py"], "suite.py is no JSON"),
    (["compare", "a"], "two sides are needed"),
    (["compare", "no-such-side", "installed"], "no-such-side is none of: a result file, a git revision"),
    (["compare", "installed", "r.json"], "the other side is not"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_exit_status_2(geoact, folder, words, message):
    code, _, err = geoact(*words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_without_a_suite_it_says_where_one_could_be_named(geoact, folder):
    (folder / "pyproject.toml").unlink()
    code, _, err = geoact("bench", "run")
    assert code == 2
    assert "[tool.geoact.bench]" in err


@pytest.mark.parametrize(("text", "message"), [
    ("[tool.geoact.bench]\nsuit = 'x'\n", "has no key 'suit'; there are suite, build"),
    ("[tool.geoact.bench]\nsuite = 3\n", "suite must be a str, got 3"),
    ("[tool.geoact]\nbench = 3\n", "must be a table"),
    ("[tool]\ngeoact = 3\n", "must be a table"),
    ("[tool\n", "pyproject.toml: "),
])  # fmt: skip
def test_a_table_that_is_wrong_is_told(geoact, folder, text, message):
    (folder / "pyproject.toml").write_text(text)
    code, _, err = geoact("bench", "list")
    assert code == 2
    assert message in err


def test_list_shows_cases_axes_and_groups(geoact, folder):
    code, out, _ = geoact("bench", "list")
    assert code == 0
    for words in ("double", "100000", "float32", "absent", "sums"):
        assert words in out


def test_an_earlier_result_is_kept_when_the_new_one_cannot_be_written(geoact, folder):
    (folder / "r.json").mkdir()
    code, _, err = geoact("bench", "run", "--quick", "--set", "n=1000", "--json", "r.json")
    assert code == 2
    assert "r.json" in err
    assert (folder / "r.json").is_dir()


def test_a_missing_package_of_the_extra_is_named(geoact, folder, monkeypatch):
    from geoact.bench import cli as module

    monkeypatch.setattr(module, "find_spec", lambda name: None if name in ("plotly", "ruptures") else object())
    code, _, err = geoact("bench", "list")
    assert (code, err) == (2, "geoact bench list needs plotly, ruptures: pip install geoact[bench]\n")


def test_without_typer_the_command_names_the_extra():
    program = (
        "import sys, importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('typer', 'rich') else real(name, *a)\n"
        "sys.argv = ['geoact', 'compare', 'a', 'b']\n"
        "from geoact import cli\ncli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "geoact compare needs rich, typer: pip install geoact[bench]\n"


# --- compare: stored results ----------------------------------------------------------------------


@pytest.fixture
def stored(folder, geoact):
    """A result, and the same with one case three times as slow."""
    geoact("bench", "run", "--quick", "--no-bars", "--json", "a.json")
    document = results.load(folder / "a.json")
    document["cases"][0]["ns"] = [3 * ns for ns in document["cases"][0]["ns"]]
    results.save(folder / "b.json", document)
    return document


def test_stored_results_are_compared(geoact, stored, folder):
    assert geoact("compare", "a.json", "a.json")[0] == 0
    code, out, _ = geoact("compare", "a.json", "b.json", "--json", "c.json", "--markdown", "c.md", "--junit", "c.xml")
    assert code == 10
    assert "REGRESSED: 1 regressed, 1 " in out
    assert "**REGRESSED" in (folder / "c.md").read_text()
    assert 'failures="1"' in (folder / "c.xml").read_text()
    code, again, _ = geoact("bench", "show", "c.json")
    assert code == 0
    assert "REGRESSED: 1 regressed, 1 " in again


def test_another_machine_is_refused_with_13(geoact, stored, folder):
    stored["environment"]["cpu"] = "Another CPU"
    results.save(folder / "b.json", stored)
    code, out, _ = geoact("compare", "a.json", "b.json")
    assert code == 13
    assert "refused: another machine: cpu was" in out


def test_a_missing_baseline_and_a_vanished_case_are_12(geoact, stored, folder):
    code, _, err = geoact("compare", "none.json", "b.json")
    assert (code, err) == (12, "geoact compare: there is no baseline none.json\n")
    del stored["cases"][1]
    results.save(folder / "b.json", stored)
    stored["cases"][0]["ns"] = [ns / 3 for ns in stored["cases"][0]["ns"]]
    results.save(folder / "b.json", stored)
    code, out, _ = geoact("compare", "a.json", "b.json")
    assert code == 12
    assert "the suite has no such case any more" in out


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is no JSON"), ("{}", "is no result of geoact bench"), ("", "is no JSON")]
)
def test_a_corrupt_file_is_told_and_left_alone(geoact, stored, folder, text, message):
    (folder / "b.json").write_text(text)
    code, _, err = geoact("compare", "a.json", "b.json", "--json", "b.json")
    assert code == 2
    assert message in err
    assert (folder / "b.json").read_text() == text


def test_samples_that_are_none_are_told(geoact, stored, folder):
    stored["cases"][0]["ns"] = []
    results.save(folder / "b.json", stored)
    code, _, err = geoact("compare", "a.json", "b.json")
    assert code == 2
    assert "double[n=1000,dtype=float32] has no samples" in err


def test_a_baseline_is_made_of_results_and_gates(geoact, stored, folder):
    document = results.load(folder / "a.json")
    for i in (2, 3):
        for case in results.measured(document).values():
            case["ns"] = [1.001 * ns for ns in case["ns"]]
        results.save(folder / f"a{i}.json", document)
    assert geoact("bench", "baseline", "base.json", "a.json", "a2.json", "a3.json")[0] == 0
    before = (folder / "base.json").read_bytes()
    code, _, err = geoact("bench", "baseline", "base.json", "a2.json")
    assert (code, (folder / "base.json").read_bytes()) == (2, before)
    assert "in the baseline already" in err
    code, _, err = geoact("bench", "baseline", "a.json", "b.json")
    assert code == 2
    assert "a.json is no baseline; it is not overwritten" in err
    assert json.loads((folder / "base.json").read_text())["kind"] == "geoact-baseline"
    assert geoact("compare", "base.json", "b.json")[0] == 10
    assert geoact("compare", "base.json", "b.json", "--set", "n=100000")[0] == 0
    assert geoact("compare", "base.json", "b.json", "--only", "n=100000")[0] == 0
    stored["environment"]["cpu"] = "Another CPU"
    results.save(folder / "b.json", stored)
    before = (folder / "base.json").read_bytes()
    code, _, err = geoact("bench", "baseline", "base.json", "b.json")
    assert code == 2
    assert "another machine" in err
    assert (folder / "base.json").read_bytes() == before


# --- compare: git ---------------------------------------------------------------------------------

FEW = ("--incarnations", 2, "--seconds", 0.05, "--threshold", 60)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    toy_project.commit(folder, 0.001, "v1")
    toy_project.commit(folder, 0.004, "v2")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_revisions_are_compared(geoact, repository, tmp_path):
    code, out, err = geoact("compare", "v1", "v2", *FEW, "--json", "c.json", "--plot", tmp_path / "c.png")
    assert code == 10, (out, err)
    assert "work[kind=steady]" in out.splitlines()[2]
    found = json.loads((repository / "c.json").read_text())
    assert found["a"]["commit"] == toy_project.git(repository, "rev-parse", "v1")
    assert (tmp_path / "c.png").stat().st_size > 1000
    toy_project.write(repository, 0.001)
    assert geoact("compare", "v1", ".", *FEW)[0] == 0


def test_a_selftest_of_the_gate(geoact, repository):
    code, out, err = geoact(
        "compare", "v1", "--selftest", "--slowdown", 400, *FEW, "--only", "steady", "--json", "s.json"
    )
    assert code == 0, (out, err)
    assert "the gate works here: 0 false alarms; 1 of 1 slowdowns of 400% were caught" in out
    assert json.loads((repository / "s.json").read_text())["kind"] == "geoact-selftest"
