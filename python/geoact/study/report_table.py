"""A table of the report, as text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Column heads and rows of text. Columns after the first ``left`` are numbers, set to the right."""

    heads: list[str]
    rows: list[list[str]]
    caption: str
    left: int = 1
