"""The cost of watching: one training step of a real model, unwatched, watched by geoact, and watched by hooks.

    python benchmarks/watching.py [--quick] [--json FILE]

The hooks compute the same record, field by field, as a user of torch would write it: a forward hook and a full backward
hook on every activation module, all values left in tensors. All ways take one step each per round, in an order that
changes from round to round; a cost is the ratio to the unwatched step of the same round. Before timing, the hooks'
record is compared with the monitor's.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geoact
import geoact.torch
import peers
import torch
from cases import RESULTS, ROOT
from geoact.bench import environment, results
from geoact.torch import known, slopes
from geoact.torch.probe import channel_axis
from torch import Tensor, nn

SATURATION = 0.05
Step = Callable[[], None]


# --- the models: random weights, no download ------------------------------------------------------------------


def perceptron() -> tuple[nn.Module, Tensor]:
    """Four layers of 1024 units: little work per activation, so the dearest case."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(1024, 1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, 10)), torch.randn(256, 1024)


def bert() -> tuple[nn.Module, Tensor]:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4
    )
    return BertModel(config, add_pooling_layer=False), torch.randint(0, 1000, (8, 128))


def resnet() -> tuple[nn.Module, Tensor]:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[2, 2, 2, 2], layer_type="basic")
    return ResNetModel(config), torch.randn(16, 3, 64, 64)


MODELS = {
    "MLP, 4 x 1024, batch 256, ReLU": perceptron,
    "BERT, 4 x 256, batch 8 x 128, GELU": bert,
    "ResNet-18 of 1/2 width, batch 16 x 64 x 64, ReLU": resnet,
}


# --- the peer: hooks that compute the same --------------------------------------------------------------------


@dataclass
class Hooks:
    """The record of every activation module, by hooks."""

    per: str
    forward: dict[str, tuple[Tensor, ...]]
    backward: dict[str, tuple[Tensor, ...]]

    def _dims(self, x: Tensor) -> tuple[int, ...]:
        if self.per == "tensor":
            return tuple(range(x.dim()))
        kept = channel_axis(x.dim()) % x.dim()
        return tuple(d for d in range(x.dim()) if d != kept)

    def record(self, x: Tensor, y: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
        return peers.torch_record(torch, x, y, slope, self._dims(x))[1:]  # all but n

    def gradient(self, dy: Tensor, dx: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
        return peers.torch_gradient_record(torch, dy, dx, slope, self._dims(dx))

    def install(self, model: nn.Module) -> list[Any]:
        handles = []
        for name, module in model.named_modules():
            twin = known.twin_of(module)
            if twin is None:
                continue
            row = geoact.get(twin.module._row)

            def after(_: nn.Module, inputs: Any, y: Tensor, name: str = name, row: Any = row) -> None:
                with torch.no_grad():
                    x = inputs[0]
                    slope = slopes.SLOPES[row.name](y if row.saves == "y" else x)
                    self.forward[name] = self.record(x, y, slope)
                    self.slope[name] = slope

            def back(_: nn.Module, dx: Any, dy: Any, name: str = name) -> None:
                self.backward[name] = self.gradient(dy[0], dx[0], self.slope.pop(name))

            handles += [module.register_forward_hook(after), module.register_full_backward_hook(back)]
        return handles

    def __post_init__(self) -> None:
        self.slope: dict[str, Tensor] = {}


def check(model: nn.Module, step: Step, per: str) -> None:
    """The hooks measure what the monitor measures, or nothing is timed."""
    hooks = Hooks(per, {}, {})
    handles = hooks.install(model)
    step()
    for handle in handles:
        handle.remove()
    with geoact.torch.instrument(model, per=per, saturation=SATURATION) as monitor:
        step()
    assert monitor.last is not None
    assert {layer.name for layer in monitor.last} == set(hooks.forward) == set(hooks.backward)
    for layer in monitor.last:
        for names, stats, theirs in (
            (peers.FIELDS[1:], layer.forward, hooks.forward[layer.name]),
            (peers.GRADIENT_FIELDS, layer.backward, hooks.backward[layer.name]),
        ):
            cells = stats.cells()
            scale = cells["n"]
            for field, value in zip(names, theirs, strict=True):
                ours, other = torch.from_numpy(cells[field]), value.double().reshape(-1)
                loose = torch.from_numpy(1e-6 * scale * (1 + abs(cells[field]).max()))
                assert torch.all((ours - other).abs() <= 2e-3 * ours.abs() + loose), f"{layer.name}: {field}"


# --- the ways -------------------------------------------------------------------------------------------------


@contextmanager
def unwatched(model: nn.Module) -> Iterator[None]:
    yield None


@contextmanager
def converted(model: nn.Module) -> Iterator[None]:
    geoact.torch.convert(model)
    yield None
    geoact.torch.revert(model)


def watched(per: str, **options: Any) -> Callable[[nn.Module], Any]:
    return lambda model: geoact.torch.instrument(model, per=per, **options)


def hooked(per: str) -> Callable[[nn.Module], Any]:
    @contextmanager
    def way(model: nn.Module) -> Iterator[None]:
        handles = Hooks(per, {}, {}).install(model)
        yield None
        for handle in handles:
            handle.remove()

    return way


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "torch, unwatched": unwatched,
    "geoact's activations, unwatched": converted,
    "geoact monitor, between two measured steps": watched("channel", warmup=10**9),
    "geoact monitor, per tensor": watched("tensor"),
    "geoact monitor, per channel": watched("channel"),
    "hooks, per tensor": hooked("tensor"),
    "hooks, per channel": hooked("channel"),
}


def measure(make: Callable[[], tuple[nn.Module, Tensor]], rounds: int) -> dict[str, list[float]]:
    torch.manual_seed(0)
    model, data = make()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step() -> None:
        output = model(data)
        output = output if isinstance(output, Tensor) else output[0]
        output.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the same numbers at every step
    for per in ("tensor", "channel"):
        check(model, step, per)
    order, samples = list(WAYS), {name: [] for name in WAYS}
    shuffle = random.Random(1)
    for turn in range(rounds + 1):
        shuffle.shuffle(order)
        for name in order:
            with WAYS[name](model) as monitor:
                start = time.perf_counter_ns()
                step()
                if monitor is not None:
                    monitor.step()  # the reading, its scalars and alerts are part of the price
                elapsed = time.perf_counter_ns() - start
            if turn:  # the first round warms up
                samples[name].append(elapsed / 1e6)
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: results/watching-<this machine>.json")
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing stored: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    geoact.set_num_threads(1)
    described = environment.describe(["torch", "transformers"], root=ROOT)
    rows, raw = [], {}
    for title, make in MODELS.items():
        samples = measure(make, 3 if options.quick else 25)
        raw[title] = samples
        base = samples["torch, unwatched"]
        for name, values in samples.items():
            ratios = sorted(a / b for a, b in zip(values, base, strict=True))
            q1, median, q3 = statistics.quantiles(ratios, n=4)
            rows.append({"model": title, "way": name, "median": median, "q1": q1, "q3": q3, "rounds": len(ratios)})
            print(f"{title:50} {name:45} {median:.3f} ({q1:.3f} .. {q3:.3f})", flush=True)
    if not options.quick:
        path = options.json or RESULTS / f"watching-{environment.slug(described)}.json"
        results.save(path, {"schema": 1, "environment": described, "watching": rows, "milliseconds": raw})
        print(f"wrote {path}; python docs/generate.py shows it in README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
