"""What cuobjdump prints, as data: resource usage and disassembly of one cubin."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from geoact.bench.kernels_report.instructions import Instruction

_FUNCTION = re.compile(r"^\s*Function\s*:?\s+(\S+?):?\s*$")
_ARCH = re.compile(r"^\s*code for (sm_\w+)")
_RESOURCE = re.compile(r"([A-Z]+)(?:\[(\d+)\])?:(\d+)")
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][A-Z0-9_]*)((?:\.\w+)*)\s*([^;]*);")
# Scheduling notes that some versions print behind the operands: "&wr=0x0 &req={1} ?trans1".
_NOTES = re.compile(r"\s+[&?]\w.*$")

# From sm_90 on the system's own KiB of shared memory is the first of a kernel's that uses any.
_RESERVED = 1024
_RESERVED_FROM = 90


@dataclass(frozen=True)
class Resources:
    """Per thread: registers, stack and local bytes; per block: static shared bytes; constant bytes of all banks."""

    registers: int
    stack: int
    local: int
    shared: int
    constant: int


@dataclass
class Disassembly:
    """The architecture of a cubin and the instructions of its functions."""

    arch: str = ""
    functions: dict[str, list[Instruction]] = field(default_factory=dict)


def parse_resources(lines: Iterable[str]) -> dict[str, Resources]:
    """Read ``cuobjdump --dump-resource-usage`` of one cubin: function -> resources."""
    found: dict[str, Resources] = {}
    name = None
    for line in lines:
        match = _FUNCTION.match(line)
        if match:
            name = match[1]
        elif name is not None and "REG:" in line:
            values = _RESOURCE.findall(line)
            plain = {key: int(value) for key, bank, value in values if not bank}
            found[name] = Resources(
                registers=plain["REG"],
                stack=plain.get("STACK", 0),
                local=plain.get("LOCAL", 0),
                shared=plain.get("SHARED", 0),
                constant=sum(int(value) for key, bank, value in values if key == "CONSTANT" and bank),
            )
            name = None
    return found


def parse_disassembly(lines: Iterable[str]) -> Disassembly:
    """Read ``cuobjdump --dump-sass`` of one cubin."""
    result = Disassembly()
    current: list[Instruction] = []
    for line in lines:
        match = _INSTRUCTION.match(line)
        if match:
            address, guard, opcode, modifiers, operands = match.groups()
            current.append(
                Instruction(
                    int(address, 16),
                    guard or "",
                    opcode,
                    tuple(modifiers[1:].split(".")) if modifiers else (),
                    _NOTES.sub("", operands).strip(),
                )
            )
        elif found := _ARCH.match(line):
            result.arch = found[1]
        elif found := _FUNCTION.match(line):
            current = result.functions.setdefault(found[1], [])
    return result


def own_shared(reported: int, capability: int) -> int:
    """Static shared bytes that the kernel itself declares, of those that cuobjdump reports."""
    if capability >= _RESERVED_FROM and reported >= _RESERVED:
        return reported - _RESERVED
    return reported
