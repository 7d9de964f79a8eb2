"""Reading what callgrind wrote: instructions by the object file they lie in.

The format is that of the Valgrind manual, "Callgrind Format Specification". Of it this needs the objects (``ob=``) and
the cost lines. A name may be given once and then by its number; ``ob=``, ``cob=`` and ``job=`` share the numbers (the
last kind, of the targets of jumps, is written but not in the manual). The cost line that follows ``calls=`` is that of
the called function all over again and no cost of its own; the line that follows ``jump=`` or ``jcnd=`` has a position
and no cost. That the lines add up to ``totals:``, with which the file ends, is checked. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from geoact.bench.instructions.errors import CountingError

UNKNOWN = "???"
"""What callgrind calls an object it does not know: code made at run time."""

_EVENT = "Ir"  # instructions read, that is executed
_COST = re.compile(r"(?:\*|[+-]?(?:0x[0-9a-fA-F]+|\d+))(?:\s|$)")
_POSITION = re.compile(r"([cj]?ob|fl|fi|fe|cfi|cfl|jfi|[cj]?fn)=\s*(?:\((\d+)\))?\s*(.*)$")
_JUMP = re.compile(r"(?:jump|jcnd)=\s*\d+")
_HEADER = re.compile(r"([A-Za-z][\w ]*?):(?:\s+(.*)|)$")


@dataclass(frozen=True)
class Profile:
    """One dump: what was executed between two requests.

    ``label`` is what the request named it, empty for another kind of dump.
    """

    label: str
    objects: Mapping[str, int]
    total: int

    def of(self, paths: Iterable[str]) -> int:
        """Instructions of these objects."""
        return sum(self.objects.get(path, 0) for path in set(paths))


class _Reader:
    """State of reading one file, line by line."""

    def __init__(self) -> None:
        self.label = ""
        self.objects: dict[str, int] = {}
        self.total: int | None = None
        self._names: dict[str, str] = {}
        self._object = UNKNOWN
        self._column: int | None = None
        self._positions = 1
        self._of_call = False

    def read(self, line: str) -> None:
        """Take a line; raises ValueError if it has no place here."""
        if not line or line.startswith("#"):
            return
        if _COST.match(line):
            self._cost(line)
            return
        if self._of_call:
            raise ValueError("a call without the line of its cost")
        if position := _POSITION.match(line):
            self._position(*position.groups())
        elif line.startswith("calls="):
            self._of_call = True
        elif header := _HEADER.match(line):
            self._header(header[1], header[2] or "")
        elif not _JUMP.match(line):
            raise ValueError("not a line of this format")

    def _position(self, kind: str, number: str | None, name: str) -> None:
        if not kind.endswith("ob"):
            return
        if number is not None:
            if name:
                self._names[number] = name
            elif number not in self._names:
                raise ValueError(f"no object has the number {number}")
            name = self._names[number]
        if kind == "ob":
            self._object = name

    def _header(self, key: str, value: str) -> None:
        if key == "events":
            if self._column is not None:
                raise ValueError("more than one part in a file (--combine-dumps)")
            if _EVENT not in value.split():
                raise ValueError(f"{_EVENT} was not counted")
            self._column = value.split().index(_EVENT)
        elif key == "positions":
            self._positions = len(value.split())
        elif key == "totals":
            self.total = self._event(value.split())
        elif key == "desc" and value.startswith("Trigger: Client Request: "):
            self.label = value.removeprefix("Trigger: Client Request: ")

    def _cost(self, line: str) -> None:
        if self._of_call:
            self._of_call = False
            return
        cost = self._event(line.split()[self._positions :])
        self.objects[self._object] = self.objects.get(self._object, 0) + cost

    def _event(self, values: list[str]) -> int:
        if self._column is None:
            raise ValueError("costs before the events are named")
        return int(values[self._column], 0) if self._column < len(values) else 0


def parse(text: str, origin: str) -> Profile:
    """Read the text of a dump; ``origin`` names it in errors. Raises CountingError."""
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            reader.read(line)
        except ValueError as error:
            raise CountingError(f"{origin}, line {number}: {error}") from error
    found = sum(reader.objects.values())
    if reader.total is None:
        raise CountingError(f"{origin} is cut short: it has no totals")
    if reader.total != found:
        raise CountingError(f"{origin} is damaged: its lines add up to {found}, it says {reader.total}")
    return Profile(reader.label, reader.objects, reader.total)


def read(path: Path) -> Profile:
    """Read a dump. Raises CountingError."""
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except OSError as error:
        raise CountingError(f"cannot read {path}: {error}") from error
