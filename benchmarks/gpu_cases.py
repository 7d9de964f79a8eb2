"""The cases of the GPU benchmark: groups of contenders and the bars made of them. What others do is in gpu_peers.py.

Every function here returns a group that is ready to be timed, on any device: on CPU tensors a dry run goes through all
of it except what only CUDA has. Inputs are seeded and normal. A check poisons the output, runs the contender once and
compares values and statistics with float64 references on the buffers that are timed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import cases
import geoact
import gpu_check
import gpu_peers
import torch
from geoact.bench import Bar, Contender, Group, Suite, Unavailable
from geoact.bench.suite import Family
from gpu_place import FLAT, MATRIX, NCHW, Layout, Place, Tensor, data, mebibytes, parameters, size_of, spread, title

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALL_DTYPES = {**DTYPES, "float16": torch.float16}
ROTATING = 16  # buffers of a small case: each is met cold, once per sample
PER_GRAPH = 48

PER_TENSOR = "activation + moments per tensor: share of the best copy's speed"
PER_CHANNEL = "activation + moments per channel: share of the best copy's speed"
BACKWARD = "backward + GradientStats + parameter gradient: share of the best 2-read-1-write kernel's speed"
PLAIN_TORCH = "activation + moments vs torch's plain activation"
MEASURING = "activation with vs without moments"
BACKENDS = "CUDA C++ vs Triton"


# --- contenders ---------------------------------------------------------------------------------------------


def forward(
    place: Place, name: str, row: geoact.Activation, layout: Layout, pairs: list[tuple[Tensor, Tensor]], *,
    measured: bool, backend: str = "auto",
) -> Contender:  # fmt: skip
    """Geoact's forward pass on pairs (x, y), with or without statistics."""
    values = parameters(row, pairs[0][0], layout)
    stats = geoact.GeometryStats(per=layout.per, channel_axis=layout.axis) if measured else None

    def of(x: Tensor, y: Tensor) -> Callable[[], object]:
        return lambda: row(x, *values, out=y, stats=stats)

    runs = [of(x, y) for x, y in pairs]

    def check() -> str:
        for index in sorted({0, len(pairs) - 1}):
            x, y = pairs[index]
            y.fill_(math.nan)
            if stats is not None:
                stats.reset()
            runs[index]()
            place.wait()
            gpu_check.check_values(row, x, y, spread(values, x))
            if stats is not None:
                dims = gpu_check.kept_axes(x, layout.per, layout.axis)
                # The record counts what is subnormal in float32 and bfloat16: float16 has another limit.
                skip = ("subnormal",) if x.dtype == torch.float16 else ()
                gpu_check.check_record(stats, gpu_check.record(row, x, y, spread(values, x), dims), skip=skip)
        return gpu_check.checksum(pairs[-1][1])

    return Contender(name, runs, check, before=lambda: place.select(backend))


def backward(
    place: Place, name: str, row: geoact.Activation, x: Tensor, dy: Tensor, dx: Tensor, layout: Layout
) -> Contender:
    """Geoact's backward pass with GradientStats, and the gradient of the parameter where there is one."""
    values = parameters(row, x, layout)
    stats = geoact.GradientStats(per=layout.per, channel_axis=layout.axis)
    place.select("auto")
    saved = row(x, *values) if row.saves == "y" else x

    def run() -> object:
        return row.backward(dy, *values, **{row.saves: saved}, out=dx, stats=stats)

    def check() -> str:
        dx.fill_(math.nan)
        stats.reset()
        found = run()
        place.wait()
        shaped = spread(values, x)
        gpu_check.check_gradient(row, dy, dx, x, saved, shaped)
        dims = gpu_check.kept_axes(x, layout.per, layout.axis)
        gpu_check.check_record(stats, gpu_check.gradient_record(row, dy, dx, saved, shaped, dims))
        if row.trainable:
            gpu_check.check_parameter_gradients(row, dy, x, shaped, found[1:])
            return gpu_check.checksum(dx, *found[1:])
        return gpu_check.checksum(dx)

    return Contender(name, [run], check, before=lambda: place.select("auto"))


def torch_plain(place: Place, row: geoact.Activation, layout: Layout, xs: list[Tensor]) -> Contender:
    """Torch's own function, which measures nothing."""
    function = gpu_peers.plain(row.name)
    values = parameters(row, xs[0], layout) if row.trainable else ()

    def of(x: Tensor) -> Callable[[], Tensor]:
        return lambda: function(x, *values)

    def check() -> None:
        y = of(xs[0])()
        place.wait()
        some = slice(0, 1 << 16)
        exact = gpu_check.value(row)(xs[0].reshape(-1)[some].double(), *cases.values_of(row)) if not values else None
        if exact is not None:
            unit = 8 * torch.finfo(y.dtype).eps
            torch.testing.assert_close(y.reshape(-1)[some].double(), exact, rtol=unit, atol=unit)

    return Contender("torch", [of(x) for x in xs], check)


def ceilings(place: Place, group: Group, *tensors: Tensor) -> None:
    """Adds the copies, or the kernels that read two streams, of the same bytes; the last tensor is written."""
    *read, written = tensors
    both = len(read) == 2

    def same() -> bool:
        if not both:
            return torch.equal(read[0], written)
        integers = [t.reshape(-1).view(torch.int16) for t in tensors]
        return torch.equal(integers[0] ^ integers[1], integers[2])

    def of(name: str, run: Callable[[], object], right: Callable[[], bool]) -> Contender:
        def check() -> None:
            written.fill_(math.nan)
            run()
            place.wait()
            assert right(), f"{name} gives a wrong result"

        return Contender(name, [run], check)

    def ours(name: str) -> Contender:
        kernels = place.kernels
        if kernels is None:
            raise Unavailable(f"stream.cu: {place.no_kernels}")
        addresses = [t.data_ptr() for t in tensors]
        return of(name, lambda: kernels.move(name, addresses, written.nbytes), same)

    if both:
        added = of("torch add", lambda: torch.add(*read, out=written), lambda: torch.equal(written, torch.add(*read)))
        group.contenders.append(added)
    else:
        group.contenders.append(of("torch copy_", lambda: written.copy_(read[0]), same))
    names = ("merge", "merge_streaming") if both else ("copy", "copy_streaming")
    for name in names:
        group.add(name, lambda name=name: ours(name))  # type: ignore[misc]
    group.ceilings = ("torch add" if both else "torch copy_", *names)
    group.bytes_moved = sum(t.nbytes for t in tensors)


# --- groups -------------------------------------------------------------------------------------------------


def forward_group(place: Place, row: geoact.Activation, dtype: torch.dtype, layout: Layout) -> Group:
    """One activation, 256 MiB in: copies, geoact with and without statistics, torch."""
    x = data(layout.shape(size_of(place, dtype)), dtype, place.device, 1)
    y = torch.empty_like(x)
    where = f"{'x'.join(map(str, x.shape))} ({layout.name}, {mebibytes(x.nbytes)})"
    group = Group(title(row, dtype, where), labels={"activation": row.name, "dtype": str(dtype).removeprefix("torch.")})
    ceilings(place, group, x, y)
    group.contenders.append(forward(place, "geoact + statistics", row, layout, [(x, y)], measured=True))
    share = PER_CHANNEL if layout.per == "channel" else PER_TENSOR
    least = 0.90 if layout.per == "channel" else 0.95
    group.bars.append(Bar(share, "geoact + statistics", group.ceilings, at_least=least, share=True))
    if layout.per == "tensor":
        group.contenders.append(forward(place, "geoact", row, layout, [(x, y)], measured=False))
        group.add("torch", lambda: torch_plain(place, row, layout, [x]))
        group.bars += [
            Bar(PLAIN_TORCH, "geoact + statistics", ("torch",), at_most=1.03),
            Bar(MEASURING, "geoact + statistics", ("geoact",)),
        ]
    return group


def backward_group(place: Place, row: geoact.Activation, dtype: torch.dtype, layout: Layout) -> Group:
    shape = layout.shape(size_of(place, dtype))
    x, dy = (data(shape, dtype, place.device, seed) for seed in (1, 2))
    dx = torch.empty_like(x)
    where = f"{'x'.join(map(str, x.shape))} ({layout.name}, {mebibytes(x.nbytes)})"
    group = Group(title(row, dtype, where), labels={"activation": row.name, "dtype": str(dtype).removeprefix("torch.")})
    ceilings(place, group, x, dy, dx)
    group.contenders.append(backward(place, "geoact backward", row, x, dy, dx, layout))
    group.bars = [Bar(BACKWARD, "geoact backward", group.ceilings, at_least=0.90, share=True)]
    return group


def peer_group(place: Place, row: geoact.Activation, dtype: torch.dtype) -> Group:
    """The same statistics by others."""
    x = data((size_of(place, dtype),), dtype, place.device, 1)
    y = torch.empty_like(x)
    group = Group(
        title(row, dtype, f"{mebibytes(x.nbytes)}, by others"),
        labels={"activation": row.name, "dtype": str(dtype).removeprefix("torch.")},
    )
    group.contenders.append(forward(place, "geoact + statistics", row, FLAT, [(x, y)], measured=True))
    for name, make, least in gpu_peers.measuring(row.name, place.compiler):
        group.add(name, lambda make=make, name=name: make(name, row, x))  # type: ignore[misc]
        group.bars.append(
            Bar(f"{name}: activation + the same statistics, vs geoact", name, ("geoact + statistics",), at_least=least)
        )
    for name, make in gpu_peers.fused(row.name):
        group.add(name, lambda make=make, name=name: make(name, row, x))  # type: ignore[misc]
        group.bars.append(Bar(f"geoact + moments vs {name} without", "geoact + statistics", (name,)))
    return group


def calls_of(place: Place, function: Callable[[Tensor], object], xs: list[Tensor], graph: bool) -> Callable[[], object]:
    """PER_GRAPH calls on rotating buffers: as one replay of a CUDA graph, or one after another on the CPU."""

    def calls() -> None:
        for i in range(PER_GRAPH):
            function(xs[i % len(xs)])

    if not (graph and place.cuda):
        return calls
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            calls()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        calls()
    return captured.replay


def small_group(place: Place, row: geoact.Activation, dtype: torch.dtype, elements: int, graph: bool) -> Group:
    """Small tensors, y allocated by the call as users write it: whole calls, or replays of a graph of them."""
    how = f"replay of a CUDA graph of {PER_GRAPH} calls" if graph else "one call from Python"
    xs = [data((elements,), dtype, place.device, seed) for seed in range(4 if graph else 1)]
    group = Group(
        title(row, dtype, f"{elements} elements, {how}"),
        labels={
            "activation": row.name,
            "dtype": str(dtype).removeprefix("torch."),
            "clock": "warm" if graph else "host",
            "shortest": 1e-4 if graph else 2e-3,
        },
    )
    values = parameters(row, xs[0], FLAT)
    stats = geoact.GeometryStats()

    def ours(name: str, **options: Any) -> Contender:
        def function(x: Tensor) -> Tensor:
            return row(x, *values, **options)

        place.select("auto")
        run = calls_of(place, function, xs, graph) if graph else lambda: function(xs[0])
        calls = PER_GRAPH if graph else 1

        def check() -> None:
            gpu_check.check_values(row, xs[0], function(xs[0]), values)
            stats.reset()
            run()
            place.wait()
            measured = int(stats.cells()["n"].sum()) // elements
            assert measured == (calls if options else 0), f"{measured} of {calls} calls were measured"

        return Contender(name, [run], check, lambda: place.select("auto"), calls)

    def theirs() -> Contender:
        function = gpu_peers.plain(row.name)
        run = calls_of(place, function, xs, graph) if graph else lambda: function(xs[0])
        return Contender("torch", [run], calls=PER_GRAPH if graph else 1)

    group.contenders = [ours("geoact + statistics", stats=stats), ours("geoact")]
    group.add("torch", theirs)
    for name, what in (("geoact", "without"), ("geoact + statistics", "with")):
        group.bars += [
            Bar(f"small tensors, {how}: geoact {what} moments vs torch's plain activation", name, ("torch",), 1.25),
            Bar(f"small tensors, {how}: geoact {what} moments, time", name),
        ]
    return group


def backend_group(place: Place, row: geoact.Activation, dtype: torch.dtype, elements: int) -> Group:
    """Geoact's own backends on the same buffers."""
    count = ROTATING if elements <= 1 << 22 else 1
    pairs = [
        (x, torch.empty_like(x)) for i in range(count) for x in (data((elements,), dtype, place.device, 1).clone(),)
    ] if count > 1 else [(x := data((elements,), dtype, place.device, 1), torch.empty_like(x))]  # fmt: skip
    labels = {"activation": row.name, "dtype": str(dtype).removeprefix("torch."), "elements": elements}
    group = Group(title(row, dtype, f"{elements} elements, backends"), labels=labels, missing=dict(place.missing))
    for backend in place.backends or ("auto",):
        group.contenders.append(forward(place, backend, row, FLAT, pairs, measured=True, backend=backend))
    group.bytes_moved = 2 * pairs[0][0].nbytes
    group.bars = [Bar(BACKENDS, "cuda", ("triton",))]
    return group


# --- the list -----------------------------------------------------------------------------------------------

NAMED = ("relu", "sigmoid", "gelu")  # where every activation would tell nothing more


WEIGHTS = {"peers": 10.0}  # of a family's part in the time; torch.compile takes its time


def suite(place: Place) -> Suite:
    """All groups, the most important first; neighbours share their data."""
    found = Suite("gpu", package="geoact")

    def add(family: str, make: Callable[[], Group]) -> None:
        title = f"{family} {len(found.families)}"
        found.families.append(Family(family, make, WEIGHTS.get(family, 1.0), title))

    rows = list(geoact.activations().values())
    named = [geoact.get(name) for name in NAMED]
    elsewhere = [geoact.get(name) for name in dict.fromkeys((*NAMED, *(name for *_, name in gpu_peers.OTHERS)))]
    for dtype, row in itertools.product(DTYPES.values(), rows):
        add("tensor", lambda r=row, d=dtype: forward_group(place, r, d, FLAT))
    for layout, dtype, row in itertools.product((MATRIX, NCHW), DTYPES.values(), rows):
        add("channel", lambda r=row, d=dtype, at=layout: forward_group(place, r, d, at))
    for dtype, row in itertools.product(DTYPES.values(), rows):
        layout = MATRIX if row.trainable else FLAT
        add("backward", lambda r=row, d=dtype, at=layout: backward_group(place, r, d, at))
    for graph, elements, dtype, row in itertools.product((False, True), place.small, DTYPES.values(), named):
        add("small", lambda r=row, d=dtype, n=elements, g=graph: small_group(place, r, d, n, g))
    for dtype, row in itertools.product(DTYPES.values(), elsewhere):
        add("peers", lambda r=row, d=dtype: peer_group(place, r, d))
    for elements, dtype, row in itertools.product(place.compared, ALL_DTYPES.values(), rows):
        add("backends", lambda r=row, d=dtype, n=elements: backend_group(place, r, d, n))
    return found


def preferences(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """Activation, dtype, elements: the faster backend; "either" where the interval of the ratio contains 1."""
    table: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        if row["bar"] != BACKENDS or "low" not in row:
            continue
        labels = row["labels"]
        choice = "cuda" if row["high"] < 1 else "triton" if row["low"] > 1 else "either"
        table.setdefault(labels["activation"], {}).setdefault(labels["dtype"], {})[str(labels["elements"])] = choice
    return table
