"""What is shown of a document, whoever shows it: cases, bars, what was left out, and where it was measured.

Documents of pytest-benchmark have less in them than ours, so everything that can be is computed from the samples and
everything else may be absent.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from geoact.bench.bars import Row
from geoact.bench.summary import quantile

_UNITS = (("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0))
VERDICTS = ("yes", "no", "open", "error")


def number(value: float) -> str:
    """Three significant digits, never with an exponent where plain digits are short."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:#.3g}".rstrip(".") if value else "0"


def time_text(ns: float) -> str:
    """Nanoseconds with three digits in the unit that suits them."""
    unit, size = next((u for u in _UNITS if ns >= 0.9995 * u[1]), _UNITS[-1])
    return f"{number(ns / size)} {unit}"


def bytes_text(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


@dataclass(frozen=True)
class CaseView:
    """A case as it is shown: times in nanoseconds, the score as a share of the copy's speed."""

    name: str
    status: str
    reason: str = ""
    axes: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    ns: tuple[float, ...] = ()
    ceiling_ns: tuple[float, ...] = ()
    ceiling: str = ""
    ceiling_missing: str = ""
    read: int = 0
    written: int = 0
    flops: int = 0
    score: Mapping[str, float] | None = None
    stopped: str = ""
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, case: Mapping[str, Any]) -> CaseView:
        """From its entry in a document."""
        known = {f.name for f in fields(cls)}
        given = {key: value for key, value in case.items() if key in known and value is not None}
        for key in ("ns", "ceiling_ns", "flags"):
            given[key] = tuple(given.get(key, ()))
        given["status"] = str(given.get("status", "error"))
        return cls(**given)

    @property
    def measured(self) -> bool:
        """Whether there are samples that may be believed."""
        return self.status == "measured"

    @property
    def function(self) -> str:
        """The name without its axes."""
        return self.name.partition("[")[0]

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written

    @property
    def median(self) -> float | None:
        """Nanoseconds of one call."""
        return statistics.median(self.ns) if self.ns else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """Of the nanoseconds."""
        ordered = sorted(self.ns)
        return (quantile(ordered, 0.25), quantile(ordered, 0.75)) if ordered else None

    @property
    def gigabytes(self) -> float | None:
        """GB/s."""
        return self.bytes / self.median if self.bytes and self.median else None

    @property
    def gigaflops(self) -> float | None:
        """GFLOP/s."""
        return self.flops / self.median if self.flops and self.median else None

    @property
    def copy_gigabytes(self) -> float | None:
        """GB/s of the copy of the same bytes, measured in the same rounds."""
        return self.bytes / statistics.median(self.ceiling_ns) if self.bytes and self.ceiling_ns else None

    @property
    def share_text(self) -> str:
        """The score as it is shown: median and quartiles."""
        if not self.score:
            return ""
        median, q1, q3 = (self.score.get(key) for key in ("median", "q1", "q3"))
        spread = f" ({q1:.1%} .. {q3:.1%})" if q1 is not None and q3 is not None else ""
        return f"{median:.1%}{spread}"

    @property
    def rounds_text(self) -> str:
        """How many rounds, and why there are no more."""
        return f"{len(self.ns)}: {self.stopped}" if self.stopped else str(len(self.ns) or "")

    @property
    def notes(self) -> str:
        """What a reader must know: why it was not measured, or what disturbed the measurement."""
        said = [self.reason, *self.flags]
        if self.measured and self.ceiling_missing:
            said.append(f"no copy: {self.ceiling_missing}")
        return "; ".join(filter(None, said))


def cases(document: Mapping[str, Any]) -> list[CaseView]:
    """All cases, in their order."""
    return [CaseView.of(case) for case in document["cases"]]


def rows(document: Mapping[str, Any]) -> list[Row]:
    """All bars, in their order."""
    known = {f.name for f in fields(Row)}
    least = {"group": "", "bar": "", "limit": "", "unit": ""}
    return [Row(**(least | {k: v for k, v in row.items() if k in known})) for row in document["rows"]]


def interval_text(row: Row) -> str:
    """The 95 % interval of a bar."""
    if row.low is None or row.high is None:
        return ""
    return f"{row.low:.1%} .. {row.high:.1%}" if row.unit == "%" else f"{number(row.low)} .. {number(row.high)}"


def limit_of(row: Row) -> tuple[str, float] | None:
    """Direction and value of a limit: ("<=", 1.1) or (">=", 0.95); None where there is none."""
    found = re.fullmatch(r"(<=|>=) ([0-9.e+-]+)(%?)(?: us)?", row.limit)
    return (found[1], float(found[2]) / (100 if found[3] else 1)) if found else None


@dataclass(frozen=True)
class Absence:
    """Something that was not measured, or is not to be believed, and why."""

    where: str
    what: str
    reason: str
    error: bool = False


def absences(document: Mapping[str, Any]) -> list[Absence]:
    """Errors first, then what was skipped: cases, contenders of groups, bars."""
    found = [
        Absence("case", view.name, view.reason, view.status == "error") for view in cases(document) if not view.measured
    ]
    for name, group in document["groups"].items():
        for contender, reason in (group.get("missing") or {}).items():
            found.append(Absence(name, contender, reason, "WRONG RESULT" in reason))
    said = {(absence.where, absence.what) for absence in found}
    for row in rows(document):
        # What a contender lacks is said once, not again for every bar of it.
        if row.reason and (row.group, row.reason.partition(":")[0]) not in said:
            found.append(Absence(row.group, row.bar, row.reason, row.met == "error"))
    return sorted(found, key=lambda absence: not absence.error)


def counts(document: Mapping[str, Any]) -> dict[str, str]:
    """How many cases and bars there are of each kind."""
    statuses = Counter(view.status for view in cases(document))
    words = {"measured": "measured", "skipped": "skipped", "error": "in error"}
    told = {"cases": ", ".join(f"{statuses[key]} {word}" for key, word in words.items() if statuses[key]) or "none"}
    bars = rows(document)
    if bars:
        verdicts = Counter(row.met for row in bars if row.limit or row.met == "error")
        parts = [f"{verdicts[met]} {word}" for met, word in
                 (("yes", "met"), ("no", "not met"), ("open", "open"), ("error", "in error"), ("", "not measured"))
                 if verdicts[met]]  # fmt: skip
        free = sum(not row.limit and row.met != "error" for row in bars)
        told["bars"] = ", ".join([*parts, *([f"{free} without a limit"] if free else [])])
    return told


# --- where it was measured ------------------------------------------------------------------------


def machine(document: Mapping[str, Any]) -> str:
    """The machine in a few words."""
    environment = document["environment"]
    gpu = environment.get("gpu") or ""
    family, processors = environment.get("cpu_model"), environment.get("processors")
    cpu = str(environment.get("cpu") or "unknown processor") + (f" ({family})" if family else "")
    name = gpu.get("name") if isinstance(gpu, Mapping) else gpu
    parts = [name, cpu, f"{processors} processors" if processors else None, environment.get("isa")]
    return ", ".join(str(part) for part in parts if part)


def moment(document: Mapping[str, Any]) -> str:
    """When, and of which sources."""
    environment = document["environment"]
    commit = str(environment.get("commit") or "")[:10]
    changed = " with changes" if environment.get("sources_changed") else ""
    date = str(environment.get("date") or "no date")[:19].replace("T", " ")
    return date + (f", commit {commit}{changed}" if commit else "")


def load(document: Mapping[str, Any]) -> str:
    """What else the machine did, as far as that is known."""
    environment = document["environment"]
    before, after = environment.get("load_average"), environment.get("load_average_after")
    if not before:
        return "The load of the machine was not noted."
    text = f"Load average {before[0]:.1f} before" + (f", {after[0]:.1f} after." if after else ".")
    return text + (" Above 1 before the run, other work shared the machine." if before[0] > 1 else "")


def cpu_times(document: Mapping[str, Any]) -> str:
    """The warning that belongs to absolute times of a CPU; empty where there are none."""
    if not any(view.measured and view.device == "cpu" for view in cases(document)):
        return ""
    return "Times of a CPU belong to this machine and this hour; % of copy is what can be compared."


def environment_lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment block, one line each."""
    return [(key.replace("_", " "), _plain(value)) for key, value in document["environment"].items()]


def _plain(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
