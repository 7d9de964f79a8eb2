"""The README says only what is so: its example prints what it shows, its commands and links exist."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


EXAMPLES = dict(zip(("numpy", "torch"), zip(_blocks("python"), _blocks("text"), strict=True), strict=True))


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


def test_the_commands_are_targets_of_the_makefile():
    commands = re.findall(r"^make (\w+)", "\n".join(_blocks("sh")), flags=re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{name}:", makefile, flags=re.M) for name in commands)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
