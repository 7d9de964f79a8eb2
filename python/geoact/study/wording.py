"""Numbers and lists as words, shared by the tables and the sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float, digits: int = 3) -> str:
    """Write a number: fixed notation where readable, powers of ten where not, a dash for none."""
    if not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def significant(value: float) -> str:
    """Write a ratio with three significant digits, never with a power of ten."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def coefficient(value: float) -> str:
    """Write a correlation with two digits; what rounds to zero has no sign."""
    return number(round(value, 2) + 0.0, 2) if abs(value) >= 0.005 else "0.00"


def listed(items: Sequence[str]) -> str:
    """Join items as in a sentence: ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
