"""From files to a report: find the cubins in them, let cuobjdump take them apart, count, name."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from geoact.bench.kernels_report import instructions as sass
from geoact.bench.kernels_report import limits, listing, loops, names
from geoact.bench.kernels_report.elf import Entry, is_cubin, is_elf, read_cubin
from geoact.bench.kernels_report.errors import ReportError
from geoact.bench.kernels_report.instructions import Instruction
from geoact.bench.kernels_report.report import RULES, Kernel, Report
from geoact.bench.kernels_report.tools import Cuobjdump, Demangler, assemble, find

Naming = Literal["function", "file"]
"""What a kernel is called after: its function, or its file (for Triton, whose variants share a function name)."""

SUFFIXES = (".cubin", ".fatbin", ".o", ".so", ".a")
"""What is read of a folder, and ``.ptx`` where an architecture is given."""

_ARCHIVE = b"!<arch>\n"
_FATBIN = bytes.fromhex("50ed55ba")


@dataclass(frozen=True)
class Source:
    """One cubin, and what tells its kernels from others of the same name: usually the stem of its file."""

    content: bytes
    stem: str
    origin: str
    dynamic_shared: int = 0


def read(
    paths: str | Path | Iterable[str | Path],
    *,
    block: int = 256,
    shared: int = 0,
    arch: str | Sequence[str] = (),
    naming: Naming = "function",
    cuobjdump: str | Path | None = None,
    ptxas: str | Path | None = None,
) -> Report:
    """Report on files, or on all files with device code in folders.

    A file is a ``.cubin``, an object, shared library or archive with device code in it, a ``.fatbin``, or ``.ptx`` if
    ``arch`` says what to compile it for. ``block`` and ``shared`` (threads and dynamic shared bytes per block) are
    assumed for the occupancy of kernels that do not declare their own.
    """
    wanted = [paths] if isinstance(paths, (str, Path)) else list(paths)
    archs = [arch] if isinstance(arch, str) else list(arch)
    for one in archs:
        try:
            limits.number(one)
        except ValueError as error:
            raise ReportError(str(error)) from error
    if not 1 <= block <= 1024 or shared < 0:
        raise ReportError(f"no launch has blocks of {block} threads with {shared} bytes of shared memory")
    tool = Cuobjdump.find(cuobjdump)
    sources: list[Source] = []
    for path in map(Path, wanted):
        found = _sources(path, tool, archs, ptxas)
        if not found:
            raise ReportError(f"{path} holds no device code")
        sources += found
    return of_sources(sources, tool, naming=naming, block=block, shared=shared)


def of_sources(
    sources: Sequence[Source],
    tool: Cuobjdump,
    *,
    naming: Naming = "function",
    block: int = 256,
    shared: int = 0,
) -> Report:
    """Report on cubins that are already in memory."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        kernels = [one for found in pool.map(lambda source: _kernels(source, tool), sources) for one in found]
    if not kernels:
        raise ReportError(f"no kernel in {', '.join(source.origin for source in sources) or 'nothing'}")
    demangler = Demangler.find()
    named = _named(kernels, demangler, naming)
    tools = {"cuobjdump": tool.version, "demangler": demangler.name, "rules": str(RULES)}
    return Report(tuple(named), tools, block, shared)


# --- files --------------------------------------------------------------------------------------------------


def _sources(path: Path, tool: Cuobjdump, archs: list[str], ptxas: str | Path | None) -> list[Source]:
    if path.is_dir():
        suffixes = (*SUFFIXES, ".ptx") if archs else SUFFIXES
        inside = sorted(one for one in path.rglob("*") if one.suffix in suffixes and one.is_file())
        return [source for one in inside for source in _sources(one, tool, archs, ptxas)]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise ReportError(f"{path} is empty")
    if is_cubin(content):
        return [Source(content, path.stem, str(path))]
    if path.suffix == ".ptx":
        return _compiled(path, archs, ptxas)
    if is_elf(content) or content.startswith((_ARCHIVE, _FATBIN)):
        return _extracted(path, tool)
    raise ReportError(f"{path} is no cubin, object, library, archive, fatbin or .ptx file")


def _compiled(path: Path, archs: list[str], ptxas: str | Path | None) -> list[Source]:
    if not archs:
        raise ReportError(f"{path} is PTX: say with --arch what to compile it for")
    tool = find("ptxas", ptxas)
    sources = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in archs:
            cubin = Path(folder, f"{arch}.cubin")
            assemble(path, arch, cubin, tool)
            sources.append(Source(cubin.read_bytes(), path.stem, f"{path} for {arch}"))
    return sources


def _extracted(path: Path, tool: Cuobjdump) -> list[Source]:
    with tempfile.TemporaryDirectory() as folder:
        return [Source(one.read_bytes(), path.stem, f"{path} ({one.name})") for one in tool.extract(path, Path(folder))]


# --- counting -----------------------------------------------------------------------------------------------


def _kernels(source: Source, tool: Cuobjdump) -> list[tuple[Source, Kernel]]:
    """The kernels of one cubin, each still called by its symbol."""
    cubin = read_cubin(source.content, source.origin)
    if not cubin.entries:
        return []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernels.cubin")
        file.write_bytes(source.content)
        resources = listing.parse_resources(tool.lines("--dump-resource-usage", file))
        disassembly = listing.parse_disassembly(tool.lines("--dump-sass", file))
    found = []
    for symbol, entry in cubin.entries.items():
        if symbol not in resources or symbol not in disassembly.functions:
            raise ReportError(f"{source.origin}: cuobjdump does not show the kernel {symbol}")
        kernel = count(
            names.plain_symbol(symbol), disassembly.arch, resources[symbol], disassembly.functions[symbol], entry
        )
        found.append((source, replace(kernel, compiler=cubin.compiler, dynamic_shared=source.dynamic_shared)))
    return found


def count(name: str, arch: str, resources: listing.Resources, code: Sequence[Instruction], entry: Entry) -> Kernel:
    """Count what one kernel's instructions are; the compiler is filled in by whoever knows it."""
    real = [one for one in code if one.opcode != "NOP" and not _endless(one)]
    opcodes = Counter(one.opcode for one in real)
    kinds = Counter(sass.kind(one) for one in real)
    innermost = loops.innermost(code)
    hot = loops.hottest(innermost).body

    def total(which: frozenset[str]) -> int:
        return sum(opcodes[opcode] for opcode in which)

    def widths(code: Iterable[Instruction], which: frozenset[str]) -> Counter[int]:
        return Counter(sass.width(one) for one in code if one.opcode in which)

    loads, stores = widths(real, sass.GLOBAL_LOADS), widths(real, sass.GLOBAL_STORES)
    hot_loads, hot_stores = widths(hot, sass.GLOBAL_LOADS), widths(hot, sass.GLOBAL_STORES)
    return Kernel(
        name=name,
        arch=arch,
        compiler="unknown",
        registers=resources.registers,
        stack=resources.stack,
        local=resources.local,
        shared=listing.own_shared(resources.shared, limits.number(arch)),
        dynamic_shared=0,
        constant=resources.constant,
        required_block=entry.required_block,
        max_block=entry.max_block,
        code_hash=hashlib.sha256(entry.code).hexdigest()[:16],
        code_bytes=len(entry.code),
        instructions=len(real),
        loads=dict(sorted(loads.items())),
        stores=dict(sorted(stores.items())),
        generic=total(sass.GENERIC),
        bulk=total(sass.BULK),
        shared_loads=total(sass.SHARED_LOADS),
        shared_stores=total(sass.SHARED_STORES),
        local_loads=total(sass.LOCAL_LOADS),
        local_stores=total(sass.LOCAL_STORES),
        barriers=total(sass.BARRIERS),
        shuffles=total(sass.SHUFFLES),
        atomics=total(sass.ATOMICS),
        calls=total(sass.CALLS),
        branches=total(sass.BRANCHES),
        mix={one: kinds[one] for one in sass.CLASSES if kinds[one]},
        other_opcodes=" ".join(sorted({one.opcode for one in real if sass.kind(one) == "other"})),
        loops=len(innermost),
        loop_instructions=len(hot),
        loop_loaded=sum(bits // 8 * n for bits, n in hot_loads.items()),
        loop_stored=sum(bits // 8 * n for bits, n in hot_stores.items()),
        loop_load_width=max(hot_loads, default=0),
        loop_store_width=max(hot_stores, default=0),
    )


def _endless(one: Instruction) -> bool:
    return one.opcode == "BRA" and not one.guarded and loops.target(one) == one.address


# --- naming -------------------------------------------------------------------------------------------------


def _named(found: Sequence[tuple[Source, Kernel]], demangler: Demangler, naming: Naming) -> list[Kernel]:
    """Give each kernel the shortest name that no different kernel has; the same kernel in two files counts once."""
    demangled = demangler(kernel.name for _, kernel in found)
    per_file = Counter(id(source) for source, _ in found)

    def candidates(source: Source, kernel: Kernel) -> list[str]:
        text = demangled[kernel.name]
        short = names.short(text)
        if naming == "file":
            stem = names.of_file(source.stem)
            short = stem if per_file[id(source)] == 1 else f"{stem}:{short}"
            return [short, f"{short}:{names.signature(text)}"]
        full = names.signature(text)
        return [short, full, f"{full} [{names.of_file(source.stem)}]"]

    waiting = [(candidates(source, kernel), kernel) for source, kernel in found]
    named: dict[tuple[str, str], Kernel] = {}
    for level in range(len(waiting[0][0])):
        claims: dict[tuple[str, str], set[tuple[str, str, int]]] = defaultdict(set)
        for options, kernel in waiting:
            claims[options[level], kernel.arch].add((kernel.name, kernel.code_hash, kernel.registers))
        # A name is given up on all architectures at once: one kernel must not have two names.
        clash = {name for (name, _), kernels in claims.items() if len(kernels) > 1} | {name for name, _ in named}
        named |= {
            (options[level], kernel.arch): replace(kernel, name=options[level])
            for options, kernel in waiting
            if options[level] not in clash
        }
        waiting = [(options, kernel) for options, kernel in waiting if options[level] in clash]
    # Kernels that nothing tells apart but their code: numbered by it, which at least does not depend on any order.
    groups: dict[tuple[str, str], dict[str, Kernel]] = defaultdict(dict)
    for options, kernel in waiting:
        groups[options[-1], kernel.arch][kernel.code_hash] = kernel
    for (name, arch), kernels in groups.items():
        for i, (_, kernel) in enumerate(sorted(kernels.items()), start=1):
            named[f"{name} #{i}", arch] = replace(kernel, name=f"{name} #{i}")
    return list(named.values())
