"""Results on disk, one file per unit: what is there needs not be computed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geoact._files import write_atomic
from geoact.study.questions.specs import Spec


class Store:
    """The folder of the units. A file is named after its spec and the version of the code, and never half written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, spec: Spec) -> dict[str, Any] | None:
        """Return the record of a unit that succeeded with this code; a failed one is to be tried again."""
        path = self._path(spec)
        if not path.exists():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record if "result" in record else None

    def write(self, spec: Spec, record: dict[str, Any]) -> None:
        """Keep the record of a unit, failed or not."""
        write_atomic(self._path(spec), json.dumps(record, allow_nan=False) + "\n")

    def _path(self, spec: Spec) -> Path:
        return self._folder / f"{spec.key()}.json"
