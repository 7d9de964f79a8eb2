"""Where a measurement was made: enough to tell whether two results may be compared."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import geoact

ROOT = Path(__file__).parent.parent
_PACKAGES = ("numpy", "torch", "numexpr", "ml_dtypes")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
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


def _cpu_family() -> str | None:
    text = _read("/proc/cpuinfo") or ""
    found = {key: re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model")}
    return ", ".join(f"{key} {match[1]}" for key, match in found.items() if match) or None


def describe(packages: tuple[str, ...] = ()) -> dict[str, object]:
    """The environment block of a result file; ``packages`` are further ones whose version matters."""
    info = geoact.info()
    status = _output("git", "status", "--porcelain", "--", "csrc", "python", "CMakeLists.txt")
    return {
        "cpu": info["cpu"],
        "cpu_model": _cpu_family(),
        "processors": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "caches": _caches(),
        "isa": geoact.isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "compiler": (_output("c++", "--version") or "").partition("\n")[0] or None,
        "python": platform.python_version(),
        "versions": {"geoact": geoact.__version__, **{name: _version(name) for name in (*_PACKAGES, *packages)}},
        "commit": _output("git", "rev-parse", "HEAD") or os.environ.get("GEOACT_COMMIT"),  # a tree without .git
        "sources_changed": None if status is None else bool(status),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_average": list(os.getloadavg()),
    }


def slug() -> str:
    """Name of this kind of machine, for a file name."""
    words = f"{geoact.info()['cpu']} {_cpu_family() or ''} {geoact.isa()}".lower().replace("cpu family", "family")
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")
