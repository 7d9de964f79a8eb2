"""What the gates that count instead of timing have in common: explanations that accept a finding, verdicts, exit codes.

There are two of them: ``kernels_report`` reads the machine code of GPU kernels, ``instructions`` counts what a
processor executes. Each says itself what a finding is and when a figure is worse; here is what follows from it. A
finding that an explanation covers passes, every other one fails. Standard library only; rich is what prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from geoact.bench.markdown import plain

if TYPE_CHECKING:
    from rich.console import Console

PASSED, USAGE_ERROR, REGRESSED, VANISHED, REFUSED = 0, 2, 10, 12, 13
"""Exit codes."""


class Found(Protocol):
    """A figure that got worse (or, among improvements, better): a dataclass whose ``str()`` says all of it."""

    @property
    def metric(self) -> str:
        """Name of the figure."""


class Explains(Protocol):
    """A rise that was looked at and accepted: a dataclass of text fields, ``metric`` and ``limit``."""

    @property
    def metric(self) -> str:
        """Name of the figure."""

    @property
    def reason(self) -> str:
        """Why it is accepted."""

    @property
    def subject(self) -> str:
        """Of what, for people."""

    def covers(self, finding: Any) -> bool:  # each gate has findings of its own
        """Whether a finding is of this kind and within the limit."""


F = TypeVar("F", bound=Found)
E = TypeVar("E", bound=Explains)


@dataclass(frozen=True)
class Verdict(Generic[F, E]):
    """What a gate found; ``ok`` and ``code`` are its decision, ``str()`` all of it as text."""

    same: ClassVar[str] = "unchanged"
    """What is said of the number that did not change."""

    regressions: tuple[F, ...] = ()
    explained: tuple[tuple[F, E], ...] = ()
    unused: tuple[E, ...] = ()
    """Explanations that nothing needed: the code got better, or the baseline was stored anew."""
    vanished: tuple[tuple[str, ...], ...] = ()
    new: tuple[tuple[str, ...], ...] = ()
    improvements: tuple[F, ...] = ()
    refused: tuple[str, ...] = ()
    """Why the two cannot be compared; the rest is then empty."""
    notes: tuple[str, ...] = ()
    unchanged: int = 0
    changed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Metric -> number of regressions."""

    @property
    def code(self) -> int:
        """13 refused, 10 regressed, 12 something vanished, 0 otherwise; the first that holds."""
        if self.refused:
            return REFUSED
        if self.regressions:
            return REGRESSED
        return VANISHED if self.vanished else PASSED

    @property
    def ok(self) -> bool:
        """Whether the gate is open."""
        return self.code == PASSED

    @property
    def headline(self) -> str:
        """The decision in one line."""
        if self.refused:
            return f"REFUSED: {'; '.join(self.refused)}"
        parts = [f"{self.unchanged} {self.same}", f"{self.changed} changed"]
        parts += [f"{len(many)} {word}" for many, word in ((self.new, "new"), (self.vanished, "vanished")) if many]
        word = "passed" if self.ok else "REGRESSED" if self.regressions else "VANISHED"
        worse = f"{len(self.regressions)} findings; " if self.regressions else ""
        return f"{word}: {worse}{', '.join(parts)}"

    def __str__(self) -> str:
        lines = [self.headline]
        lines += [f"  worse: {one}" for one in self.regressions]
        lines += [f"  vanished: {' '.join(key)}" for key in self.vanished]
        lines += [f"  new: {' '.join(key)}" for key in self.new]
        lines += [f"  explained: {one}: {why.reason}" for one, why in self.explained]
        lines += [f"  explanation not needed: {one.subject} {one.metric}: {one.reason}" for one in self.unused]
        lines += [f"  better: {one}" for one in self.improvements]
        lines += [f"  note: {one}" for one in self.notes]
        return "\n".join(lines)

    def full(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "code": self.code,
            "headline": self.headline,
            "regressions": [vars(one) for one in self.regressions],
            "explained": [vars(finding) | {"reason": why.reason} for finding, why in self.explained],
            "unused_explanations": [vars(one) for one in self.unused],
            "vanished": [list(key) for key in self.vanished],
            "new": [list(key) for key in self.new],
            "improvements": [vars(one) for one in self.improvements],
            "refused": list(self.refused),
            "notes": list(self.notes),
            "unchanged": self.unchanged,
            "changed": self.changed,
        }


@dataclass(frozen=True)
class Sorted(Generic[F, E]):
    """Findings by whether an explanation covers them, and the explanations that covered none."""

    regressions: tuple[F, ...]
    explained: tuple[tuple[F, E], ...]
    unused: tuple[E, ...]

    def counts(self, metrics: Iterable[str]) -> dict[str, int]:
        """Metric -> number of regressions, of those that have any."""
        number = {metric: sum(one.metric == metric for one in self.regressions) for metric in metrics}
        return {metric: count for metric, count in number.items() if count}


def sort_out(findings: Iterable[F], explanations: Sequence[E]) -> Sorted[F, E]:
    """Hold every finding against the explanations."""
    regressions, explained, used = [], [], set()
    for finding in findings:
        reasons = [i for i, one in enumerate(explanations) if one.covers(finding)]
        used.update(reasons)
        if reasons:
            explained.append((finding, explanations[reasons[0]]))
        else:
            regressions.append(finding)
    unused = tuple(one for i, one in enumerate(explanations) if i not in used)
    return Sorted(tuple(regressions), tuple(explained), unused)


def glob(text: str, pattern: str) -> bool:
    """Whether a name matches; ``[`` is no special character, for names contain it."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def percent(was: float, now: float) -> str:
    """The change as it is shown; empty from zero."""
    return f"{100 * (now / was - 1):+.1f} %" if was else ""


def load_explanations(
    path: str | Path, kind: Callable[..., E], metrics: Iterable[str], error: type[Exception]
) -> tuple[E, ...]:
    """Read a JSON file: a list of objects with exactly the fields of the dataclass ``kind``; raises ``error``."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise error(f"cannot read the explanations {path}: {problem}") from problem
    if not isinstance(stored, list):
        raise error(f"{path}: expected a list of explanations")
    known = list(metrics)
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    result = []
    for number, entry in enumerate(stored, start=1):
        complaint = _complaint(entry, names, known)
        if complaint:
            raise error(f"{path}, entry {number}: {complaint}")
        result.append(kind(**entry))
    return tuple(result)


def _complaint(entry: object, names: Sequence[str], metrics: Sequence[str]) -> str:
    """What is wrong with a stored explanation, or nothing."""
    if not isinstance(entry, dict) or sorted(entry) != sorted(names):
        return f"expected an object with exactly {', '.join(names)}"
    if entry["metric"] not in metrics:
        return f"no metric is called {entry['metric']!r}; there are {', '.join(metrics)}"
    if isinstance(entry["limit"], bool) or not isinstance(entry["limit"], (int, float)):
        return "the limit must be a number"
    texts = [name for name in names if name not in ("metric", "limit")]
    if not all(isinstance(entry[name], str) and entry[name].strip() for name in texts):
        return f"{', '.join(texts[:-1])} and {texts[-1]} must be text, and a reason must be given"
    return ""


# --- for people -------------------------------------------------------------------------------------


def print_verdict(verdict: Verdict[Any, Any], console: Console) -> None:
    """Print the decision and everything behind it."""
    headline, *rest = str(verdict).splitlines()
    console.print(headline, style="bold green" if verdict.ok else "bold red", markup=False, highlight=False)
    for line in rest:
        style = "red" if line.startswith(("  worse", "  vanished")) else None
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def verdict_markdown(verdict: Verdict[Any, Any], title: str) -> str:
    """A verdict as Markdown, one section per kind of finding."""
    lines = [f"## {title}", "", f"**{verdict.headline}**", ""]

    def section(heading: str, entries: Sequence[object], text: Callable[[Any], str] = str) -> None:
        if entries:
            lines.extend([f"### {heading}", "", *(f"- {plain(text(one))}" for one in entries), ""])

    section("Worse", verdict.regressions)
    section("Vanished", verdict.vanished, " ".join)
    section("New", verdict.new, " ".join)
    section("Explained", verdict.explained, lambda pair: f"{pair[0]}: {pair[1].reason}")
    section("Explanations not needed", verdict.unused, lambda one: f"{one.subject} {one.metric}: {one.reason}")
    section("Better", verdict.improvements)
    section("Notes", verdict.notes)
    return "\n".join(lines)


def other_values(before: Mapping[str, object], after: Mapping[str, object], names: Iterable[str]) -> list[str]:
    """``name was a, is b`` for every name whose value differs."""
    return [
        f"{name} was {before.get(name, 'not named')}, is {after.get(name, 'not named')}"
        for name in names
        if before.get(name) != after.get(name)
    ]
