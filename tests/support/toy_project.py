"""A project of somebody else in a git repository: a module whose speed is known, because it sleeps, and its suite."""

import subprocess

MODULE = '''"""Sleeps."""
import time

SECONDS = {seconds}


def work():
    time.sleep(SECONDS)
    return 42
'''

SUITE = """from geoact.bench import Call, Suite
import sleeper

suite = Suite("sleeping", package="sleeper")


def check():
    assert sleeper.work() == 42
    return 42


@suite.case(kind=["steady", "other"])
def work(kind):
    run = sleeper.work if kind == "steady" else lambda: __import__("time").sleep(0.001)
    return Call(run, check=check)
"""

PYPROJECT = """[project]
name = "sleeper"
version = "1"
[tool.geoact.bench]
suite = "suite.py"
build = "none"
source = "src"
"""


def git(folder, *words):
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def write(folder, seconds):
    """The working tree, with a module that takes so long."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "sleeper.py").write_text(MODULE.format(seconds=seconds))
    (folder / "suite.py").write_text(SUITE)
    (folder / "pyproject.toml").write_text(PYPROJECT)


def commit(folder, seconds, tag):
    """Commit such a working tree under a tag; returns the commit."""
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    write(folder, seconds)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", tag)
    git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")
