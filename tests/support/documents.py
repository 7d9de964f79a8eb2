"""Documents as ``geoact bench run`` stores them, made of a model of a machine; everything is seeded.

Scores, rows and groups are computed by the code that computes them in a run, so that only times are invented.
"""

import itertools
import random
import statistics

from geoact.bench import bars, runner
from geoact.bench.contenders import Bar, Contender, Group
from geoact.bench.engine import Measured
from geoact.bench.results import KIND, SCHEMA, save
from geoact.bench.summary import Summary

NASTY = 'evil[n=1<<20,of="<script>alert(1)</script>",mark=[red]a|b&amp;*_`]'
ITEMSIZE = {"float32": 4, "bfloat16": 2}
COPY = {"L2": 160.0, "L3": 70.0, "memory": 22.0}  # GB/s
FLOPS = {"relu": 1, "sigmoid": 16, "gelu": 24, "tanh": 18}
SLOW = {"relu": 1.02, "sigmoid": 1.7, "gelu": 2.4, "tanh": 1.9}  # times of the copy, out of cache


def environment(date="2026-03-01T10:00:00+00:00", commit="a" * 40, **others):
    return {
        "cpu": "Model CPU <9000>",
        "cpu_model": "cpu family 26, model 2",
        "processors": 2,
        "affinity": [0, 1],
        "governor": None,
        "caches": {"L1 data": "48K", "L1 instruction": "32K", "L2 unified": "1024K", "L3 unified": "32768K"},
        "isa": "avx512",
        "system": "Linux x86_64",
        "compiler": "c++ 12.2.0",
        "python": "3.11.7",
        "versions": {"numpy": "2.4.6", "geoact": "0.1.0"},
        "commit": commit,
        "sources_changed": False,
        "date": date,
        "load_average": [0.3, 0.4, 0.5],
    } | others


def samples(draw, seconds, rounds, noise=0.01):
    """Times of which some are interrupted."""
    return [seconds * max(0.8, draw.gauss(1, noise)) * (1.3 if draw.random() < 0.03 else 1) for _ in range(rounds)]


def case(name, axes, seconds, copy, *, draw, read=0, written=0, flops=0, rounds=25, device="cpu", flags=()):
    """The entry of a case that was measured; ``copy`` None: it declares no bytes."""
    times = samples(draw, seconds, rounds)
    short = runner._short
    entry = {"name": name, "axes": axes, "device": device, "clock": "CPU, caches warm", "cache": "warm"}
    entry |= {k: v for k, v in {"read": read, "written": written, "flops": flops, "threads": 1}.items() if v}
    entry |= {"status": "measured", "rounds": rounds, "stopped": "noise is stable", "repeat": 4}
    entry |= {"ns": [short(s * 1e9) for s in times]}
    entry["summary"] = {
        k: short(v * 1e9) if k not in ("n", "outliers") else v for k, v in vars(Summary.of(times)).items()
    }
    median = statistics.median(times)
    if read + written:
        entry["GB/s"] = short((read + written) / median / 1e9)
    if flops:
        entry["GFLOP/s"] = short(flops / median / 1e9)
    if copy is None:
        entry["ceiling_missing"] = "the case declares no bytes"
    else:
        copies = samples(draw, copy, rounds)
        entry |= {"ceiling": "stream copy", "ceiling_ns": [short(s * 1e9) for s in copies]}
        entry["score"] = runner.score(times, copies)
    return entry | ({"flags": list(flags)} if flags else {})


def activation(function, dtype, n, statistics_, direction="forward", *, draw, slower=1.0, flops=True, **others):
    """A case of a suite of activations."""
    axes = {"function": function, "dtype": dtype, "n": n, "statistics": statistics_, "direction": direction}
    size = n * ITEMSIZE[dtype]
    read, written = size * (2 if direction == "backward" else 1), size
    level = "L2" if read + written <= 1 << 20 else "L3" if read + written <= 32 << 20 else "memory"
    copy = (read + written) / COPY[level] / 1e9 + 1e-7
    factor = SLOW[function] * (1.25 if statistics_ else 1) * (2.5 if level == "L2" else 1.5 if level == "L3" else 1)
    factor = max(factor * (1.1 if dtype == "bfloat16" else 1), 1.02)
    name = "activation[" + ",".join(f"{k}={v}" for k, v in axes.items()) + "]"
    work = FLOPS[function] * n * (2 if statistics_ else 1) if flops else 0
    seconds = slower * (copy * factor + (6e-7 if statistics_ else 2e-7))
    return case(name, axes, seconds, copy, draw=draw, read=read, written=written, flops=work, **others)


def group(name, times, made_of, *, draw, rounds=21, missing=None, noise=0.01):
    """Rows and samples of a group: ``times`` of contenders in seconds, ``made_of`` its bars."""
    found = Group(name, [Contender(key, [lambda: None]) for key in times], list(made_of), dict(missing or {}))
    from geoact.bench.clocks import Sample

    taken = {key: [Sample(s) for s in samples(draw, seconds, rounds, noise)] for key, seconds in times.items()}
    measured = Measured(taken, "noise is stable")
    return [row.document() for row in bars.judge(found, measured)], {name: bars.raw(found, measured)}


def groups(draw):
    """Bars that are met, not met, open, without a limit, shares, microseconds, and not measured."""
    peers = {"geoact": 1e-5, "torch eager": 6.4e-4, "NumPy": 1.6e-4, "numexpr": 1.9e-3, "torch.compile": 7.9e-5}
    limits = {"torch eager": 30, "torch.compile": 8}
    one = group(
        "sigmoid + the same statistics by others, L2-resident",
        peers,
        [Bar(f"{k}, sigmoid + statistics vs geoact", k, ("geoact",), at_least=limits.get(k)) for k in [*peers][1:]]
        + [Bar("onnxruntime vs geoact", "onnxruntime", ("geoact",), at_least=2.0)],
        draw=draw,
        missing={"onnxruntime": "onnxruntime is not installed"},
    )
    two = group(
        "float32, 128 MiB, out of cache",
        {"relu": 0.0123, "sigmoid": 0.0255, "np.copyto": 0.0145, "memcpy": 0.0122},
        [
            Bar("ReLU + statistics vs the best copy", "relu", ("np.copyto", "memcpy"), at_most=1.1),
            Bar("sigmoid + statistics vs the best copy", "sigmoid", ("np.copyto", "memcpy"), at_most=1.8),
            Bar("ReLU + statistics, share of the copy", "relu", ("memcpy",), at_least=0.99, share=True),
            Bar("sigmoid without a limit", "sigmoid", ("relu",)),
        ],
        draw=draw,
    )
    three = group(
        "call overhead, 64 elements",
        {"plain": 1.2e-6},
        [Bar("one call without statistics", "plain", at_most=1.5)],
        draw=draw,
    )
    wrong = bars.Row(
        "broken <group>", "ran to its end", "exact", "", met="error", reason="ValueError: no | such <shape>"
    )
    return [*one[0], *two[0], *three[0], wrong.document()], one[1] | two[1] | three[1]


def document(cases, rows=(), groups=None, *, suite="geoact", cache="warm", **told):
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "suite": suite,
        "cache": cache,
        "environment": environment(**told),
        "cases": list(cases),
        "rows": list(rows),
        "groups": dict(groups or {}),
    }


def full(seed=0, **told):
    """A run of 130 cases: 128 of them measured, one skipped, one wrong, and every kind of bar."""
    draw = random.Random(seed)
    values = (FLOPS, ITEMSIZE, (4096, 1 << 17, 1 << 21, 1 << 25), (None, "tensor"), ("forward", "backward"))
    cases = [activation(*chosen, draw=draw) for chosen in itertools.product(*values)]
    cases[3] |= {"flags": ["clock rate moved by 4.1%"]}
    cases.append(
        {"name": "liger[n=4096]", "axes": {"n": 4096}, "status": "skipped", "reason": "there is no CUDA device"}
    )
    cases.append({"name": NASTY, "axes": {"of": "<script>alert(2)</script>"}, "status": "error",
                  "reason": "AssertionError: <b>WRONG</b> [red]RESULT | here"})  # fmt: skip
    rows, taken = groups(draw)
    return document(cases, rows, taken, **told)


def small(seed=0, **told):
    """Two cases of somebody's toy, without FLOPs, bars or statistics; one has a name that is mark-up."""
    draw = random.Random(seed)
    first = case("scale[n=4096]", {"n": 4096}, 1.2e-6, 1e-6, draw=draw, read=16384, written=16384)
    second = case(NASTY, {"n": 1 << 20}, 9e-4, 8e-4, draw=draw, read=1 << 22, written=1 << 22)
    return document([first, second], suite="toy <1>", **told)


def without_bytes(seed=0, **told):
    """What pytest-benchmark knows: samples and nothing else."""
    draw = random.Random(seed)
    found = document([], suite="pytest-benchmark", **told)
    found["cases"] = [
        {"name": f"tests/test_a.py::test_{k}", "axes": {}, "device": "cpu", "clock": "pytest-benchmark",
         "status": "measured", "ns": [round(s * 1e9, 1) for s in samples(draw, 1e-5 * (k + 1), 12)]}
        for k in range(3)
    ]  # fmt: skip
    return found


def gpu(seed=0, **told):
    """A device: caches cold, so that all bytes come from its memory."""
    draw = random.Random(seed)
    cases = []
    for function, n, kind in itertools.product(("relu", "sigmoid"), (1 << 16, 1 << 24, 1 << 28), (None, "tensor")):
        axes = {"function": function, "n": n, "statistics": kind}
        copy = 8 * n / 4.2e12 + 2e-6
        name = "activation[" + ",".join(f"{k}={v}" for k, v in axes.items()) + "]"
        seconds = copy * (1.05 if kind else 1.01)
        cases.append(case(name, axes, seconds, copy, draw=draw, read=4 * n, written=4 * n, device="cuda"))
    return document(cases, cache="cold", gpu={"name": "Model GPU 1"}, **told)


def history(folder, runs=20, slower_from=12, slower=1.06, seed=0):
    """Result files of a toy, one a day: one case becomes slower, one faster, one has no copy, two stay as they are."""
    draw = random.Random(seed)
    for run in range(runs):
        late = run >= slower_from
        # The machine itself is slower on some days; only values without a copy show it.
        day = 1 + 0.002 * draw.random()
        entries = [
            case(
                name,
                {"n": 4096},
                day * seconds * draw.gauss(1, 0.005),
                day * 1e-6,
                draw=draw,
                read=16384,
                written=16384,
            )
            for name, seconds in (
                ("steady[n=4096]", 1.2e-6),
                ("slower[n=4096]", 1.3e-6 * (slower if late else 1)),
                ("faster[n=4096]", 1.4e-6 / (1.2 if run >= 6 else 1)),
                (NASTY, 2e-6),
            )
        ]
        entries.append(case("no_copy", {}, day * 3e-6 * draw.gauss(1, 0.005), None, draw=draw))
        found = document(
            entries, suite="toy", date=f"2026-02-{run + 1:02d}T10:00:00+00:00", commit=f"{run:02d}" + "c" * 38
        )
        save(folder / f"run{(run * 7) % runs:02d}.json", found)
