"""Every CPU bar as a ratio measured in interleaved rounds, on this machine, now.

    python benchmarks/bars.py [--json FILE] [--quick] [--only WORD]

The contenders of a bar take turns: rounds A B C ..., then C B A, and so on. A bar is the median over rounds of
the ratio within a round, with quartiles and the 95 % order-statistic interval of the median, so that whatever
slows the machine slows both sides. "The best copy" is the one of np.copyto, torch's copy_ and C memcpy with the
lowest median, over the same bytes. One thread, except in the bar about two. Inputs are seeded and normal; every
output and every peer's record is checked before and after it is timed. A contender that cannot run here leaves its
bar "not measured", with the reason. A complete run is stored in benchmarks/results/, with all samples; a quick or
partial one only where --json says so.

met? is "yes" or "no" where the interval lies on one side of the limit and "open" where it contains the limit. The
exit status is 0 whatever the bars say, for this reports and does not gate; it is 1 if a result was wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cases
import environment
import geoact
import numpy as np
import peers
from cases import IN_L2, MIB, OUT_OF_CACHE, Case
from engine import first_line, interval, verdict
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


# --- what takes part ----------------------------------------------------------------------------------------


@dataclass
class Contender:
    """Something that is timed: one call, its check, and how many calls and batches make one sample."""

    name: str
    run: Callable[[], object]
    check: Callable[[], object] = lambda: None
    inner: int = 1
    batches: int = 1


@dataclass
class Bar:
    """The ratio of two contenders; ``against`` may name several, of which the fastest counts."""

    label: str
    timed: str
    against: tuple[str, ...] = ()  # empty: the time itself, in microseconds
    at_most: float | None = None
    at_least: float | None = None

    @property
    def limit(self) -> str:
        unit = " us" if not self.against else ""
        if self.at_most is not None:
            return f"<= {self.at_most:g}{unit}"
        return f">= {self.at_least:g}" if self.at_least is not None else ""


@dataclass
class Group:
    """Contenders that take turns, and the bars made of them."""

    name: str
    contenders: list[Contender]
    bars: list[Bar]
    rounds: int = 41
    seconds: float = 30  # no new round after that, once there are nine
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Contender]) -> None:
        try:
            self.contenders.append(make())
        except peers.Unavailable as error:
            self.missing[name] = str(error)


def of_case(case: Case, name: str | None = None) -> Contender:
    prepared = case.prepare()
    return Contender(name or case.name, prepared.run, prepared.check)


def of_kernel(name: str, run: Callable[[], object], out: np.ndarray, expected: Callable[[], bool]) -> Contender:
    """A kernel that writes ``out``; its check clears that first."""

    def check() -> None:
        out.fill(0)
        run()
        assert expected(), f"{name} gives a wrong result"

    return Contender(name, run, check)


def copies(group: Group, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Adds the copy kernels; returns their names."""
    x, y = cases.array(shape, "float32"), cases.empty(shape, "float32")
    memcpy = ctypes.CDLL(None).memcpy
    memcpy.argtypes, memcpy.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t], ctypes.c_void_p
    to, source, size = y.ctypes.data, x.ctypes.data, x.nbytes

    def same() -> bool:
        return np.array_equal(x, y)

    def from_torch() -> Contender:
        torch = peers.torch_module()
        tx, ty = peers.tensors(torch, x, y)
        return of_kernel("torch copy_", lambda: ty.copy_(tx), y, same)

    group.add("np.copyto", lambda: of_kernel("np.copyto", lambda: np.copyto(y, x), y, same))
    group.add("memcpy", lambda: of_kernel("memcpy", lambda: memcpy(to, source, size), y, same))
    group.add("torch copy_", from_torch)
    return ("np.copyto", "memcpy", "torch copy_")


def torch_plain(name: str, shape: tuple[int, ...]) -> Contender:
    torch = peers.torch_module()
    x, y = cases.array(shape, "float32"), cases.empty(shape, "float32")
    tx, ty = peers.tensors(torch, x, y)
    run = {
        "sigmoid": lambda: torch.sigmoid(tx, out=ty),
        "relu": lambda: torch.clamp_min(tx, 0, out=ty),
    }[name]

    def check() -> None:
        run()
        some = slice(0, 4096)
        np.testing.assert_allclose(y[some], geoact.get(name).value(x[some].astype(np.float64)), rtol=1e-6)

    return Contender(f"torch {name}(out=)", run, check)


def peer(kind: str, name: str, shape: tuple[int, ...]) -> Contender:
    x, y = cases.array(shape, "float32"), cases.empty(shape, "float32")
    run = peers.PEERS[kind](name, x, y)

    def check() -> None:
        stats = geoact.GeometryStats()
        ours = geoact.get(name)(x, stats=stats)
        peers.compare(run(), stats.cells(), f"{kind} {name}")
        np.testing.assert_allclose(y, ours, rtol=2e-6, atol=1e-37)

    return Contender(kind, run, check)


# --- the bars -----------------------------------------------------------------------------------------------


def memory_group() -> Group:
    """128 MiB in, 128 MiB out."""
    group, big = Group("float32, 128 MiB, out of cache", [], [], rounds=41, seconds=35), OUT_OF_CACHE
    best = copies(group, big)
    for function in ("relu", "sigmoid"):
        short = {"relu": "ReLU"}.get(function, function)
        group.contenders += [
            of_case(Case(function, big, per="tensor"), f"{function} + statistics"),
            of_case(Case(function, big), f"{function} plain"),
        ]
        group.add(f"torch {function}(out=)", lambda f=function: torch_plain(f, big))
        limit = {"relu": 1.10, "sigmoid": 1.8}[function]
        group.bars += [
            Bar(f"{short} + statistics vs the best copy", f"{function} + statistics", best, at_most=limit),
            Bar(f"{short} without statistics vs the best copy", f"{function} plain", best),
            Bar(f"{short} with vs without statistics", f"{function} + statistics", (f"{function} plain",)),
            Bar(f"{short} + statistics vs torch without", f"{function} + statistics", (f"torch {function}(out=)",)),
        ]
    return group


def alignment_group() -> Group:
    group = Group("alignment, float32, 128 MiB", [], [], rounds=41, seconds=20)
    for offset in (0, 4, 16):
        group.contenders.append(of_case(Case("relu", OUT_OF_CACHE, per="tensor", offset=offset), f"offset {offset}"))
    group.bars = [
        Bar(
            f"ReLU + statistics, x and y misaligned by {k} bytes vs aligned", f"offset {k}", ("offset 0",), at_most=1.10
        )
        for k in (4, 16)
    ]
    return group


def cache_group() -> Group:
    """256 KiB in, 256 KiB out."""
    group = Group("float32, 256 KiB, L2-resident", [], [], rounds=101, seconds=20)
    best = copies(group, IN_L2)
    for function in ("relu", "sigmoid"):
        short = {"relu": "ReLU"}.get(function, function)
        strict = function == "sigmoid"
        group.contenders += [
            of_case(Case(function, per="tensor"), f"{function} + statistics"),
            of_case(Case(function), f"{function} plain"),
        ]
        group.add(f"torch {function}(out=)", lambda f=function: torch_plain(f, IN_L2))
        theirs = (f"torch {function}(out=)",)
        group.bars += [
            Bar(f"{short} + statistics vs torch without", f"{function} + statistics", theirs, 1.0 if strict else None),
            Bar(f"{short} without statistics vs torch", f"{function} plain", theirs, 0.6 if strict else None),
            Bar(f"{short} with vs without statistics", f"{function} + statistics", (f"{function} plain",)),
            Bar(f"{short} + statistics vs the best copy", f"{function} + statistics", best),
        ]
    return group


def peer_group(function: str, shape: tuple[int, ...], where: str, rounds: int, seconds: float) -> Group:
    group = Group(f"{function} + the same statistics by others, {where}", [], [], rounds=rounds, seconds=seconds)
    group.contenders.append(of_case(Case(function, shape, per="tensor"), "geoact"))
    for kind, limit in (("torch eager", 30), ("torch.compile", 8), ("NumPy", None), ("numexpr", None)):
        group.add(kind, lambda k=kind: peer(k, function, shape))
        group.bars.append(Bar(f"{kind}, {function} + statistics vs geoact", kind, ("geoact",), at_least=limit))
    return group


def channel_group() -> Group:
    group, shape = Group("per channel, float32, 4096 x 4096", [], [], rounds=41, seconds=20), (4096, 4096)
    for function in ("relu", "sigmoid"):
        for per in ("tensor", "channel", "row"):
            group.contenders.append(of_case(Case(function, shape, per=per), f"{function} {per}"))
        group.bars += [
            Bar(f"{function} per channel vs per tensor", f"{function} channel", (f"{function} tensor",), at_most=1.5),
            Bar(f"{function} per row vs per tensor", f"{function} row", (f"{function} tensor",)),
        ]
    return group


def backward_group() -> Group:
    group = Group("backward, float32, 128 MiB, out of cache", [], [], rounds=31, seconds=30)
    big = OUT_OF_CACHE
    a, b, c = cases.array(big, "float32"), cases.array(big, "float32", seed=2), cases.empty(big, "float32")

    def same() -> bool:
        return np.array_equal(c, a + b)

    def from_torch() -> Contender:
        torch = peers.torch_module()
        ta, tb, tc = peers.tensors(torch, a, b, c)
        return of_kernel("torch add(out=)", lambda: torch.add(ta, tb, out=tc), c, same)

    def ours() -> Contender:
        add = peers.stream_add()
        return of_kernel("stream.cpp", lambda: add(a, b, c), c, same)

    group.add("np.add(out=)", lambda: of_kernel("np.add(out=)", lambda: np.add(a, b, out=c), c, same))
    group.add("torch add(out=)", from_torch)
    group.add("stream.cpp", ours)
    best = ("np.add(out=)", "torch add(out=)", "stream.cpp")
    for function in ("relu", "sigmoid", "silu"):
        case = Case(function, big, direction="backward", per="tensor")
        group.contenders.append(of_case(case, f"{function} backward"))
        limit = 1.2 if function != "silu" else None
        label = f"{function} backward + GradientStats vs the best 2-read-1-write kernel"
        group.bars.append(Bar(label, f"{function} backward", best, at_most=limit))
    return group


def narrow_group() -> Group:
    group = Group("bfloat16 vs float32, same element count", [], [], rounds=41, seconds=20)
    for where, shape in (("L2", IN_L2), ("32 Mi elements", OUT_OF_CACHE)):
        for function in ("relu", "sigmoid"):
            names = {}
            for dtype in ("float32", "bfloat16"):
                names[dtype] = f"{function} {dtype} {where}"
                group.contenders.append(of_case(Case(function, shape, dtype, per="tensor"), names[dtype]))
            label = f"{function} + statistics, bfloat16 vs float32, {where}"
            group.bars.append(Bar(label, names["bfloat16"], (names["float32"],), at_most=1.0))
    return group


def call_group() -> Group:
    """64 elements, an output allocated by the call, as users write it."""
    group = Group("call overhead, 64 float32 elements", [], [], rounds=101, seconds=15)
    x, stats = cases.array((64,), "float32"), geoact.GeometryStats()

    def check() -> None:
        np.testing.assert_array_equal(geoact.relu(x), np.maximum(x, 0))

    def from_torch() -> Contender:
        torch = peers.torch_module()
        (tx,) = peers.tensors(torch, x)
        return Contender("torch.relu", lambda: torch.relu(tx))

    group.contenders = [
        Contender("plain", lambda: geoact.relu(x), check),
        Contender("with statistics", lambda: geoact.relu(x, stats=stats), check),
        Contender("np.maximum", lambda: np.maximum(x, 0)),
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


def thread_group() -> Group:
    """4 MiB in, 4 MiB out: sixteen chunks of 64 Ki elements, each of which fits the L2 of its core."""
    group = Group("two threads, float32, chunks of 256 KiB", [], [], rounds=61, seconds=15)
    for function in ("sigmoid", "gelu"):
        prepared = Case(function, (MIB,), per="tensor").prepare()
        for threads in (1, 2):

            def run(n: int = threads, call: Callable[[], object] = prepared.run) -> object:
                geoact.set_num_threads(n)
                return call()

            group.contenders.append(Contender(f"{function}, {threads}", run, prepared.check))
        label = f"{function} + statistics: speed of 2 threads vs 1"
        group.bars.append(Bar(label, f"{function}, 1", (f"{function}, 2",), at_least=1.7))
    share = processors_to_be_had()
    if share < 1.8:
        reason = f"two busy threads got {share:.2f} processors: too few, or other work has them"
        group.missing = {c.name: reason for c in group.contenders}
        group.contenders = []
    return group


GROUPS: tuple[Callable[[], Group], ...] = (
    memory_group,
    alignment_group,
    cache_group,
    *(lambda f=f: peer_group(f, IN_L2, "L2-resident", 31, 15) for f in ("sigmoid", "relu")),
    lambda: peer_group("sigmoid", OUT_OF_CACHE, "128 MiB", 7, 45),
    channel_group,
    backward_group,
    narrow_group,
    call_group,
    thread_group,
)


# --- measuring ----------------------------------------------------------------------------------------------


def sample(contender: Contender) -> float:
    """Nanoseconds per call: the fastest of a few batches, as being interrupted is no property of a kernel.

    Short calls are made after one that is not timed, so that they find a warm cache; calls on data out of cache begin
    cold however often they are repeated.
    """
    run, inner = contender.run, contender.inner
    if inner > 1:
        run()
    best = math.inf
    for _ in range(contender.batches):
        start = time.perf_counter_ns()
        for _ in range(inner):
            run()
        best = min(best, (time.perf_counter_ns() - start) / inner)
    return best


def calibrate(contender: Contender, least: float) -> None:
    """Set the calls in a batch of about ``least`` nanoseconds, and the batches; the contender has run once before."""
    contender.inner = contender.batches = 1
    spent = sample(contender)
    contender.batches = 5 if spent < 5e6 else 3 if spent < 1e8 else 1
    if spent < least:  # once more: a short call is not known from one
        contender.inner = 10
        contender.inner = max(1, math.ceil(least / max(sample(contender), 1)))


def measure(group: Group, quick: bool) -> dict[str, list[float]]:
    """Samples of every contender, one per round."""
    before = {}
    for contender in list(group.contenders):
        try:
            before[contender.name] = contender.check()
        except AssertionError as error:
            group.missing[contender.name] = f"WRONG RESULT: {first_line(error)}"
            group.contenders.remove(contender)
            continue
        calibrate(contender, 3e5)
    samples: dict[str, list[float]] = {c.name: [] for c in group.contenders}
    rounds, seconds = (5, 5.0) if quick else (group.rounds, group.seconds)
    start = time.perf_counter()
    for index in range(rounds):
        for contender in group.contenders if index % 2 == 0 else reversed(group.contenders):
            samples[contender.name].append(sample(contender))
        geoact.set_num_threads(1)
        if time.perf_counter() - start > seconds and index >= (2 if quick else 8):
            break
    for contender in list(group.contenders):
        try:
            same = before[contender.name] == contender.check()
        except AssertionError:
            same = False
        if not same:
            group.missing[contender.name] = "WRONG RESULT: the output changed while it was timed"
            group.contenders.remove(contender)
            del samples[contender.name]
    return samples


@dataclass
class Result:
    """One row of the table."""

    group: str
    bar: str
    limit: str
    unit: str
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    against: str = ""
    met: str = ""
    reason: str = ""

    @property
    def measured(self) -> str:
        if self.median is None:
            return "not measured"
        digits = 2 if self.median < 100 else 0
        return f"{self.median:.{digits}f}{self.unit} ({self.q1:.{digits}f} .. {self.q3:.{digits}f})"


def evaluate(group: Group, bar: Bar, samples: dict[str, list[float]]) -> Result:
    result = Result(group.name, bar.label, bar.limit, "" if bar.against else " us")
    known = [name for name in bar.against if name in samples]
    if bar.timed not in samples or (bar.against and not known):
        absent = bar.timed if bar.timed not in samples else bar.against[0]
        result.reason = group.missing.get(absent, f"{absent} did not run")
        return result
    if bar.against:
        result.against = min(known, key=lambda name: statistics.median(samples[name]))
        values = sorted(a / b for a, b in zip(samples[bar.timed], samples[result.against], strict=True))
    else:
        values = sorted(t / 1e3 for t in samples[bar.timed])
    result.rounds = len(values)
    result.q1, result.median, result.q3 = (float(v) for v in np.quantile(values, [0.25, 0.5, 0.75]))
    result.low, result.high = interval(values)
    result.met = verdict(result.low, result.high, bar.at_most, bar.at_least)
    return result


# --- showing and storing ------------------------------------------------------------------------------------


def table(results: list[Result], title: str) -> Table:
    colours = {"yes": "green", "no": "bold red", "open": "yellow"}
    shown = Table(title=title, title_justify="left", header_style="bold", expand=False)
    for column in ("bar", "limit", "measured (q1 .. q3)", "95 % interval", "against", "met?"):
        shown.add_column(
            column, justify="right" if column in ("limit", "measured (q1 .. q3)", "95 % interval") else "left"
        )
    group = ""
    for r in results:
        if r.group != group:
            group = r.group
            shown.add_section()
            shown.add_row(f"[bold]{group}[/bold]")
        spread = f"{r.low:.3g} .. {r.high:.3g}" if r.low is not None else ""
        met = f"[{colours[r.met]}]{r.met}[/]" if r.met else ""
        shown.add_row(r.bar, r.limit, r.measured, spread, r.against or r.reason, met, style=None if r.limit else "dim")
    return shown


def write_json(path: Path, document: dict[str, object]) -> None:
    """All or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def groups_to_run(words: list[str]) -> Iterator[Callable[[], Group]]:
    for make in GROUPS:
        name = getattr(make, "__name__", "")
        if not words or any(word in ("peers" if name == "<lambda>" else name) for word in words):
            yield make


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = RESULTS / f"{environment.slug()}.json"
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"where to store; default: results/{default.name}")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to quote")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="memory, alignment, cache, peers, ..."
    )
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 170)
    geoact.set_num_threads(1)
    described = environment.describe()
    chosen, results, raw = list(groups_to_run(options.only)), [], {}
    if not chosen:
        parser.error(f"--only {' '.join(options.only)} names no group of bars")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("bars", total=len(chosen))
        for make in chosen:
            group = make()
            progress.update(task, description=group.name)
            samples = measure(group, options.quick)
            results += [evaluate(group, bar, samples) for bar in group.bars]
            raw[group.name] = {
                c.name: {
                    "calls": c.inner,
                    "batches": c.batches,
                    "nanoseconds": [round(t, 1) for t in samples[c.name]],
                }
                for c in group.contenders
            }
            cases.array.cache_clear()
            progress.advance(task)
    described["load_average_after"] = list(os.getloadavg())
    title = f"{described['cpu']} ({described['cpu_model']}), {described['isa']}, one thread, {described['date']}"
    console.print(table(results, title))
    load = described["load_average"][0]
    console.print(f"Load average {load:.1f} before, {described['load_average_after'][0]:.1f} after. ", end="")
    console.print("Above 1 before the run, other work shared the machine." if load > 1 else "")
    path = options.json or (None if options.quick or options.only else default)
    if path:
        document = {"schema": 1, "quick": options.quick, "environment": described}
        document |= {"bars": [asdict(r) for r in results], "samples": raw}
        write_json(path, document)
        console.print(f"wrote {path}; python docs/generate.py shows it in docs/tuning.md")
    wrong = [r for r in results if r.reason.startswith("WRONG")]
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
