"""What this installation can run on: instruction set, threads, frameworks found, and why one is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path

from geoact import _core


class Info(dict[str, object]):
    """What :func:`info` found; a dictionary that prints as a readable table."""

    def __str__(self) -> str:
        width = max(len(key) for key in self)
        return "\n".join(f"{key:<{width}}  {_line(value)}" for key, value in self.items())


def _line(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _package(name: str, purpose: str, *others: str) -> str:
    """Version of an installed package, without importing it; ``others`` are names it is distributed under."""
    for each in (name, *others):
        try:
            return importlib.metadata.version(each)
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"not installed ({purpose})"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(("model name", "Model name")):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or "unknown"  # not Linux
    return platform.processor() or platform.machine()


def torch_fast_path(version: str | None) -> tuple[str | None, str]:
    """The torch that ``geoact._torch`` was compiled for, and what that means for the torch of this ``version``."""
    try:
        built_for = Path(_core.__file__).with_name("_torch_built_for.txt").read_text(encoding="utf-8").strip()
    except OSError:
        return None, "not built (pip install --no-build-isolation builds it where torch is installed)"
    # Without torch loaded only the public version is known, as packages state it.
    same = version is None or version in (built_for, built_for.partition("+")[0])
    if same:
        return built_for, f"compiled for torch {built_for}"
    return built_for, f"not used (compiled for torch {built_for}, this is {version})"


def _torch_state() -> str:
    loaded = sys.modules.get("geoact.torch.fast")
    if loaded is not None:
        return str(loaded.state)
    torch = sys.modules.get("torch")
    try:
        version = torch.__version__ if torch else importlib.metadata.version("torch")
    except (AttributeError, importlib.metadata.PackageNotFoundError):
        version = None
    return torch_fast_path(version)[1]


def info() -> Info:
    """Describe this installation: version, processor, instruction sets, threads, packages.

    Returns
    -------
    Info
        A dictionary of plain values; ``print`` shows it as a table. Sizes are in bytes.
    """
    from geoact import __version__

    return Info(
        version=__version__,
        cpu=_cpu_name(),
        isa=_core.isa(),
        isas_supported=_core.supported_isas(),
        isas_compiled=_core.isas(),
        threads=_core.num_threads(),
        processors=os.cpu_count() or 1,
        last_level_cache_bytes=_core.last_level_cache_bytes(),
        python=platform.python_version(),
        numpy=_package("numpy", "required"),
        ml_dtypes=_package("ml_dtypes", "bfloat16 arrays for NumPy"),
        torch=_package("torch", "for geoact.torch"),
        torch_fast_path=_torch_state(),
        cupy=_package("cupy", "for its arrays", "cupy-cuda13x", "cupy-cuda12x"),
        triton=_package("triton", "not used by this version"),
    )


def isa() -> str:
    """Name of the instruction set that runs the kernels."""
    return _core.isa()


def set_isa(name: str) -> None:
    """Choose the instruction set that runs the kernels, for the whole process.

    Raises
    ------
    ValueError
        If ``name`` is not compiled in, or this processor cannot run it. Never falls back silently.
    """
    _core.set_isa(name)


def num_threads() -> int:
    """Threads a call may use (environment: ``GEOACT_NUM_THREADS``)."""
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use. Results do not depend on it.

    Raises
    ------
    ValueError
        If ``n`` is below 1.
    """
    _core.set_num_threads(n)
