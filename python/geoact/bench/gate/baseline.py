"""Stored results as a side: sessions that were measured apart, compared by what they share, the copy beside them.

A baseline holds normalised scores, ln(time of the case / time of the copy in the same round), never absolute times, and
it holds sessions: how far they lie apart is the A/A width of the case. One session says nothing about that, so that
only changes above ``Rule.unknown`` count until there are three.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoact.bench import environment, results
from geoact.bench.gate.decide import Measurement, Rule, Verdict, judge
from geoact.bench.results import ResultError

SCHEMA, KIND = 1, "geoact-baseline"
SESSIONS = 10  # kept of each case, the newest
ABSOLUTE = "held against no copy: its absolute time is compared, which belongs to one machine in one state"


class BaselineMissingError(ResultError):
    """There is no baseline."""


@dataclass
class Session:
    """One case in one session: logarithms of normalised times."""

    values: list[float]
    normalised: bool = True
    code: str | None = None
    commit: str | None = None
    clock: str | None = None  # device and cache state; None: not known

    def as_document(self) -> dict[str, Any]:
        """For a file; the values in the digits that mean something."""
        return {
            "values": [round(v, 4) for v in self.values],
            "normalised": self.normalised,
            "code": self.code,
            "commit": self.commit,
            "clock": self.clock,
        }


@dataclass
class Baseline:
    """Sessions of cases, all of one class of machine."""

    identity: dict[str, Any]
    cases: dict[str, list[Session]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a baseline, a result file, or a folder of result files. Raises ResultError."""
        if path.is_dir():
            files = sorted(path.glob("*.json"))
            if not files:
                raise BaselineMissingError(f"there is no result file in {path}")
            return cls.of([results.load(file) for file in files], [str(file) for file in files])
        if not path.exists():
            raise BaselineMissingError(f"there is no baseline {path}")
        found = results.read_json(path)
        if isinstance(found, dict) and found.get("kind") == KIND:
            return cls._checked(found, str(path))
        return cls.of([results.load(path)], [str(path)])

    @classmethod
    def _checked(cls, found: Mapping[str, Any], name: str) -> Baseline:
        if found.get("schema") != SCHEMA:
            raise ResultError(
                f"{name} has schema {found.get('schema')}; this version reads baselines of schema {SCHEMA}"
            )
        try:
            cases = {
                case: [
                    Session(list(map(float, s["values"])), s["normalised"], s["code"], s["commit"], s.get("clock"))
                    for s in sessions
                ]
                for case, sessions in found["cases"].items()
            }
            baseline = cls(dict(found["identity"]), cases)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultError(f"{name} is no whole baseline: {type(error).__name__}: {error}") from error
        for case, sessions in cases.items():
            if not sessions or not all(s.values and all(map(math.isfinite, s.values)) for s in sessions):
                raise ResultError(f"{name}: {case} has a session without samples, or one that is not finite")
        return baseline

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Baseline:
        """Of documents, one session each. Raises ResultError where they are of several classes of machine."""
        first = documents[0]["environment"]
        baseline = cls(environment.identity(first))
        for document, name in zip(documents, names or [""] * len(documents), strict=True):
            other = environment.differences(first, document["environment"])
            if other:
                raise ResultError(f"{name} was measured on another machine than {names[0]}: {'; '.join(other)}")
            baseline.add(document)
        return baseline

    def add(self, document: Mapping[str, Any]) -> None:
        """Add a session of every case that was measured; the oldest ones go."""
        for name, case in results.measured(document).items():
            self.cases[name] = [*self.cases.get(name, ()), session_of(case, document)][-SESSIONS:]

    def holds(self, document: Mapping[str, Any]) -> bool:
        """Whether these samples are in it already: a session counts once."""
        found = {name: session_of(case, document).as_document() for name, case in results.measured(document).items()}
        return any(
            new["values"] == old.as_document()["values"]
            for name, new in found.items()
            for old in self.cases.get(name, ())
        )

    def save(self, path: Path) -> None:
        """Write it, all or nothing."""
        cases = {name: [s.as_document() for s in sessions] for name, sessions in sorted(self.cases.items())}
        results.save(path, {"schema": SCHEMA, "kind": KIND, "identity": self.identity, "cases": cases})


def is_baseline(path: Path) -> bool:
    """Whether a file is a baseline, and not a result or something else. Raises ResultError where it is no JSON."""
    found = results.read_json(path)
    return isinstance(found, dict) and found.get("kind") == KIND


def session_of(case: Mapping[str, Any], document: Mapping[str, Any]) -> Session:
    """The values of a case in a document."""
    copied = case.get("ceiling_ns")
    values = [math.log(t / c) for t, c in zip(case["ns"], copied, strict=True)] if copied else map(math.log, case["ns"])
    code = case.get("code") or (document.get("code") or None)
    return Session(list(values), bool(copied), code, document["environment"].get("commit"), case.get("clock"))


def compare(
    before: Baseline,
    after: Mapping[str, Any],
    *,
    rule: Rule | None = None,
    strict: bool = False,
    expected: Iterable[str] | None = None,
) -> Verdict:
    """Judge a document against a baseline.

    Parameters
    ----------
    before : Baseline
    after : document
    rule : Rule, optional
    strict : bool
        A case that is open makes the verdict inconclusive.
    expected : iterable of str, optional
        Cases of the baseline that this run was meant to measure; default: all. The others are not missed.
    """
    refused = environment.differences(before.identity, after["environment"])
    if refused:
        return Verdict([], refused=[f"another machine: {'; '.join(refused)}"], strict=strict)
    entries = {case["name"]: case for case in after["cases"]}
    wanted = set(before.cases if expected is None else expected)
    measurements = []
    for name, case in entries.items():
        measured = case.get("status") == "measured"
        sessions = before.cases.get(name, [])
        if sessions and measured:
            measurements.append(_pair(name, sessions, session_of(case, after)))
        elif sessions:
            measurements.append(Measurement(name, missing="vanished", reason=case.get("reason", "it was not measured")))
        else:
            reason = "" if measured else case.get("reason", "")
            measurements.append(Measurement(name, missing="new" if measured else "skipped", reason=reason))
    measurements += [
        Measurement(name, missing="vanished", reason="the suite has no such case any more")
        for name in before.cases
        if name not in entries and name in wanted
    ]
    return Verdict(judge(measurements, rule or Rule()), strict=strict)


def _pair(name: str, sessions: Sequence[Session], now: Session) -> Measurement:
    alike = [s for s in sessions if s.normalised == now.normalised]
    if not alike:
        return Measurement(name, missing="vanished", reason="only one of the two was held against a copy")
    alike, others = [s for s in alike if None in (s.clock, now.clock) or s.clock == now.clock], alike
    if not alike:
        reason = f"it was timed by another clock: {others[-1].clock}, now {now.clock}"
        return Measurement(name, missing="vanished", reason=reason)
    notes = [] if now.normalised else [ABSOLUTE]
    if len(alike) < 3:
        notes.append(
            f"the baseline has {len(alike)} session{'s' * (len(alike) > 1)} of it: with three the limit is its own"
        )
    same = now.code is not None and alike[-1].code == now.code
    return Measurement(name, before=[s.values for s in alike], after=[now.values], same_code=same, notes=tuple(notes))
