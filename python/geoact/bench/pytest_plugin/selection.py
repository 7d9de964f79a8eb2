"""Which benchmarks of a baseline a session was meant to run: those that then are not there have vanished.

A benchmark that somebody deleted must be missed, one that was not asked for must not. The first is known only from the
baseline, so the question is whether this session would have run it if it still existed:

- what was collected and then deselected, by whomever, was not asked for;
- what a file that was collected, or was deleted, no longer has would have run if a path on the command line covers it
  and nothing else narrows the session: under ``-k``, ``-m``, ``--lf`` or ``--sw`` on the command line nobody can tell.
  The same options in the configuration hold for the sessions of the baseline too and narrow nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Selection:
    """What pytest collected and chose.

    Parameters
    ----------
    root : Path
        The folder that node ids are relative to.
    paths : sequence of (Path, str)
        What is run: a file or folder, and what follows it after ``::``.
    files : collection of str
        Node ids of the files that were collected.
    collected, chosen : collection of str
        Node ids of all tests, and of those that were not deselected.
    deselected : sequence of str
        What ``--deselect`` names.
    narrowed : str
        The option that chooses tests by what only existing ones have; empty without one.
    """

    root: Path
    paths: Sequence[tuple[Path, str]] = ()
    files: Collection[str] = ()
    collected: Collection[str] = ()
    chosen: Collection[str] = ()
    deselected: Sequence[str] = ()
    narrowed: str = ""
    unknown: list[str] = field(default_factory=list)

    def expected(self, names: Iterable[str]) -> list[str]:
        """Those of the names that this session was meant to run; ``unknown`` then has those of which none can tell."""
        found, self.unknown = [], []
        for name in names:
            if name in self.collected:
                if name in self.chosen:
                    found.append(name)
            elif self._covered(name):
                (self.unknown if self.narrowed else found).append(name)
        return found

    def _covered(self, name: str) -> bool:
        """Whether a path of the session leads to where this test was."""
        file, _, inside = name.partition("::")
        place = (self.root / file).resolve()
        if file not in self.files and place.exists():
            return False  # pytest was told not to look there
        if name.startswith(tuple(self.deselected)):
            return False
        for path, part in self.paths:
            if part:
                if path == place and (inside == part or inside.startswith((f"{part}[", f"{part}::"))):
                    return True
            elif path == place or path in place.parents:
                return True
        return False


def paths_of(config: pytest.Config) -> list[tuple[Path, str]]:
    """What the session runs, from the command line or ``testpaths``."""
    found = []
    for argument in config.args:
        path, _, inside = str(argument).partition("::")
        found.append(((config.invocation_params.dir / path).resolve(), inside))
    return found


def narrowed_by(config: pytest.Config) -> str:
    """The option on the command line that chooses tests by their names, marks or last outcome; empty without one."""
    given = [str(argument) for argument in config.invocation_params.args]
    for option, name in (("-k", "keyword"), ("-m", "markexpr")):
        value = config.getoption(name, "")
        if value and _on_command_line(given, option, value):
            return option
    for option, name in (("--lf", "lf"), ("--sw", "stepwise")):
        if config.getoption(name, False):
            return option
    return ""


def _on_command_line(given: Sequence[str], option: str, value: str) -> bool:
    """Whether a short option has its value from there: ``-k value``, ``-kvalue``, ``-k=value``, ``-xk value``."""
    if f"{option}{value}" in given or f"{option}={value}" in given:
        return True
    flags = re.compile(f"-[a-zA-Z]*{option[1]}")
    return any(one == value and flags.fullmatch(before) for before, one in itertools.pairwise(given))
