"""Rows of readings appended to text files, which stay readable while they grow."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from geoact.torch.reading import COLUMNS, Reading
from geoact.torch.sinks.base import target


class _Lines(ABC):
    """A file to which whole lines are appended, one flushed write for each reading."""

    def __init__(self, path: str | os.PathLike[str], append: bool) -> None:
        if not isinstance(append, bool):
            raise TypeError(f"append must be a bool, got {type(append).__name__}")
        self.path = target(path)
        started = self.path.exists() and self.path.stat().st_size > 0
        if started:
            _check_unfinished(self.path, append, self._columns)
        # newline="": line ends are ours on every platform
        self._file: TextIO = self.path.open("a", encoding="utf-8", newline="")
        if not started:
            self._append(self._header())

    def _header(self) -> str:
        return ""

    @abstractmethod
    def _columns(self, first: str) -> Iterable[str]:
        """The columns that the first line of an existing file speaks of."""

    @abstractmethod
    def _lines(self, reading: Reading) -> str:
        """The lines of a reading."""

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def write(self, reading: Reading) -> None:
        """Append one row per layer."""
        self._append(self._lines(reading))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _check_unfinished(path: Path, append: bool, columns: Any) -> None:  # noqa: ANN401
    if not append:
        raise ValueError(f"{path} exists: give another path, or append=True to continue it")
    with path.open("rb") as file:
        first = file.readline()
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            raise ValueError(f"{path} ends within a line, so it cannot be continued: mend or move it")
    try:
        found = list(columns(first.decode("utf-8")))
    except ValueError as error:  # neither text nor JSON
        raise ValueError(f"{path} holds something else: its first line is {first[:80]!r}") from error
    if found != list(COLUMNS):
        raise ValueError(f"{path} has other columns: {', '.join(found)} (expected: {', '.join(COLUMNS)})")


class CSV(_Lines):
    """Comma-separated values, one row per layer and step; what was not measured is ``nan``.

    Parameters
    ----------
    path : path-like
    append : bool
        Continue a file that has the same columns; without it an existing file is an error.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        super().__init__(path, append)

    def _header(self) -> str:
        return ",".join(COLUMNS) + "\n"

    def _columns(self, first: str) -> Iterable[str]:
        return next(csv.reader([first]))

    def _lines(self, reading: Reading) -> str:
        text = io.StringIO()
        csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(reading.rows())
        return text.getvalue()


class JSONL(_Lines):
    """One JSON object per line, for each layer and step. NaN and infinities, which JSON lacks, become null.

    Parameters
    ----------
    path : path-like
    append : bool
        Continue a file that has the same columns; without it an existing file is an error.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        super().__init__(path, append)

    def _columns(self, first: str) -> Iterable[str]:
        row = json.loads(first)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        return row

    def _lines(self, reading: Reading) -> str:
        return "".join(json.dumps(_strict(row), allow_nan=False) + "\n" for row in reading.rows())


def _strict(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
