"""geoact's own suite: every activation against the copy of its bytes, and the bars that the design sets on a CPU.

    geoact bench run benchmarks/suite.py [--no-cases] [--no-bars] [--only memory] [--set activation=relu]

Declared once, for `make bench`, the tables of the documentation, the gate, and `pytest benchmarks`. A new row of the
registry is measured without a line here. One thread, except in the bar about two. Inputs are seeded and normal; every
output and every record of a peer is checked before and after it is timed. "The best copy" is the fastest of NumPy's,
torch's, C's memcpy and the loops of csrc/stream over the same bytes; a pass that beats it is an error of measurement.
"""

from __future__ import annotations

import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from math import prod

import cases
import geoact
import numpy as np
import peers
from cases import IN_L2, MIB, OUT_OF_CACHE, Pass
from geoact.bench import Bar, Call, Contender, Group, Suite, Traffic, Unavailable
from geoact.bench import ceilings as copies


def one_thread() -> None:
    """Every case measures one thread; torch is told as well where somebody has loaded it."""
    geoact.set_num_threads(1)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


suite = Suite("geoact", package="geoact", ignore=("bench/*", "study/*", "torch/*", "cli.py"), setup=one_thread)

# --- cases --------------------------------------------------------------------------------------------------

SIZES = {
    "64": (64,),
    "64Ki": IN_L2,
    "1Mi": (MIB,),
    "2Mi": (2 * MIB,),
    "8Mi": (8 * MIB,),
    "32Mi": OUT_OF_CACHE,
    "1024x1024": (1024, 1024),
    "4096x4096": (4096, 4096),
}
ROWS = list(geoact.activations())
LARGE = ("relu", "sigmoid", "gelu")  # one that compares, one with an exponential, one with more arithmetic
WITH_AND_WITHOUT = ("none", "tensor")
NARROW_AND_WIDE = [dtype for dtype in cases.DTYPES if dtype != "float32"]


@suite.case(activation=LARGE, dtype=["float32"], size=["1024x1024"], statistics=["tensor", "channel", "row"])
@suite.case(activation=LARGE, dtype=["float32"], size=["2Mi"], statistics=WITH_AND_WITHOUT)
@suite.case(activation=ROWS, dtype=NARROW_AND_WIDE, size=["64Ki"], statistics=["tensor"])
@suite.case(activation=ROWS, dtype=["float32"], size=["64Ki"], statistics=WITH_AND_WITHOUT)
def forward(activation: str, dtype: str, size: str, statistics: str) -> Call:
    """y of x; ``statistics`` is what one record is of."""
    return Pass(activation, SIZES[size], dtype, "forward", None if statistics == "none" else statistics).call()


@suite.case(activation=LARGE, dtype=["float32"], size=["2Mi"], statistics=WITH_AND_WITHOUT)
@suite.case(activation=ROWS, dtype=["float32"], size=["64Ki"], statistics=WITH_AND_WITHOUT)
def backward(activation: str, dtype: str, size: str, statistics: str) -> Call:
    """dx of dy and what was saved."""
    return Pass(activation, SIZES[size], dtype, "backward", None if statistics == "none" else statistics).call()


# --- contenders ---------------------------------------------------------------------------------------------


def ours(name: str, work: Pass) -> Contender:
    return work.call().contender(name)


def kernel(name: str, run: Callable[[], object], out: np.ndarray, expected: Callable[[], bool]) -> Contender:
    """Something that writes ``out``; its check clears that first."""

    def check() -> None:
        out.fill(0)
        run()
        assert expected(), f"{name} gives a wrong result"

    return Contender(name, [run], check)


def of_torch(kind: str, shape: tuple[int, ...]) -> Contender:
    """torch's own way to move the bytes of a copy, or of a merge: two arrays read, one written."""
    torch = peers.torch_module()
    a, out = cases.array(shape, "float32"), cases.empty(shape, "float32")
    ta, to = peers.tensors(torch, a, out)
    if kind == "copy":
        return kernel("torch copy_", lambda: to.copy_(ta), out, lambda: np.array_equal(a, out))
    b = cases.array(shape, "float32", seed=2)
    (tb,) = peers.tensors(torch, b)
    return kernel("torch add(out=)", lambda: torch.add(ta, tb, out=to), out, lambda: np.array_equal(a + b, out))


def add_ceilings(group: Group, kind: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Add everything that only moves the same bytes, all of them ceilings; returns their names."""
    size = 4 * prod(shape)
    traffic = Traffic(size if kind == "copy" else 2 * size, size)
    group.contenders += copies.contestants(traffic)
    try:
        copies.streams()
    except Unavailable as error:  # the others race without it, but a reader is told
        group.missing[f"stream {kind}_nt"] = str(error)
    group.add({"copy": "torch copy_", "merge": "torch add(out=)"}[kind], lambda: of_torch(kind, shape))
    group.ceilings = tuple(contender.name for contender in group.contenders)
    group.bytes_moved = traffic.total
    return group.ceilings


def plain_peer(kind: str, function: str, shape: tuple[int, ...]) -> Contender:
    """The activation alone, by other software."""
    x, y = cases.array(shape, "float32"), cases.empty(shape, "float32")
    run = peers.PLAIN[kind](function, x, y)

    def check() -> None:
        y.fill(-1)
        run()
        peers.same_values(y, geoact.get(function)(x), f"{kind} {function}")

    return Contender(f"{kind} {function}", [run], check)


def peer(kind: str, function: str, shape: tuple[int, ...]) -> Contender:
    """The activation and the record, by other software."""
    x, y = cases.array(shape, "float32"), cases.empty(shape, "float32")
    run = peers.PEERS[kind](function, x, y)

    def check() -> None:
        y.fill(-1)
        stats = geoact.GeometryStats()
        expected = geoact.get(function)(x, stats=stats)
        peers.compare(run(), stats.cells(), f"{kind} {function}")
        peers.same_values(y, expected, f"{kind} {function}")

    return Contender(kind, [run], check)


def of(size: str, dtype: str = "float32") -> dict[str, str]:
    """Labels of the rows of a group."""
    return {"dtype": dtype, "size": size}


# --- bars: one array after the other ------------------------------------------------------------------------


def versus_copy_and_others(group: Group, limits: dict[str, float]) -> Group:
    """ReLU and sigmoid, with and without statistics, against the copy and against the activation alone by others.

    ``limits`` belong to the bars of that title.
    """
    shape = SIZES[group.labels["size"]]
    best = add_ceilings(group, "copy", shape)
    for function, shown in (("relu", "ReLU"), ("sigmoid", "sigmoid")):
        group.contenders += [
            ours(f"{function} + statistics", Pass(function, shape, per="tensor")),
            ours(f"{function} plain", Pass(function, shape)),
        ]
        for kind in peers.PLAIN:
            group.add(f"{kind} {function}", partial(plain_peer, kind, function, shape))
        measuring, plain, by = f"{function} + statistics", f"{function} plain", f"torch {function}"
        for title, timed, against in (
            (f"{shown} + statistics vs the best copy", measuring, best),
            (f"{shown} without statistics vs the best copy", plain, best),
            (f"{shown} with vs without statistics", measuring, (plain,)),
            (f"{shown} + statistics vs torch without", measuring, (by,)),
            (f"{shown} without statistics vs torch", plain, (by,)),
            (f"{shown} + statistics vs onnxruntime without", measuring, (f"onnxruntime {function}",)),
        ):
            group.bars.append(Bar(title, timed, against, at_most=limits.get(title)))
    return group


@suite.group(weight=2)
def memory() -> Group:
    """128 MiB in, 128 MiB out."""
    group = Group("float32, 128 MiB, out of cache", labels=of("32Mi"))
    limits = {"ReLU + statistics vs the best copy": 1.10, "sigmoid + statistics vs the best copy": 1.8}
    return versus_copy_and_others(group, limits)


@suite.group()
def cache() -> Group:
    """256 KiB in, 256 KiB out."""
    group = Group("float32, 256 KiB, L2-resident", labels=of("64Ki"))
    limits = {"sigmoid + statistics vs torch without": 1.0, "sigmoid without statistics vs torch": 0.6}
    return versus_copy_and_others(group, limits)


@suite.group()
def alignment() -> Group:
    group = Group("alignment, float32, 128 MiB", labels=of("32Mi"))
    for offset in (0, 4, 16):
        group.contenders.append(ours(f"offset {offset}", Pass("relu", SIZES["32Mi"], per="tensor", offset=offset)))
    for offset in (4, 16):
        title = f"ReLU + statistics, x and y misaligned by {offset} bytes vs aligned"
        group.bars.append(Bar(title, f"offset {offset}", ("offset 0",), at_most=1.10))
    return group


@suite.group()
def channel() -> Group:
    group, shape = Group("per channel, float32, 4096 x 4096", labels=of("4096x4096")), SIZES["4096x4096"]
    for function in ("relu", "sigmoid"):
        for per in ("tensor", "channel", "row"):
            group.contenders.append(ours(f"{function} {per}", Pass(function, shape, per=per)))
        tensor = (f"{function} tensor",)
        group.bars += [
            Bar(f"{function} per channel vs per tensor", f"{function} channel", tensor, at_most=1.5),
            Bar(f"{function} per row vs per tensor", f"{function} row", tensor),
        ]
    return group


@suite.group("backward")
def backward_group() -> Group:
    group, shape = Group("backward, float32, 128 MiB, out of cache", labels=of("32Mi")), SIZES["32Mi"]
    best = add_ceilings(group, "merge", shape)
    for function in ("relu", "sigmoid", "silu"):
        timed = f"{function} backward"
        group.contenders.append(ours(timed, Pass(function, shape, direction="backward", per="tensor")))
        title = f"{function} backward + GradientStats vs the best 2-read-1-write kernel"
        group.bars.append(Bar(title, timed, best, at_most=1.2))
    return group


def narrow(where: str, size: str) -> Group:
    """bfloat16 against float32."""
    group = Group(f"bfloat16 vs float32, same element count, {where}", labels=of(size, "bfloat16"))
    for function in ("relu", "sigmoid"):
        for dtype in ("float32", "bfloat16"):
            group.contenders.append(ours(f"{function} {dtype}", Pass(function, SIZES[size], dtype, per="tensor")))
        title = f"{function} + statistics, bfloat16 vs float32, {where}"
        group.bars.append(Bar(title, f"{function} bfloat16", (f"{function} float32",), at_most=1.0))
    return group


for _where, _size in (("L2", "64Ki"), ("32 Mi elements", "32Mi")):
    suite.group("narrow")(partial(narrow, _where, _size))

# --- bars: other software, calls, threads -------------------------------------------------------------------

LEAST = {"torch eager": 30, "torch.compile": 8}


def same_record(function: str, size: str, where: str, kinds: tuple[str, ...]) -> Group:
    """The activation and the same statistics by others: what users of that software would write."""
    title = f"{function} + the same statistics by {kinds[0] if len(kinds) == 1 else 'others'}, {where}"
    shape = SIZES[size]
    group = Group(title, [ours("geoact", Pass(function, shape, per="tensor"))], labels=of(size))
    for kind in kinds:
        group.add(kind, partial(peer, kind, function, shape))
        bar = f"{kind}, {function} + statistics vs geoact"
        group.bars.append(Bar(bar, kind, ("geoact",), at_least=LEAST.get(kind)))
    return group


for _function in ("sigmoid", "relu"):
    suite.group("peers")(partial(same_record, _function, "64Ki", "L2-resident", tuple(peers.PEERS)))
for _kind in peers.PEERS:  # seconds a call: a group of its own for each, or there would be too few rounds
    suite.group("peers")(partial(same_record, "sigmoid", "8Mi", "32 MiB", (_kind,)))


@suite.group()
def call() -> Group:
    """64 elements, an output allocated by the call, as users write it."""
    group = Group("call overhead, 64 float32 elements", labels=of("64"))
    x, stats = cases.array(SIZES["64"], "float32"), geoact.GeometryStats()
    expected = np.maximum(x, 0)

    def writes(name: str, run: Callable[[], np.ndarray]) -> Contender:
        return Contender(name, [run], lambda: np.testing.assert_array_equal(np.asarray(run()), expected))

    def from_torch() -> Contender:
        torch = peers.torch_module()
        (tx,) = peers.tensors(torch, x)
        return writes("torch.relu", lambda: torch.relu(tx))

    group.contenders = [
        writes("plain", lambda: geoact.relu(x)),
        writes("with statistics", lambda: geoact.relu(x, stats=stats)),
        writes("np.maximum", lambda: np.maximum(x, 0)),
    ]
    group.add("torch.relu", from_torch)
    group.bars = [
        Bar("one call without statistics", "plain", at_most=1.5),
        Bar("one call with statistics", "with statistics", at_most=3.0),
        Bar("the same call of torch", "torch.relu"),
        Bar("the same call of NumPy", "np.maximum"),
        Bar("geoact without statistics vs torch", "plain", ("torch.relu",)),
        Bar("geoact with statistics vs torch", "with statistics", ("torch.relu",)),
    ]
    return group


def processors_to_be_had() -> float:
    """Processor time over wall time of two threads that do nothing but compute: the most that two threads can gain."""
    data = bytes(1 << 26)

    def compute() -> None:
        for _ in range(8):
            zlib.crc32(data)

    busy, wall = time.process_time(), time.perf_counter()
    workers = [threading.Thread(target=compute) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.process_time() - busy) / (time.perf_counter() - wall)


@suite.group()
def threads() -> Group:
    """4 MiB in, 4 MiB out: sixteen chunks of 64 Ki elements, each of which fits the L2 of its core."""
    share = processors_to_be_had()
    group = Group("two threads, float32, chunks of 256 KiB", labels=of("1Mi"), after=one_thread)
    for function in ("sigmoid", "gelu"):
        contender = ours("", Pass(function, SIZES["1Mi"], per="tensor"))
        for count in (1, 2):
            name, before = f"{function}, {count}", partial(geoact.set_num_threads, count)
            if share < 1.8:
                reason = f"two busy threads got {share:.2f} processors: too few, or other work has them"
                group.missing[name] = reason
            else:
                group.contenders.append(Contender(name, contender.runs, contender.check, before))
        title = f"{function} + statistics: speed of 2 threads vs 1"
        group.bars.append(Bar(title, f"{function}, 1", (f"{function}, 2",), at_least=1.7))
    return group
