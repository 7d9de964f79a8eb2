"""The README says only what is so: its example prints what it shows, its commands and links exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import toy_project

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


*_PROGRAMS, SUITE = _blocks("python")
EXAMPLES = dict(zip(("numpy", "scipy", "torch"), zip(_PROGRAMS, _blocks("text"), strict=True), strict=True))


def _values(text):
    """Words, and numbers as numbers."""
    for word in text.split():
        try:
            yield float(word)
        except ValueError:
            yield word


@pytest.mark.parametrize("package", EXAMPLES)
def test_an_example_prints_what_the_readme_shows(tmp_path, package):
    if find_spec(package) is None:
        pytest.skip(f"needs {package}")
    code, shown = EXAMPLES[package]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    # Another processor's matrix product may change the last digit shown.
    close = [v if isinstance(v, str) else pytest.approx(v, rel=2e-3) for v in _values(shown)]
    assert list(_values(ran.stdout)) == close
    if package == "numpy":
        assert ran.stdout == shown


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What the commands of the README are given: its suite in a repository, a test with a baseline, a result."""
    for package in ("typer", "rich", "ruptures", "plotly", "junitparser", "pytest_benchmark"):
        pytest.importorskip(package)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "suite.py").write_text(SUITE)
    (folder / "pyproject.toml").write_text('[tool.geoact.bench]\nbuild = "none"\n')
    (folder / "test_speed.py").write_text("def test_sum(gpu_benchmark):\n    assert gpu_benchmark(sum, [1, 2]) == 3\n")
    toy_project.git(folder, "init", "-q")
    toy_project.git(folder, "add", "-A")
    toy_project.git(folder, "commit", "-q", "-m", "first")
    toy_project.git(folder, "tag", "v1.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bin_ = Path(sys.executable).parent
    for name in list(os.environ):
        if name.startswith("PYTEST_"):
            monkeypatch.delenv(name)

    def run(command):
        words = shlex.split(command)
        return subprocess.run(
            [str(bin_ / words[0]), *words[1:]], cwd=folder, capture_output=True, text=True, check=False
        )

    if not (bin_ / "geoact").exists():
        pytest.skip("geoact is not installed beside this Python")
    return run


COMMANDS = [line.partition("#")[0].strip() for line in "\n".join(_blocks("sh")).splitlines() if "#" in line]
QUICKER = {  # the same command on little work
    "geoact bench run": "--quick --json results/1.json",
    "geoact compare v1.0": "--incarnations 1 --seconds 0.01 --set n=4096",
    "geoact compare --selftest": "--incarnations 1 --seconds 0.01 --set n=4096 --slowdown 400 --threshold 50",
    "pytest": "--geoact-quick",
    "geoact bench instructions": "--set n=4096 --set dtype=float32",
}


def test_the_commands_of_the_harness_run(project):
    """In the order of the README, each with what the ones before left."""
    commands = [command for command in COMMANDS if command.startswith(("geoact", "pytest"))]
    assert len(commands) == 6
    assert project("pytest -q --geoact-save-baseline --geoact-quick").returncode == 0
    for command in commands:
        if "instructions" in command and not shutil.which("valgrind"):
            continue
        more = next((words for begin, words in QUICKER.items() if command.startswith(begin)), "")
        done = project(f"{command} {more}")
        assert done.returncode in ((0, 10, 11) if "compare" in command or "gate" in command else (0,)), (
            command, done.returncode, done.stdout, done.stderr,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr


def test_the_commands_are_targets_of_the_makefile():
    commands = re.findall(r"^make (\w+)", "\n".join(_blocks("sh")), flags=re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{name}:", makefile, flags=re.M) for name in commands)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
