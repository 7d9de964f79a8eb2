"""One session of one harness, in a process of its own: every kernel of harness_kernels.py as that harness measures it.

    python harness_session.py HARNESS FILE

Every harness is used as its documentation shows it and with its own defaults; only --quick of harnesses.py shortens
them. What it would report is computed from all samples; of these at most ``KEPT`` are stored, evenly spaced.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness_kernels import KERNELS, SHARE, Run, device, names, planted, prepared, quick, suite

HERE = Path(__file__).resolve().parent
KEPT = 40
STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "mean": statistics.fmean,
    "median": statistics.median,
}
COPIES = "median / copy"


@dataclass(frozen=True)
class Harness:
    """``reports`` are the numbers that its users gate on, ``needs`` the package without which it is skipped."""

    reports: tuple[str, ...]
    needs: str
    session: Callable[[Harness], dict[str, Any]]
    devices: tuple[str, ...] = ("cpu", "cuda", "dry-run")

    @property
    def absent(self) -> str:
        """Why it cannot be used here; empty if it can."""
        if find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        return "" if device() in self.devices else f"times {' and '.join(self.devices)} only"


def thin(values: Sequence[float], kept: int = KEPT) -> list[float]:
    """At most so many, evenly spaced and in their order."""
    chosen = values if len(values) <= kept else [values[i * (len(values) - 1) // (kept - 1)] for i in range(kept)]
    return [float(f"{value:.6g}") for value in chosen]


def told(nanoseconds: Sequence[float], reports: Sequence[str]) -> dict[str, Any]:
    """What is kept of one case."""
    reported = {name: float(f"{STATISTICS[name](nanoseconds):.6g}") for name in reports}
    return {"n": len(nanoseconds), "reported": reported, "ns": thin(nanoseconds)}


# --- harnesses that are called ------------------------------------------------------------------------------


def by_timeit(run: Run) -> list[float]:
    """As ``python -m timeit`` does: so many calls that they last 0.2 s, five times; the best is shown."""
    timer = timeit.Timer(run)
    number = 3 if quick() else timer.autorange()[0]
    return [seconds / number for seconds in timer.repeat(number=number)]


def by_torch(run: Run) -> list[float]:
    from torch.utils.benchmark import Timer

    timer = Timer("run()", globals={"run": run})
    return (timer.blocked_autorange(min_run_time=1e-3) if quick() else timer.blocked_autorange()).times


def by_triton(run: Run) -> list[float]:
    from triton.testing import do_bench

    return [ms / 1e3 for ms in do_bench(run, return_mode="all")]


def by_triton_graph(run: Run) -> list[float]:
    import torch
    from triton.testing import do_bench_cudagraph

    with torch.cuda.stream(torch.cuda.Stream()):  # the default stream cannot be captured
        return [ms / 1e3 for ms in do_bench_cudagraph(run, return_mode="all")]


def by_cupyx(run: Run) -> list[float]:
    """10000 calls by default; two seconds at most, because its own limit is none."""
    from cupyx.profiler import benchmark

    return [float(seconds) for seconds in benchmark(run, (), max_duration=2).gpu_times[0]]


def each(sample: Callable[[Run], list[float]]) -> Callable[[Harness], dict[str, Any]]:
    """A session in which a function is called for one case after the other."""

    def session(harness: Harness) -> dict[str, Any]:
        return {name: told([s * 1e9 for s in sample(prepared(name))], harness.reports) for name in names()}

    return session


# --- harnesses that run whole programs ----------------------------------------------------------------------

TESTS = """import harness_kernels
import pytest

harness_kernels.suite.setup()

@pytest.mark.parametrize("name", harness_kernels.names())
def test_kernel(benchmark, name):
    benchmark(harness_kernels.prepared(name))
"""


def pytest_benchmark(source: str) -> dict[str, list[float]]:
    """Run a test file under pytest-benchmark; nanoseconds of every call, by the name of the parameter."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "test_kernels.py").write_text(source, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        stored = folder / "stored.json"
        short = ["--benchmark-max-time=0.001", "--benchmark-min-rounds=3"] if quick() else []
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(folder / "pytest.ini"), "--rootdir", place,
                   "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider", f"--benchmark-json={stored}", *short,
                   str(folder / "test_kernels.py")]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        found = json.loads(stored.read_text(encoding="utf-8"))["benchmarks"]
    return {one["param"]: [seconds * 1e9 for seconds in one["stats"]["data"]] for one in found}


def with_pytest(harness: Harness) -> dict[str, Any]:
    return {name: told(ns, harness.reports) for name, ns in pytest_benchmark(TESTS).items()}


def with_geoact(harness: Harness) -> dict[str, Any]:
    """As ``geoact bench run`` does: every case in turns with the copy of its bytes."""
    from geoact.bench import runner
    from geoact.bench.timing import Settings

    cases = [suite.cases["measured[kernel={},variant={}]".format(*name.split("/"))] for name in names()]
    document = runner.run(suite, Settings.quick() if quick() else Settings(), environment={}, cases=cases, families=[])
    found = {}
    for case in document["cases"]:
        name = f"{case['axes']['kernel']}/{case['axes']['variant']}"
        if case["status"] != "measured":
            found[name] = {"failed": case["reason"]}
            continue
        found[name] = told(case["ns"], ["median"])
        if "score" in case:
            found[name]["reported"][COPIES] = float(f"{1 / case['score']['median']:.6g}")
            found[name]["copy_ns"] = thin(case["ceiling_ns"])
    return found


HARNESSES = {
    "timeit": Harness(("min",), "timeit", each(by_timeit), ("cpu", "dry-run")),
    "pytest-benchmark": Harness(("min", "mean", "median"), "pytest_benchmark", with_pytest, ("cpu", "dry-run")),
    "torch.utils.benchmark": Harness(("median",), "torch", each(by_torch)),
    "triton do_bench": Harness(("mean",), "triton", each(by_triton), ("cuda",)),
    "triton do_bench_cudagraph": Harness(("mean",), "triton", each(by_triton_graph), ("cuda",)),
    "cupyx.profiler": Harness(("mean",), "cupyx", each(by_cupyx), ("cuda",)),
    "geoact bench": Harness(("median", COPIES), "geoact", with_geoact),
}


def planted_shares(seconds: float) -> dict[str, float]:
    """By how much each kernel was really slowed down; not known of a device, where the wait is a kernel."""
    if device() == "cuda":
        return {}
    return {name: round(planted(make().work, SHARE, seconds), 5) for name, make in KERNELS.items()}


def main() -> int:
    name, path = sys.argv[1], Path(sys.argv[2])
    suite.setup()
    found = planted_shares(0.01 if quick() else 0.3) if name == "planted" else HARNESSES[name].session(HARNESSES[name])
    path.write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
