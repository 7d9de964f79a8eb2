"""Everything a run measured, and its JSON form."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from geoact.study.axes import InitialAxes
from geoact.study.claims import Finding
from geoact.study.config import StudyConfig
from geoact.study.grid import GridResult
from geoact.study.overhead import Overhead
from geoact.study.questions.report import Questions
from geoact.study.replica import Replica
from geoact.study.results_json import finite


@dataclass
class StudyResults:
    """One field per section, None where it was not run; ``seconds`` per section."""

    config: StudyConfig
    machine: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    replica: Replica | None = None
    learning_rates: GridResult | None = None
    axes: InitialAxes | None = None
    digits: GridResult | None = None
    overhead: Overhead | None = None
    questions: Questions | None = None
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> str:
        """Serialise in full precision (reads back as the same float64); NaN and infinity are null."""
        whole: Any = finite(asdict(self))
        if not whole["questions"]:
            return json.dumps(whole, indent=1, allow_nan=False) + "\n"
        # Thousands of rows, each on a line of its own: readable, and a fifth of the size.
        lines: list[str] = []
        for group, rows in whole["questions"]["rows"].items():
            start = len(lines)
            lines += [json.dumps(row, allow_nan=False) for row in rows]
            whole["questions"]["rows"][group] = [f"row {index}" for index in range(start, len(lines))]
        text = json.dumps(whole, indent=1, allow_nan=False)
        return re.sub(r'"row (\d+)"', lambda match: lines[int(match[1])], text) + "\n"
