"""How far apart do harnesses report the same kernel, and what of a slowdown do they see?

    python benchmarks/harnesses.py [--minutes 8] [--device cuda|dry-run] [--quick] [--json FILE]

For people who gate on a number. A *session* is a fresh process in which one harness measures four kernels as it does by
default, each as it is and slowed by 5 %: timeit, pytest-benchmark, torch.utils.benchmark and geoact bench, and on a
GPU triton's do_bench and do_bench_cudagraph and cupyx.profiler. Sessions of all harnesses take turns in shuffled
rounds, so that all see the same machine. Every pair of sessions is then what a gate would have had: the same kernel in
both is a false alarm where one lies above the other by more than a threshold, the slowed one against the plain one of
another session is a slowdown that was seen or not. ``geoact compare`` decides by its own rule, in comparisons between
the rounds. What else moves a time of a CPU is measured one by one in harness_biases.py.

All is measured in ``--minutes``, but at least two rounds and one comparison. The result, with samples, goes to
benchmarks/results/harnesses-<machine>.json; docs/benchmarking.md shows it. Use a quiet machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from geoact.bench import environment, results
from geoact.bench.gate.compare import Comparison, Plan, as_row, compare
from geoact.bench.gate.decide import Rule
from geoact.bench.gate.sides import Side
from harness_biases import BIASES
from harness_kernels import KERNELS, SHARE, TITLES, VARIANTS, device
from harness_session import HARNESSES, thin

HERE = Path(__file__).resolve().parent
SCHEMA, KIND = 1, "geoact-harnesses"
THRESHOLDS = (0.03, 0.05, 0.10)
GATE = "geoact compare"
CYCLE = ("round", "round", "round", "comparison")
LEAST = {"round": 2, "comparison": 1}
LIMIT = 300  # seconds of one process


class SessionError(Exception):
    """A process of a harness failed; the message says which and how."""


# --- measuring ----------------------------------------------------------------------------------------------


def ran(script: str, name: str, **variables: str) -> Any:
    """What a script of this folder wrote about ``name``, in a fresh process. Raises SessionError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / script), name, str(path)]
        try:
            done = subprocess.run(
                command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise SessionError(f"{name} did not end within {LIMIT} s") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise SessionError(f"{name} ended with {done.returncode}: {last}")
        return json.loads(path.read_text(encoding="utf-8"))


def round_of(index: int, names: Sequence[str], told: Callable[[str], None]) -> list[dict[str, Any]]:
    """A session of every harness, in shuffled order, and one that says what was really planted."""
    sessions = []
    for name in random.Random(index).sample([*names, "planted"], len(names) + 1):
        begin = time.monotonic()
        found = ran("harness_session.py", name, HARNESSES_SEED=str(index))
        taken = round(time.monotonic() - begin, 2)
        told(f"round {index + 1}: {name}, {taken:.1f} s")
        sessions.append({"harness": name, "round": index, "seconds": taken, "cases": found})
    return sessions


def gate(index: int, quick: bool) -> Comparison:
    """Two sides with the same kernels; those called "slowed" are so in side B only."""
    plan = Plan(incarnations=1, rounds=3, seconds=0.02, batches=1) if quick else Plan(seed=index)
    with tempfile.TemporaryDirectory() as place:
        sides = []
        for name, share in (("A", 0.0), ("B", SHARE)):
            folder = Path(place) / name
            folder.mkdir()
            (folder / "planted_slowdown.py").write_text(f"SHARE = {share}\n", encoding="utf-8")
            sides.append(Side(name, paths=(str(folder),)))
        a, b = sides
        return compare(a, b, str(HERE / "harness_kernels.py"), folder=HERE, environment={}, rule=Rule(), plan=plan)


def kept(found: Comparison) -> dict[str, Any]:
    """What is stored of a comparison: verdicts, and log-ratios instead of the times they are made of."""
    cases = {}
    for case in found.verdict.cases:
        kernel, variant = (part.partition("=")[2] for part in case.name[:-1].partition("[")[2].split(","))
        ratios = found.samples[case.name].measurement(case.name, False).ratios
        cases[f"{kernel}/{variant}"] = as_row(case) | {"log_ratios": [thin(one, 20) for one in ratios]}
    return {"seconds": round(found.seconds, 1), "code": found.verdict.code, "cases": cases}


@dataclass
class Budget:
    """What comes next while there is time: parts of the cycle, as long as one more of its kind fits in."""

    end: float
    least: Mapping[str, int]
    now: Callable[[], float] = time.monotonic
    longest: dict[str, float] = field(default_factory=dict)

    def parts(self) -> Iterator[str]:
        done = dict.fromkeys(self.least, 0)
        for kind in itertools.cycle(CYCLE):
            missing = [name for name, least in self.least.items() if done[name] < least]
            fits = self.now() + self.longest.get(kind, 0.0) <= self.end
            if not fits and not missing:
                return
            if not fits and kind not in missing:
                continue
            begin = self.now()
            yield kind
            done[kind] += 1
            self.longest[kind] = max(self.longest.get(kind, 0.0), self.now() - begin)


def measured(minutes: float, quick: bool, told: Callable[[str], None]) -> dict[str, Any]:
    """Everything but the environment."""
    begin = time.monotonic()
    names = [name for name, harness in HARNESSES.items() if not harness.absent]
    found: dict[str, Any] = {
        "kernels": TITLES,
        "thresholds": THRESHOLDS,
        "planted": SHARE,
        "skipped": {name: harness.absent for name, harness in HARNESSES.items() if harness.absent},
        "failed": [],
        "biases": [],
        "sessions": [],
        "comparisons": [],
    }

    def tried(what: Callable[[], object]) -> None:
        try:
            what()
        except SessionError as error:  # what was measured before it is not lost; the exit status tells
            found["failed"].append(str(error))
            told(f"FAILED: {error}")

    def bias(name: str) -> None:
        found["biases"].append(ran("harness_biases.py", name))
        told(f"bias: {BIASES[name][0]}")

    def session(index: int) -> None:
        found["sessions"].extend(round_of(index, names, told))

    def compared(index: int) -> None:
        found["comparisons"].append(kept(gate(index, quick)))
        told(f"{GATE}: {found['comparisons'][-1]['seconds']:.1f} s")

    for name in BIASES if device() == "cpu" else ():
        tried(partial(bias, name))
    counts = dict.fromkeys(LEAST, 0)
    for kind in Budget(begin + 60 * minutes, LEAST).parts():
        index = counts[kind]
        counts[kind] += 1
        if kind == "round":
            tried(partial(session, index))
        else:
            tried(partial(compared, index))
    return found | {"rows": rows(found), "seconds": round(time.monotonic() - begin, 1)}


# --- what follows from the samples --------------------------------------------------------------------------


def pairs(plain: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """``other`` of one session over ``plain`` of another, for every two sessions."""
    return [b / a for i, a in plain.items() for j, b in other.items() if i != j]


def share_above(ratios: Sequence[float], threshold: float) -> float:
    return round(sum(r > 1 + threshold for r in ratios) / len(ratios), 4)


def _row(harness: str, reported: str, kernel: str, equal: Sequence[float], slowed: Sequence[float]) -> dict[str, Any]:
    """``equal`` and ``slowed`` are ratios of what was reported; right were 1, and 1 and what was planted."""
    return {
        "harness": harness,
        "number": reported,
        "kernel": kernel,
        "false_alarms": [share_above(equal, t) for t in THRESHOLDS],
        "seen": round(statistics.median(slowed) - 1, 4),
        "caught": [share_above(slowed, t) for t in THRESHOLDS],
    }


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for every number that a harness reports of a kernel."""
    result = []
    shares = [s["cases"] for s in found["sessions"] if s["harness"] == "planted"]
    for name, harness in HARNESSES.items():
        sessions = [s for s in found["sessions"] if s["harness"] == name]
        for reported, kernel in itertools.product(harness.reports, KERNELS):
            values = {
                variant: {
                    s["round"]: s["cases"][f"{kernel}/{variant}"]["reported"][reported]
                    for s in sessions
                    if reported in s["cases"].get(f"{kernel}/{variant}", {}).get("reported", {})
                }
                for variant in VARIANTS
            }
            equal = pairs(values["plain"], values["plain"])
            slowed = pairs(values["plain"], values["slowed"])
            if not equal or not slowed:
                continue
            plain = values["plain"].values()
            row = _row(name, reported, kernel, equal, slowed)
            row |= {"sessions": len(plain), "spread": round(max(plain) / min(plain) - 1, 4), "pairs": len(equal)}
            row["seconds"] = round(statistics.median(s["seconds"] for s in sessions) / len(KERNELS) / len(VARIANTS), 2)
            result.append(row)
    result += [row for kernel in KERNELS for row in _gate_rows(found["comparisons"], kernel)]
    for row in result:
        known = [share[row["kernel"]] for share in shares if row["kernel"] in share]
        if known:
            row["planted"] = round(statistics.median(known), 4)
    return result


def _gate_rows(comparisons: Sequence[Mapping[str, Any]], kernel: str) -> list[dict[str, Any]]:
    """Of the gate: its estimates, held against thresholds like the others, and its verdicts."""
    cases = {v: [c["cases"][f"{kernel}/{v}"] for c in comparisons if f"{kernel}/{v}" in c["cases"]] for v in VARIANTS}
    equal, slowed = ([c for c in cases[v] if "change" in c] for v in VARIANTS)
    if not equal or not slowed:
        return []
    changes = [1 + c["change"] for c in equal]
    row = _row(GATE, "change", kernel, changes, [1 + c["change"] for c in slowed])
    spread = max(1.0, *changes) / min(1.0, *changes) - 1
    row |= {"sessions": len(equal), "spread": round(spread, 4), "pairs": len(equal)}
    row["seconds"] = round(statistics.median(c["seconds"] for c in comparisons) / len(KERNELS) / len(VARIANTS), 2)
    row["verdicts"] = {v: [c["verdict"] for c in found] for v, found in zip(VARIANTS, (equal, slowed), strict=True)}
    return [row]


# --- the command --------------------------------------------------------------------------------------------


def show(document: Mapping[str, Any]) -> None:
    print(
        f"\n{'reported':38} {'kernel':10} {'spread':>7}  false alarms at 3/5/10 %  {'planted':>7} {'seen':>7}  caught"
    )
    for row in document["rows"]:
        alarms, caught = (" ".join(f"{v:6.1%}" for v in row[key]) for key in ("false_alarms", "caught"))
        planted = f"{row['planted']:7.1%}" if "planted" in row else f"{'':7}"
        name = f"{row['harness']}: {row['number']}"
        print(f"{name:38} {row['kernel']:10} {row['spread']:7.1%}  {alarms:24}  {planted} {row['seen']:7.1%}  {caught}")
        if "verdicts" in row:
            said = "; ".join(f"{variant}: {', '.join(found)}" for variant, found in row["verdicts"].items())
            print(f"{'':38} {said}")
    for bias in document["biases"]:
        print(f"\n{bias['title']}" + (f": {bias['skipped']}" if "skipped" in bias else ""))
        for one in bias.get("numbers", ()):
            value = f"{one['value']:+8.1%}" if one["unit"] == "%" else f"{one['value']:8.4g} {one['unit']}"
            print(f"  {value:12} {one['label']}")
    for name, reason in document["skipped"].items():
        print(f"not measured: {name}: {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="what all of it may cost, biases included")
    parser.add_argument("--device", choices=("cpu", "cuda", "dry-run"), default="cpu",
                        help="dry-run: what runs on a device, on CPU tensors")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="little of everything: to see that it runs, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: results/harnesses-<machine>.json")
    options = parser.parse_args(arguments)
    os.environ |= {"HARNESSES_DEVICE": options.device, "HARNESSES_QUICK": str(int(options.quick)),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    import geoact

    geoact.isa()  # it belongs to the machine that is described
    described = environment.describe(("pytest-benchmark", "torch", "triton", "cupy-cuda13x"), root=HERE.parent)
    begin = time.monotonic()
    found = measured(0.0 if options.quick else options.minutes, options.quick,
                     lambda text: print(f"[{time.monotonic() - begin:4.0f} s] {text}", flush=True))  # fmt: skip
    document = {"schema": SCHEMA, "kind": KIND, "quick": options.quick, "device": options.device}
    document |= {"environment": described, **found}
    show(document)
    place = "" if options.device == "cpu" else f"{options.device}-"
    default = HERE / "results" / f"harnesses-{place}{environment.slug(described)}.json"
    path = options.json or (None if options.quick or options.device == "dry-run" else default)
    if path:
        results.save(path, document)
        print(f"\nwrote {path.name}")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
