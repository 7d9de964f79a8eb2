"""JSON of results: what is NaN or infinite is null."""

from __future__ import annotations

import math


def finite(value: object) -> object:
    """Return dicts, lists and numbers with null for every number that is not finite; tuples become lists."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
