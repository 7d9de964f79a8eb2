"""The gate: what of a report is worse than in the baseline, by what the machine code says.

Machine code that is the same bit for bit is no change by definition. Of the rest, a kernel is worse if it spills more,
uses more stack or local memory, fits fewer warps on an SM because of registers or shared memory, has lost its widest
global access, or has more instructions than the tolerance allows, in all or in its hottest loop.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path

from geoact.bench.kernels_report.errors import BaselineMissingError, ReportError
from geoact.bench.kernels_report.report import Kernel, Report

PASSED, REGRESSED, VANISHED, REFUSED = 0, 10, 12, 13
"""Exit codes."""

METRICS = {
    "spills": "loads and stores of local memory",
    "stack": "stack bytes per thread",
    "local": "local bytes per thread",
    "registers": "registers per thread, where they lower occupancy",
    "shared": "shared bytes per block, where they lower occupancy",
    "load_width": "bits of the widest global load",
    "store_width": "bits of the widest global store",
    "loop_load_width": "bits of the widest global load in the hottest loop",
    "loop_store_width": "bits of the widest global store in the hottest loop",
    "instructions": "instructions",
    "loop_instructions": "instructions of the hottest loop",
    "loop_instructions_per_16_bytes": "instructions of the hottest loop per 16 bytes moved",
}
"""What a finding can be about. Widths get worse downwards, everything else upwards."""

_WIDTHS = frozenset(metric for metric in METRICS if metric.endswith("_width"))


@dataclass(frozen=True)
class Tolerances:
    """What may get worse, and by how much, before the gate fails."""

    instructions: float = 0.02
    """Share by which the instructions may rise."""
    loop_instructions: float = 0.02
    """Share by which those of the hottest loop may rise."""
    spills: int = 0
    stack: int = 0
    """Bytes, of the stack and of local memory."""
    warps: int = 0
    """Warps per SM that may be lost to registers or shared memory."""

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) >= 0:
                raise ReportError(f"the tolerance of {one.name} cannot be {getattr(self, one.name)}")


@dataclass(frozen=True)
class Finding:
    """One metric of one kernel that is worse (or, in a list of improvements, better)."""

    kernel: str
    arch: str
    metric: str
    before: float
    after: float
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.kernel} {self.arch}: {self.metric} {self.before:g} -> {self.after:g}{note}"


@dataclass(frozen=True)
class Explanation:
    """A rise that was looked at and accepted: whose, of what, up to which value (for widths down to), and why."""

    kernel: str
    """Glob of kernel names; ``[`` is no special character, for names contain it."""
    arch: str
    metric: str
    limit: float
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is of this kind and within the limit."""
        if (
            finding.metric != self.metric
            or not _glob(finding.arch, self.arch)
            or not _glob(finding.kernel, self.kernel)
        ):
            return False
        return finding.after >= self.limit if self.metric in _WIDTHS else finding.after <= self.limit


@dataclass(frozen=True)
class Verdict:
    """What the gate found; ``ok`` and ``code`` are its decision, ``str()`` all of it as text."""

    regressions: tuple[Finding, ...] = ()
    explained: tuple[tuple[Finding, Explanation], ...] = ()
    unused: tuple[Explanation, ...] = ()
    """Explanations that nothing needed: the code got better, or the baseline was stored anew."""
    vanished: tuple[tuple[str, str], ...] = ()
    new: tuple[tuple[str, str], ...] = ()
    improvements: tuple[Finding, ...] = ()
    refused: tuple[str, ...] = ()
    """Why the two cannot be compared; the rest is then empty."""
    notes: tuple[str, ...] = ()
    unchanged: int = 0
    changed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Metric -> number of regressions."""

    @property
    def code(self) -> int:
        """13 refused, 10 regressed, 12 a kernel vanished, 0 otherwise; the first that holds."""
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
        parts = [f"{self.unchanged} kernels with the same machine code", f"{self.changed} changed"]
        parts += [f"{len(many)} {word}" for many, word in ((self.new, "new"), (self.vanished, "vanished")) if many]
        word = "passed" if self.ok else "REGRESSED" if self.regressions else "VANISHED"
        worse = f"{len(self.regressions)} findings; " if self.regressions else ""
        return f"{word}: {worse}{', '.join(parts)}"

    def __str__(self) -> str:
        lines = [self.headline]
        lines += [f"  worse: {one}" for one in self.regressions]
        lines += [f"  vanished: {name} {arch}" for name, arch in self.vanished]
        lines += [f"  new: {name} {arch}" for name, arch in self.new]
        lines += [f"  explained: {one}: {why.reason}" for one, why in self.explained]
        lines += [
            f"  explanation not needed: {one.kernel} {one.arch} {one.metric}: {one.reason}" for one in self.unused
        ]
        lines += [f"  better: {one}" for one in self.improvements]
        lines += [f"  note: {one}" for one in self.notes]
        return "\n".join(lines)


def compare(
    baseline: Report | str | Path,
    current: Report | str | Path,
    *,
    tolerances: Tolerances | None = None,
    explanations: Sequence[Explanation] | str | Path = (),
    allow_other_tools: bool = False,
) -> Verdict:
    """Compare two reports, or files that :meth:`Report.save` wrote, and decide."""
    before, after = _loaded(baseline, True), _loaded(current, False)
    known = load_explanations(explanations) if isinstance(explanations, (str, Path)) else tuple(explanations)
    tolerated = tolerances or Tolerances()
    old, new = ({kernel.key: kernel for kernel in report.kernels} for report in (before, after))
    common = [key for key in new if key in old]
    differences = _other_tools(before, after, [(old[key], new[key]) for key in common])
    if differences and not allow_other_tools:
        return Verdict(refused=differences)

    found: list[Finding] = []
    better: list[Finding] = []
    for key in common:
        found += _worse(before, old[key], after, new[key], tolerated)
        better += _worse(after, new[key], before, old[key], tolerated)
    regressions, explained, used = [], [], set()
    for finding in found:
        reasons = [i for i, one in enumerate(known) if one.covers(finding)]
        used.update(reasons)
        if reasons:
            explained.append((finding, known[reasons[0]]))
        else:
            regressions.append(finding)
    same = sum(old[key].code_hash == new[key].code_hash for key in common)
    return Verdict(
        regressions=tuple(regressions),
        explained=tuple(explained),
        unused=tuple(one for i, one in enumerate(known) if i not in used),
        vanished=tuple(key for key in old if key not in new),
        new=tuple(key for key in new if key not in old),
        improvements=tuple(Finding(one.kernel, one.arch, one.metric, one.after, one.before) for one in better),
        notes=differences,
        unchanged=same,
        changed=len(common) - same,
        counts={metric: number for metric in METRICS if (number := sum(one.metric == metric for one in regressions))},
    )


def load_explanations(path: str | Path) -> tuple[Explanation, ...]:
    """Read a JSON file: a list of objects with kernel, arch, metric, limit and reason."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot read the explanations {path}: {error}") from error
    if not isinstance(stored, list):
        raise ReportError(f"{path}: expected a list of explanations")
    return tuple(_explanation(entry, f"{path}, entry {i}") for i, entry in enumerate(stored, start=1))


def _explanation(entry: object, where: str) -> Explanation:
    wanted = [one.name for one in fields(Explanation)]
    if not isinstance(entry, dict) or sorted(entry) != sorted(wanted):
        raise ReportError(f"{where}: expected an object with exactly {', '.join(wanted)}")
    if entry["metric"] not in METRICS:
        raise ReportError(f"{where}: no metric is called {entry['metric']!r}; there are {', '.join(METRICS)}")
    if isinstance(entry["limit"], bool) or not isinstance(entry["limit"], (int, float)):
        raise ReportError(f"{where}: the limit must be a number")
    if not all(isinstance(entry[name], str) and entry[name].strip() for name in ("kernel", "arch", "reason")):
        raise ReportError(f"{where}: kernel, arch and reason must be text, and a reason must be given")
    return Explanation(**entry)


def _loaded(report: Report | str | Path, baseline: bool) -> Report:
    if isinstance(report, Report):
        return report
    if baseline and not Path(report).exists():
        raise BaselineMissingError(f"there is no baseline {report}")
    return Report.load(report)


def _other_tools(before: Report, after: Report, pairs: Iterable[tuple[Kernel, Kernel]]) -> tuple[str, ...]:
    """What the two reports were made with, where it differs."""
    told = [
        f"{name} was {before.tools.get(name, 'not named')}, is {after.tools.get(name, 'not named')}"
        for name in sorted({*before.tools, *after.tools})
        if before.tools.get(name) != after.tools.get(name)
    ]
    changed = sorted({(old.compiler, new.compiler) for old, new in pairs if old.compiler != new.compiler})
    return (*told, *(f"the compiler was {old}, is {new}" for old, new in changed))


def _worse(before: Report, old: Kernel, after: Report, new: Kernel, tolerated: Tolerances) -> Iterator[Finding]:
    """What is worse about ``new``."""

    def finding(metric: str, was: float, now: float, note: str = "") -> Finding:
        return Finding(new.name, new.arch, metric, was, now, note)

    if new.spills > old.spills + tolerated.spills:
        yield finding("spills", old.spills, new.spills)
    for metric in ("stack", "local"):
        was, now = getattr(old, metric), getattr(new, metric)
        if now > was + tolerated.stack:
            yield finding(metric, was, now)
    # Both for the launch that the current report assumes: another block size is no change of the code.
    then, here = after.occupancy(old), after.occupancy(new)
    if then and here and here.warps < then.warps - tolerated.warps:
        note = f"warps per SM {then.warps} -> {here.warps}"
        if new.registers > old.registers:
            yield finding("registers", old.registers, new.registers, note)
        was, now = old.shared + old.dynamic_shared, new.shared + new.dynamic_shared
        if now > was:
            yield finding("shared", was, now, note)
    if old.code_hash == new.code_hash:
        return
    for metric in ("load_width", "store_width"):
        was, now = getattr(old, metric), getattr(new, metric)
        if now < was and not (now == 0 and new.bulk > old.bulk):
            yield finding(metric, was, now)
    for metric in ("loop_load_width", "loop_store_width"):
        was, now = getattr(old, metric), getattr(new, metric)
        # Zero: the loop is gone (unrolled whole), or another loop is now the one with the most instructions.
        if 0 < now < was:
            yield finding(metric, was, now)
    if new.instructions > old.instructions * (1 + tolerated.instructions):
        yield finding("instructions", old.instructions, new.instructions, _percent(old.instructions, new.instructions))
    # Unrolled differently, a loop has more instructions and does more: then per 16 bytes.
    same_work = (old.loop_stored, old.loop_loaded) == (new.loop_stored, new.loop_loaded)
    metric = "loop_instructions" if same_work else "loop_instructions_per_16_bytes"
    was, now = getattr(old, metric), getattr(new, metric)
    if was and now and now > was * (1 + tolerated.loop_instructions):
        yield finding(metric, was, now, _percent(was, now))


def _percent(was: float, now: float) -> str:
    return f"{100 * (now / was - 1):+.1f} %" if was else ""


def _glob(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]"))
