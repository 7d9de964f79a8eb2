"""The fixture gpu_benchmark: what it measures, stores and refuses, in projects of somebody else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import geoact
import pytest
from geoact.bench import results
from geoact.bench.pytest_plugin import contract
from support.pytest_projects import Project

pytest_plugins = ["pytester"]
pytest.importorskip("pytest_benchmark")


@pytest.fixture
def project(pytester, monkeypatch):
    return Project(pytester, monkeypatch)


NUMPY = """
    import numpy as np, pytest

    @pytest.mark.parametrize("n", [64, 4096])
    def test_scaled(gpu_benchmark, n):
        x, out = np.arange(1.0, n), np.empty(n - 1)
        y = gpu_benchmark.measure(
            np.multiply, (x, 2.0), {"out": out}, read=x.nbytes, written=x.nbytes, flops=n - 1,
            check=lambda y: np.array_equal(y, x + x),
        )
        assert y is out
        assert gpu_benchmark.evidence["clock"] == "CPU, caches warm"

    def test_short_form(gpu_benchmark):
        assert gpu_benchmark(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]

    def test_theirs(benchmark):
        assert benchmark.pedantic(sum, ([1, 2],), rounds=3) == 3
"""


# --- beside pytest-benchmark ----------------------------------------------------------------------


def test_what_is_measured_is_in_the_table_the_section_and_the_json(project):
    project.pytester.makepyfile(test_speed=NUMPY)
    text = project.run("--geoact-quick", "--benchmark-json", "out.json")
    assert re.search(r"=+ geoact =+\nbenchmark +time +GB/s +% of copy +notes\n", text)
    assert re.search(
        r"^test_speed.py::test_scaled\[64\] +[\d.]+ .s +[\d.]+ +[\d.]+ \([\d.]+ \.\. [\d.]+\)$", text, re.M
    )
    assert re.search(r"^test_speed.py::test_short_form +\S+ .s +- +- +no copy: the case declares no bytes$", text, re.M)
    assert "clock: CPU, caches warm\n" in text
    assert "save one: pytest --geoact-save-baseline" in text
    assert text.index("benchmark: 4 tests") < text.index("= geoact =")

    stored = json.loads((project.path / "out.json").read_text())
    rows = {row["name"]: row for row in stored["benchmarks"]}
    assert set(rows) == {"test_scaled[64]", "test_scaled[4096]", "test_short_form", "test_theirs"}
    assert "geoact" not in rows["test_theirs"]["extra_info"]
    evidence = rows["test_scaled[4096]"]["extra_info"]["geoact"]
    assert set(evidence) >= {
        "GB/s", "GFLOP/s", "score", "ceiling", "ceiling_ns", "clock", "cache", "repeat", "stopped", "rounds", "device",
    }  # fmt: skip
    assert set(evidence["score"]) == {"median", "q1", "q3", "low", "high"}
    assert len(evidence["ceiling_ns"]) == rows["test_scaled[4096]"]["stats"]["rounds"] == evidence["rounds"]
    assert stored["machine_info"]["geoact"]["isa"] == geoact.isa()
    document = results.load(project.path / "out.json")
    measured = results.measured(document)
    assert set(measured) == {row["fullname"] for row in rows.values()}
    assert measured["test_speed.py::test_scaled[64]"]["ceiling_ns"]
    assert measured["test_speed.py::test_scaled[64]"]["axes"] == {"n": 64}


def test_saved_runs_can_be_compared_with_one_another_and_with_those_of_before(project):
    """With warnings as errors: the name of the machine alone makes no two runs different."""
    project.pytester.makepyfile(test_speed=NUMPY, test_old="def test_old(benchmark):\n    benchmark(sum, [1])")
    project.run("--benchmark-save=old", "-q", "test_old.py")
    project.run("--benchmark-save=new", "--benchmark-save-data", "--geoact-quick", "-q", "test_speed.py")
    files = {path.name: json.loads(path.read_text()) for path in project.path.glob(".benchmarks/*/*.json")}
    assert "geoact" not in files["0001_old.json"]["machine_info"]
    assert "geoact" in files["0002_new.json"]["machine_info"]
    for run in ("0001", "0002"):
        text = project.run(f"--benchmark-compare={run}", "--geoact-quick", "--benchmark-autosave", "-q")
        assert f"({run}_" in text
        assert text.count("Saved benchmark data") == 1


def test_a_histogram_is_drawn_where_pygal_is(project):
    pytest.importorskip("pygal", reason="pytest-benchmark draws histograms with pygal, which is not installed")
    project.simulate(test_speed=KERNEL)
    project.run("--benchmark-histogram=drawn")
    assert list(project.path.glob("drawn*.svg"))


KERNEL = """
    def test_kernel(gpu_benchmark):
        gpu_benchmark.measure(lambda: 2e-4, read=4096, written=4096)
"""


@pytest.mark.parametrize("options", [["--benchmark-disable"], ["-n", "2"]])
def test_where_pytest_benchmark_is_disabled_the_call_runs_once_and_is_checked(project, options):
    if "-n" in options:
        pytest.importorskip("xdist")
        options += ["-W", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning"]
    project.simulate(
        test_speed="""
            calls = []

            def test_right(gpu_benchmark):
                assert gpu_benchmark.measure(lambda: calls.append(1) or 5.0, check=lambda y: y == 5.0) == 5.0
                assert len(calls) == 1

            def test_wrong(gpu_benchmark):
                gpu_benchmark.measure(lambda: 4.0, check=lambda y: y == 5.0)
        """
    )
    text = project.run(*options, code=1)
    assert "1 failed, 1 passed" in text
    assert "AssertionError: check returned False" in text
    assert "1 benchmark ran once, untimed: pytest-benchmark is disabled" in text


def test_benchmarks_can_be_chosen_and_left_out(project):
    project.simulate(test_speed=KERNEL, test_other="def test_other(): pass")
    assert "1 skipped" in project.run("--benchmark-skip")
    text = project.run("--benchmark-only")
    assert "1 passed, 1 skipped" in text
    assert "test_speed.py::test_kernel" in text


def test_a_fixture_that_is_not_used_is_told_of_as_by_pytest_benchmark(project):
    project.simulate(test_speed="def test_nothing(gpu_benchmark): pass")
    assert "Benchmark fixture was not used at all in this test" in project.run("-W", "default")


# --- what is wrong --------------------------------------------------------------------------------


def test_a_wrong_call_fails_its_test_and_leaves_the_others_what_they_measured(project):
    project.simulate(
        test_speed="""
            import itertools, pytest

            def test_right(gpu_benchmark):
                gpu_benchmark.measure(lambda: 2e-4, read=4096, written=4096, check=lambda y: y == 2e-4)

            def test_wrong_at_once(gpu_benchmark):
                def check(result):
                    assert result == 7, "it is not seven"
                gpu_benchmark.measure(lambda: 2e-4, check=check)

            def test_wrong_later(gpu_benchmark):
                count = itertools.count()
                def check(result):
                    assert next(count) == 0, "right at first only"
                gpu_benchmark.measure(lambda: 2e-4, check=check)

            def test_another_output(gpu_benchmark):
                count = itertools.count()
                gpu_benchmark.measure(lambda: 2e-4, check=lambda y: next(count))

            def test_same_output(gpu_benchmark):
                gpu_benchmark.measure(lambda: 2e-4, check=lambda y: b"output")
                assert gpu_benchmark.evidence["output"] == b"output".hex()

            def test_too_fast(gpu_benchmark):
                gpu_benchmark.measure(lambda: 5e-5, read=1 << 20, written=1 << 20)

            def test_small_and_called_faster_than_the_copy(gpu_benchmark):
                gpu_benchmark.measure(lambda: 5e-5, read=4096, written=4096)
                assert gpu_benchmark.evidence["score"]["median"] > 1.5

            def test_raises(gpu_benchmark):
                gpu_benchmark(lambda: {}["key"])

            def test_twice(gpu_benchmark):
                gpu_benchmark(lambda: 2e-4)
                gpu_benchmark(lambda: 2e-4)

            def test_after_theirs(benchmark, gpu_benchmark):
                benchmark.pedantic(int)
                gpu_benchmark(lambda: 2e-4)
        """
    )
    text = project.run("--benchmark-json", "out.json", "--tb=short", code=1)
    assert "7 failed, 3 passed" in text
    for message in (
        "WRONG RESULT: it is not seven",
        "WRONG RESULT after it was timed: right at first only",
        "test_another_output: WRONG RESULT after it was timed: the output is not what it was",
        "test_too_fast: test_speed.py::test_too_fast runs at 20",
        "or use more threads than it declares?",
        "KeyError: 'key'",
        "a test measures one call: this one was measured by gpu_benchmark(...) before",
        "a test measures one call: this one was measured by benchmark.pedantic(...) before",
    ):
        assert message in text, message
    names = [row["name"] for row in json.loads((project.path / "out.json").read_text())["benchmarks"]]
    assert {"test_right", "test_same_output"} <= set(names)
    assert not {"test_wrong_at_once", "test_wrong_later", "test_too_fast", "test_raises"} & set(names)


def test_a_wrong_argument_is_named(project):
    project.simulate(
        test_speed="""
            import pytest

            @pytest.mark.parametrize(("wrong", "kind", "message"), [
                ({"device": "tpu"}, ValueError, "device is 'tpu'; it must be one of auto, cpu, cuda"),
                ({"read": -1}, ValueError, "read is -1; it must be at least 0"),
                ({"written": 1.5}, TypeError, "written must be an integer, got 1.5"),
                ({"check": 3}, TypeError, "check must be a callable, got 3"),
                ({"before": 3}, TypeError, "before must be a callable, got 3"),
                ({"runs": [3]}, TypeError, "run must be a callable or a sequence of callables"),
                ({"check": lambda y: [y]}, TypeError, "check must raise AssertionError, or return a bool or a"),
            ])
            def test_wrong(gpu_benchmark, wrong, kind, message):
                with pytest.raises(kind) as caught:
                    gpu_benchmark.measure(lambda: 2e-4, **wrong)
                assert message in str(caught.value)
        """
    )
    assert "7 passed" in project.run()


@pytest.mark.parametrize("option", ["--geoact-seconds=soon", "--geoact-delta=-1", "-ogeoact_seconds=0"])
def test_a_wrong_number_is_a_usage_error(project, option):
    name = re.search("geoact[-_]([a-z]+)", option)[1]
    text = project.run(option, code=4)
    assert re.search(rf"ERROR: geoact_{name} is '.+'; it must be a number above 0", text)


# --- devices --------------------------------------------------------------------------------------


def test_the_clock_is_that_of_the_device_on_which_the_arrays_lie(project):
    project.simulate(
        test_speed="""
            import os, numpy as np, pytest
            from geoact.bench.pytest_plugin import arrays

            class OnDevice:
                def __dlpack_device__(self): return (2, 0)

            def device(gpu_benchmark): return gpu_benchmark.evidence["clock"]

            def test_device_array(gpu_benchmark):
                gpu_benchmark(lambda x: 2e-4, OnDevice())
                assert device(gpu_benchmark) == "simulated cuda"

            def test_device_array_inside(gpu_benchmark):
                gpu_benchmark(lambda x, *, out: 2e-4, np.ones(3), out={"y": [OnDevice()]})
                assert device(gpu_benchmark) == "simulated cuda"

            def test_device_result(gpu_benchmark):
                gpu_benchmark(lambda: OnDevice())
                assert device(gpu_benchmark) == "simulated cuda"

            def test_host_array(gpu_benchmark):
                gpu_benchmark(lambda x: 2e-4, np.ones(3))
                assert device(gpu_benchmark) == "simulated cpu"

            def test_asked_for(gpu_benchmark):
                gpu_benchmark.measure(lambda: 2e-4, device="cuda")
                assert device(gpu_benchmark) == "simulated cuda"

            def test_nobody_knows(gpu_benchmark, monkeypatch):
                monkeypatch.setattr(arrays, "models", lambda: ["NVIDIA Test"])
                with pytest.raises(ValueError, match="say device='cpu' or device='cuda'"):
                    gpu_benchmark(lambda: 2e-4)
        """
    )
    project.environ(GPU=1)
    text = project.run()
    assert "6 passed" in text
    assert re.search(r"test_asked_for .* simulated cuda", text)
    project.environ(GPU="")
    text = project.run("-rs")
    assert "2 passed, 4 skipped" in text
    assert "it is timed on a GPU: no CUDA device: this is a test" in text


def test_without_a_gpu_the_clock_is_that_of_the_cpu_and_the_section_says_so(project):
    more = "from geoact.bench.pytest_plugin import arrays\narrays.gpu_here = lambda: False"
    project.simulate(more, test_speed=KERNEL)
    assert "there is no CUDA device here: timed by the CPU's clock\n" in project.run()


# --- in everybody's pytest ------------------------------------------------------------------------


def test_a_run_that_has_nothing_to_do_with_geoact_loads_nothing_of_it(project):
    project.pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            loaded = {"geoact", "numpy", "torch"} & set(sys.modules)
            print("loaded:", sorted(loaded), "plugin:", "pytest_geoact" in sys.modules)
        """
    )
    project.pytester.makepyfile(test_one="def test_one(benchmark): benchmark.pedantic(int)")
    text = project.run("--benchmark-json=out.json", "-s")
    assert "loaded: [] plugin: True" in text, text
    assert "geoact" not in json.loads((project.path / "out.json").read_text())["machine_info"]


def test_what_the_plugin_itself_imports_is_pytest_and_the_standard_library():
    program = (
        "import sys, pytest; before = set(sys.modules); import pytest_geoact;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(geoact.__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.strip() == "['pytest_geoact']"


@pytest.mark.parametrize(
    ("blocked", "reason"),
    [
        (["-p", "no:benchmark"], "which -p no:benchmark blocks"),
        ([], "gpu_benchmark needs pytest-benchmark: pip install 'geoact[bench]'"),
    ],
)
def test_without_pytest_benchmark_the_fixture_skips_and_the_gate_refuses(project, blocked, reason):
    project.simulate(test_speed=KERNEL, test_other="def test_other(): pass")
    if not blocked:
        project.environ(PYTEST_DISABLE_PLUGIN_AUTOLOAD=1)
    text = project.run("-rs", *blocked, plugin=("-p", "pytest_geoact"))
    assert "1 passed, 1 skipped" in text
    assert reason in text
    assert reason in project.run("--geoact-gate", *blocked, code=4, plugin=("-p", "pytest_geoact"))


@pytest.fixture
def entry_point(tmp_path, monkeypatch, project):
    """A distribution that is installed, with the entry point and the files of geoact's."""
    folder = tmp_path / "installed"
    metadata = folder / "geoact_test-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: geoact-test\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\npytest_geoact = pytest_geoact\n")
    (metadata / "RECORD").write_text("pytest_geoact/__init__.py,,\ngeoact/__init__.py,,\n")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ['PYTHONPATH']}")
    return project


def test_it_is_loaded_by_its_entry_point_can_be_named_twice_and_blocked(entry_point):
    entry_point.simulate(test_speed=KERNEL)
    for named in ([], ["-p", "pytest_geoact"], ["-p", "geoact.bench.pytest_plugin"]):
        assert "= geoact =" in entry_point.run(plugin=named)
    assert "fixture 'gpu_benchmark' not found" in entry_point.run("-p", "no:geoact", code=1, plugin=())


def test_a_program_that_has_imported_geoact_may_run_pytest(entry_point):
    entry_point.simulate(test_speed=KERNEL)
    program = "import geoact, pytest, sys; sys.exit(pytest.main(['-W', 'error', '-q']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- what pytest-benchmark does not promise -------------------------------------------------------


def test_pytest_benchmark_still_has_the_private_names_that_are_used(benchmark, pytestconfig):
    """A failure names what is new in pytest-benchmark, and so what geoact.bench.pytest_plugin must learn."""
    import pytest_benchmark
    from pytest_benchmark import hookspec

    found = contract.changed(benchmark)
    found += [f"the option {name} is gone" for name in contract.OPTIONS if not hasattr(pytestconfig.option, name)]
    found += [f"the hook {name} is gone" for name in contract.HOOKS if not hasattr(hookspec, name)]
    assert not found, f"pytest-benchmark {pytest_benchmark.__version__}: {'; '.join(found)}"
    assert benchmark._mode is None
    benchmark._mode = "looked at"  # else it warns of a fixture that was not used


def test_a_changed_name_is_told_by_what_changed_and_not_in_the_middle_of_a_measurement(project):
    more = """
        from pytest_benchmark.fixture import BenchmarkFixture
        from pytest_benchmark.stats import Metadata
        del BenchmarkFixture._make_stats
        Metadata.update = lambda self, duration, weight: None
    """
    project.simulate(more, test_speed=KERNEL)
    text = project.run(code=1)
    assert "this pytest-benchmark is none of >=5.1,<6" in text
    assert "BenchmarkFixture._make_stats is gone" in text
    assert "Metadata.update takes (self, duration, weight), not (self, duration)" in text
