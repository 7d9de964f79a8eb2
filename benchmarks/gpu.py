"""Every GPU bar as a ratio measured in interleaved rounds, on this machine, now. docs/gpu.md says how to read it.

    python benchmarks/gpu.py [--seconds N] [--only FAMILY] [--warm] [--json FILE]
    python benchmarks/gpu.py --device cpu --dry-run    all cases on tiny CPU tensors: to see that they run
    python benchmarks/gpu.py --compile                 compile the kernels of all cases, in several processes
    python benchmarks/gpu.py --readme                  write the stored results into README.md and docs/gpu.md

A complete run is stored in benchmarks/results/; a partial or warm one only where --json says so, a dry one never. The
exit status is 1 if a result was wrong, or a measurement contradicted itself (more than 105 % of the copy), and 0
otherwise, whatever the bars say: this reports and does not gate. 2: there is no CUDA device.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import gpu_cases
import gpu_exact
import gpu_report
import torch
from geoact.bench import Suite, environment, runner
from geoact.bench.bars import Row
from geoact.bench.clocks import Clock, HostClock
from geoact.bench.device_clock import DeviceClock
from geoact.bench.devices import find
from geoact.bench.devices.cupy_device import CupyDevice
from geoact.bench.engine import Budget, StopRule, first_line
from gpu_place import Place

RULE = StopRule(most=60)
PACKAGES = ("torch", "triton", "cupy-cuda13x", "nvidia-ml-py")


def place_of(options: argparse.Namespace) -> Place:
    place = Place(options.device)
    if options.dry_run:
        place.bytes_big, place.small, place.compared, place.compiler = 1 << 14, (256,), (1 << 10,), "eager"
    place.find_backends()
    return place


def clocks_of(place: Place, cold: bool) -> tuple[dict[str, Clock], dict[str, Any]]:
    """The clocks by name, and what is to be known of the device."""
    if not place.cuda:
        host = HostClock("CPU clock, dry run: says nothing about a GPU")
        return dict.fromkeys(("device", "warm", "host"), host), {}
    device = find()
    clock = DeviceClock(device, cold=cold)
    warm = DeviceClock(device, cold=False, management=clock.management)
    facts = clock.facts()
    if isinstance(device, CupyDevice):
        place.kernels = device
    else:
        place.no_kernels = facts["blocked_by"]
    return {"device": clock, "warm": warm, "host": HostClock("host clock, whole calls", torch.cuda.synchronize)}, facts


def run(suite: Suite, clocks: Mapping[str, Clock], options: argparse.Namespace, exact: list[Row]) -> dict[str, Any]:
    """All groups of a suite: rows, after those that are exact, and samples."""
    chosen = [family for family in suite.families if options.only in (None, family.name)]
    budget = Budget(options.seconds, sum(family.weight for family in chosen))
    outcome = runner.Outcome(list(exact))
    last, started, unrun = "", time.monotonic(), []
    for index, family in enumerate(chosen):
        if family.name != last:
            last = family.name
            print(f"{time.monotonic() - started:6.1f} s  {last}, {index} of {len(chosen)} groups done", flush=True)
        try:
            runner.run_group(
                family,
                lambda group: clocks[group.labels.get("clock", "device")],
                RULE,
                budget.part(family.weight),
                outcome,
                seed=index,
                bounded=not options.dry_run,  # a copy of a few tiny tensors is no ceiling
            )
        except KeyboardInterrupt:  # of make_gpu.py, when the time is up: what has been measured is kept
            unrun = [family.name for family in chosen[index:]]
            reason = f"{len(unrun)} groups were not run"
            outcome.rows.append(Row("all", "ran to its end", "exact", "", met="error", reason=reason))
            break
    return {
        "rows": [row.document() for row in outcome.rows],
        "samples": outcome.groups,
        "cut": outcome.cut,
        "not_run": dict(Counter(unrun)),
    }


def compile_part(part: tuple[int, int]) -> None:
    """Run every nth case once, which leaves its kernels in the caches on disk."""
    index, parts = part
    place = Place("cuda", small=())
    place.find_backends()
    for number, family in enumerate(gpu_cases.suite(place).families):
        if number % parts == index and family.name != "peers":
            try:
                group = family.make()
                for contender in group.contenders:
                    contender.before()
                    contender.runs[0]()
                torch.cuda.synchronize()
            except Exception as error:  # the run itself will say so with all details
                print(f"{family.title}: {type(error).__name__}: {first_line(error)}", file=sys.stderr)


def compile_all() -> None:
    parts = max(1, min(12, (os.cpu_count() or 1) - 1))
    with multiprocessing.get_context("spawn").Pool(parts) as pool:
        pool.map(compile_part, [(index, parts) for index in range(parts)], chunksize=1)


def show(document: dict[str, Any]) -> None:
    """What came out; of a dry run only whether it ran, for its figures mean nothing."""
    rows = document["rows"]
    if document["dry_run"]:
        measured = sum("median" in row for row in rows)
        reasons = Counter(row.get("reason", "") for row in rows if "median" not in row)
        print(f"{measured} rows were measured; the others were not:")
        for reason, count in reasons.items():
            print(f"  {count:4}  {reason}")
        return
    for line in gpu_report.summary(document):
        print("  ".join(cell for cell in line if cell))
    for row in rows:
        if row.get("met") in ("no", "error"):
            value = gpu_report.number(row, row["median"]) if "median" in row else ""
            words = (
                row["met"].upper(),
                f"{row['group']}:",
                row["bar"],
                row.get("limit", ""),
                value,
                row.get("reason", ""),
            )
            print(" ".join(word for word in words if word))
    if document["cut"]:
        print(f"{len(document['cut'])} groups have fewer than {RULE.least} samples: {'; '.join(document['cut'])}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="tiny tensors, nothing stored: to see that it runs")
    parser.add_argument("--seconds", type=float, default=270, help="for all cases together")
    families = ("tensor", "channel", "backward", "small", "peers", "backends", "exact")
    parser.add_argument("--only", choices=families, help="one family of cases")
    parser.add_argument("--warm", action="store_true", help="leave the L2 cache as the last run left it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to store; default: results/<gpu>.json")
    parser.add_argument("--compile", action="store_true", help="compile the kernels of all cases, and nothing else")
    parser.add_argument("--readme", action="store_true", help="write the stored results into the pages, nothing else")
    options = parser.parse_args(arguments)
    if options.readme:
        print("renewed: " + (", ".join(gpu_report.renew()) or "nothing changed"))
        return 0
    if options.device == "cpu" and not options.dry_run:
        parser.error("--device cpu measures nothing about a GPU: it needs --dry-run")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: torch.cuda.is_available() is False", file=sys.stderr)
        return 2
    if options.compile:
        compile_all()
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the shell told us to ignore it
    place = place_of(options)
    clocks, gpu = clocks_of(place, cold=not options.warm)
    described = environment.describe(PACKAGES) | {"gpu": gpu}
    with torch.no_grad():
        exact = gpu_exact.measure(place) if options.only in (None, "exact") else []
        found = run(gpu_cases.suite(place), clocks, options, exact)
    document = {
        "schema": 1,
        "kind": "gpu",
        "dry_run": options.dry_run,
        "cache": "warm" if options.warm else "cold",
        "environment": described,
        "backends_missing": place.missing,
        "preferences": gpu_cases.preferences(found["rows"]),
        **found,
    }
    show(document)
    if options.dry_run:
        print(f"dry run on {options.device}: no figure above says anything about a GPU; nothing was stored")
    whole = not found["not_run"] and not (options.dry_run or options.only or options.warm)
    path = options.json or (gpu_report.RESULTS / f"{gpu_report.slug(gpu['name'])}.json" if whole else None)
    if path and not options.dry_run:
        gpu_report.write(path, document)
        print(f"wrote {path}; python benchmarks/gpu.py --readme shows it in README.md and docs/gpu.md")
    return int(any(row.get("met") == "error" for row in document["rows"]))


if __name__ == "__main__":
    sys.exit(main())
