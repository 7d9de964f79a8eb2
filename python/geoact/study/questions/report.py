"""Runs the questions: units through the engine, then rows and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoact.study.questions.answers import Answer, all_answers
from geoact.study.questions.engine import run_units
from geoact.study.questions.plan import GROUPS, plan
from geoact.study.questions.rows import Row, inference_rows, initial_rows, paired_rows, trained_rows
from geoact.study.questions.sizes import Sizes
from geoact.study.questions.specs import Spec, code_version
from geoact.study.questions.store import Store
from geoact.study.questions.tiers import stored_tiers

SUMMARISE: dict[str, Callable[[dict[Spec, dict[str, Any]]], list[Row]]] = {
    "ladder": trained_rows,
    "trained": trained_rows,
    "paired": paired_rows,
    "initial": initial_rows,
    "crossing": lambda results: [{**spec.to_json(), **result} for spec, result in results.items()],
    "inference": inference_rows,
}


@dataclass(frozen=True)
class Questions:
    """Rows by group, answers, and the units that failed; ``seconds`` is the sum over units."""

    sizes: Sizes
    code: str
    units: int
    seconds: float
    failures: list[dict[str, Any]]
    rows: dict[str, list[Row]]
    tiers: list[Row]
    answers: list[Answer]


def units(sizes: Sizes) -> list[Spec]:
    """Return every unit once, in the order it is run."""
    groups = plan(sizes)
    return list(dict.fromkeys(spec for group in GROUPS for spec in groups[group]))


def run_questions(
    sizes: Sizes, folder: Path, jobs: int = 1, ray: bool = False, advance: Callable[[], None] = lambda: None
) -> Questions:
    """Compute what is not yet in ``folder`` and answer; a unit that failed is left out and listed."""
    records = run_units(units(sizes), Store(folder), jobs, ray, advance)
    rows = {
        group: SUMMARISE[group]({spec: records[spec]["result"] for spec in specs if "result" in records[spec]})
        for group, specs in plan(sizes).items()
    }
    return Questions(
        sizes=sizes,
        code=code_version(),
        units=len(records),
        seconds=sum(record["seconds"] for record in records.values()),
        failures=[{"spec": r["spec"], "error": r["error"]} for r in records.values() if "error" in r],
        rows=rows,
        tiers=stored_tiers(),
        answers=all_answers(rows, sizes),
    )
