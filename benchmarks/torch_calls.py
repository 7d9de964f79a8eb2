"""What one call on a small torch tensor costs: geoact against torch's own function, in interleaved rounds.

    python benchmarks/torch_calls.py [--json FILE] [--quick] [--size N]

Three contenders take turns within every round: torch.nn.functional, geoact, and geoact as it is without its compiled
fast path. A ratio is that of one round, so that whatever slows the machine slows both sides; the table shows the median
over rounds and its quartiles. One thread, float32. "statistics" has GeometryStats in the forward pass (and
GradientStats where backward runs) and is set against the same torch call, which measures nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import geoact
import torch
import torch.nn.functional as F
from cases import RESULTS, ROOT
from geoact import frontends
from geoact.bench import environment, results
from geoact.frontends import torch as by_python
from geoact.torch import fast

PEERS = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "elu": F.elu,
    "softplus": F.softplus,
}
LIMIT = 1.25
PATHS = ("torch", "geoact", "without fast path")


def choose(path: str) -> None:
    """Let the rows use the compiled fast path, or not."""
    chosen = by_python if path == "without fast path" else fast
    frontends.BY_TYPE[torch.Tensor] = frontends.BY_TYPE[torch.nn.Parameter] = chosen


def calls(name: str, kind: str, size: int) -> dict[str, Callable[[int], float]]:
    """Kind of call, timed n times in a row: path to seconds."""
    torch.manual_seed(0)
    follow = kind != "no grad"
    gradient = torch.randn(size)
    options = {}
    if kind.startswith("statistics"):
        follow = kind.endswith("backward")
        options = {"stats": geoact.GeometryStats()}
        if follow:
            options["gradient_stats"] = geoact.GradientStats()

    def timed(f: Callable[..., torch.Tensor], options: dict[str, object]) -> Callable[[int], float]:
        x = torch.randn(size, requires_grad=follow)
        clock = time.perf_counter

        def forward(n: int) -> float:
            begin = clock()
            for _ in range(n):
                f(x)
            return clock() - begin

        def measured(n: int) -> float:
            begin = clock()
            for _ in range(n):
                f(x, **options)
            return clock() - begin

        def both(n: int) -> float:
            begin = clock()
            for _ in range(n):
                f(x, **options).backward(gradient)
            return clock() - begin

        return both if kind.endswith("backward") else measured if options else forward

    return {
        path: timed(PEERS[name] if path == "torch" else geoact.get(name), {} if path == "torch" else options)
        for path in PATHS
    }


def measure(name: str, kind: str, size: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds per call, one for each round, by path."""
    contenders = calls(name, kind, size)
    n = 100 if kind.endswith("backward") else 1000
    samples: dict[str, list[float]] = {path: [] for path in PATHS}
    for number in range(-3, rounds):
        for path in PATHS if number % 2 else PATHS[::-1]:
            choose(path)
            taken = contenders[path](n) / n * 1e6
            if number >= 0:
                samples[path].append(taken)
    return samples


def summary(samples: dict[str, list[float]]) -> dict[str, object]:
    result: dict[str, object] = {path: round(statistics.median(samples[path]), 3) for path in PATHS}
    for path in PATHS[1:]:
        ratios = [ours / theirs for ours, theirs in zip(samples[path], samples["torch"], strict=True)]
        result[f"{path} / torch"] = [round(q, 3) for q in statistics.quantiles(ratios, n=4)]
    return result


def show(kind: str, timed: dict[str, dict[str, object]]) -> None:
    print(f"\n### {kind}\n")
    print("| activation | torch, us | geoact, us | geoact / torch (quartiles) | without fast path / torch |")
    print("|---|---|---|---|---|")
    for name, found in timed.items():
        low, median, high = found["geoact / torch"]
        before = found["without fast path / torch"][1]
        print(
            f"| {name} | {found['torch']:.2f} | {found['geoact']:.2f} | {median:.2f} ({low:.2f} to {high:.2f}) "
            f"| {before:.2f} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to store; default: results/torch_calls.json")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to quote")
    parser.add_argument("--size", type=int, default=64, help="elements")
    options = parser.parse_args()
    torch.set_num_threads(1)
    geoact.set_num_threads(1)
    described = environment.describe(["torch"], root=ROOT)
    geoact.relu(torch.zeros(1))
    print(f"torch {torch.__version__}; fast path: {fast.state}; {options.size} float32 elements, one thread")
    kinds = ("no grad", "forward with grad", "forward and backward", "statistics", "statistics, forward and backward")
    timed = {}
    for kind in kinds:
        timed[kind] = {name: summary(measure(name, kind, options.size, 11 if options.quick else 401)) for name in PEERS}
        show(kind, timed[kind])
    path = options.json or (None if options.quick or options.size != 64 else RESULTS / "torch_calls.json")
    if path:
        document = {"schema": 1, "environment": described, "fast_path": fast.state, "elements": options.size}
        document |= {"limit": LIMIT, "calls": timed}
        results.save(path, document)
        print(f"\nwrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
