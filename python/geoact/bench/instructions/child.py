"""What runs under valgrind: loads a suite, prepares its cases, has each counted, and says what it did.

    valgrind --tool=callgrind --instr-atstart=no ... python -m geoact.bench.instructions.child REQUEST RESULT

REQUEST and RESULT are JSON files. The counts are not in RESULT but in the files callgrind writes, one for every count,
which carry the labels given here. All but the counted run is uninstrumented. Standard library only.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoact._files import write_atomic
from geoact.bench.contenders import Unavailable
from geoact.bench.engine import first_line
from geoact.bench.instructions import measured
from geoact.bench.instructions.errors import CountingError
from geoact.bench.instructions.requests import Requests
from geoact.bench.suite import Call, Case, Suite, SuiteError, load

WARM = 1  # runs before the first count: what is made once (tables, plans, caches of the interpreter) is then made
COUNTS = 2  # of every case: where they differ, the case is not repeatable, and the table says so


def label(case: int, count: int) -> str:
    """Of a dump; a case's name may hold anything, a number may not."""
    return f"geoact {case} {count}"


def elements_of(axes: Mapping[str, object]) -> int:
    """Elements that a case declares by an axis ``n``, ``elements`` or ``shape``; 0 if by none."""
    for name in ("n", "elements"):
        value = axes.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return max(0, value)
    shape = axes.get("shape")
    if isinstance(shape, (tuple, list)) and all(isinstance(size, int) for size in shape):
        return math.prod(shape)
    return 0


def count(call: Call, requests: Requests, number: int, check: bool) -> None:
    """Check, warm up and count one call."""
    if call.device != "cpu":
        raise Unavailable(f"runs on {call.device}: only what a processor executes is counted")
    run = call.runs[0]
    if check:
        call.contender("checked").verify()
    for _ in range(WARM):
        call.before()
        run()
    gc.collect()
    gc.disable()  # or it might run within a count
    try:
        for turn in range(COUNTS):
            call.before()
            requests.count(run, label(number, turn))
    finally:
        gc.enable()


def count_case(case: Case, requests: Requests, number: int, check: bool) -> dict[str, Any]:
    """Its entry in the result. What goes wrong with one case does not keep the others from being counted."""
    entry: dict[str, Any] = {"name": case.name, "axes": {axis: str(value) for axis, value in case.axes.items()}}
    try:
        call = case.prepare()
        count(call, requests, number, check)
    except Unavailable as error:
        return entry | {"status": "skipped", "reason": str(error)}
    except AssertionError as error:
        return entry | {"status": "error", "reason": f"WRONG RESULT: {first_line(error)}"}
    except (Exception, SystemExit) as error:  # of the user's own function
        return entry | {"status": "error", "reason": f"{type(error).__name__}: {first_line(error)}"}
    elements = elements_of(case.axes)
    return entry | {"status": "counted", "bytes": call.read + call.written, "elements": elements, "calls": call.calls}


def selected(request: Mapping[str, Any]) -> tuple[Suite, list[Case]]:
    """The suite, set up, and the cases that were asked for. Raises SuiteError."""
    suite = load(request["suite"])
    axes = [(axis, value) for axis, value in request["axes"]]
    cases = list(suite.select(request["only"], axes))
    if not cases:
        raise SuiteError(f"no case of {request['suite']} matches")
    suite.setup()
    return suite, cases


def isa() -> str | None:
    """That of geoact, where it is loaded: it says what kernels find on the processor that valgrind simulates."""
    ask = getattr(sys.modules.get("geoact"), "isa", None)
    return None if ask is None else str(ask())


def run(request: Mapping[str, Any], progress: int | None) -> dict[str, Any]:
    """Count all cases; the result."""
    requests = Requests()
    if not requests.answered:
        raise CountingError("this process does not run under valgrind")
    suite, cases = selected(request)
    entries = []
    for number, case in enumerate(cases):
        if progress is not None:
            os.write(progress, f"{json.dumps([case.name, number, len(cases)])}\n".encode())
        entries.append(count_case(case, requests, number, request["check"]))
    name = request["package"] or suite.package
    modules = {}
    if name:
        modules = measured.of_package(measured.find(name), measured.loaded(), suite.ignore)
    return {
        "suite": suite.name,
        "package": name,
        "modules": modules,
        "isa": isa(),
        "cases": entries,
    }


def main(arguments: list[str]) -> int:
    """Read the request, write the result; 2 and a message in the result where nothing could be counted."""
    source, target = map(Path, arguments)
    request = json.loads(source.read_text(encoding="utf-8"))
    sys.path[:] = request["path"]  # as it was where the request was made
    try:
        result = run(request, request["progress"])
    except (CountingError, SuiteError) as error:
        result = {"error": str(error)}
    except Exception as error:  # of the user's own setup
        result = {"error": f"{request['suite']}: its setup fails: {type(error).__name__}: {first_line(error)}"}
    write_atomic(target, json.dumps(result))
    return 2 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
