"""The hook for stored overheads: what measuring costs by tier, as benchmarks/results/tiers-*.json has it.

A file is {"kind": "geoact-tiers", "rows": [...], "environment": {...}}; a row has "activation", "tier", "dtype" and
"median", "q1", "q3" of the time with the tier over the time without statistics.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KIND = "geoact-tiers"
NEEDED = ("activation", "tier", "dtype", "median", "q1", "q3")
FOLDER = Path("benchmarks") / "results"


def stored_tiers(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return the rows of all files in ``folder``; none where there are no files.

    Raises ValueError for a file that is not what it is named.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("tiers-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("kind") != KIND:
            raise ValueError(f"{path}: kind is {found.get('kind')!r}, expected {KIND!r}")
        for row in found["rows"]:
            if missing := [name for name in NEEDED if name not in row]:
                raise ValueError(f"{path}: a row lacks {', '.join(missing)}")
            if row.get("main", True):  # of several shapes the first
                rows.append({name: row[name] for name in NEEDED} | {"file": path.name})
    return rows
