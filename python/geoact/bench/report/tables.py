"""The rows of the tables of cases and bars, as text: the same in a terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from geoact.bench.bars import Row
from geoact.bench.report.content import Absence, CaseView, interval_text, number, time_text

BARS = ("bar", "limit", "measured (q1 .. q3)", "95 % interval", "against", "met?")
SHARE = "% of copy (q1 .. q3)"
NUMBERS = ("limit", "measured (q1 .. q3)", "95 % interval", "median time", "GB/s", "GFLOP/s", SHARE)
"""Heads of the columns that are aligned to the right."""


def case_heads(views: Sequence[CaseView]) -> list[str]:
    """The columns that at least one case fills."""
    heads = ["case", "median time"]
    for head, some in (
        ("GB/s", any(view.gigabytes for view in views)),
        ("GFLOP/s", any(view.gigaflops for view in views)),
        (SHARE, any(view.score for view in views)),
        ("rounds: why it stopped", True),
        ("notes", any(view.notes for view in views)),
    ):
        if some:
            heads.append(head)
    return heads


def case_cells(view: CaseView, heads: Sequence[str]) -> list[str]:
    """One row of the table of cases."""
    cells = {
        "case": view.name,
        "median time": time_text(view.median) if view.measured and view.median else view.status,
        "GB/s": number(view.gigabytes) if view.measured and view.gigabytes else "",
        "GFLOP/s": number(view.gigaflops) if view.measured and view.gigaflops else "",
        SHARE: view.share_text if view.measured else "",
        "rounds: why it stopped": view.rounds_text,
        "notes": view.notes,
    }
    return [cells[head] for head in heads]


def bar_cells(row: Row) -> list[str]:
    """One row of the table of bars, in the order of :data:`BARS`."""
    notes = "; ".join(filter(None, [row.against, row.reason, *row.flags]))
    return [row.bar, row.limit, row.measured, interval_text(row), notes, row.met]


def absence_cells(absence: Absence) -> list[str]:
    """One row of the table of what was not measured."""
    return ["error" if absence.error else "skipped", absence.where, absence.what, absence.reason]
