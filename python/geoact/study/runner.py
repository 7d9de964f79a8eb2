"""Runs the sections with progress bars and writes results.json, the figures and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geoact._files import write_atomic
from geoact._pages.figures import THEMES, Theme
from geoact.study import machine
from geoact.study.claims import conclusion
from geoact.study.config import SECTIONS, StudyConfig
from geoact.study.figures import all_figures
from geoact.study.findings import all_findings
from geoact.study.plotting import render
from geoact.study.processes import Tell, run_each
from geoact.study.questions.report import run_questions, units
from geoact.study.questions.sizes import QUICK, Sizes
from geoact.study.report import Picture, render_report
from geoact.study.results import StudyResults
from geoact.study.sections import ALL_SECTIONS, Section, run_sections


@dataclass(frozen=True)
class Execution:
    """In how many processes the study runs; ``ray``: units as that many Ray tasks at a time."""

    jobs: int = 1
    ray: bool = False


def questions_section(sizes: Sizes, out: Path, execution: Execution) -> Section:
    """Make section g, whose units are kept in ``out``/units so that a run that was stopped goes on."""
    return Section(
        "questions",
        "questions",
        "g. five questions",
        lambda config, advance: run_questions(sizes, out / "units", execution.jobs, execution.ray, advance),
        lambda config: len(units(sizes)),
        alone=True,
    )


def run_study(
    config: StudyConfig,
    out: Path,
    only: Sequence[str] = (),
    console: Console | None = None,
    sizes: Sizes = QUICK,
    execution: Execution = Execution(),
) -> StudyResults:
    """Run the named sections (all by default) and write everything into ``out``; returns what was measured.

    Raises ValueError for a section that does not exist, before anything is run, or for an execution that is impossible.
    """
    unknown = sorted(set(only) - set(SECTIONS))
    if unknown:
        raise ValueError(f"only: no section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    console = console or Console(stderr=True)
    sections = (*ALL_SECTIONS, questions_section(sizes, out, execution))
    chosen = [section for section in sections if not only or section.name in only]
    results = StudyResults(config, machine.describe())
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        # A bar starts its clock when its section does, not when it is drawn.
        tasks = {s.name: progress.add_task(s.title, total=s.steps(config), start=False) for s in chosen}
        writing = progress.add_task("report", total=None, start=False)
        for outcome in run_sections(
            chosen,
            config,
            execution.jobs,
            lambda name: progress.start_task(tasks[name]),
            lambda name: progress.advance(tasks[name]),
        ):
            setattr(results, outcome.section.field, outcome.result)
            results.seconds[outcome.section.name] = outcome.seconds
        progress.start_task(writing)
        results.findings = all_findings(results)
        write_results(results, out, execution.jobs, progress, writing)
    return results


def write_results(results: StudyResults, out: Path, jobs: int, progress: Progress, task: TaskID) -> None:
    """Write results.json first (it holds every number), then the figures, then the report."""
    write_atomic(out / "results.json", results.to_json())
    specs = all_figures(results)
    progress.update(task, total=len(specs) * len(THEMES) + 1)
    images: dict[str, dict[str, bytes]] = {}
    for theme, drawn in run_each(partial(_drawn, results), THEMES, jobs, lambda _: progress.advance(task)):
        images[theme.name] = drawn
        for name, image in drawn.items():
            suffix = "" if theme.name == "light" else f"-{theme.name}"
            write_atomic(out / "figures" / f"{name}{suffix}.png", image)
    pictures = [
        Picture(spec.name, spec.caption, images["light"][spec.name], images["dark"][spec.name]) for spec in specs
    ]
    write_atomic(out / "report.html", render_report(results, pictures))
    progress.advance(task)


def _drawn(results: StudyResults, theme: Theme, tell: Tell) -> tuple[Theme, dict[str, bytes]]:
    """All figures in one theme. They are made here because a process cannot be sent functions that draw."""
    images = {}
    for spec in all_figures(results):
        images[spec.name] = render(spec.draw, spec.height, theme)
        tell(spec.name)
    return theme, images


def summary(results: StudyResults, out: Path) -> dict[str, Any]:
    """Sum up for the command: where things are, whether the replica matched, and the closing sentences."""
    told: dict[str, Any] = {"report": str(out / "report.html"), "results": str(out / "results.json")}
    if results.replica:
        told["replica"] = {"matched": results.replica.matched, "of": len(results.replica.checks)}
    told["seconds"] = {name: round(seconds, 1) for name, seconds in results.seconds.items()}
    told["conclusion"] = conclusion(results.findings) if results.findings else []
    if results.questions:
        told["answers"] = {answer.short: answer.outcome for answer in results.questions.answers}
        told["failed_units"] = [failure["spec"] for failure in results.questions.failures]
    return told
