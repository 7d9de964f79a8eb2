"""Result files in the order of their dates, as one series per case and class of machine.

The value of a run is its score, the share of the speed of a copy of the same bytes in the same rounds, so that a
machine that is slower today does not look like a slower kernel. Where a case has none it is calls per second, and the
series is marked as absolute; the two are never mixed in one series, and neither are cold and warm caches.
"""

from __future__ import annotations

import datetime
import hashlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from geoact.bench import environment, results
from geoact.bench.report.content import number
from geoact.bench.results import ResultError
from geoact.bench.suite import matches
from geoact.bench.summary import quantile


@dataclass(frozen=True)
class Run:
    """What one result file says of a case: the value and its quartiles."""

    date: datetime.datetime
    file: str
    commit: str | None
    changed: bool
    value: float
    low: float
    high: float

    @property
    def short(self) -> str:
        """The commit as it is shown; + where the sources were changed."""
        return f"{self.commit[:10]}{'+' if self.changed else ''}" if self.commit else "unknown"


@dataclass(frozen=True)
class Shift:
    """A change of the level of a series: ahead of ``runs[index]``."""

    index: int
    before: float
    after: float
    p: float
    commits: str
    date: datetime.datetime

    @property
    def percent(self) -> float:
        """By which the speed changed; negative where it became slower."""
        return 100 * (self.after / self.before - 1)

    @property
    def slower(self) -> bool:
        """Whether it is a slowdown: values are speeds."""
        return self.after < self.before


@dataclass
class Series:
    """The runs of a case on one class of machine."""

    suite: str
    case: str
    cache: str
    machine: str
    absolute: bool
    runs: list[Run] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str, str, bool]:
        """What tells a series from the others."""
        return (self.suite, self.case, self.cache, self.machine, self.absolute)

    def text(self, value: float) -> str:
        """A value as it is shown."""
        return f"{number(value)} calls/s" if self.absolute else f"{value:.1%} of copy"

    def slowed(self, within: int) -> bool:
        """Whether the last change is a slowdown that began within so many runs of the end."""
        last = self.shifts[-1] if self.shifts else None
        return last is not None and last.slower and last.index >= len(self.runs) - within


@dataclass
class History:
    """All series, and notes on the files that could not be used.

    ``files`` counts those that were.
    """

    series: list[Series]
    notes: list[str] = field(default_factory=list)
    files: int = 0

    @classmethod
    def read(cls, source: Path | str | Iterable[Path | str], only: Sequence[str] = ()) -> History:
        """Read a folder, with the folders in it, or files.

        ``only`` keeps the cases whose name matches one of the globs or contains one of the words. A file that cannot
        be used is named in the notes and the others are used. Raises ResultError where none can be.
        """
        notes: list[str] = []
        documents = sorted(_documents(source, notes), key=lambda found: (found[0], found[1]))
        if not documents:
            where = source if isinstance(source, (str, Path)) else ", ".join(map(str, source)) or "no file"
            raise ResultError("; ".join([f"there is no usable result in {where}", *notes]))
        series: dict[tuple[str, str, str, str, bool], Series] = {}
        for date, file, document in documents:
            for case in results.measured(document).values():
                if only and not any(matches(case["name"], word) for word in only):
                    continue
                one = _series_of(document, case)
                series.setdefault(one.key, one).runs.append(_run(date, file, document, case))
        history = cls(list(series.values()), notes, len(documents))
        history.find_shifts()
        return history

    def find_shifts(self) -> None:
        """Look for changes in all series; their number counts as evidence against each."""
        from geoact.bench.history.changes import SHORTEST, changes

        long_enough = [one for one in self.series if len(one.runs) >= 2 * SHORTEST]
        for one in long_enough:
            found = changes([run.value for run in one.runs], series=len(long_enough))
            one.shifts = [
                Shift(c.index, c.before, c.after, c.p, _commits(one.runs, c.index), one.runs[c.index].date)
                for c in found
            ]

    @property
    def shifts(self) -> list[tuple[Series, Shift]]:
        """All changes, the latest first; among those of a day the largest slowdown first."""
        found = [(one, shift) for one in self.series for shift in one.shifts]
        return sorted(found, key=lambda pair: (-pair[1].date.toordinal(), pair[1].percent))

    def slowed(self, within: int) -> list[Series]:
        """Series whose last change is a slowdown within so many runs of their end."""
        return [one for one in self.series if one.slowed(within)]

    @cached_property
    def span(self) -> str:
        """The first and the last date."""
        dates = [run.date for one in self.series for run in one.runs]
        return f"{min(dates):%Y-%m-%d} to {max(dates):%Y-%m-%d}" if dates else "no runs"

    def document(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "files": self.files,
            "notes": self.notes,
            "series": [
                {
                    "suite": one.suite,
                    "case": one.case,
                    "cache": one.cache,
                    "machine": one.machine,
                    "absolute": one.absolute,
                    "runs": [
                        {"date": run.date.isoformat(), "file": run.file, "commit": run.commit,
                         "sources_changed": run.changed, "value": run.value, "q1": run.low, "q3": run.high}
                        for run in one.runs
                    ],
                    "changes": [
                        {"run": shift.index, "date": shift.date.isoformat(), "commits": shift.commits,
                         "before": shift.before, "after": shift.after, "percent": round(shift.percent, 2),
                         "slower": shift.slower, "p": shift.p}
                        for shift in one.shifts
                    ],
                }
                for one in self.series
            ],
        }  # fmt: skip


# --- files ----------------------------------------------------------------------------------------


def _documents(
    source: Path | str | Iterable[Path | str], notes: list[str]
) -> Iterator[tuple[datetime.datetime, str, dict[str, Any]]]:
    seen: dict[bytes, str] = {}
    for path in _paths(source):
        try:
            document = results.load(path)
            date = _date(document, path)
            digest = hashlib.sha256(path.read_bytes()).digest()
        except (ResultError, OSError) as error:
            notes.append(f"not used: {error}")
            continue
        if digest in seen:
            notes.append(f"not used: {path} is a copy of {seen[digest]}")
            continue
        seen[digest] = str(path)
        yield date, str(path), document


def _paths(source: Path | str | Iterable[Path | str]) -> list[Path]:
    given = [Path(source)] if isinstance(source, (str, Path)) else [Path(one) for one in source]
    return [path for one in given for path in (sorted(one.rglob("*.json")) if one.is_dir() else [one])]


def _date(document: Mapping[str, Any], path: Path) -> datetime.datetime:
    text = document["environment"].get("date")
    try:
        date = datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        raise ResultError(f"{path} has no date that can be read: {text!r}") from None
    return date if date.tzinfo else date.replace(tzinfo=datetime.timezone.utc)


def _score(case: Mapping[str, Any]) -> Mapping[str, Any] | None:
    score = case.get("score")
    median = score.get("median") if isinstance(score, Mapping) else None
    return score if isinstance(median, (int, float)) and not isinstance(median, bool) and median > 0 else None


def _series_of(document: Mapping[str, Any], case: Mapping[str, Any]) -> Series:
    known = environment.identity(document["environment"])
    machine = ", ".join(f"{v} processors" if k == "processors" else str(v) for k, v in known.items())
    suite, cache = str(document.get("suite", "")), str(case.get("cache") or document.get("cache", ""))
    return Series(suite, case["name"], cache, machine or "unknown machine", _score(case) is None)


def _run(date: datetime.datetime, file: str, document: Mapping[str, Any], case: Mapping[str, Any]) -> Run:
    score = _score(case)
    if score:
        value = float(score["median"])
        low, high = float(score.get("q1") or value), float(score.get("q3") or value)
    else:
        speeds = sorted(1e9 / ns for ns in case["ns"])
        value = 1e9 / statistics.median(case["ns"])
        low, high = quantile(speeds, 0.25), quantile(speeds, 0.75)
    about = document["environment"]
    commit = about.get("commit")
    return Run(date, file, str(commit) if commit else None, bool(about.get("sources_changed")), value, low, high)


def _commits(runs: Sequence[Run], index: int) -> str:
    """The commits between the last run before a change and the first one after it, as git names a range."""
    before, after = runs[index - 1], runs[index]
    if before.commit == after.commit:
        return f"both {after.short}: not the sources" if after.commit and not after.changed else after.short
    return f"{before.short}..{after.short}"
