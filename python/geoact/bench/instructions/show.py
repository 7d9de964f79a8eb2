"""Tables of counts and verdicts for people: in the terminal (rich) and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from geoact.bench import explained
from geoact.bench.explained import percent
from geoact.bench.instructions.compare import Verdict
from geoact.bench.instructions.table import PACKAGE, Row, Table
from geoact.bench.markdown import plain
from geoact.bench.markdown import table as markdown_lines

NO_TIME = "Instructions executed, not time: what one costs depends on the instruction and on where its data are."

_PIPE_WIDTH = 160
"""Columns of a table that no terminal limits."""


def heads(baseline: Table | None) -> list[str]:
    """``inside`` are the package's compiled modules, ``/element`` and ``/16 B`` are of what is gated."""
    return ["case", "inside", "/element", "/16 B", "in all", *(["baseline", "change"] if baseline else [])]


def cells(row: Row, gated: str, baseline: Table | None) -> list[str]:
    """One row, in the order of :func:`heads`."""
    per = [row.per_element(gated), row.per_16_bytes(gated)]
    line = [row.name, str(row.instructions) if gated == PACKAGE else "-"]
    line += ["-" if value is None else f"{value:.2f}" for value in per]
    line.append(str(row.total))
    if baseline is not None:
        known = {one.name: one.gated(gated) for one in baseline.rows}
        was, now = known.get(row.name), row.gated(gated)
        line += ["-", "new"] if was is None else [str(was), "=" if was == now else percent(was, now) or "from 0"]
    return line


def about(table: Table) -> str:
    """What was counted, in a sentence or two."""
    what = f"the compiled modules of {table.package}" if table.gated == PACKAGE else "everything, Python included"
    text = f"{len(table.rows)} cases of {table.suite}; gated is {what}. "
    text += "; ".join(f"{name}: {value}" for name, value in sorted(table.tools.items()))
    return f"{text}; valgrind {table.environment.get('valgrind')}."


def print_table(table: Table, baseline: Table | None, console: Console) -> None:
    """Print all rows, and what was not counted."""
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for i, head in enumerate(heads(baseline)):
        grid.add_column(head, justify="right" if i else "left", overflow="fold", no_wrap=i > 0)
    for row in table.rows:
        grid.add_row(*map(Text, cells(row, table.gated, baseline)))
    console.print(grid)
    for line in told(table):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(about(table), markup=False, highlight=False, soft_wrap=True)
    console.print(NO_TIME, style="dim", markup=False, highlight=False)


def told(table: Table) -> list[str]:
    """Cases without a count, and why."""
    lines = [f"skipped: {name}: {why}" for name, why in table.skipped.items()]
    return lines + [f"failed: {name}: {why}" for name, why in table.errors.items()]


def markdown(table: Table, baseline: Table | None, verdict: Verdict | None) -> str:
    """Table and verdict as Markdown."""
    parts = [explained.verdict_markdown(verdict, "Instruction gate")] if verdict else []
    rows: Sequence[Sequence[str]] = [cells(row, table.gated, baseline) for row in table.rows]
    lines = ["## Instructions", "", *markdown_lines(heads(baseline), rows, heads(baseline)[1:]), ""]
    lines += [f"- {plain(line)}" for line in told(table)] + ([""] if told(table) else [])
    parts.append("\n".join([*lines, f"{plain(about(table))} {NO_TIME}", ""]))
    return "\n".join(parts)
