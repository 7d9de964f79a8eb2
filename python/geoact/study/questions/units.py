"""The table of units: which function computes the result of which spec."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time
from traceback import format_exc
from typing import Any

from geoact.study.questions.inference import inference
from geoact.study.questions.initial import crossing, initial
from geoact.study.questions.paired import paired
from geoact.study.questions.specs import Crossing, Inference, Initial, Paired, Spec, Trained
from geoact.study.questions.trained import trained
from geoact.study.results_json import finite

UNITS: dict[type[Spec], Callable[[Any], dict[str, Any]]] = {
    Initial: initial,
    Trained: trained,
    Paired: paired,
    Crossing: crossing,
    Inference: inference,
}


def run_unit(spec: Spec) -> dict[str, Any]:
    """Return {"result": ...}, or {"error": traceback} where the unit failed.

    Both with the spec and the seconds of processor time.
    """
    start = process_time()
    record: dict[str, Any] = {"spec": spec.to_json()}
    try:
        # Through JSON, so that a result is the same whether it was computed or read back.
        record["result"] = json.loads(json.dumps(finite(UNITS[type(spec)](spec))))
    except Exception:
        record["error"] = format_exc()
    record["seconds"] = process_time() - start
    return record
