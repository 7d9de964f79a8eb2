"""A history in the terminal: the changes first, then how every series stands."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from geoact.bench.history.series import History, Series

_PIPE_WIDTH = 170
"""Columns of a table that no terminal limits."""


def print_history(history: History, console: Console) -> None:
    """Print the changes of all series, what is known of each, and the files that were not used."""
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    runs = f"{history.files} result file{'' if history.files == 1 else 's'}"
    console.print(Text(f"{runs}, {history.span}, {len(history.series)} series", style="bold"))
    if history.shifts:
        console.print(_changes(history))
    else:
        console.print(Text("No change of level.", style="green"))
    console.print()
    console.print(_standing(history))
    if any(one.absolute for one in history.series):
        text = "Calls per second belong to the machine; where there is a copy to compare with, its share is shown."
        console.print(Text(text, style="dim"), soft_wrap=True)
    for note in history.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)


def _table(*heads: tuple[str, bool]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head, right in heads:
        table.add_column(head, justify="right" if right else "left", overflow="fold", no_wrap=right)
    return table


def _changes(history: History) -> Table:
    table = _table(("change", True), ("since", False), ("commits", False), ("before", True), ("after", True),
                   ("case", False))  # fmt: skip
    for one, shift in history.shifts:
        table.add_row(
            Text(f"{shift.percent:+.1f}%", style="bold red" if shift.slower else "green"),
            Text(f"{shift.date:%Y-%m-%d}"),
            Text(shift.commits),
            Text(one.text(shift.before)),
            Text(one.text(shift.after)),
            Text(_name(one, history)),
        )
    return table


def _standing(history: History) -> Table:
    table = _table(("runs", True), ("last", True), ("changes", True), ("case", False))
    for one in history.series:
        changes = str(len(one.shifts) or "")
        cells = (str(len(one.runs)), one.text(one.runs[-1].value), changes, _name(one, history))
        table.add_row(*map(Text, cells))
    return table


def _name(one: Series, history: History) -> str:
    """The case, with whatever else is needed to tell it from the others."""
    extra = []
    for attribute in ("suite", "cache", "machine"):
        if len({getattr(other, attribute) for other in history.series}) > 1:
            extra.append(str(getattr(one, attribute)))
    return one.case + (f" ({', '.join(extra)})" if extra else "")
