"""A report: what the machine code of each kernel is made of, for each architecture, and its stored form.

Stored form: JSON with a head, the names of the columns, and one line per kernel and architecture, sorted, so that a
change of one kernel is a change of one line. Nothing in it depends on where or when it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoact._files import write_atomic
from geoact.bench.kernels_report import limits
from geoact.bench.kernels_report.errors import ReportError
from geoact.bench.kernels_report.instructions import CLASSES, WIDTHS

SCHEMA = 1
RULES = 1
"""Raised when the same machine code would be counted differently: reports of different rules are not compared."""


@dataclass(frozen=True)
class Kernel:
    """One kernel for one architecture. Counts are of instructions in the machine code, not of executions."""

    name: str
    arch: str
    compiler: str
    registers: int
    """Per thread."""
    stack: int
    """Bytes per thread: spilled registers, arrays indexed at run time, frames of called functions."""
    local: int
    """Bytes of local memory per thread that are not on the stack."""
    shared: int
    """Static shared bytes per block."""
    dynamic_shared: int
    """Dynamic shared bytes per block, where the compiler tells (Triton), else 0."""
    constant: int
    required_block: int
    """Threads per block that it was compiled for exactly, or 0."""
    max_block: int
    """Threads per block that it was compiled for at most, or 0."""
    code_hash: str
    """SHA-256 of the machine code, first 16 digits."""
    code_bytes: int
    instructions: int
    """Without padding: NOP, and the endless branch behind the last exit."""
    loads: Mapping[int, int]
    """Bits per thread -> global loads of that width."""
    stores: Mapping[int, int]
    """Bits per thread -> global stores of that width."""
    generic: int
    """Of these loads and stores, those whose memory space is only known at run time."""
    bulk: int
    """Copies by the bulk and tensor copy engines, whose size the code does not show."""
    shared_loads: int
    shared_stores: int
    local_loads: int
    local_stores: int
    barriers: int
    shuffles: int
    atomics: int
    calls: int
    branches: int
    mix: Mapping[str, int]
    """Class -> instructions; every instruction is in one class."""
    other_opcodes: str
    """The opcodes that no class is known for."""
    loops: int
    """Innermost loops."""
    loop_instructions: int
    """Of the hottest loop: the innermost one with the most instructions. 0: no loop."""
    loop_loaded: int
    """Bytes per thread of the hottest loop's global loads, each counted once."""
    loop_stored: int
    loop_load_width: int
    """Widest global load in the hottest loop, in bits; 0 if it has none."""
    loop_store_width: int

    @property
    def key(self) -> tuple[str, str]:
        """What identifies a row: name and architecture."""
        return self.name, self.arch

    @property
    def spills(self) -> int:
        """Loads and stores of local memory: spilled registers, or an array indexed at run time."""
        return self.local_loads + self.local_stores

    @property
    def load_width(self) -> int:
        """Widest global load, in bits; 0 if there is none."""
        return max((bits for bits, count in self.loads.items() if count), default=0)

    @property
    def store_width(self) -> int:
        """Widest global store, in bits; 0 if there is none."""
        return max((bits for bits, count in self.stores.items() if count), default=0)

    @property
    def loop_instructions_per_16_bytes(self) -> float | None:
        """Instructions of the hottest loop per 16 bytes it stores, or loads if it stores nothing; None if neither."""
        moved = self.loop_stored or self.loop_loaded
        return self.loop_instructions * 16 / moved if self.loop_instructions and moved else None


@dataclass(frozen=True)
class Report:
    """Kernels in the order of name and architecture, the tools that read them, and the launch assumed for occupancy."""

    kernels: tuple[Kernel, ...]
    tools: Mapping[str, str] = field(default_factory=dict)
    block: int = 256
    """Threads per block assumed of kernels that do not declare theirs."""
    shared: int = 0
    """Dynamic shared bytes per block assumed of all."""

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.kernels, key=lambda one: (one.name, limits.order(one.arch))))
        seen: set[tuple[str, str]] = set()
        for kernel in ordered:
            if kernel.key in seen:
                raise ReportError(f"two kernels are called {kernel.name} for {kernel.arch}")
            seen.add(kernel.key)
        object.__setattr__(self, "kernels", ordered)

    def __getitem__(self, key: tuple[str, str]) -> Kernel:
        """The kernel of a name and an architecture: ``report["scale<float>", "sm_90"]``."""
        for kernel in self.kernels:
            if kernel.key == key:
                return kernel
        raise KeyError(key)

    def block_of(self, kernel: Kernel) -> int:
        """Threads per block of a kernel: what it was compiled for, else the assumed number, capped by its bound."""
        if kernel.required_block:
            return kernel.required_block
        return min(self.block, kernel.max_block) if kernel.max_block else self.block

    def occupancy(self, kernel: Kernel) -> limits.Occupancy | None:
        """Theoretical occupancy; None if the architecture's limits are not known."""
        if not limits.known(kernel.arch):
            return None
        total = kernel.shared + kernel.dynamic_shared + self.shared
        return limits.occupancy(kernel.arch, kernel.registers, total, self.block_of(kernel))

    def with_more(self, other: Report) -> Report:
        """The kernels of both; what the two were read with must agree."""
        if (self.tools, self.block, self.shared) != (other.tools, other.block, other.shared):
            raise ReportError("reports read by different tools or for different launches cannot be joined")
        return Report((*self.kernels, *other.kernels), self.tools, self.block, self.shared)

    def full(self) -> dict[str, Any]:
        """Everything, what is derived included, as one object per kernel; for other programs."""
        return {
            "schema": SCHEMA,
            "tools": dict(self.tools),
            "block": self.block,
            "shared": self.shared,
            "kernels": [self._described(kernel) for kernel in self.kernels],
        }

    def _described(self, kernel: Kernel) -> dict[str, Any]:
        row: dict[str, Any] = {name: getattr(kernel, name) for name in _PLAIN}
        row |= {"arch": kernel.arch, "compiler": kernel.compiler, "other_opcodes": kernel.other_opcodes.split()}
        row |= {name: {str(key): count for key, count in getattr(kernel, name).items()} for name in _GROUPS}
        occupancy = self.occupancy(kernel)
        return row | {
            "spills": kernel.spills,
            "load_width": kernel.load_width,
            "store_width": kernel.store_width,
            "loop_instructions_per_16_bytes": kernel.loop_instructions_per_16_bytes,
            "block": self.block_of(kernel),
            "blocks_per_sm": occupancy.blocks if occupancy else None,
            "warps_per_sm": occupancy.warps if occupancy else None,
            "occupancy": occupancy.share if occupancy else None,
        }

    def to_json(self) -> str:
        """The stored form: what was measured, one line per kernel and architecture."""
        compilers = sorted({kernel.compiler for kernel in self.kernels})
        head = {
            "schema": SCHEMA,
            "tools": dict(sorted(self.tools.items())),
            "block": self.block,
            "shared": self.shared,
            "compilers": compilers,
            "columns": list(COLUMNS),
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        rows = [json.dumps(_row(one, compilers), separators=(",", ":"), ensure_ascii=False) for one in self.kernels]
        return "{\n" + "\n".join(lines) + '\n"kernels": [\n' + ",\n".join(rows) + "\n]\n}\n"

    @classmethod
    def from_json(cls, text: str, origin: str = "the report") -> Report:
        """Read the stored form back; ``origin`` names it in errors."""
        try:
            stored = json.loads(text)
            if stored["schema"] != SCHEMA:
                raise ReportError(f"{origin} has schema {stored['schema']}, this version reads {SCHEMA}: store it anew")
            missing = [name for name in COLUMNS if name not in stored["columns"]]
            if missing:
                raise ReportError(f"{origin} lacks the columns {', '.join(missing)}")
            rows = [dict(zip(stored["columns"], row, strict=True)) for row in stored["kernels"]]
            kernels = tuple(_kernel(row, stored["compilers"]) for row in rows)
            return cls(kernels, dict(stored["tools"]), int(stored["block"]), int(stored["shared"]))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ReportError(f"{origin} is not a kernel report ({type(error).__name__}: {error})") from error

    def save(self, path: str | Path) -> None:
        """Write the stored form; an earlier file stays as it was if anything fails."""
        write_atomic(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a file that :meth:`save` wrote."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ReportError(f"cannot read the report {path}: {error}") from error
        return cls.from_json(text, str(path))


_PLAIN = (
    "name",
    "registers",
    "stack",
    "local",
    "shared",
    "dynamic_shared",
    "constant",
    "required_block",
    "max_block",
    "code_hash",
    "code_bytes",
    "instructions",
    "generic",
    "bulk",
    "shared_loads",
    "shared_stores",
    "local_loads",
    "local_stores",
    "barriers",
    "shuffles",
    "atomics",
    "calls",
    "branches",
    "loops",
    "loop_instructions",
    "loop_loaded",
    "loop_stored",
    "loop_load_width",
    "loop_store_width",
)
_GROUPS: dict[str, tuple[int | str, ...]] = {"loads": WIDTHS, "stores": WIDTHS, "mix": CLASSES}
_TEXT = frozenset({"name", "code_hash"})

COLUMNS = (
    "name",
    "arch",
    "compiler",
    *_PLAIN[1:],
    *(f"{group}_{key}" for group, keys in _GROUPS.items() for key in keys),
    "other_opcodes",
)
"""Of the stored form. ``compiler`` is an index into the head's list, ``loads_128`` a count of 128-bit loads."""


def _row(kernel: Kernel, compilers: list[str]) -> list[int | str]:
    return [
        kernel.name,
        kernel.arch,
        compilers.index(kernel.compiler),
        *(getattr(kernel, name) for name in _PLAIN[1:]),
        *(getattr(kernel, group).get(key, 0) for group, keys in _GROUPS.items() for key in keys),
        kernel.other_opcodes,
    ]


def _kernel(row: Mapping[str, Any], compilers: list[str]) -> Kernel:
    def integer(name: str) -> int:
        value = row[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"column {name} of {row['name']} holds {value!r}, not a count")
        return value

    plain: dict[str, Any] = {name: str(row[name]) if name in _TEXT else integer(name) for name in _PLAIN}
    groups: dict[str, Any] = {
        group: {key: integer(f"{group}_{key}") for key in keys if row[f"{group}_{key}"]}
        for group, keys in _GROUPS.items()
    }
    return Kernel(
        arch=str(row["arch"]),
        compiler=compilers[integer("compiler")],
        other_opcodes=str(row["other_opcodes"]),
        **plain,
        **groups,
    )


def joined(reports: Iterable[Report]) -> Report:
    """One report of several."""
    first, *rest = reports
    for other in rest:
        first = first.with_more(other)
    return first
