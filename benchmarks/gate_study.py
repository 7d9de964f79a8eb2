"""Does the gate flake, and does it see? Repeats it on equal code and on code that is slower by a known share.

    python benchmarks/gate_study.py [--repetitions 20] [--slowdown 5] [--only GLOB] [--json FILE]

Part one compares the installed geoact with itself over all cases of suite.py: every REGRESSED is a false alarm. Part
two makes three cases of side B slower by waiting inside the timed span: each that is not REGRESSED is a miss. Both
sides have the same machine code, so that rule is off. Every repetition starts its own processes. The result, with the
verdict on every case of every repetition, goes to benchmarks/results/; docs/benchmarking.md shows it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from geoact.bench import environment, results
from geoact.bench.gate.compare import Comparison, Plan, as_row, compare
from geoact.bench.gate.decide import Rule
from geoact.bench.gate.sides import INSTALLED, Side
from geoact.bench.suite import matches

HERE = Path(__file__).parent
KIND = "geoact-gate-study"
SLOWED = (
    "forward[activation=sigmoid,dtype=float32,size=64Ki,statistics=tensor]",
    "forward[activation=gelu,dtype=float32,size=64Ki,statistics=tensor]",
    "forward[activation=mish,dtype=float32,size=64Ki,statistics=tensor]",
)
"""Data in the L2 cache and much arithmetic: steady cases, such as the self-test of the gate takes. What hangs on where
three arrays lie in the cache is not: its A/A width, and so its delta, may exceed the slowdown."""


def outcome(found: Comparison) -> dict[str, Any]:
    """What is kept of one repetition: the verdicts with their intervals, not the samples."""
    return {
        "code": found.verdict.code,
        "headline": found.verdict.headline,
        "seconds": round(found.seconds, 1),
        "load_average": os.getloadavg()[0],
        "cases": [as_row(case) for case in found.verdict.cases],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--slowdown", type=float, default=5.0, help="percent")
    parser.add_argument("--only", action="append", default=[], help="cases of part one: a word or a glob")
    parser.add_argument("--seconds", type=float, default=0.06, help="part one: of a case in one incarnation, at most")
    parser.add_argument("--rounds", type=int, default=6, help="part one: of a case in one placement, at least")
    parser.add_argument("--incarnations", type=int, default=3, help="part one; part two has the defaults of compare")
    parser.add_argument("--suite", default=str(HERE / "suite.py"))
    parser.add_argument("--slow", action="append", default=[], help="cases to slow down; default: three of suite.py")
    parser.add_argument("--part", choices=("equal", "slowed"), help="only this one; the other is kept as stored")
    parser.add_argument("--seed", type=int, default=0, help="of the first repetition")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: results/gate-<machine>.json")
    options = parser.parse_args()
    import geoact  # its instruction set belongs to the machine

    described = environment.describe(root=HERE.parent)
    assert described["isa"] == geoact.isa()
    side, rule = Side(INSTALLED), Rule()
    plans = {
        "equal": Plan(incarnations=options.incarnations, seconds=options.seconds, rounds=options.rounds),
        "slowed": Plan(),
    }
    slowed = dict.fromkeys(options.slow or SLOWED, options.slowdown / 100)

    def once(part: str, only: list[str], slow: dict[str, float], seed: int) -> dict[str, Any]:
        found = compare(
            side, side, options.suite, folder=HERE.parent, environment=described, rule=rule,
            plan=replace(plans[part], seed=seed),
            choose=lambda name, axes: not only or any(matches(name, word) for word in only),
            slowdown=slow, same_code_is_noise=False,
        )  # fmt: skip
        return outcome(found)

    document = {
        "schema": 1, "kind": KIND, "suite": "geoact", "environment": described, "rule": vars(rule),
        "plans": {part: vars(plan) for part, plan in plans.items()},
        "slowdown": options.slowdown / 100, "slowed_cases": list(slowed), "equal": [], "slowed": [],
    }  # fmt: skip
    path = options.json or HERE / "results" / f"gate-{environment.slug(described)}.json"
    if options.part and path.exists():
        stored = results.read_json(path)
        kept = "slowed" if options.part == "equal" else "equal"
        document |= {kept: stored[kept], "plans": document["plans"] | {kept: stored["plans"][kept]}}
    begin = time.monotonic()
    for part, only, slow in (("slowed", list(slowed), slowed), ("equal", options.only, {})):
        for index in range(options.repetitions) if options.part in (None, part) else ():
            document[part].append(once(part, only, slow, options.seed + index))
            told = document[part][-1]
            print(f"{time.monotonic() - begin:6.0f} s  {part} {index + 1}: {told['headline']}", flush=True)
            results.save(path, document)  # so that a study which is cut short has not been for nothing
    print(summary(document))
    return 0


def summary(document: dict[str, Any]) -> str:
    """Both parts in two sentences."""
    alarms = sum(case["verdict"] == "regressed" for one in document["equal"] for case in one["cases"])
    cases = sum(case["verdict"] not in ("skipped", "new") for one in document["equal"] for case in one["cases"])
    failed = sum(one["code"] != 0 for one in document["equal"])
    lines = [f"A against A: {alarms} false alarms in {cases} verdicts of {len(document['equal'])} runs; "
             f"{failed} runs ended with a code other than 0."]  # fmt: skip
    for name in document["slowed_cases"]:
        caught = sum(
            case["verdict"] == "regressed"
            for one in document["slowed"]
            for case in one["cases"]
            if case["name"] == name
        )
        lines.append(
            f"{name} slowed by {document['slowdown']:.0%}: caught {caught} of {len(document['slowed'])} times."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
