"""A document in the terminal: bars with their verdicts, cases, what was left out, and the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from geoact.bench.bars import Row
from geoact.bench.report import content
from geoact.bench.report.content import CaseView
from geoact.bench.report.markdown import markdown
from geoact.bench.report.tables import BARS, NUMBERS, bar_cells, case_cells, case_heads
from geoact.bench.suite import Case, Suite

__all__ = ["list_suite", "markdown", "print_document"]

COLOURS = {"yes": "green", "no": "bold red", "open": "yellow", "error": "bold red", "skipped": "yellow"}
_WIDE = 110  # characters of a line; what matters less is left out below that
_PIPE_WIDTH = 170
"""Columns of a table that no terminal limits."""


def print_document(document: Mapping[str, Any], console: Console) -> None:
    """Print everything of a document that a person may want to read."""
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    title = f"{document.get('suite')}, caches {document.get('cache')}: {content.moment(document)}"
    console.print(Text(title, style="bold"))
    console.print(Text(content.machine(document)))
    views, rows = content.cases(document), content.rows(document)
    if views:
        console.print()
        _print_cases(views, console)
        _line(console, content.cpu_times(document), "dim")
    if rows:
        console.print()
        _print_bars(rows, console)
    absences = content.absences(document)
    if absences:
        console.print()
        _line(console, "Not measured, or not to be believed:", "bold")
        for absence in absences:
            where = "" if absence.where == "case" else f"{absence.where}: "
            text = Text.assemble("  ", (where, "dim"), absence.what, ": ", absence.reason)
            text.stylize("red" if absence.error else "")
            console.print(text, soft_wrap=True)
    console.print()
    _line(console, "; ".join(f"{key}: {text}" for key, text in content.counts(document).items()) + ".")
    _line(console, content.load(document), "dim")


def _line(console: Console, text: str, style: str = "") -> None:
    if text:
        console.print(Text(text, style=style), soft_wrap=True)


def _print_sections(heads: Sequence[str], sections: Mapping[str, list[list[Text]]], console: Console) -> None:
    """Tables with one head and columns of the same widths, each under its name; "" has none."""
    rows = [cells for lines in sections.values() for cells in lines]
    widths = [max(len(head), *(cells[i].cell_len for cells in rows)) for i, head in enumerate(heads)]
    # Numbers are never folded: names give way, and what is said in the other columns.
    words = [i for i, head in enumerate(heads) if head not in NUMBERS and i and head != "met?"]
    for i, least in [(0, 40), *((i, 14) for i in words[::-1]), (0, 24)]:
        over = sum(widths) + 2 * len(widths) - console.width
        widths[i] = max(min(least, widths[i]), widths[i] - max(0, over))
    for place, (name, lines) in enumerate([("", []), *sections.items()]):
        _line(console, name, "bold")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=place == 0)
        for head, width in zip(heads, widths, strict=True):
            table.add_column(head, width=width, justify="right" if head in NUMBERS else "left", overflow="fold")
        for cells in lines:
            table.add_row(*cells)
        if lines or place == 0:
            console.print(table)


def _print_cases(views: Sequence[CaseView], console: Console) -> None:
    """One line for every case, by its name; what must be known of one is listed below.

    Where the names are too long for the console the cases of a function are shown by their values, under its axes.
    """
    heads = [head for head in case_heads(views) if head != "notes"]
    if console.width < _WIDE:
        heads.remove("rounds: why it stopped")
    sections: dict[str, list[list[Text]]] = {}
    several = Counter(_short(view)[0] for view in views)
    rows = [case_cells(view, heads) for view in views]
    room = console.width - sum(2 + max(len(cells[i]) for cells in [heads, *rows]) for i in range(1, len(heads)))
    fits = max(len(view.name) for view in views) + 4 <= room
    for view, texts in zip(views, rows, strict=True):
        section, short = _short(view)
        if fits or several[section] < 2:
            section, short = "", view.name
        cells = [Text(text) for text in texts]
        cells[0] = Text(("  " if section else "") + short + (" *" if view.measured and view.notes else ""))
        if not view.measured:
            cells[1].stylize(COLOURS.get(view.status, "bold red"))
        elif view.device == "cpu":
            cells[1].stylize("dim")  # of this machine only
        sections.setdefault(section, []).append(cells)
    _print_sections(heads, sections, console)
    for view in views:
        if view.measured and view.notes:
            _line(console, f"* {view.name}: {view.notes}", "yellow")


def _short(view: CaseView) -> tuple[str, str]:
    """``f[a, b]`` and ``1, 2`` of the case ``f[a=1,b=2]``; no section where the name is made otherwise."""
    inside = ",".join(f"{axis}={value}" for axis, value in view.axes.items())
    if not view.axes or view.name != f"{view.function}[{inside}]":
        return "", view.name
    return f"{view.function}[{', '.join(view.axes)}]", ", ".join(map(str, view.axes.values()))


def _print_bars(rows: Sequence[Row], console: Console) -> None:
    heads = [head for head in BARS if console.width >= _WIDE or head not in ("95 % interval", "against")]
    sections: dict[str, list[list[Text]]] = {}
    for row in rows:
        shown = zip(BARS, bar_cells(row), strict=True)
        cells = [Text(cell, style="" if row.limit or row.met else "dim") for head, cell in shown if head in heads]
        cells[0] = Text("  ") + cells[0]
        cells[-1].stylize(COLOURS.get(row.met, ""))
        sections.setdefault(row.group, []).append(cells)
    _print_sections(heads, sections, console)


def _count(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


# --- what a suite has -----------------------------------------------------------------------------


def list_suite(suite: Suite, console: Console) -> None:
    """Print the functions of a suite with their axes, the names of all cases, and the groups."""
    _line(console, f"{suite.name}: {_count(suite.cases, 'case')}, {_count(suite.families, 'group')}", "bold")
    functions: dict[str, list[Case]] = {}
    for case in suite.cases.values():
        functions.setdefault(case.name.partition("[")[0], []).append(case)
    for name, cases in functions.items():
        console.print()
        _line(console, name, "bold")
        axes: dict[str, dict[str, None]] = {}
        for case in cases:
            for axis, value in case.axes.items():
                axes.setdefault(axis, {})[str(value)] = None
        for axis, values in axes.items():
            console.print(Text.assemble("  ", (axis, "cyan"), " = ", ", ".join(values)), soft_wrap=True)
        for case in cases:
            _line(console, f"    {case.name}", "dim" if case.axes else "")
    if suite.families:
        console.print()
        _line(console, "groups", "bold")
    for family in suite.families:
        title = f": {family.title}" if family.title and family.title != family.name else ""
        _line(console, f"    {family.name}{title}")
