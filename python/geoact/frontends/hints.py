"""Whose array it is, and how it becomes one that can be computed on: for the messages of calls that fail."""

from __future__ import annotations

import numpy as np


def _speaks(value: object, protocol: str) -> bool:
    try:
        return getattr(value, protocol, None) is not None
    except Exception:  # an attribute may ask a device that is not there
        return False


def belongs_to(value: object) -> str:
    """The package of an array, or "" for what is none."""
    if isinstance(value, (float, int, str, np.generic)) or value is None:
        return ""
    if isinstance(value, np.ndarray):
        return "NumPy"
    module = type(value).__module__.partition(".")[0]
    if module == "cupy":
        return "CuPy"
    known = module in ("torch", "jax", "jaxlib", "tensorflow")
    return module if known or _speaks(value, "__cuda_array_interface__") or _speaks(value, "__dlpack__") else ""


def conversion(name: str, value: object, *, to: str) -> str:
    """How to pass it to a call on arrays of the package ``to``: "numpy", "cupy" or "" where that is to be chosen."""
    if name == "out":  # a converted array would be written to, and lost
        package = {"cupy": "CuPy", "numpy": "NumPy"}.get(to, "x's package")
        return f"pass an array of {package}, or nothing, as out"
    on_gpu = _speaks(value, "__cuda_array_interface__") or belongs_to(value) == "CuPy"
    if to == "cupy":
        return f"pass cupy.asarray({name})"
    if to == "numpy":
        return f"pass cupy.asnumpy({name})" if on_gpu else f"pass numpy.asarray({name})"
    if on_gpu:
        return f"pass cupy.asarray({name}), which shares its memory"
    return f"pass numpy.asarray({name}), or cupy.from_dlpack({name}) if it is on a GPU"
