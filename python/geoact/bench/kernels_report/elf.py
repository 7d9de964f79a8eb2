"""The parts of an ELF file that the report reads itself: a kernel's machine code and what it declares of its launch.

The rest (registers, stack, instructions) comes from cuobjdump. Every offset is checked, so that a damaged file ends in
a message and not in a traceback.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from geoact.bench.kernels_report.errors import ReportError

_EM_CUDA = 190
_SHT_SYMTAB = 2
_SHT_NOBITS = 8
_STT_FUNC = 2
_STO_CUDA_ENTRY = 0x10

_EIFMT_SVAL = 4
_EIATTR_MAX_THREADS = 0x05
_EIATTR_REQNTID = 0x10
_EIATTR_CUDA_API_VERSION = 0x37


@dataclass(frozen=True)
class Entry:
    """One kernel of a cubin."""

    code: bytes
    required_block: int
    """Threads per block that the kernel was compiled for exactly (``.reqntid``, Triton), or 0."""
    max_block: int
    """Threads per block that it was compiled for at most (``__launch_bounds__``), or 0."""


@dataclass(frozen=True)
class Cubin:
    """The kernels of a cubin by symbol, and the compiler that wrote it."""

    entries: dict[str, Entry]
    compiler: str


@dataclass(frozen=True)
class Section:
    """A part of an ELF file; ``link`` is the number of the section that belongs to it."""

    name: str
    kind: int
    data: bytes
    link: int


def is_elf(data: bytes) -> bool:
    """Whether a file begins as an ELF file does."""
    return data[:4] == b"\x7fELF"


def is_cubin(data: bytes) -> bool:
    """Whether a file is an ELF file for an NVIDIA GPU."""
    return is_elf(data) and len(data) >= 20 and int(struct.unpack_from("<H", data, 18)[0]) == _EM_CUDA


def read_cubin(data: bytes, origin: str) -> Cubin:
    """Read a cubin; ``origin`` names it in errors."""
    try:
        if not is_cubin(data):
            raise ValueError("no 64-bit CUDA ELF header")
        sections = sections_of(data)
        return Cubin(_entries(sections), _compiler(sections))
    except (struct.error, IndexError, ValueError) as error:
        raise ReportError(f"{origin}: the cubin is damaged or cut short ({error})") from error


def sections_of(data: bytes) -> list[Section]:
    """The sections of any little-endian 64-bit ELF file; raises ValueError or struct.error if it is none."""
    if not is_elf(data) or data[4:6] != b"\x02\x01":
        raise ValueError("no 64-bit ELF header")
    offset, size, count, names = (*struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HHH", data, 58))
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size) for i in range(count)]
    if not headers:
        raise ValueError("no sections")

    def content(header: tuple[int, ...]) -> bytes:
        if header[1] == _SHT_NOBITS:
            return b""
        if header[4] + header[5] > len(data):
            raise ValueError("a section lies beyond the end")
        return data[header[4] : header[4] + header[5]]

    strings = content(headers[names])
    return [Section(_text(strings, header[0]), header[1], content(header), header[6]) for header in headers]


def _text(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode()


def _entries(sections: list[Section]) -> dict[str, Entry]:
    by_name = {section.name: section for section in sections}
    entries = {}
    for table in (section for section in sections if section.kind == _SHT_SYMTAB):
        strings = sections[table.link].data
        for name, info, other, place, _, _ in struct.iter_unpack("<IBBHQQ", table.data):
            if info & 0xF != _STT_FUNC or not other & _STO_CUDA_ENTRY:
                continue
            symbol = _text(strings, name)
            declared = dict(_attributes(by_name.get(f".nv.info.{symbol}")))
            # The whole section: it also holds the functions that this kernel calls and no other does.
            entries[symbol] = Entry(
                sections[place].data,
                _threads(declared.get(_EIATTR_REQNTID)),
                _threads(declared.get(_EIATTR_MAX_THREADS)),
            )
    return entries


def _attributes(section: Section | None) -> Iterator[tuple[int, bytes]]:
    """Attribute and value, of those that carry one."""
    data, place = (section.data if section else b""), 0
    while place + 4 <= len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, place)
        place += 4
        if form == _EIFMT_SVAL:
            yield attribute, data[place : place + size]
            place += size


def _threads(value: bytes | None) -> int:
    if value is None:
        return 0
    x, y, z = struct.unpack_from("<III", value)
    return int(x * y * z)


def _compiler(sections: list[Section]) -> str:
    """``ptxas 13.0.88``; files of older compilers say only which CUDA they were made for."""
    for section in sections:
        if section.name == ".note.nv.tkinfo":
            match = re.search(rb"release [\d.]+, V(\d+(?:\.\d+)+)", section.data)
            if match:
                return f"ptxas {match[1].decode()}"
    for section in sections:
        if section.name.startswith(".nv.info."):
            version = dict(_attributes(section)).get(_EIATTR_CUDA_API_VERSION)
            if version is not None:
                major, minor = divmod(int(struct.unpack_from("<I", version)[0]), 10)
                return f"ptxas of CUDA {major}.{minor}"
    return "unknown"
