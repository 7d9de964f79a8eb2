"""One side of a comparison: a process that is kept warm, prepares what it is told and times it, one sample at a time.

Run as a script by the interpreter that has the package under test. It loads geoact.bench from the folder that it lies
in, under its own name and without importing geoact, so that any version of geoact, or none, can be what is measured.
Requests and answers are JSON, one per line; what the code under test prints goes to standard error. Only the standard
library, NumPy and what measures in geoact.bench are used.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

BENCH = Path(__file__).resolve().parent.parent


def load_bench() -> ModuleType:
    """geoact.bench out of the folder of this file, whatever other version is installed.

    Modules that a worker loads import names and not modules from here: ``from geoact.bench import engine`` would make
    Python import geoact as well, which may be another version, or not there.
    """
    known = sys.modules.get("geoact.bench")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(
        "geoact.bench", BENCH / "__init__.py", submodule_search_locations=[str(BENCH)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{BENCH} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules["geoact.bench"] = module
    spec.loader.exec_module(module)
    return module


# --- the code under test --------------------------------------------------------------------------


def machine_code(path: Path) -> bytes:
    """The executable sections of an ELF file; other files whole. Addresses of debug information do not matter."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return data
    start, size, count = (int.from_bytes(data[at : at + n], "little") for at, n in ((40, 8), (58, 2), (60, 2)))
    code = []
    for index in range(count):
        header = data[start + index * size : start + (index + 1) * size]
        flags, _, offset, length = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16, 24, 32))
        if flags & 4 and int.from_bytes(header[4:8], "little") != 8:  # executable, and has bytes in the file
            code.append(data[offset : offset + length])
    return b"".join(code) or data


def code_files(package: str, ignore: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """The files of an importable package that run: Python and compiled, by their name inside it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"the suite's package {package} cannot be found")
    folders = [Path(p) for p in spec.submodule_search_locations or ()]
    if not folders and spec.origin:
        yield Path(spec.origin).name, Path(spec.origin)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.suffix not in (".py", ".so") or any(inside.match(pattern) for pattern in ignore):
                continue
            if not (inside.parts[0] == "bench" and path.name.startswith("_stream_")):
                yield str(inside), path


def code_hash(package: str, ignore: tuple[str, ...]) -> str:
    """Of all that a case may run inside the package: the same hash means that a difference is noise."""
    found = hashlib.sha256()
    for name, path in code_files(package, ignore):
        content = machine_code(path) if path.suffix == ".so" else path.read_bytes()
        found.update(f"{name}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()


# --- the side -------------------------------------------------------------------------------------


class Side:
    """What a worker holds: the suite, and at most one prepared case."""

    def __init__(self, suite: str, cold: bool = False, batches: int = 5, shortest: float = 3e-4) -> None:
        load_bench()
        from geoact.bench.suite import load
        from geoact.bench.timing import Devices, Settings

        self.suite = load(suite)
        self.suite.setup()
        self.settings = Settings(cold=cold, batches=batches, shortest=shortest)
        self.devices = Devices(self.settings)
        self.contender: Any = None
        self.control: Any = None
        self.clock: Any = None
        self.slowdown = 0.0

    def about(self) -> dict[str, Any]:
        """The cases, and what is measured."""
        package = self.suite.package
        found = importlib.util.find_spec(package) if package else None
        return {
            "cases": list(self.suite.cases),
            "axes": {name: {k: str(v) for k, v in case.axes.items()} for name, case in self.suite.cases.items()},
            "code": code_hash(package, tuple(self.suite.ignore)) if package else None,
            "package": str(found.origin) if found else None,
            "python": sys.version.split()[0],
        }

    def prepare(self, case: str, slowdown: float = 0.0) -> dict[str, Any]:
        """Make a case ready; it must pass its own check. A reason instead where it cannot run here."""
        from geoact.bench.contenders import Unavailable
        from geoact.bench.engine import first_line

        self.release(check=False)
        if case not in self.suite.cases:
            return {"missing": "skipped", "reason": "the suite has no such case here"}
        try:
            call = self.suite.cases[case].prepare()
            self.clock = self.devices.clock(call.device)
            contender = call.contender(case)
            contender.verify()
        except Unavailable as error:
            return {"missing": "skipped", "reason": first_line(error)}
        except AssertionError as error:
            return {"missing": "failed", "reason": f"WRONG RESULT: {first_line(error)}"}
        except (Exception, SystemExit) as error:  # of the code under test: it is the answer
            traceback.print_exc()
            return {"missing": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
        self.contender, self.call, self.slowdown = contender, call, slowdown
        return {"device": call.device, "code": call.code, "output": contender.output, **self.devices.facts()}

    def calibrate(self, control: str | None = None, seconds: float = 0.2) -> dict[str, Any]:
        """Warm up the case and its control; how often each is repeated. ``control`` is the copy another side uses.

        The control is there to see that both sides are treated alike, so it need not be as small as the case.
        """
        from geoact.bench.ceilings import SMALL
        from geoact.bench.engine import warm_up
        from geoact.bench.timing import ceiling

        self.control = ceiling(self.call, self.clock, self.settings.cold, name=control, least=SMALL)
        for contender in (self.contender, self.control):
            warm_up(contender, self.clock, self.settings.shortest_of(self.call.device), seconds)
        return {
            "repeat": self.contender.repeat,
            "control": self.control.name,
            "control_repeat": self.control.repeat,
        }

    def repeat(self, repeat: int, control_repeat: int) -> dict[str, Any]:
        """Use what all sides use."""
        self.contender.repeat, self.control.repeat = repeat, control_repeat
        return {}

    def sample(self) -> dict[str, Any]:
        """One sample of the case and one of its control."""
        self.contender.before()
        on_host = self.call.device == "cpu"
        if on_host:
            self.clock.slowdown = self.slowdown
        taken = self.clock.sample(self.contender.runs, self.contender.repeat)
        if on_host:
            self.clock.slowdown = 0.0
        # What a device runs cannot be made longer by waiting on the host: there it is done by arithmetic.
        seconds = taken.seconds * (1 if on_host else 1 + self.slowdown)
        copied = self.clock.sample(self.control.runs, self.control.repeat)
        answer = {"ns": seconds / self.contender.calls * 1e9, "control_ns": copied.seconds * 1e9}
        if taken.hertz:
            answer["hertz"] = taken.hertz
        return answer | ({"throttled": list(taken.throttled)} if taken.throttled else {})

    def release(self, check: bool = True) -> dict[str, Any]:
        """Check the case once more and let go of it."""
        from geoact.bench.engine import first_line

        contender, self.contender, self.control = self.contender, None, None
        if contender is None or not check:
            return {}
        try:
            contender.verify()
        except AssertionError as error:
            return {"wrong": f"WRONG RESULT after it was timed: {first_line(error)}"}
        return {}


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more. What goes wrong is the answer, never the end."""
    side: Side | None = None
    for line in requests:
        request = json.loads(line)
        action = request.pop("do")
        try:
            if action == "open":
                os.chdir(request.pop("folder"))
                sys.path[:0] = request.pop("paths")
                side = Side(**request)
                answer = side.about()
            else:
                answer = _action(side, action)(**request)
        except Exception as error:  # told to whoever asked
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _action(side: Side | None, action: str) -> Callable[..., dict[str, Any]]:
    actions = ("prepare", "calibrate", "repeat", "sample", "release")
    if side is None or action not in actions:
        raise ValueError(f"{action} is not one of {', '.join(actions)}, after open")
    found: Callable[..., dict[str, Any]] = getattr(side, action)
    return found


def end_with_parent() -> None:
    """Be killed when whoever asks is: a call that hangs never looks for more requests. Linux only."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Speak over standard input and output, which the code under test no longer sees."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # Not the folder of this script, in which nothing is to be imported from.
    sys.path[:] = [p for p in sys.path if p != str(Path(__file__).resolve().parent)]
    with open(0, encoding="utf-8", closefd=False) as requests:
        serve(requests, answers)


if __name__ == "__main__":
    main()
