"""A table of counts: what every case executes, by which compiler's code, and its stored form.

Stored form: JSON with a head, the names of the columns, and one line per case, sorted, so that a change of one case is
a change of one line. Counts are whole numbers and exact; what is derived from them is stored for readers of the file
and made anew when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoact._files import write_atomic
from geoact.bench.instructions.errors import BaselineMissingError, CountingError
from geoact.bench.suite import matches

SCHEMA = 1
KIND = "geoact-instructions"

PACKAGE, TOTAL = "instructions", "total"
"""What is gated, and what findings are about: the instructions of the package's modules, or where it has none all."""


@dataclass(frozen=True)
class Row:
    """One case. All counts are of one run, which makes ``calls`` calls."""

    name: str
    axes: Mapping[str, str]
    instructions: int
    """Executed in the package's compiled modules, the smaller of two counts; 0 if there are none."""
    total: int
    """Executed in all, Python and libraries included; likewise."""
    spread: int = 0
    """By how much the two counts of what is gated differ."""
    elements: int = 0
    """Elements of one call, or 0 where the case does not say."""
    bytes: int = 0
    """Read and written by one call."""
    calls: int = 1

    def gated(self, what: str) -> int:
        """The count that is compared."""
        return self.instructions if what == PACKAGE else self.total

    def per_element(self, what: str) -> float | None:
        """Instructions per element, or None."""
        return self.gated(what) / (self.elements * self.calls) if self.elements else None

    def per_16_bytes(self, what: str) -> float | None:
        """Instructions per 16 bytes read and written, or None."""
        return 16 * self.gated(what) / (self.bytes * self.calls) if self.bytes else None


@dataclass(frozen=True)
class Table:
    """Rows in the order of their names, and what they were made of and with."""

    suite: str
    package: str | None
    gated: str
    rows: tuple[Row, ...]
    tools: Mapping[str, str] = field(default_factory=dict)
    """What must be the same for two tables to be compared."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Where it was made; nothing of it is compared."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Cases that cannot run here -> why. Not stored."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Cases that failed -> how. Not stored."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(sorted(self.rows, key=lambda row: row.name)))
        for one, other in zip(self.rows, self.rows[1:], strict=False):
            if one.name == other.name:
                raise CountingError(f"two cases are called {one.name}")

    def __getitem__(self, name: str) -> Row:
        """The row of a case."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def select(self, only: Sequence[str] = (), axes: Sequence[tuple[str, str]] = ()) -> Table:
        """The rows that ``Suite.select`` would choose."""
        rows = (
            row
            for row in self.rows
            if (not only or any(matches(row.name, word) for word in only))
            and all(row.axes.get(axis) == value for axis, value in axes)
        )
        return replace(self, rows=tuple(rows))

    def full(self) -> dict[str, Any]:
        """Everything, what is derived included, as one object per case; for other programs."""
        return {
            **self._head(),
            "cases": [dict(zip(_COLUMNS, _values(row, self.gated), strict=True)) for row in self.rows],
            "skipped": dict(self.skipped),
            "errors": dict(self.errors),
        }

    def _head(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "suite": self.suite,
            "package": self.package,
            "gated": self.gated,
            "tools": dict(sorted(self.tools.items())),
            "environment": dict(self.environment),
        }

    def to_json(self) -> str:
        """The stored form."""
        lines = [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in self._head().items()]
        lines.append(f'"columns": {json.dumps(_COLUMNS)},')
        rows = [json.dumps(_values(row, self.gated), ensure_ascii=False) for row in self.rows]
        return "{\n" + "\n".join(lines) + '\n"cases": [\n' + ",\n".join(rows) + "\n]\n}\n"

    @classmethod
    def from_json(cls, text: str, origin: str = "the table") -> Table:
        """Read the stored form back; ``origin`` names it in errors."""
        try:
            stored = json.loads(text)
            if not isinstance(stored, dict) or stored.get("kind") != KIND:
                raise CountingError(f"{origin} is no table of instructions")
            if stored["schema"] != SCHEMA:
                raise CountingError(f"{origin} has schema {stored['schema']}, this version reads {SCHEMA}: count anew")
            if stored["gated"] not in (PACKAGE, TOTAL):
                raise ValueError(f"gated is {stored['gated']!r}")
            rows = [_row(dict(zip(stored["columns"], row, strict=True))) for row in stored["cases"]]
            package = None if stored["package"] is None else str(stored["package"])
            tools = {str(key): str(value) for key, value in stored["tools"].items()}
            return cls(str(stored["suite"]), package, stored["gated"], tuple(rows), tools, dict(stored["environment"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CountingError(f"{origin} is damaged ({type(error).__name__}: {error})") from error

    def save(self, path: str | Path) -> None:
        """Write the stored form; an earlier file stays as it was if anything fails.

        Raises CountingError where a case failed: a table without it would let it vanish unseen.
        """
        if self.errors:
            raise CountingError(f"{path} was not written: {_some(self.errors)} failed")
        write_atomic(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Table:
        """Read a file that :meth:`save` wrote."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BaselineMissingError(f"there is no table {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CountingError(f"cannot read the table {path}: {error}") from error
        return cls.from_json(text, str(path))


_COLUMNS = (
    "name",
    "instructions",
    "total",
    "spread",
    "per_element",
    "per_16_bytes",
    "elements",
    "bytes",
    "calls",
    "axes",
)


def _values(row: Row, gated: str) -> list[Any]:
    derived = {name: _short(getattr(row, name)(gated)) for name in ("per_element", "per_16_bytes")}
    return [derived[name] if name in derived else _plain(getattr(row, name)) for name in _COLUMNS]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _row(stored: Mapping[str, Any]) -> Row:
    def integer(name: str, least: int = 0) -> int:
        value = stored[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} of {stored['name']} is {value!r}, not a count")
        return value

    if not isinstance(stored["name"], str):
        raise ValueError(f"{stored['name']!r} is no name")
    counts = {name: integer(name) for name in ("instructions", "total", "spread", "elements", "bytes")}
    axes = {str(axis): str(value) for axis, value in stored["axes"].items()}
    return Row(stored["name"], axes, calls=integer("calls", 1), **counts)


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} and {len(rest)} more" if rest else first
