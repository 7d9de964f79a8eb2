"""The GPU benchmark without a GPU: its checks find what is wrong, its cases run, its pages say what the results say."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu_report
import make_gpu
from geoact.bench import Bar, Contender, Group, Suite
from geoact.bench.bars import Row
from geoact.bench.device_clock import DeviceClock
from support.simulated_device import Evidence, SimulatedDevice

# --- pages ----------------------------------------------------------------------------------------


def rows():
    labels = {"activation": "relu", "dtype": "float32"}

    def row(group, bar, median, met, **more):
        limit = {"unit": "%", "limit": ">= 95%"} | more
        found = Row(
            group, bar, limit.pop("limit"), limit.pop("unit"), median, 0.9 * median, 1.1 * median, labels=labels
        )
        found.low, found.high, found.met, found.rounds = found.q1, found.q3, met, 12
        for name, value in limit.items():
            setattr(found, name, value)
        return found

    return [
        row("relu, float32", "share of copy", 0.97, "yes"),
        row("gelu, float32", "share of copy", 0.91, "no", flags=["cut short"]),
        row("silu, float32", "share of copy", 1.2, "error", reason="silu runs at 120 %"),
        row("relu, eager", "small tensors", 1.1, "yes", limit="<= 1.25", unit=""),
        row("gelu, eager", "small tensors", 1.3, "no", limit="<= 1.25", unit=""),
        Row("relu, by others", "CuPy | fuse", ">= 2", "", reason="CuPy: no module", labels=labels),
        Row("relu, backends", "CUDA C++ vs Triton", "", "", 0.8, 0.7, 0.9, labels={**labels, "elements": 65536}),
        Row("relu, by others", "for information", "", "", 3.0, 3.0, 3.0, labels=labels),
    ]


DOCUMENT = {
    "schema": 1,
    "kind": "gpu",
    "dry_run": False,
    "cache": "cold",
    "environment": {
        "gpu": {"name": "NVIDIA Test", "driver": "1.2", "cuda": "13.0"},
        "versions": {"torch": "2.11.0", "triton": "3.6.0", "cupy-cuda13x": None},
        "commit": "0123456789abcdef",
        "date": "2030-01-02T03:04:05",
    },
    "rows": [row.document() for row in rows()],
    "preferences": {"relu": {"float32": {"65536": "cuda"}, "float16": {"65536": "either"}}},
    "samples": {"relu, float32": {"stopped": "x", "contenders": {"copy": {"ns": [1.0, 2.0]}}}},
    "cut": [],
}


@pytest.mark.parametrize("name", gpu_report.PAGES)
def test_the_pages_show_the_stored_results(name):
    text = gpu_report.PAGES[name].read_text(encoding="utf-8")
    assert text == gpu_report.renewed(text, name, gpu_report.stored())


@pytest.mark.parametrize("name", gpu_report.PAGES)
def test_without_results_the_pages_say_that_nothing_was_measured(name):
    text = gpu_report.PAGES[name].read_text(encoding="utf-8")
    (block,) = re.findall(rf"<!-- gpu {name} -->\n(.*?)<!-- /gpu {name} -->", gpu_report.renewed(text, name, []), re.S)
    assert block == gpu_report.UNMEASURED
    assert "No GPU has been measured yet" in block
    assert not re.search(r"\d", block)


def test_the_summary_counts_and_shows_the_worst_case():
    text = gpu_report.bars([DOCUMENT])
    assert "| share of copy | float32 | >= 95% | 91.0% (gelu) | 97.0% | 1 of 3, 1 ERRORS |" in text
    assert "| small tensors | float32 | <= 1.25 | 1.30 (gelu) | 1.10 | 1 of 2 |" in text
    assert r"| CuPy \| fuse | float32 | >= 2 | not measured: CuPy: no module |  | 0 of 0 |" in text
    assert "for information" not in text
    assert "Measured on NVIDIA Test, driver 1.2, CUDA 13.0, torch 2.11.0, triton 3.6.0, commit `0123456789`" in text
    assert "1 rows are flagged" in text


def test_the_page_has_every_row():
    text = gpu_report.rows([DOCUMENT])
    for row in rows():
        assert (row.group in text) == ("elements" not in row.labels)
    assert "| faster backend, moments per tensor | float32, 65536 | float16, 65536 |\n" in text
    assert "| relu | cuda | either |\n" in text
    assert "| gelu, float32 | share of copy | >= 95% | 91.0% (81.9% .. 100.1%) | no | cut short |" in text
    assert "silu runs at 120 %" in text


def test_a_result_file_is_written_whole_and_found_again(tmp_path):
    path = tmp_path / f"{gpu_report.slug('NVIDIA H200')}.json"
    gpu_report.write(path, DOCUMENT)
    assert path.name == "nvidia-h200.json"
    assert json.loads(path.read_text(encoding="utf-8")) == DOCUMENT
    (tmp_path / "cpu.json").write_text('{"schema": 1, "bars": []}', encoding="utf-8")
    assert gpu_report.stored(tmp_path) == [DOCUMENT]
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) < 1000


def test_a_page_without_its_block_is_an_error():
    with pytest.raises(ValueError, match="gpu bars"):
        gpu_report.renewed("nothing", "bars", [])


# --- make gpu -------------------------------------------------------------------------------------


def test_without_a_gpu_make_gpu_stops_at_once_and_builds_nothing():
    if isinstance(make_gpu.device_count(), int):
        pytest.skip("there is a GPU here")
    before = make_gpu.WORK.exists()
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "make_gpu.py")], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"make gpu needs a machine with an NVIDIA GPU: .+\n", done.stderr)
    assert make_gpu.WORK.exists() == before


def test_the_steps_fit_into_the_time_and_need_no_network():
    steps = make_gpu.steps(480)
    assert [step.name for step in steps] == ["build", "compile", "test", "measure", "test, slow"]
    build, *_, measuring, _ = steps
    assert build.needed
    assert measuring.limit <= 290
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(build.command)
    assert all(step.limit + step.leave <= 480 for step in steps)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(make_gpu, "WORK", tmp_path / "work")
    monkeypatch.setattr(make_gpu, "device_count", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["make_gpu.py", "--seconds", "100"])
    monkeypatch.setenv("OUT", str(tmp_path))
    return tmp_path


def step(name, program, **options):
    return make_gpu.Step(name, (sys.executable, "-c", program), 60, 1, **options)


def test_a_step_that_fails_leaves_the_others_their_turn(work, monkeypatch, capsys):
    programs = [
        step("one", "print('first')", needed=True),
        step("two", "raise SystemExit(3)"),
        step("three", "print(3)"),
    ]
    monkeypatch.setattr(make_gpu, "steps", lambda seconds: programs)
    assert make_gpu.main() == 1
    shown = capsys.readouterr().out
    assert re.search(r"one +passed", shown)
    assert re.search(r"two +failed with exit status 3", shown)
    assert re.search(r"three +passed", shown)
    assert (work / "one.log").read_text() == "first\n"
    monkeypatch.setattr(make_gpu, "steps", lambda seconds: programs[::2])
    assert make_gpu.main() == 0


def test_nothing_runs_after_a_build_that_failed(work, monkeypatch, capsys):
    programs = [step("build", "raise SystemExit(1)", needed=True), step("two", "print('never')")]
    monkeypatch.setattr(make_gpu, "steps", lambda seconds: programs)
    assert make_gpu.main() == 1
    assert "not run: an earlier step failed" in capsys.readouterr().out
    assert not (work / "two.log").exists()


def test_a_step_that_hangs_is_ended_with_all_it_started(work, tmp_path):
    make_gpu.WORK.mkdir()
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    assert make_gpu.run(step("hangs", program), 1, {}) == "stopped after 1 s"


def test_a_tree_without_git_has_the_commit_that_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(make_gpu, "ROOT", tmp_path)
    monkeypatch.setenv("GEOACT_COMMIT", "abc")
    assert make_gpu.commit() == "abc"


def test_the_steps_see_the_geoact_that_was_built():
    environ = make_gpu.environment()
    assert environ["PYTHONPATH"].split(":")[0] == str(make_gpu.SITE)
    assert environ["GEOACT_GPU_TESTS"] == "required"


# --- with torch -----------------------------------------------------------------------------------


def program(arguments, timeout=240):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)


def toy_suite(device, *makes):
    """A family of each, and a group that a simulated device can run."""

    def group():
        run = device.kernel("kernel", 2000)
        return Group("toy", [Contender("kernel", [run])], [Bar("time", "kernel")], labels={"dtype": "float32"})

    suite = Suite("toy")
    for index, make in enumerate((group, *makes)):
        suite.group(f"family {index}")(make)
    return suite


def run_toy(*makes, **options):
    pytest.importorskip("torch.distributed")
    import gpu

    device = SimulatedDevice()
    clocks = {"device": DeviceClock(device, management=Evidence())}
    options = argparse.Namespace(**{"only": None, "seconds": 5.0, "dry_run": False} | options)
    exact = [Row("exact", "launches", "= 1", "", 1.0, met="yes")]
    return gpu.run(toy_suite(device, *makes), clocks, options, exact)


def test_a_group_that_fails_is_a_row_and_the_others_are_measured():
    def fail():
        raise ValueError("no such layout")

    found = run_toy(fail)
    exact, toy, failed = found["rows"]
    assert exact["bar"] == "launches"
    assert (toy["median"], toy["labels"]["clock"]) == (2.0, "GPU events, L2 cold")
    assert (failed["group"], failed["met"], failed["reason"]) == ("family 1", "error", "ValueError: no such layout")
    assert list(found["samples"]) == ["toy"]
    assert (found["cut"], found["not_run"]) == ([], {})


def test_an_interrupted_run_keeps_what_it_has_and_says_what_it_has_not():
    def interrupt():
        raise KeyboardInterrupt

    found = run_toy(interrupt, interrupt)
    assert [row["group"] for row in found["rows"]] == ["exact", "toy", "all"]
    assert found["rows"][-1]["reason"] == "2 groups were not run"
    assert found["not_run"] == {"family 1": 1, "family 2": 1}
    assert found["samples"]["toy"]["contenders"]["kernel"]["MHz"] == [1500, 1500]


def test_one_family_can_be_run_by_itself():
    def never():
        raise AssertionError("another family was run")

    _, toy = run_toy(never, only="family 0")["rows"]
    assert toy["group"] == "toy"


@pytest.mark.slow
def test_all_cases_run_on_tiny_tensors_of_the_cpu_and_store_nothing(tmp_path):
    pytest.importorskip("torch.distributed")
    before = sorted(gpu_report.RESULTS.iterdir())
    done = program(["--device", "cpu", "--dry-run", "--seconds", "20", "--json", str(tmp_path / "x.json")])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no figure above says anything about a GPU; nothing was stored" in done.stdout
    reasons = re.findall(r"^ +\d+  (.*)$", done.stdout, flags=re.M)
    expected = r"no CUDA device|torch has no such function|No module named|CuPy: |cuda: no CUDA device"
    assert all(re.search(expected, reason) for reason in reasons), reasons
    assert int(re.search(r"^(\d+) rows were measured", done.stdout, flags=re.M)[1]) > 200
    assert not list(tmp_path.iterdir())
    assert sorted(gpu_report.RESULTS.iterdir()) == before


def test_a_cpu_is_not_measured_as_if_it_were_a_gpu():
    torch = pytest.importorskip("torch")
    assert program(["--device", "cpu"]).returncode == 2
    if not torch.cuda.is_available():
        done = program([])
        assert (done.returncode, done.stderr) == (2, "no CUDA device: torch.cuda.is_available() is False\n")


@pytest.mark.slow
def test_the_gpu_tests_themselves_are_sound():
    """On CPU tensors, where geoact is right: what fails there is the test."""
    pytest.importorskip("torch.distributed")
    files = [f"tests/gpu/test_gpu_{name}.py" for name in ("values", "statistics", "backward", "errors")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *files],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
        env={**make_gpu.os.environ, "GEOACT_GPU_TESTS": "dry-run"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"[1-9]\d{2,} passed", done.stdout)
