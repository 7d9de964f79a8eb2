"""One self-contained page: depth curves of the four axes, a table of the layers, alerts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from geoact import _pages
from geoact._files import write_atomic
from geoact.torch.reading import AXES, BACKWARD, FORWARD, SUMMARY, Alert, Layer, Reading
from geoact.torch.sinks.base import optional, positive, target

_SCALARS = {scalar.name: scalar for scalar in FORWARD + BACKWARD}
_TABLE = (*SUMMARY, "sd_x", "grad_rms")
_DIGITS = 5  # significant ones, of what is drawn
# A ratio is multiplied along the depth, so it is drawn by factors; the others have a scale of their own.
_CHARTS = (
    ("scale", "Scale", "gain Var y / Var x: below 1 pulls samples together", "log"),
    ("shape", "Shape", "linear share R²: 1 keeps relative positions", "linear"),
    ("resolution", "Resolution", "effective bits of the output in its dtype", "linear"),
    ("slope", "Gradient", "E f'²: what the activation leaves of a squared gradient", "log"),
)


@dataclass
class _Seen:
    """When an alert was raised."""

    alert: Alert
    first: int
    last: int
    times: int = 1


class HTML:
    """A page that needs nothing but a browser: no network, no folder of assets, light or dark as the reader prefers.

    Depth curves are drawn for any step, over those before it; the table and the first list of alerts are of the last
    reading, and alerts that have ceased are listed apart. The file is replaced as a whole, also when one from an
    earlier run is there.

    Parameters
    ----------
    path : path-like
    title : str
    every : int
        Readings between two writes of the page (some 5 MB each); the first reading and the end are always written.
    keep : int
        Readings whose curves are kept; when there are more, every second of the older ones is dropped.
    """

    def __init__(
        self, path: str | os.PathLike[str], title: str = "geoact monitor", every: int = 10, keep: int = 200
    ) -> None:
        for package in ("jinja2", "markupsafe", "plotly.offline"):
            optional(package, "HTML")
        if not isinstance(title, str):
            raise TypeError(f"title must be a str, got {type(title).__name__}")
        self.path = target(path)
        _pages.refuse_others(self.path, _pages.MONITOR)
        self._title = title
        self._every = positive("every", every)
        self._keep = positive("keep", keep)
        self._template = _pages.template("geoact.torch.sinks", "monitor.html.j2")
        self._curves: list[dict[str, Any]] = []
        self._stride = 1
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._last: Reading | None = None
        self._count = 0
        self._written = 0

    def write(self, reading: Reading) -> None:
        """Take a reading; replace the page if it is due."""
        if self._count % self._stride == 0:
            self._curves.append(_curves(reading))
            if len(self._curves) > self._keep:
                self._curves = self._curves[::2]
                self._stride *= 2
        for alert in reading.alerts:
            seen = self._seen.get((alert.layer, alert.rule))
            if seen is None:
                self._seen[alert.layer, alert.rule] = _Seen(alert, reading.step, reading.step)
            else:
                seen.alert, seen.last, seen.times = alert, reading.step, seen.times + 1
        self._last = reading
        self._count += 1
        if self._count == 1 or self._count - self._written >= self._every:
            self._replace(reading)

    def close(self) -> None:
        """Write the page with the last reading, if it is not in there yet."""
        if self._last is not None and self._written < self._count:
            self._replace(self._last)

    def _replace(self, reading: Reading) -> None:
        curves = list(self._curves)
        if curves[-1]["step"] != reading.step:
            curves.append(_curves(reading))
        current = {(alert.layer, alert.rule) for alert in reading.alerts}
        page = self._template.render(
            title=self._title,
            reading=reading,
            count=self._count,
            first_step=curves[0]["step"],
            curves=curves,
            charts=[
                {"name": name, "title": title, "doc": doc, "type": kind, "label": _label(title, name, reading)}
                for name, title, doc, kind in _CHARTS
            ],
            names={str(layer.index): layer.name or "the model" for layer in reading},  # JSON has string keys
            seen=[self._seen[alert.layer, alert.rule] for alert in reading.alerts],
            ceased=[seen for key, seen in self._seen.items() if key not in current],
            **_table(reading),
        )
        write_atomic(self.path, page)
        self._written = self._count


def _curves(reading: Reading) -> dict[str, Any]:
    """The four axes by depth, in the few digits that can be seen."""
    rows = reading.rows()
    return {
        "step": reading.step,
        "index": [row["index"] for row in rows],
        **{axis: [_short(row[axis]) for row in rows] for axis in AXES},
    }


def _short(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _label(title: str, name: str, reading: Reading) -> str:
    """What a chart shows, for those who cannot see it; the table has the numbers."""
    values: list[tuple[float, Layer]] = [(layer.scalars()[name], layer) for layer in reading]
    values = [pair for pair in values if math.isfinite(pair[0])]
    if not values:
        return f"{title}: not measured"
    (low, lowest), (high, highest) = min(values, key=lambda pair: pair[0]), max(values, key=lambda pair: pair[0])
    return (
        f"{title} over {len(values)} layers at step {reading.step}: {values[0][0]:.3g} in the first and "
        f"{values[-1][0]:.3g} in the last; lowest {low:.3g} in {lowest.name}, highest {high:.3g} in {highest.name}"
    )


def _table(reading: Reading) -> dict[str, Any]:
    rows = reading.rows()
    judged = {(alert.layer, alert.scalar) for alert in reading.alerts}
    names = [*_TABLE, *sorted({scalar for _, scalar in judged if scalar} - set(_TABLE))]
    names = [name for name in names if any(not math.isnan(row[name]) for row in rows)]
    return {
        "columns": [{"title": _SCALARS[name].title.replace("^2", "²"), "doc": _SCALARS[name].doc} for name in names],
        "rows": [
            {
                "index": row["index"],
                "layer": row["layer"],
                "activation": row["activation"],
                "cells": [
                    {"text": _text(row[name]), "value": repr(row[name]), "bad": (row["layer"], name) in judged}
                    for name in names
                ],
            }
            for row in rows
        ],
    }


def _text(value: float) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.3g}".replace("-", "−")
