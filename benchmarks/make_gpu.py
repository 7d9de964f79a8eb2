"""What ``make gpu`` runs: build geoact for the GPU of this machine, test it there, measure it. Standard library only.

    python benchmarks/make_gpu.py [--seconds 480] [--only STEP ...]

Nothing is downloaded: the build tools, torch, triton and cupy are those of the Python that runs this. geoact is
installed into build/gpu/site, beside and not into that Python. Each step has a time limit and a log in build/gpu/, and
one that fails does not keep the later ones from running, except the build. Logs and results are copied to $OUT where
that names a folder. Exit status: 0 if every step passed, 1 if not, 2 if there is no CUDA device (nothing is done then).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "gpu"
SITE = WORK / "site"


def device_count() -> int | str:
    """CUDA devices that the driver knows of, or why it cannot say."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int()
    for code in (driver.cuInit(0), driver.cuDeviceGetCount(ctypes.byref(count))):
        if code:
            return f"the NVIDIA driver answers with CUDA error {code}"
    return count.value or "the NVIDIA driver knows no device"


@dataclass(frozen=True)
class Step:
    """A command, how many seconds it may take, and how many it must leave to the later ones."""

    name: str
    command: tuple[str, ...]
    limit: float
    leave: float
    needed: bool = False  # without it nothing later can run


def steps(seconds: float) -> list[Step]:
    python = sys.executable
    options = {"GEOACT_CUDA": "ON", "CMAKE_CUDA_ARCHITECTURES": "native"}
    defines = [word for name, value in options.items() for word in ("-C", f"cmake.define.{name}={value}")]
    install = (python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    install += ("--upgrade", "--target", str(SITE), *defines, ".")
    # The kernels of Triton are compiled on the host, so several processes share the work.
    several = ("-p", "xdist.plugin", "-n", "6") if find_spec("xdist") else ()
    tests = (python, "-m", "pytest", "tests/gpu", "-q", "--durations=5", "-p", "no:cacheprovider")
    measuring, reserved = min(270.0, 0.56 * seconds), 0.42 * seconds
    return [
        Step("build", install, 0.4 * seconds, reserved, needed=True),
        Step("compile", (python, "benchmarks/gpu.py", "--compile"), 60, reserved),
        Step("test", (*tests, *several, "-m", "gpu and not slow"), 150, reserved),
        Step("measure", (python, "benchmarks/gpu.py", "--seconds", "{seconds}"), measuring + 20, 45),
        Step("test, slow", (*tests, "-m", "gpu and slow"), 120, 5),
    ]


def commit() -> str:
    """Of the tree, where there is git and it has a .git; else what GEOACT_COMMIT says."""
    known = os.environ.get("GEOACT_COMMIT", "")
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return known
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or known


def environment() -> dict[str, str]:
    """What the steps see: geoact from SITE, wherever else it may be installed."""
    paths = [str(SITE), os.environ.get("PYTHONPATH", "")]
    known = {"GEOACT_COMMIT": commit(), "PYTHONUNBUFFERED": "1", "GEOACT_GPU_TESTS": "required"}
    known["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # of whatever else that Python has: a plugin's warning ends a run
    return {**os.environ, **known, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a step with all that it started: asked first, so that it can write down what it has."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
    with contextlib.suppress(ProcessLookupError):  # nothing that it started is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(step: Step, limit: float, environ: dict[str, str]) -> str:
    """Run a step; "passed", or what happened. Its output is shown and kept."""
    log = WORK / f"{step.name.replace(', ', '-')}.log"
    words = [word.replace("{seconds}", f"{limit - 20:.0f}") for word in step.command]
    print(f"\n=== {step.name}, at most {limit:.0f} s: {' '.join(words)}", flush=True)
    with log.open("wb") as kept:
        # A session of its own, so that what the step started ends with it.
        process = subprocess.Popen(words, cwd=ROOT, env=environ, stdout=kept, stderr=subprocess.STDOUT,
                                   start_new_session=True)  # fmt: skip
        try:
            code = process.wait(limit)
            outcome = "passed" if code == 0 else f"failed with exit status {code}"
        except subprocess.TimeoutExpired:
            stop(process)
            outcome = f"stopped after {limit:.0f} s"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print("\n".join(lines[-40:]), flush=True)
    return outcome


def deliver() -> None:
    """Copy logs and results to $OUT."""
    out = os.environ.get("OUT")
    if not out or not Path(out).is_dir():
        return
    results = [p for p in (ROOT / "benchmarks" / "results").glob("*.json") if p.stat().st_mtime >= START]
    for path in [*WORK.glob("*.log"), *results]:
        shutil.copy(path, out)


START = time.time()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=480, help="for all steps together")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="build, compile, test, measure, 'test, slow'")
    options = parser.parse_args()
    found = device_count()
    if isinstance(found, str):
        print(f"make gpu needs a machine with an NVIDIA GPU: {found}", file=sys.stderr)
        return 2
    chosen = [step for step in steps(options.seconds) if options.only is None or step.name in options.only]
    if options.only and len(chosen) != len(set(options.only)):
        parser.error(f"--only {' '.join(options.only)} names a step that there is not")
    WORK.mkdir(parents=True, exist_ok=True)
    end, outcomes, environ = time.monotonic() + options.seconds, {}, environment()
    for step in chosen:
        begin = time.monotonic()
        limit = min(step.limit, end - begin - step.leave)
        outcome = run(step, limit, environ) if limit >= 10 else "not run: no time was left"
        outcomes[step.name] = f"{outcome} ({time.monotonic() - begin:.0f} s)"
        deliver()
        if step.needed and outcome != "passed":
            break
    print("\n=== summary")
    for step in chosen:
        print(f"{step.name:12} {outcomes.get(step.name, 'not run: an earlier step failed')}")
    return int(not all(outcomes.get(step.name, "").startswith("passed") for step in chosen))


if __name__ == "__main__":
    sys.exit(main())
