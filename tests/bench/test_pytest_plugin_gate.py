"""pytest --geoact-gate on a simulated device: what makes which exit code, and that nothing is lost on the way."""

import json
import re

import pytest
from support.pytest_projects import KERNELS, Project

pytest_plugins = ["pytester"]
pytest.importorskip("pytest_benchmark")

GATE = ("--geoact-gate", "--geoact-quick", "-q")


@pytest.fixture
def project(pytester, monkeypatch):
    return Project(pytester, monkeypatch).simulate(test_speed=KERNELS)


def lines(text, word):
    return [line for line in text.splitlines() if word in line]


def edited(path, **changes):
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | changes))


# --- verdicts -------------------------------------------------------------------------------------


def test_the_same_speed_passes_a_slower_one_does_not_and_neither_touches_the_baseline(project):
    path = project.baseline(3)
    cases = json.loads(path.read_text())["cases"]
    assert {name: len(sessions) for name, sessions in cases.items()} == {
        "test_speed.py::test_first[1]": 3, "test_speed.py::test_first[2]": 3, "test_speed.py::test_second": 3,
    }  # fmt: skip
    stored = path.read_bytes()
    project.environ(SEED=7)
    text = project.run(*GATE)
    assert re.search(r"\npassed: 3 same\n", text)
    assert (
        len(re.findall(r"^test_speed.py::\S+ +(?:199|200|201) us .* same [+-]0\.\d% \(limit 3\.0%\)$", text, re.M)) == 3
    )
    assert "baseline: .geoact/" in text

    project.environ(FIRST2=6e-4)
    text = project.run(*GATE, code=10)
    assert "REGRESSED: 1 regressed, 2 same" in text
    (row,) = lines(text, "::test_first[2]")
    assert re.search(r"(?:599|600|601) us .* regressed \+\d{3}\.\d% \(limit 3\.0%\) +measured 3 times$", row)
    assert path.read_bytes() == stored

    project.environ(FIRST2=1e-4)
    assert "passed: 1 faster, 2 same" in project.run(*GATE)
    project.environ(FIRST2=2.1e-4)
    assert "1 regressed" in project.run(*GATE, code=10)
    assert "passed" in project.run(*GATE, "--geoact-delta=0.5")


def test_what_was_slow_only_once_is_measured_again_and_passes_with_all_its_samples(project):
    once = """
        calls = []

        def test_speed(gpu_benchmark):
            def kernel():
                calls.append(1)
                return SECONDS if len(calls) < DISTURBED else 2e-4
            gpu_benchmark.measure(kernel, read=4096, written=4096)
    """
    project.pytester.makepyfile(test_speed="SECONDS, DISTURBED = 2e-4, 0\n" + once.replace("\n        ", "\n"))
    project.baseline()
    project.pytester.makepyfile(test_speed="SECONDS, DISTURBED = 6e-4, 330\n" + once.replace("\n        ", "\n"))
    text = project.run("--geoact-gate", "-q", "--benchmark-json=out.json")
    assert "passed: 1 same" in text
    assert re.search("measured 3 times", text)
    (stored,) = json.loads((project.path / "out.json").read_text())["benchmarks"]
    assert stored["stats"]["max"] > 5e-4, "the slow samples are kept"


def test_one_session_is_no_measure_of_the_noise(project):
    project.baseline(1)
    project.environ(SECOND=2.1e-4)
    text = project.run(*GATE)
    assert "(limit 10.0%)" in text
    assert "the baseline has 1 session of it: with three the limit is its own" in text
    project.environ(SECOND=3e-4)
    assert "1 regressed" in project.run(*GATE, code=10)


def test_what_is_neither_shown_nor_excluded_passes_unless_it_must_be_known(project):
    project.baseline()
    project.environ(SEED=7, SECOND=2.06e-4)
    assert "passed: 2 same, 1 open" in project.run(*GATE)
    assert "INCONCLUSIVE: 2 same, 1 open" in project.run(*GATE, "--geoact-strict", code=11)


def test_a_failing_test_stays_the_exit_code_and_the_verdict_is_shown(project):
    path = project.baseline()
    stored = path.read_bytes()
    project.environ(SECOND=6e-4)
    project.pytester.makepyfile(test_wrong="def test_wrong(): assert False")
    text = project.run(*GATE, "--geoact-save-baseline", code=1)
    assert "REGRESSED: 1 regressed, 2 same" in text
    assert "not saved: tests failed" in text
    assert path.read_bytes() == stored
    project.environ(SECOND=2e-4)
    assert "not saved: tests failed" in project.run("--geoact-save-baseline", "--geoact-quick", code=1)
    assert path.read_bytes() == stored
    (project.path / "test_wrong.py").write_text("raise KeyboardInterrupt")
    assert "the session did not come to its end" in project.run(*GATE, code=2)


def test_the_gate_and_the_baseline_go_together_only_where_it_passes(project):
    path = project.baseline()
    project.run(*GATE, "--geoact-save-baseline")
    cases = json.loads(path.read_text())["cases"]
    assert {len(sessions) for sessions in cases.values()} == {4}
    project.environ(SECOND=6e-4)
    stored = path.read_bytes()
    assert "not saved: the gate did not pass" in project.run(*GATE, "--geoact-save-baseline", code=10)
    assert path.read_bytes() == stored


def test_another_state_of_the_caches_is_another_clock(project):
    more = "make_warm = make\ndef make(self, device):\n    clock = make_warm(self, device)\n"
    more += (
        "    clock.label += ', cold' if self._settings.cold else ''\n    return clock\ntiming.Devices._make = make\n"
    )
    project.simulate(more, test_speed=KERNELS)
    project.baseline()
    text = project.run(*GATE, "--geoact-cold", code=12)
    assert "it was timed by another clock: simulated cpu, now simulated cpu, cold" in text
    project.run(*GATE, "-o", "geoact_cold=false")


# --- no verdict -----------------------------------------------------------------------------------


def test_without_a_baseline_the_code_is_12(project):
    text = project.run(*GATE, code=12)
    assert "MISSING: there is no baseline to judge against" in text
    assert "not there yet; save one: pytest --geoact-save-baseline, three times" in text
    assert not (project.path / ".geoact").exists()
    assert "not saved: the gate did not pass" in project.run(*GATE, "--geoact-save-baseline", code=12)


def test_another_machine_is_refused_with_13_and_its_baseline_stays(project):
    path = project.baseline()
    identity = json.loads(path.read_text())["identity"]
    edited(path, identity=identity | {"cpu": "Another 9000", "gpu": "NVIDIA Other"})
    stored = path.read_bytes()
    text = project.run(*GATE, code=13)
    assert "refused: another machine: cpu was Another 9000, is " in text
    text = project.run("--geoact-save-baseline", "--geoact-quick", code=13)
    assert "not saved: .geoact/" in text
    assert "is of another machine: cpu was Another 9000" in text
    assert path.read_bytes() == stored


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"kind": "geoact-baseline", "schema": 99}', "has schema 99; this version reads baselines of schema 1"),
        ('{"kind": "geoact-baseline", "schema": 1, "identity": {}}', "is no whole baseline: KeyError: 'cases'"),
        (
            '{"kind": "geoact-baseline", "schema": 1, "identity": {}, "cases": {"a": [{"values": [], '
            '"normalised": true, "code": null, "commit": null}]}}',
            "a has a session without samples",
        ),
        ("[]", "is no result of geoact bench"),
    ],
)
def test_a_file_that_is_no_baseline_is_a_usage_error_and_is_not_touched(project, content, message):
    path = project.path / "base.json"
    path.write_text(content)
    for option in ("--geoact-gate", "--geoact-save-baseline"):
        text = project.run(option, "--geoact-baseline=base.json", code=4)
        assert re.search(rf"^ERROR: --geoact-baseline: .*{re.escape(message)}", text, re.M), text
        assert "passed" not in text
    assert path.read_text() == content


def test_a_result_can_be_judged_against_but_is_not_overwritten(project):
    project.run("-q", "--benchmark-json=result.json")
    stored = (project.path / "result.json").read_bytes()
    assert "passed: 3 same" in project.run(*GATE, "--geoact-baseline=result.json")
    text = project.run("--geoact-save-baseline", "--geoact-quick", "--geoact-baseline=result.json", code=4)
    assert "is a result and no baseline; it is not overwritten: name another file" in text
    assert (project.path / "result.json").read_bytes() == stored


def test_a_baseline_that_cannot_be_written_is_an_error(project):
    (project.path / "file").touch()
    text = project.run("--geoact-save-baseline", "--geoact-quick", "--geoact-baseline=file/base.json", code=4)
    assert "not saved: " in text
    text = project.run("--geoact-save-baseline", "--geoact-quick", "--geoact-baseline=.", code=4)
    assert "is a folder; a baseline is saved to a file" in text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--benchmark-disable"], "--benchmark-disable times nothing"),
        (["--benchmark-skip"], "--benchmark-skip skips every benchmark"),
        (["-n2"], "processes of pytest-xdist disturb each other, so nothing is timed; run without it, or with -n 0"),
    ],
)
def test_a_gate_that_could_see_nothing_is_a_usage_error(project, options, reason):
    if "-n2" in options:
        pytest.importorskip("xdist")
    for option in ("--geoact-gate", "--geoact-save-baseline"):
        text = project.run(option, *options, code=4)
        assert f"ERROR: {option}: {reason}" in text


def test_nothing_is_judged_where_tests_are_only_listed(project):
    assert "geoact" not in project.run("--geoact-gate", "--collect-only", "-q")


# --- benchmarks that are not there ----------------------------------------------------------------


def test_a_benchmark_that_is_gone_is_missed_and_one_that_was_not_asked_for_is_not(project):
    slow = "\n    @pytest.mark.slow\n    def test_second"
    ini = "[pytest]\nmarkers = slow\n"
    project.pytester.makepyfile(test_speed=KERNELS.replace("\n    def test_second", slow), test_other="def test_a(): 0")
    project.pytester.makeini(ini)
    project.baseline()
    for options in (
        ["-k", "first"],
        ["-m", "not slow"],
        ["test_speed.py::test_first"],
        ["test_speed.py::test_first[2]"],
        ["--deselect=test_speed.py::test_second"],
    ):
        assert re.search(r"\npassed: [12] same\n", project.run(*GATE, *options)), options
    assert "MISSING: there is nothing to compare" in project.run(*GATE, "test_other.py", code=12)

    project.pytester.makepyfile(test_speed=KERNELS.partition("    def test_second")[0])
    text = project.run(*GATE, code=12)
    assert "MISSING: 2 same, 1 vanished" in text
    assert lines(text, "test_second")[0].split()[1:5] == ["-", "-", "-", "vanished"]
    project.run(*GATE, "test_speed.py", code=12)
    project.run(*GATE, "test_speed.py::test_first")
    project.run(*GATE, "--deselect=test_speed.py::test_second")
    text = project.run(*GATE, "-k", "first")
    assert "1 benchmark of the baseline not found, but -k is given, so nobody can tell" in text
    project.pytester.makeini(ini + "addopts = -m 'not slow or slow'\n")  # the same for the baseline: narrows nothing
    project.run(*GATE, code=12)

    text = project.run("--geoact-save-baseline", "--geoact-quick")
    assert "dropped from it: test_speed.py::test_second, which is not there any more" in text
    assert "passed: 2 same" in project.run(*GATE)


def test_a_file_that_is_gone_is_missed_where_its_folder_is_run(project):
    for folder in ("one", "two"):
        (project.path / folder).mkdir()
        (project.path / "test_speed.py").rename(project.path / folder / f"test_{folder}.py")
        project.pytester.makepyfile(test_speed=KERNELS)
    (project.path / "test_speed.py").unlink()
    project.baseline()
    assert "passed: 3 same" in project.run(*GATE, "--ignore=two")
    (project.path / "two" / "test_two.py").unlink()
    assert "MISSING: 3 same, 3 vanished" in project.run(*GATE, code=12)
    project.run(*GATE, "one")
    (project.path / "one" / "test_one.py").unlink()
    assert "MISSING: 6 vanished" in project.run(*GATE, code=12)


def test_a_benchmark_that_is_skipped_or_measures_nothing_any_more_is_missed_and_the_reason_shown(project):
    project.baseline()
    skipped = KERNELS.replace(
        "def test_second(gpu_benchmark):", "def test_second(gpu_benchmark):\n        pytest.skip('no compiler')"
    )
    project.pytester.makepyfile(test_speed=skipped)
    text = project.run(*GATE, code=12)
    assert re.search(r"test_second .* vanished +Skipped: no compiler", text)
    project.run("--geoact-save-baseline", "--geoact-quick")
    assert "1 vanished" in project.run(*GATE, code=12), "what is skipped is not dropped from the baseline"
    quiet = KERNELS.replace("def test_second(gpu_benchmark):", "def test_second():\n        return")
    project.pytester.makepyfile(test_speed=quiet)
    text = project.run(*GATE, code=12)
    assert re.search(r"test_second .* vanished +the suite has no such case any more", text)


def test_a_new_benchmark_is_told_of_and_passes(project):
    project.baseline()
    project.pytester.makepyfile(test_new=KERNELS)
    text = project.run(*GATE)
    assert "passed: 3 same, 3 new" in text


# --- where it is ----------------------------------------------------------------------------------


def test_the_ini_file_names_the_baseline_from_its_own_folder(project):
    project.pytester.makeini("[pytest]\ngeoact_baseline = speed/base.json\ngeoact_seconds = 0.1\ngeoact_delta = 0.2\n")
    (project.path / "inside").mkdir()
    text = project.run("--geoact-save-baseline", "--geoact-quick", "-q")
    assert "saved: 3 benchmarks to speed/base.json, 1 session of each: with three" in text
    assert (project.path / "speed" / "base.json").exists()
    project.pytester.chdir()
    assert "(limit 20.0%)" in project.run(*GATE, "--rootdir=.", "test_speed.py")


def test_sessions_that_ran_meanwhile_are_kept(project):
    """The baseline is read again ahead of being written."""
    path = project.baseline(1)
    other = json.loads(path.read_text())["cases"]
    (session,) = other["test_speed.py::test_second"]
    meanwhile = f"""
        import json, pathlib

        def test_zzz():
            path = pathlib.Path({str(path)!r})
            found = json.loads(path.read_text())
            found["cases"]["of somebody else"] = [{json.dumps(session).replace("true", "True").replace("null", "None")}]
            path.write_text(json.dumps(found))
    """
    project.pytester.makepyfile(test_zzz=meanwhile)
    project.run("--geoact-save-baseline", "--geoact-quick")
    cases = json.loads(path.read_text())["cases"]
    assert len(cases["test_speed.py::test_second"]) == 2
    assert len(cases["of somebody else"]) == 1
