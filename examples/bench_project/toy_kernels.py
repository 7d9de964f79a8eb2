"""A toy NumPy kernel: y = a x + b."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]


def scale_shift(x: Array, a: float, b: float, out: Array) -> Array:
    """Write a x + b into out, and return out."""
    np.multiply(x, a, out=out)
    out += b
    return out
