"""On which device the arrays of a call lie, and which GPU this machine has. Nothing is imported to find out."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")
HOST, DEVICE = (1, 3), (2, 13)  # DLPack's kinds of memory: a CPU's, pinned; CUDA's, managed


def device_of(values: Iterable[object]) -> str | None:
    """The device of the arrays among values, and among what lists and dicts of them hold.

    "cuda" if one of them lies on a CUDA device, "cpu" if all are the host's, None if there is none.
    """
    kinds = {kind for value in values if (kind := _kind(value))}
    return "cuda" if "cuda" in kinds else "cpu" if kinds else None


def _kind(value: object) -> str | None:
    if isinstance(value, Mapping):
        return device_of(value.values())
    if isinstance(value, (list, tuple)):
        return device_of(value)
    if hasattr(type(value), "__dlpack_device__"):
        try:
            kind = int(value.__dlpack_device__()[0])  # type: ignore[attr-defined]
        except (AttributeError, TypeError, ValueError, RuntimeError):  # an array of a kind that cannot be exchanged
            return None
        return "cpu" if kind in HOST else "cuda" if kind in DEVICE else None
    return "cuda" if hasattr(type(value), "__cuda_array_interface__") else None


def models() -> list[str]:
    """The model of every NVIDIA GPU, as its driver tells; empty where there is none, or the driver cannot be asked."""
    found = []
    for path in sorted(DRIVER.glob("*/information")):
        model = re.search(r"^Model:\s*(.+?)\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)
        found.append(model[1] if model else "NVIDIA GPU")
    return found


def gpu_here() -> bool:
    """Whether there is a GPU: the driver says so, or a framework that is loaded already."""
    if models():
        return True
    torch = sys.modules.get("torch")
    return bool(torch is not None and torch.cuda.is_available())
