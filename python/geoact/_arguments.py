"""Checks that arguments of several modules share: what comes is named, and what is accepted. Imports NumPy only."""

from __future__ import annotations

import numpy as np


def whole(name: str, value: object, least: int | None = 0) -> int:
    """A whole number of Python or NumPy; from ``least`` on, if that is given.

    Raises
    ------
    TypeError, ValueError
        If it is none, or too small.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    number = int(value)
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number
