"""Counts a suite: one valgrind process for all cases, one file of callgrind's for every count.

    valgrind --tool=callgrind --instr-atstart=no   ->   child.py   ->   files, read by callgrind.py   ->   Table

What must not change between two runs is fixed: Python's hash seed, one thread for every library that reads one of the
usual variables, and the processor, which valgrind simulates (with AVX2 where the real one has it, never with AVX-512).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from geoact.bench.environment import describe
from geoact.bench.instructions import callgrind, measured
from geoact.bench.instructions.child import COUNTS, label
from geoact.bench.instructions.errors import CountingError
from geoact.bench.instructions.requests import Requests
from geoact.bench.instructions.table import PACKAGE, TOTAL, Row, Table

Told = Callable[[str, int, int], None]
"""Called with the name of a case, how many are done and how many there are."""

FIXED = {
    "PYTHONHASHSEED": "0",
    "GEOACT_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}
"""Environment of the process that is counted."""

_ENVIRONMENT = ("cpu", "system", "python", "versions", "commit", "sources_changed", "date")


def find_valgrind(explicit: str | None = None) -> tuple[str, str]:
    """Path and version. Raises CountingError."""
    wanted = explicit or "valgrind"
    path = shutil.which(wanted)
    if path is None:
        where = "" if explicit else " (--valgrind, PATH): apt install valgrind, dnf install valgrind"
        raise CountingError(f"{wanted} was not found{where}")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CountingError(f"{path} does not run: {error}") from error
    return path, done.stdout.strip().removeprefix("valgrind-")


def count_suite(
    suite: str,
    *,
    only: Sequence[str] = (),
    axes: Sequence[tuple[str, str]] = (),
    package: str | None = None,
    check: bool = True,
    valgrind: str | None = None,
    told: Told | None = None,
) -> Table:
    """Count the cases of a suite.

    Parameters
    ----------
    suite : str
        Where it is, as ``geoact.bench.suite.load`` takes it. It is imported in the process that is counted, not here.
    only, axes
        Which cases, as ``Suite.select`` takes them.
    package : str, optional
        Whose compiled modules are gated; default: the suite's own. Without any, the total is.
    check : bool
        Call each case's check before it is counted; a wrong result is an error.
    valgrind : str, optional
        Path of valgrind.
    told : callable, optional
        Is told of the progress.

    Raises
    ------
    CountingError
        If nothing could be counted: no valgrind, another processor, a suite that cannot be loaded.
    """
    Requests()  # another kind of processor is said before valgrind is looked for
    path, version = find_valgrind(valgrind)
    with tempfile.TemporaryDirectory(prefix="geoact-instructions-") as temporary:
        folder = Path(temporary)
        request = {"suite": suite, "only": list(only), "axes": [list(pair) for pair in axes], "package": package}
        result = _run(path, folder, request | {"check": check, "path": sys.path}, told)
        profiles = [callgrind.read(file) for file in folder.glob("callgrind.out.*")]
    return _table(result, {one.label: one for one in profiles}, version, _root(suite))


def _root(suite: str) -> Path:
    file = Path(suite.partition(":")[0])
    return file.resolve().parent if file.is_file() else Path.cwd()


def _run(valgrind: str, folder: Path, request: Mapping[str, Any], told: Told | None) -> dict[str, Any]:
    """Start the child and wait for it; its result."""
    source, target, log = (folder / name for name in ("request.json", "result.json", "log"))
    reading, writing = os.pipe()
    source.write_text(json.dumps({**request, "progress": writing}), encoding="utf-8")
    command = [
        valgrind,
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={folder / 'callgrind.out'}",
        sys.executable,
        *("-m", "geoact.bench.instructions.child"),
        *(str(source), str(target)),
    ]
    # The package this module is from, wherever it was imported from, and whatever it can import.
    environment = {**os.environ, **FIXED, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    listener = Thread(target=_listen, args=(reading, told), daemon=True)
    listener.start()
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=output, pass_fds=(writing,), check=False
            )
    finally:
        os.close(writing)
        listener.join()
    if target.exists():
        result: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        if "error" in result:
            raise CountingError(result["error"])
        return result
    raise CountingError(f"the process under valgrind ended with code {done.returncode}: {_last(log)}")


def _listen(descriptor: int, told: Told | None) -> None:
    with os.fdopen(descriptor, encoding="utf-8") as lines:
        for line in lines:
            if told is not None:
                told(*json.loads(line))


def _last(log: Path) -> str:
    """The end of what a process printed, without what valgrind says of itself."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip() and not line.startswith("==")]
    return " | ".join((said or lines)[-3:]) or "it printed nothing"


def _table(result: Mapping[str, Any], profiles: Mapping[str, callgrind.Profile], version: str, root: Path) -> Table:
    gated = PACKAGE if result["modules"] else TOTAL
    rows = []
    for number, case in enumerate(result["cases"]):
        if case["status"] != "counted":
            continue
        found = [profiles.get(label(number, turn)) for turn in range(COUNTS)]
        counted = [profile for profile in found if profile is not None]
        if len(counted) != COUNTS:
            raise CountingError(f"callgrind wrote no count of {case['name']}")
        inside = [profile.of(result["modules"]) for profile in counted]
        totals = [profile.total for profile in counted]
        spread = inside if gated == PACKAGE else totals
        rows.append(
            Row(
                case["name"],
                case["axes"],
                instructions=min(inside),
                total=min(totals),
                spread=max(spread) - min(spread),
                elements=case["elements"],
                bytes=case["bytes"],
                calls=case["calls"],
            )
        )
    known = describe(root=root)
    environment = {"valgrind": version, **{name: known[name] for name in _ENVIRONMENT if known.get(name) is not None}}
    return Table(
        result["suite"],
        result["package"],
        gated,
        tuple(rows),
        tools=_tools(result, gated),
        environment=environment,
        skipped={case["name"]: case["reason"] for case in result["cases"] if case["status"] == "skipped"},
        errors={case["name"]: case["reason"] for case in result["cases"] if case["status"] == "error"},
    )


def _tools(result: Mapping[str, Any], gated: str) -> dict[str, str]:
    """What made the instructions that are gated."""
    tools = {f"compiler of {name}": measured.compiler(path) for path, name in result["modules"].items()}
    tools["isa"] = result["isa"] or _simulated()
    if gated == TOTAL:  # then everything that a call passes through is
        known = describe()
        tools |= {"python": known["python"], "numpy": str(known["versions"]["numpy"])}
        tools["libc"] = " ".join(platform.libc_ver()) or "unknown"
    return tools


def _simulated() -> str:
    """Widest instruction set of the processor that valgrind simulates: the real one's, up to AVX2."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return next((name for name in ("avx2", "avx", "sse4_2") if name in flags), "sse2")
