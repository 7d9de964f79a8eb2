"""Rows of readings in a Parquet file that can be read at any time."""

from __future__ import annotations

import os
from typing import Any

from geoact._files import write_atomic
from geoact.torch.reading import COLUMNS, Reading
from geoact.torch.sinks.base import optional, positive, target

_INTEGERS = ("step", "index", "calls")
_STRINGS = ("layer", "activation")


class Parquet:
    """Columns of integers, strings and float64, one row per layer and step.

    A Parquet file cannot grow: rows are collected, and the whole file is replaced every ``every`` readings and at the
    end. A reader sees the old or the new file, never half of one. For long runs choose ``every`` in proportion.

    Parameters
    ----------
    path : path-like
    every : int
        Readings between two writes: what a killed process loses at most.
    append : bool
        Continue a file that has the same columns; without it an existing file is an error.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 10, append: bool = False) -> None:
        self._arrow = optional("pyarrow", "Parquet")
        self._parquet = optional("pyarrow.parquet", "Parquet")
        if not isinstance(append, bool):
            raise TypeError(f"append must be a bool, got {type(append).__name__}")
        self.path = target(path)
        self._every = positive("every", every)
        self._schema = self._arrow.schema([(name, self._type(name)) for name in COLUMNS])
        self._tables: list[Any] = []
        self._unwritten = 0
        if self.path.exists() and self.path.stat().st_size > 0:
            if not append:
                raise ValueError(f"{self.path} exists: give another path, or append=True to continue it")
            self._tables.append(self._existing())
        else:
            self._replace()

    def _type(self, column: str) -> Any:  # noqa: ANN401
        if column in _INTEGERS:
            return self._arrow.int64()
        return self._arrow.string() if column in _STRINGS else self._arrow.float64()

    def _existing(self) -> Any:  # noqa: ANN401
        try:
            table = self._parquet.read_table(self.path)
        except self._arrow.ArrowInvalid as error:
            raise ValueError(f"{self.path} is not a Parquet file") from error
        if not table.schema.equals(self._schema):
            raise ValueError(f"{self.path} has other columns: {', '.join(table.column_names)}")
        return table

    def _replace(self) -> None:
        table = self._arrow.concat_tables([self._schema.empty_table(), *self._tables]).combine_chunks()
        self._tables = [table]
        buffer = self._arrow.BufferOutputStream()
        self._parquet.write_table(table, buffer)
        write_atomic(self.path, buffer.getvalue().to_pybytes())
        self._unwritten = 0

    def write(self, reading: Reading) -> None:
        """Collect one row per layer."""
        self._tables.append(self._arrow.Table.from_pylist(reading.rows(), schema=self._schema))
        self._unwritten += 1
        if self._unwritten >= self._every:
            self._replace()

    def close(self) -> None:
        """Write what is not yet written."""
        if self._unwritten:
            self._replace()
