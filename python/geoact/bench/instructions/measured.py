"""Which object files are the measured package, and what compiled them.

Counts are gated over the compiled modules of one package, so that a new Python, NumPy or libc is no change. They are
those files that the process has loaded from the package's folder or from the folder of libraries beside it that wheel
repair tools make. Standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from geoact.bench.instructions.errors import CountingError
from geoact.bench.kernels_report.elf import sections_of


@dataclass(frozen=True)
class Package:
    """Folders and single files of a package."""

    name: str
    folders: tuple[Path, ...]
    files: tuple[Path, ...] = ()

    def compiled(self, ignore: Sequence[str] = ()) -> dict[str, str]:
        """Every shared object there: real path -> path inside the package. A link is followed: so does the loader."""
        found = {os.path.realpath(file): file.name for file in self.files}
        for folder in self.folders:
            for file in sorted(folder.rglob("*.so*")):
                inside = file.relative_to(folder).as_posix()
                if not any(fnmatchcase(inside, pattern) for pattern in ignore):
                    found[os.path.realpath(file)] = inside
        return found


def find(name: str) -> Package:
    """A package that can be imported. Raises CountingError."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise CountingError(f"the package {name} cannot be found: {error}") from error
    if spec is None:
        raise CountingError(f"the package {name} cannot be found")
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    folders += [folder.with_name(f"{name}.libs") for folder in folders if folder.with_name(f"{name}.libs").is_dir()]
    single = [] if folders or not spec.origin else [Path(spec.origin)]
    return Package(name, tuple(folders), tuple(file for file in single if ".so" in file.suffixes))


def loaded() -> list[str]:
    """Files that are mapped into this process, under the names callgrind gives them."""
    text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    paths = (line.split(maxsplit=5)[5] for line in text.splitlines() if line.count("/"))
    return list(dict.fromkeys(path for path in paths if path.startswith("/")))


def of_package(package: Package, paths: Iterable[str], ignore: Sequence[str] = ()) -> dict[str, str]:
    """Those of the paths that are compiled modules of the package: path -> name without what Python appends to it."""
    known = package.compiled(ignore)
    return {path: _short(known[path]) for path in paths if path in known}


def _short(inside: str) -> str:
    """``_core`` of ``_core.cpython-311-x86_64-linux-gnu.so``: the rest is the interpreter's business."""
    return re.sub(r"(?:\.(?:cpython-[\w-]+|abi3))?\.so(?:\.[\d.]+)?$", "", inside)


def compiler(path: str) -> str:
    """What compiled a file, from the section ``.comment`` that compilers leave; "unknown" if there is none.

    Not ``c++ --version``: that is the compiler of this machine, which need not have made the file.
    """
    try:
        sections = sections_of(Path(path).read_bytes())
    except OSError as error:
        raise CountingError(f"cannot read {path}: {error}") from error
    except (ValueError, IndexError, struct.error) as error:
        raise CountingError(f"{path} is no ELF file that can be read: {error}") from error
    for section in sections:
        if section.name == ".comment":
            words = {text.decode(errors="replace").strip() for text in section.data.split(b"\0")}
            return "; ".join(sorted(words - {""})) or "unknown"
    return "unknown"
