"""A history as one page: the changes first, then a chart of every series with its levels and its changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geoact import _pages
from geoact.bench.history.series import History, Series
from geoact.bench.results import ResultError

_PACKAGE = "geoact.bench.history"


def write_trend_page(history: History, path: Path, title: str = "Benchmark history") -> None:
    """Write the page; an earlier one is replaced. Raises ResultError where something else is in its place."""
    try:
        _pages.refuse_others(path, _pages.HISTORY)
    except ValueError as error:
        raise ResultError(str(error)) from error
    series = [_series(place, one) for place, one in enumerate(history.series)]
    places = {one.key: place for place, one in enumerate(history.series)}
    content = {
        "title": title,
        "history": history,
        "changes": [{"place": places[one.key], "one": one, "shift": shift} for one, shift in history.shifts],
        "series": series,
    }
    _pages.write_page(path, _pages.HISTORY, _PACKAGE, "history.html.j2", content)


def _series(place: int, one: Series) -> dict[str, Any]:
    return {
        "id": f"series-{place}",
        "case": one.case,
        "about": f"{one.suite}, caches {one.cache}, {one.machine}",
        "unit": "calls per second, of this machine" if one.absolute else "share of the copy's speed",
        "absolute": one.absolute,
        "label": _label(one),
        "dates": [f"{run.date:%Y-%m-%d %H:%M:%S}" for run in one.runs],
        "commits": [run.short for run in one.runs],
        "values": [_short(run.value) for run in one.runs],
        "low": [_short(run.low) for run in one.runs],
        "high": [_short(run.high) for run in one.runs],
        "shifts": [
            {"index": shift.index, "percent": round(shift.percent, 1), "slower": shift.slower,
             "commits": shift.commits}
            for shift in one.shifts
        ],
    }  # fmt: skip


def _label(one: Series) -> str:
    """What a chart shows, for those who cannot see it."""
    first, last = one.runs[0], one.runs[-1]
    text = (
        f"{one.case}: {len(one.runs)} runs, {one.text(first.value)} in the first and {one.text(last.value)} in the last"
    )
    told = ", ".join(f"{shift.percent:+.1f}% on {shift.date:%Y-%m-%d}" for shift in one.shifts)
    return f"{text}; changes: {told}" if told else f"{text}; no change of level"


def _short(value: float) -> float:
    return float(f"{value:.5g}")
