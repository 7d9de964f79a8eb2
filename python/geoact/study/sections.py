"""The sections of the study, and how they are run: what is timed alone, the others side by side in processes.

Each runs on one thread, so that its numbers do not depend on what runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from threadpoolctl import threadpool_limits

from geoact.study import axes, digits, learning_rates, overhead, replica
from geoact.study.config import StudyConfig
from geoact.study.overhead import one_thread
from geoact.study.processes import Tell, run_each

Told = Callable[[str], None]
"""Called with the name of a section."""


@dataclass(frozen=True)
class Section:
    """A section by name: where its result goes, what it does, and how many steps that takes.

    One that is ``alone`` is timed, or has processes of its own: nothing runs beside it.
    """

    name: str
    field: str
    title: str
    run: Callable[[StudyConfig, Callable[[], None]], Any]
    steps: Callable[[StudyConfig], int]
    alone: bool = False


ALL_SECTIONS = (
    Section("replica", "replica", "a. replica", replica.run, replica.steps),
    Section("learning-rates", "learning_rates", "b. learning rates", learning_rates.run, learning_rates.steps),
    Section("axes", "axes", "c. four axes", axes.run, axes.steps),
    Section("digits", "digits", "d. digits", digits.run, digits.steps),
    Section("overhead", "overhead", "e. cost of measuring", overhead.run, overhead.steps, alone=True),
)


@dataclass(frozen=True)
class Outcome:
    """What a section measured, and how long that took."""

    section: Section
    result: Any
    seconds: float


def run_sections(
    sections: Sequence[Section], config: StudyConfig, jobs: int, started: Told, advance: Told
) -> Iterator[Outcome]:
    """Run the sections in up to ``jobs`` processes, and give each outcome as it comes.

    Raises
    ------
    OSError
        If a process died.
    """

    def told(message: tuple[str, bool]) -> None:
        name, first = message
        (started if first else advance)(name)

    together = [section for section in sections if not section.alone]
    yield from run_each(partial(_measure, config), together, jobs, told)
    yield from (_timed(section, config, told) for section in sections if section.alone)


def _measure(config: StudyConfig, section: Section, tell: Tell) -> Outcome:
    with one_thread(), threadpool_limits(1):
        return _timed(section, config, tell)


def _timed(section: Section, config: StudyConfig, tell: Tell) -> Outcome:
    tell((section.name, True))
    start = perf_counter()
    result = section.run(config, lambda: tell((section.name, False)))
    return Outcome(section, result, perf_counter() - start)
