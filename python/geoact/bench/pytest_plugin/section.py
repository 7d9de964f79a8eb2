"""The section "geoact" of pytest's summary: plain aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from geoact.bench.gate.decide import Judged

if TYPE_CHECKING:
    from geoact.bench.pytest_plugin.recorder import Recorder

HEAD = ("benchmark", "time", "GB/s", "% of copy", "verdict", "notes")
RED, YELLOW, GREEN = ("regressed", "vanished"), ("inconclusive", "open"), ("faster",)
LEFT = ("benchmark", "verdict", "notes")


def duration(nanoseconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= 0.9995 * size:
            return (
                f"{nanoseconds / size:.3g} {unit}" if nanoseconds < 999.5 * size else f"{nanoseconds / size:.0f} {unit}"
            )
    return f"{nanoseconds:.3g} ns"


def share(entry: Mapping[str, Any]) -> str:
    """Per cent of the speed of the copy: median, and the interval of the median."""
    score = entry.get("score")
    if not score:
        return "-"
    return f"{100 * score['median']:.1f} ({100 * score['low']:.1f} .. {100 * score['high']:.1f})"


def verdict(case: Judged | None) -> str:
    """Word, change, and the limit of the change."""
    if case is None:
        return ""
    if case.change is None or case.delta is None:
        return case.verdict
    return f"{case.verdict} {case.change:+.1%} (limit {case.delta:.1%})"


def notes(entry: Mapping[str, Any], case: Judged | None, clock: bool) -> str:
    """What a reader must know of this row."""
    found = [entry["clock"]] if clock and "clock" in entry else []
    found += entry.get("flags", [])
    if "ceiling_missing" in entry:
        found.append(f"no copy: {entry['ceiling_missing']}")
    if entry.get("measured", 1) > 1:
        found.append(f"measured {entry['measured']} times")
    if case is not None:
        found += [*filter(None, [case.reason]), *case.notes]
    elif entry["status"] != "measured":
        found.append(entry["reason"])
    return "; ".join(found)


def row(name: str, entry: Mapping[str, Any] | None, case: Judged | None, clock: bool) -> tuple[str, ...]:
    """The cells of one benchmark."""
    if entry is None or entry["status"] != "measured":
        return name, "-", "-", "-", verdict(case) or "not measured", notes(entry or {"status": "measured"}, case, clock)
    rate = f"{entry['GB/s']:.4g}" if "GB/s" in entry else "-"
    return (
        name,
        duration(entry["summary"]["median"]),
        rate,
        share(entry),
        verdict(case),
        notes(entry, case, clock),
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in columns; a column in which there is nothing but its title is left out."""
    columns = [c for c in zip(*rows, strict=True) if any(c[1:])]
    widths = [max(map(len, column)) for column in columns]
    left = [column[0] in LEFT for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        padded = [c.ljust(w) if x else c.rjust(w) for c, w, x in zip(cells, widths, left, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def write(reporter: pytest.TerminalReporter, recorder: Recorder) -> None:
    """Write the section; nothing if there is nothing to tell."""
    outcome = recorder.outcome
    judged = {case.name: case for case in outcome.verdict.cases} if outcome.verdict else {}
    names = [*recorder.entries, *(name for name in judged if name not in recorder.entries)]
    if not (names or outcome.lines or recorder.untimed):
        return
    reporter.section("geoact")
    clocks = sorted({entry["clock"] for entry in recorder.entries.values() if "clock" in entry})
    if names:
        rows = [row(name, recorder.entries.get(name), judged.get(name), len(clocks) > 1) for name in names]
        head, *lines = aligned([HEAD, *rows])
        reporter.write_line(head)
        for name, line in zip(names, lines, strict=True):
            reporter.write_line(line, **_markup(judged[name].verdict if name in judged else ""))
    if len(clocks) == 1:
        reporter.write_line(f"clock: {clocks[0]}")
    for note in sorted(recorder.notes):
        reporter.write_line(note)
    if recorder.untimed:
        count = len(recorder.untimed)
        reporter.write_line(
            f"{count} benchmark{'s' * (count > 1)} ran once, untimed: pytest-benchmark is disabled "
            "(by --benchmark-disable, or by pytest-xdist, whose processes disturb each other)"
        )
    for line in outcome.lines:
        reporter.write_line(line, **({"bold": True} if outcome.verdict and line == outcome.verdict.headline else {}))
    if recorder.entries and not recorder.saving:
        reporter.write_line(f"baseline: {recorder.shown_path}{_advice(recorder)}")


def _advice(recorder: Recorder) -> str:
    """What can be done with the baseline."""
    if not recorder.path.exists():
        return ", not there yet; save one: pytest --geoact-save-baseline, three times"
    return "" if recorder.gate else "; judge against it: pytest --geoact-gate"


def _markup(word: str) -> dict[str, bool]:
    for colour, words in (("red", RED), ("yellow", YELLOW), ("green", GREEN)):
        if word in words:
            return {colour: True}
    return {}
