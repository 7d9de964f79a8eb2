"""The README says only what is so: its example prints what it shows, its commands and links exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_example_prints_what_the_readme_shows(tmp_path):
    (code,), (shown,) = _blocks("python"), _blocks("text")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == shown


def test_the_commands_are_targets_of_the_makefile():
    commands = re.findall(r"^make (\w+)", "\n".join(_blocks("sh")), flags=re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{name}:", makefile, flags=re.M) for name in commands)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
