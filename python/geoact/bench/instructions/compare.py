"""The gate: which cases execute more instructions than the stored table says.

Counts are exact, so there is no statistics here: more than the tolerance is more. Counts of another compiler's code, or
of another instruction set's, are other code, not worse code; they are refused unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geoact.bench import explained
from geoact.bench.explained import glob, percent
from geoact.bench.instructions.errors import BaselineMissingError, CountingError
from geoact.bench.instructions.table import PACKAGE, TOTAL, Table

METRICS = (PACKAGE, TOTAL)
TOLERANCE = 0.02


@dataclass(frozen=True)
class Finding:
    """One case that executes more (or, in a list of improvements, fewer) instructions."""

    case: str
    metric: str
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.case}: {self.metric} {self.before} -> {self.after} ({percent(self.before, self.after) or 'new'})"


@dataclass(frozen=True)
class Explanation:
    """A rise that was looked at and accepted: whose, of what, up to which count, and why."""

    case: str
    """Glob of case names; ``[`` is no special character, for names contain it."""
    metric: str
    limit: float
    reason: str

    @property
    def subject(self) -> str:
        """Of what, for people."""
        return self.case

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is of this kind and within the limit."""
        return finding.metric == self.metric and glob(finding.case, self.case) and finding.after <= self.limit


@dataclass(frozen=True)
class Verdict(explained.Verdict[Finding, Explanation]):
    """What the gate found; ``ok`` and ``code`` are its decision, ``str()`` all of it as text."""

    same = "cases with the same count"


def compare(
    baseline: Table | str | Path,
    current: Table,
    *,
    tolerance: float = TOLERANCE,
    explanations: Sequence[Explanation] | str | Path = (),
    allow_other_tools: bool = False,
) -> Verdict:
    """Hold a table against a stored one, and decide.

    Parameters
    ----------
    tolerance : float
        Share by which a count may rise.
    explanations
        Accepted rises, or the JSON file of them.
    allow_other_tools : bool
        Compare although compiler or instruction set differ; what differs is then a note.

    Raises
    ------
    BaselineMissingError, CountingError
        If there is no baseline, or it or the explanations cannot be read.
    """
    if not tolerance >= 0:
        raise CountingError(f"the tolerance cannot be {tolerance}")
    before = baseline if isinstance(baseline, Table) else load_baseline(baseline)
    known = load_explanations(explanations) if isinstance(explanations, (str, Path)) else tuple(explanations)
    if (before.package, before.gated) != (current.package, current.gated):
        return Verdict(refused=(f"the baseline counts {_counted(before)}, this run {_counted(current)}",))
    differences = other_tools(before, current)
    if differences and not allow_other_tools:
        return Verdict(refused=tuple(differences))

    old, new = ({row.name: row.gated(current.gated) for row in table.rows} for table in (before, current))
    common = [name for name in new if name in old]
    found = [name for name in common if new[name] > old[name] * (1 + tolerance)]
    better = [name for name in common if old[name] > new[name] * (1 + tolerance)]
    outcome = explained.sort_out((Finding(name, current.gated, old[name], new[name]) for name in found), known)
    same = sum(old[name] == new[name] for name in common)
    return Verdict(
        regressions=outcome.regressions,
        explained=outcome.explained,
        unused=outcome.unused,
        vanished=tuple((name,) for name in old if name not in new),
        new=tuple((name,) for name in new if name not in old),
        improvements=tuple(Finding(name, current.gated, old[name], new[name]) for name in better),
        notes=(*differences, *_notes(before, current, tolerance)),
        unchanged=same,
        changed=len(common) - same,
        counts=outcome.counts(METRICS),
    )


def load_baseline(path: str | Path) -> Table:
    """Read a stored table; raises BaselineMissingError or CountingError."""
    if not Path(path).exists():
        raise BaselineMissingError(f"there is no baseline {path}")
    return Table.load(path)


def load_explanations(path: str | Path) -> tuple[Explanation, ...]:
    """Read a JSON file: a list of objects with case, metric, limit and reason."""
    return explained.load_explanations(path, Explanation, METRICS, CountingError)


def other_tools(before: Table, current: Table) -> list[str]:
    """What the two were made with, where it differs.

    A module that only one of them has loaded is no difference: part of the cases may not need it.
    """
    return explained.other_values(before.tools, current.tools, sorted({*before.tools} & {*current.tools}))


def _counted(table: Table) -> str:
    """What a table is about."""
    if table.gated == PACKAGE:
        return f"the compiled modules of {table.package}"
    return f"everything, for {table.package} has no compiled modules" if table.package else "everything"


def _notes(before: Table, current: Table, tolerance: float) -> list[str]:
    """What a reader of the findings should know."""
    notes = [f"{name}: skipped: {why}" for name, why in current.skipped.items()]
    notes += [f"{name}: failed: {why}" for name, why in current.errors.items()]
    for row in current.rows:
        count = row.gated(current.gated)
        if row.spread > tolerance * count:
            notes.append(f"{row.name} is not repeatable: {count} and {count + row.spread} in one process")
    then, now = before.environment.get("valgrind"), current.environment.get("valgrind")
    if then != now:
        notes.append(f"valgrind was {then}, is {now}")
    return notes
