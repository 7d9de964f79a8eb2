"""Tables and text for Markdown that other programs render: the leaf of everything that writes for a pull request."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# An underscore inside a word emphasises nothing.
_MARKS = re.compile(r"[\\`*\[\]<|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def plain(text: str) -> str:
    """Text in a cell or a list: no HTML, no emphasis, no end of the cell or the line."""
    text = _MARKS.sub(r"\\\g<0>", text.replace("&", "&amp;"))
    return " ".join(text.split())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> list[str]:
    """The lines of a table; the columns with these heads are aligned to the right."""
    rule = ["---:" if head in right else "---" for head in heads]
    lines = [[plain(cell) for cell in heads], rule, *([plain(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
