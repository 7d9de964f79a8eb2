"""What a call on a GPU does once or not at all: launches, waits, allocations. Exact, so nothing is timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import counting
import geoact
import torch
from geoact.bench.bars import Row
from gpu_place import MATRIX, Place, data, parameters

LAUNCHES = "launches of one call"
WAITS = "times one call waits for the device"
BLOCKS = "blocks of memory one call takes beyond what it returns"
BYTES = "bytes one call takes beyond what it returns"
NAMES, SIZES = ("relu", "sigmoid", "prelu"), (1 << 16, 1 << 24)


def calls(place: Place, backend: str, name: str, elements: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """Kind of call: (the call, how many tensors it returns)."""
    row = geoact.get(name)
    x, dy = (data(MATRIX.shape(elements), torch.float32, place.device, seed) for seed in (1, 2))
    values, out = parameters(row, x, MATRIX), torch.empty_like(x)
    per_tensor, per_channel = geoact.GeometryStats(), geoact.GeometryStats(per="channel", channel_axis=1)
    gradient = geoact.GradientStats()
    place.select(backend)
    saved = {row.saves: row(x, *values) if row.saves == "y" else x}
    result = 2 if row.trainable else 1
    return {
        "plain": (lambda: row(x, *values), 1),
        "moments per tensor": (lambda: row(x, *values, stats=per_tensor), 1),
        "moments per channel": (lambda: row(x, *values, stats=per_channel), 1),
        "moments per tensor, out=": (lambda: row(x, *values, out=out, stats=per_tensor), 0),
        "backward + GradientStats": (lambda: row.backward(dy, *values, **saved, stats=gradient), result),
    }


def measure(place: Place) -> list[Row]:
    """One row per call and quantity; none without a CUDA device."""
    if not place.cuda:
        return [Row("exact", what, "exact", "", reason="no CUDA device") for what in (LAUNCHES, WAITS, BLOCKS, BYTES)]
    rows = []
    for backend, name, elements in itertools.product(place.backends, NAMES, SIZES):
        for kind, (run, returned) in calls(place, backend, name, elements).items():
            group = f"{name}, float32, {elements} elements, {kind}, {backend}"
            try:
                counts, taken = counting.count(run), counting.allocated(run)
            except RuntimeError as error:
                rows.append(Row(group, LAUNCHES, "exact", "", met="error", reason=str(error)))
                continue
            size = counting.rounded(elements * 4) if returned else 0
            small = counting.rounded(MATRIX.shape(elements)[1] * 4) if returned == 2 else 0
            rows += [
                exact(group, LAUNCHES, counts.launches_per_call, 1, ", ".join(sorted(set(counts.launched)))),
                exact(group, WAITS, len(counts.waits) / counts.calls, 0, ", ".join(sorted(set(counts.waits)))),
                exact(group, BLOCKS, taken.blocks - returned, 0, ""),
                exact(group, BYTES, taken.size - size - small + max(0, taken.from_device), 0, ""),
            ]
    place.select("auto")
    return rows


def exact(group: str, bar: str, found: float, wanted: float, reason: str) -> Row:
    met = found == wanted
    row = Row(group, bar, f"= {wanted:g}", "", rounds=1, met="yes" if met else "no", reason="" if met else reason)
    row.median = row.q1 = row.q3 = row.low = row.high = float(found)
    return row
