"""The gate: what of a report is worse than in the baseline, by what the machine code says.

Machine code that is the same bit for bit is no change by definition. Of the rest, a kernel is worse if it spills more,
uses more stack or local memory, fits fewer warps on an SM because of registers or shared memory, has lost its widest
global access, or has more instructions than the tolerance allows, in all or in its hottest loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from geoact.bench import explained
from geoact.bench.explained import glob, percent
from geoact.bench.kernels_report.errors import BaselineMissingError, ReportError
from geoact.bench.kernels_report.report import Kernel, Report

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

    @property
    def subject(self) -> str:
        """Of what, for people."""
        return f"{self.kernel} {self.arch}"

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is of this kind and within the limit."""
        if finding.metric != self.metric or not glob(finding.arch, self.arch) or not glob(finding.kernel, self.kernel):
            return False
        return finding.after >= self.limit if self.metric in _WIDTHS else finding.after <= self.limit


class Verdict(explained.Verdict[Finding, Explanation]):
    """What the gate found; ``ok`` and ``code`` are its decision, ``str()`` all of it as text."""

    same = "kernels with the same machine code"


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
    outcome = explained.sort_out(found, known)
    same = sum(old[key].code_hash == new[key].code_hash for key in common)
    return Verdict(
        regressions=outcome.regressions,
        explained=outcome.explained,
        unused=outcome.unused,
        vanished=tuple(key for key in old if key not in new),
        new=tuple(key for key in new if key not in old),
        improvements=tuple(Finding(one.kernel, one.arch, one.metric, one.after, one.before) for one in better),
        notes=differences,
        unchanged=same,
        changed=len(common) - same,
        counts=outcome.counts(METRICS),
    )


def load_explanations(path: str | Path) -> tuple[Explanation, ...]:
    """Read a JSON file: a list of objects with kernel, arch, metric, limit and reason."""
    return explained.load_explanations(path, Explanation, METRICS, ReportError)


def _loaded(report: Report | str | Path, baseline: bool) -> Report:
    if isinstance(report, Report):
        return report
    if baseline and not Path(report).exists():
        raise BaselineMissingError(f"there is no baseline {report}")
    return Report.load(report)


def _other_tools(before: Report, after: Report, pairs: Iterable[tuple[Kernel, Kernel]]) -> tuple[str, ...]:
    """What the two reports were made with, where it differs."""
    told = explained.other_values(before.tools, after.tools, sorted({*before.tools, *after.tools}))
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
        yield finding("instructions", old.instructions, new.instructions, percent(old.instructions, new.instructions))
    # Unrolled differently, a loop has more instructions and does more: then per 16 bytes.
    same_work = (old.loop_stored, old.loop_loaded) == (new.loop_stored, new.loop_loaded)
    metric = "loop_instructions" if same_work else "loop_instructions_per_16_bytes"
    was, now = getattr(old, metric), getattr(new, metric)
    if was and now and now > was * (1 + tolerated.loop_instructions):
        yield finding(metric, was, now, percent(was, now))
