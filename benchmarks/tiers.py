"""What the opt-in tiers cost: each kind of statistics against the moments alone, in one interleaved run.

    python benchmarks/tiers.py [--seconds 0.5] [--json FILE]

One thread, float32, arrays of 256 KiB (they stay in a level 2 cache) and of 32 MiB. All kinds of one activation and
shape take turns, every second round backwards; reported is the median of the ratios within rounds and its quartiles.
The stored file is a table of docs/tiers.md and a figure of the study.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geoact
import numpy as np
from geoact._files import write_atomic
from geoact.bench import environment

KINDS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "counts": {"level": "counts"},
    "moments": {},
    "histogram": {"histogram": True},
    "histogram, all": {"histogram": "all"},
    "pairs": {"pairs": True},
    "sketch 32": {"sketch": 32},
    "sketch 64": {"sketch": 64},
    "sketch 128": {"sketch": 128},
    "reservoir 64": {"reservoir": 64},
}
SHAPES = ((64, 1024), (256, 256), (16, 4096), (8192, 1024))
ACTIVATIONS = ("relu", "sigmoid", "gelu")
LEAST_ROUNDS, CALL_SECONDS = 31, 0.001


def timed(call: Callable[[], object], repeat: int) -> float:
    """Seconds of one call, of ``repeat`` in a row."""
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def calls_of(name: str, shape: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """One call per kind, on arrays of its own values but the same ones for all."""
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    y, row = np.empty_like(x), geoact.get(name)
    stats = {kind: None if asked is None else geoact.GeometryStats(**asked) for kind, asked in KINDS.items()}
    expected = row(x)

    def of(kind: str) -> Callable[[], object]:
        return lambda: row(x, out=y, stats=stats[kind])

    calls = {kind: of(kind) for kind in KINDS}
    for kind, call in calls.items():
        call()
        if not np.array_equal(y, expected):
            raise RuntimeError(f"{name} with {kind} is not {name}")
    return calls


def measure(name: str, shape: tuple[int, int], seconds: float) -> list[dict[str, Any]]:
    """Of every kind the ratio to no statistics, and to the moments."""
    calls = calls_of(name, shape)
    repeat = {kind: max(1, int(CALL_SECONDS / timed(call, 3))) for kind, call in calls.items()}
    rounds: list[dict[str, float]] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(rounds) < LEAST_ROUNDS:
        order = list(calls) if len(rounds) % 2 else list(calls)[::-1]
        rounds.append({kind: timed(calls[kind], repeat[kind]) for kind in order})
    found = []
    for kind in calls:
        low, middle, high = np.quantile([r[kind] / r["none"] for r in rounds], [0.25, 0.5, 0.75]).round(4)
        over_moments = np.quantile([r[kind] / r["moments"] for r in rounds], [0.25, 0.5, 0.75]).round(4)
        row = {"activation": name, "shape": list(shape), "dtype": "float32", "tier": kind, "rounds": len(rounds)}
        row |= {"q1": low, "median": middle, "q3": high, "over_moments": over_moments.tolist()}
        found.append({**row, "main": shape == SHAPES[0]})
    return found


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each activation and shape, at least")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    geoact.set_num_threads(1)
    found = environment.describe()
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        for name in ACTIVATIONS:
            found_now = measure(name, shape, arguments.seconds)
            rows += found_now
            print(name, shape, ", ".join(f"{r['tier']} {r['over_moments'][1]:.2f}" for r in found_now), flush=True)
    if arguments.json:
        write_atomic(
            arguments.json, json.dumps({"kind": "geoact-tiers", "environment": found, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
