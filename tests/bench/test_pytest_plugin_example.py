"""examples/bench_project: its own speed tests, and what its gate says when its code is changed."""

import inspect
import re
import shutil
from pathlib import Path

import pytest
from support.pytest_projects import Project

pytest_plugins = ["pytester"]
pytest.importorskip("pytest_benchmark")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "bench_project"
LOOP = "out[...] = [a * value + b for value in x]"
# Real times on a machine that may be busy: twice as slow still passes, and the planted loop is some fifty times slower.
GATE = ("--geoact-gate", "--geoact-quick", "--geoact-delta=1")


@pytest.fixture
def example(pytester, monkeypatch):
    shutil.copytree(
        EXAMPLE, pytester.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*_cache")
    )
    return Project(pytester, monkeypatch)


def edit(example, file, old, new):
    path = example.path / file
    text = path.read_text()
    assert old in text, f"{file} is not what this test expects"
    path.write_text(text.replace(old, new))


def test_the_gate_passes_the_example_as_it_is_and_catches_a_planted_loop(example):
    assert "MISSING: there is no baseline" in example.run(*GATE, code=12)
    text = ""
    for _ in range(3):
        text = example.run("--geoact-save-baseline", "--geoact-quick")
    assert re.search(r"saved: [23] benchmarks to \.geoact/.*\.json, 3 sessions of each\n", text)
    (path,) = (example.path / ".geoact").iterdir()
    stored = path.read_bytes()
    assert "\npassed: " in example.run(*GATE)

    two_passes = "np.multiply(x, a, out=out)\n    out += b"
    edit(example, "toy_kernels.py", two_passes, LOOP)
    text = example.run(*GATE, code=10)
    assert "REGRESSED: 2 regressed" in text
    assert not re.search(r"\b[1-9]\d* failed", text)
    edit(example, "toy_kernels.py", LOOP, two_passes)

    edit(example, "tests/test_speed.py", "[1 << 14, 1 << 20]", "[1 << 14]")
    text = example.run(*GATE, code=12)
    assert re.search(r"test_numpy\[1048576\] .* vanished +the suite has no such case any more", text)
    edit(example, "tests/test_speed.py", "[1 << 14]", "[1 << 14, 1 << 20]")

    edit(example, "toy_kernels.py", "out += b", "out -= b")
    text = example.run(*GATE, code=1)
    assert "WRONG RESULT: check returned False" in text
    assert path.read_bytes() == stored
    edit(example, "toy_kernels.py", "out -= b", "out += b")

    path.write_text(path.read_text().replace('"system": "', '"system": "Another '))
    assert "refused: another machine: system was Another" in example.run(*GATE, code=13)
    path.write_text("not JSON")
    assert "is no JSON" in example.run(*GATE, code=4)
    assert path.read_text() == "not JSON"


def test_the_speed_tests_of_the_example_are_fifteen_lines():
    lines = (EXAMPLE / "tests" / "test_speed.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 15


def test_the_page_describes_every_option_of_the_fixture():
    from geoact.bench.pytest_plugin import GpuBenchmark

    text = (EXAMPLE.parents[1] / "docs" / "pytest.md").read_text()
    options = [
        name for name, p in inspect.signature(GpuBenchmark.measure).parameters.items() if p.kind is p.KEYWORD_ONLY
    ]
    assert len(options) >= 10
    assert [name for name in options if f"`{name}=`" not in text] == []


def test_the_example_of_the_page_runs(example):
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLE.parents[1] / "docs" / "pytest.md").read_text(), re.S)
    (example.path / "tests" / "test_page.py").write_text(code)
    assert "1 passed" in example.run("--geoact-quick", "tests/test_page.py")


def test_the_triton_kernel_is_skipped_with_a_reason_where_it_cannot_run(example):
    text = example.run("--geoact-quick", "-rs", "-k", "triton")
    if "1 passed" not in text:
        assert re.search(
            r"SKIPPED \[1\] tests/test_speed.py:\d+: (No module named 'triton'|there is no CUDA device)", text
        )


def test_the_pages_and_the_workflow_name_options_that_there_are(example):
    shown = example.run("--help")
    page = EXAMPLE.parents[1] / "docs" / "pytest.md"
    for file in (EXAMPLE / "README.md", EXAMPLE / ".github" / "workflows" / "speed.yml", page):
        text = file.read_text()
        options = set(re.findall(r"--geoact-[a-z-]+", text))
        assert options >= {"--geoact-save-baseline", "--geoact-gate"}
        assert all(option in shown for option in options)
    assert LOOP in (EXAMPLE / "README.md").read_text()


def test_the_workflow_has_both_gates():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "speed.yml").read_text())["jobs"]
    assert set(jobs) == {"shared-runner", "own-machine"}
    runs = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert sum("--geoact-gate" in run for run in runs) == 2
