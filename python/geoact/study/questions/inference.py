"""Units of cost: activations alone and inside a network, at inference, taking turns on one thread.

In a network that is no longer trained BatchNorm, TAT and GAL fold into their neighbours: what is left of them is a
ReLU or a leaky ReLU, which is what is timed for them.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import geoact
from geoact.study.config import CHOICES
from geoact.study.network import Network
from geoact.study.questions.deep import dtype_of
from geoact.study.questions.specs import Inference

CLASSES = 10


def inference(spec: Inference) -> dict[str, Any]:
    """Return seconds per call, round by round: {"alone": {activation: [...]}, "network": {activation: [...]}}."""
    dtype = dtype_of(spec.dtype)
    draw = np.random.default_rng(0)
    x = draw.standard_normal((spec.rows, spec.width)).astype(dtype)
    widths = (*(spec.width,) * (spec.depth + 1), CLASSES)
    alone: dict[str, Callable[[], object]] = {}
    whole: dict[str, Callable[[], object]] = {}
    for choice in CHOICES:
        if choice.label not in spec.activations:
            continue
        activation: Any = geoact.get(choice.name)
        out = np.empty_like(x)
        alone[choice.label] = lambda f=activation, o=out, k=choice.options: f(x, out=o, **k)  # type: ignore[misc]
        network = Network(choice, widths, 1, dtype).initialise([np.random.default_rng(0)])
        whole[choice.label] = lambda n=network: n.forward(x[None])  # type: ignore[misc]
    return {"alone": _turns(alone, spec), "network": _turns(whole, spec)}


def _turns(ways: dict[str, Callable[[], object]], spec: Inference) -> dict[str, list[float]]:
    """Time every way once per round, in every second round backwards, over as many calls as fill the least time."""
    calls = {}
    for name, call in ways.items():
        call()
        calls[name] = 1
        while _seconds(call, calls[name]) < spec.min_seconds:
            calls[name] *= 2
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(spec.rounds):
        names = list(ways) if turn % 2 == 0 else list(reversed(ways))
        for name in names:
            found[name].append(_seconds(ways[name], calls[name]) / calls[name])
    return found


def _seconds(call: Callable[[], object], times: int) -> float:
    start = perf_counter()
    for _ in range(times):
        call()
    return perf_counter() - start
