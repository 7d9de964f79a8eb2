"""A document as one page: bars, cases, charts and the samples behind them, what was left out, and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoact import _pages
from geoact.bench.bars import Row
from geoact.bench.report import content, tables
from geoact.bench.report.charts import OVERHEAD_AXIS, Prices, Speeds, dots, prices, speeds, spread
from geoact.bench.report.content import CaseView
from geoact.bench.results import ResultError

_PACKAGE = "geoact.bench.report"
_FEW = 12  # values of an axis that fit a list to choose from
_MARKS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "♦")
"""What the shapes of the charts look like in a legend."""
_DASHES = ("──", "- -", "–·–", "···")
"""And what the lines look like, in the order in which bench.js gives them out."""


def write_page(document: Mapping[str, Any], path: Path, *, overhead_axis: str = OVERHEAD_AXIS) -> None:
    """Write the page; an earlier one is replaced.

    Parameters
    ----------
    document : mapping
    path : Path
    overhead_axis : str
        Cases that differ in this axis only make the chart of what an option costs.

    Raises ResultError where something that is no page of results is in its place.
    """
    check(path)
    views = content.cases(document)
    heads = tables.case_heads(views)
    fast, costs = speeds(document), prices(document, overhead_axis)
    said: dict[str, Any] = {
        "document": document,
        "moment": content.moment(document),
        "machine": content.machine(document),
        "load": content.load(document),
        "counts": content.counts(document),
        "cpu_times": content.cpu_times(document),
        "bars": [_bar(row) for row in content.rows(document)],
        "bar_heads": ("met?", *(head for head in tables.BARS if head != "met?"), "group"),
        "numbers": tables.NUMBERS,
        "heads": heads,
        "cases": [_row(place, view, heads) for place, view in enumerate(views)],
        "filters": _filters(views),
        "measured": [(place, view.name) for place, view in enumerate(views) if view.measured],
        "absences": content.absences(document),
        "environment": content.environment_lines(document),
        "marks": _MARKS,
        "speeds": fast,
        "roofs": [
            (_DASHES[place % len(_DASHES)], f"{name} {content.number(speed)} GB/s")
            for place, (name, speed) in enumerate(fast.roofs.items())
        ],
        "costs": costs,
        "dots": dots(document),
    }
    said["data"] = {
        "cases": [_samples(view) for view in views],
        "axes": [row["axes"] for row in said["cases"]],
        "speed": _speed(fast, views),
        "roofs": [[name, _short(speed)] for name, speed in fast.roofs.items()],
        "copies": [[count, _short(speed)] for count, speed in fast.copies],
        "prices": _prices(costs, views),
        "dots": [
            {"group": dot.row.group, "bar": dot.row.bar, "median": _short(dot.median), "low": _short(dot.low),
             "high": _short(dot.high), "limit": dot.limit, "met": dot.row.met, "against": dot.row.against}
            for dot in said["dots"]
        ],
    }  # fmt: skip
    _pages.write_page(path, _pages.BENCH, _PACKAGE, "bench.html.j2", said)


def check(path: Path) -> None:
    """Raise ResultError if a page would take the place of something else; to be known before a long measurement."""
    try:
        _pages.refuse_others(path, _pages.BENCH)
    except ValueError as error:
        raise ResultError(str(error)) from error


def _bar(row: Row) -> dict[str, Any]:
    cells = dict(zip(("group", *tables.BARS), (row.group, *tables.bar_cells(row)), strict=True))
    return {"cells": cells, "met": row.met, "limit": bool(row.limit), "median": row.median, "low": row.low}


def _row(place: int, view: CaseView, heads: list[str]) -> dict[str, Any]:
    """The cells of a case, with the numbers they are sorted by."""
    numbers = {
        "median time": view.median,
        "GB/s": view.gigabytes,
        "GFLOP/s": view.gigaflops,
        tables.SHARE: view.score["median"] if view.score else None,
    }
    texts = dict(zip(heads, tables.case_cells(view, heads), strict=True))
    cells = [
        {"head": head, "text": texts[head], "value": _number(numbers[head] if view.measured else None)}
        if head in numbers
        else {"head": head, "text": texts[head], "value": ""}
        for head in heads
    ]
    axes = {"case": view.function, "status": view.status, **{axis: str(value) for axis, value in view.axes.items()}}
    return {"place": place, "view": view, "cells": cells, "axes": axes}


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.6g}"


def _filters(views: list[CaseView]) -> dict[str, list[str]]:
    """Axes to choose from, and their values: those that tell cases apart and have few values."""
    values: dict[str, dict[str, None]] = {"case": {}, "status": {}}
    for view in views:
        values["case"][view.function] = values["status"][view.status] = None
        for axis, value in view.axes.items():
            values.setdefault(axis, {})[str(value)] = None
    return {axis: list(found) for axis, found in values.items() if 2 <= len(found) <= _FEW}


def _samples(view: CaseView) -> dict[str, Any]:
    return {
        "name": view.name,
        "ns": [_short(ns) for ns in view.ns] if view.measured else [],
        "copy": [_short(ns) for ns in view.ceiling_ns] if view.measured else [],
        "ceiling": view.ceiling,
        "said": "; ".join(filter(None, [view.rounds_text, view.notes])),
    }


def _speed(data: Speeds, views: list[CaseView]) -> list[dict[str, Any]]:
    """Points of the charts of speed and of the roofline; ``case`` is the place of the case on the page."""
    known = {view.name: place for place, view in enumerate(views)}
    x = spread([(point.view.bytes, point.colour) for point in data.points]) if data.points else []
    return [
        {
            "case": known[point.view.name],
            "x": _short(where),
            "y": _short(point.view.gigabytes or 0.0),
            "copy": _short(point.view.copy_gigabytes) if point.view.copy_gigabytes else None,
            "intensity": _short(point.view.flops / point.view.bytes) if point.view.flops else None,
            "gflops": _short(point.view.gigaflops) if point.view.gigaflops else None,
            "colour": point.colour,
            "shape": point.shape,
        }
        for where, point in zip(x, data.points, strict=True)
    ]


def _prices(data: Prices, views: list[CaseView]) -> list[dict[str, Any]]:
    known = {view.name: place for place, view in enumerate(views)}
    x = spread([(pair.case.bytes or 1, pair.colour) for pair in data.pairs]) if data.pairs else []
    return [
        {
            "case": known[pair.case.name],
            "x": _short(where),
            "y": _short(pair.ratio),
            "low": _short(pair.low),
            "high": _short(pair.high),
            "line": pair.line,
            "colour": pair.colour,
            "shape": pair.shape,
        }
        for where, pair in zip(x, data.pairs, strict=True)
    ]


def _short(value: float) -> float:
    return float(f"{value:.5g}")
