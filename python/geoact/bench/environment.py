"""Where a measurement was made: enough to tell whether two results may be compared. Standard library only."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "geoact")
_IDENTITY = ("cpu", "cpu_model", "processors", "system", "isa")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _output(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def version(package: str) -> str | None:
    """Of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _caches() -> dict[str, str]:
    caches = {}
    for index in range(5):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        level, kind, size = (_read(f"{folder}/{name}") for name in ("level", "type", "size"))
        if level and kind and size:
            caches[f"L{level} {kind.lower()}"] = size
    return caches


def _cpu() -> tuple[str, str | None]:
    """Name and family of the processor."""
    text = _read("/proc/cpuinfo") or ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    found = {key: re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model")}
    family = ", ".join(f"{key} {match[1]}" for key, match in found.items() if match) or None
    return (name[1].strip() if name else platform.processor() or platform.machine()), family


def _isa() -> str | None:
    """Of geoact, where this process has loaded it."""
    geoact = sys.modules.get("geoact")
    return geoact.isa() if geoact is not None and hasattr(geoact, "isa") else None


def describe(packages: Iterable[str] = (), *, root: Path | None = None) -> dict[str, Any]:
    """The environment block of a result file.

    Parameters
    ----------
    packages : iterable of str
        Further packages whose version matters.
    root : Path, optional
        The repository that is measured; default: the current folder.
    """
    root = root or Path.cwd()
    cpu, family = _cpu()
    status = _output(root, "git", "status", "--porcelain", "--untracked-files=no")
    return {
        "cpu": cpu,
        "cpu_model": family,
        "processors": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "caches": _caches(),
        "isa": _isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "compiler": (_output(root, "c++", "--version") or "").partition("\n")[0] or None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in dict.fromkeys((*_PACKAGES, *packages))},
        "commit": _output(root, "git", "rev-parse", "HEAD") or os.environ.get("GEOACT_COMMIT"),  # a tree without .git
        "sources_changed": None if status is None else bool(status),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_average": list(os.getloadavg()),
    }


def identity(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What two results must have in common to be compared: the class of the machine, not this very one."""
    gpu = environment.get("gpu")
    name = gpu.get("name") if isinstance(gpu, Mapping) else gpu  # an identity is an environment too
    known = {key: environment.get(key) for key in _IDENTITY if environment.get(key) is not None}
    return known | ({"gpu": name} if name else {})


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why two environments are not of the same class; empty if they are."""
    left, right = identity(one), identity(other)
    return [
        f"{key} was {left.get(key, 'not known')}, is {right.get(key, 'not known')}"
        for key in (*_IDENTITY, "gpu")
        if left.get(key) != right.get(key)
    ]


def slug(environment: Mapping[str, Any]) -> str:
    """Name of this class of machine, for a file name."""
    words = " ".join(str(value) for key, value in identity(environment).items() if key not in ("processors", "system"))
    return re.sub(r"[^a-z0-9]+", "-", words.lower().replace("cpu family", "family")).strip("-")
