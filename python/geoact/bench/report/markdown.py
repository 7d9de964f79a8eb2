"""Markdown for a pull request: a document as tables, and the tables that other reports are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoact.bench.markdown import plain, table
from geoact.bench.report import content
from geoact.bench.report.tables import BARS, NUMBERS, absence_cells, bar_cells, case_cells, case_heads

LONG = 20  # rows of a table above which it is folded


def markdown(document: Mapping[str, Any]) -> str:
    """A document as Markdown: bars first, then cases, then what was left out."""
    title = f"Benchmark of {document.get('suite')}, caches {document.get('cache')}"
    lines = [f"## {plain(title)}", ""]
    lines += [f"{plain(content.machine(document))}; {plain(content.moment(document))}. {content.load(document)}", ""]
    lines += [f"- {key}: {text}" for key, text in content.counts(document).items()] + [""]
    bars = content.rows(document)
    if bars:
        cells = [[row.group, *bar_cells(row)] for row in bars]
        lines += ["### Bars", "", *_folded(len(cells), table(("group", *BARS), cells, NUMBERS))]
    views = [view for view in content.cases(document) if view.measured]
    if views:
        heads = case_heads(views)
        cells = [case_cells(view, heads) for view in views]
        lines += ["### Cases", "", *_folded(len(views), table(heads, cells, NUMBERS))]
    warning = content.cpu_times(document)
    lines += [warning, ""] if views and warning else []
    absences = content.absences(document)
    if absences:
        rows = [absence_cells(absence) for absence in absences]
        lines += ["### Not measured", "", *_folded(len(rows), table(("", "where", "what", "why"), rows))]
    return "\n".join(lines).rstrip() + "\n"


def _folded(count: int, lines: Sequence[str]) -> list[str]:
    """A long table behind a line that opens it."""
    if count <= LONG:
        return [*lines, ""]
    return ["<details>", f"<summary>{count} rows</summary>", "", *lines, "", "</details>", ""]
