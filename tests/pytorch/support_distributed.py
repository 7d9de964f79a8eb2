"""One rank of a process group: reduces every scenario and stores what it got. Started by test_distributed.py.

Usage: support_distributed.py RANK WORLD FOLDER. Writes FOLDER/RANK.pickle: a dict of scenario name to what `run` or
`fail` returns. All ranks must run the scenarios in the same order.
"""

import pickle
import sys
import time
from datetime import timedelta
from pathlib import Path

import geoact
import numpy as np
import torch.distributed as dist
from geoact.torch.distributed import all_reduce, all_reduce_reading
from geoact.torch.reading import Alert, Layer, Reading

TIMEOUT = 3.0  # seconds, of the group that a rank leaves alone
COLUMNS = 5


def geometry(x, per="channel", level="moments", **settings):
    stats = geoact.GeometryStats(per=per, level=level, **settings)
    if x is not None:
        geoact.silu(x, stats=stats)
    return stats


def gradient(x, per="channel"):
    stats = geoact.GradientStats(per=per)
    if x is not None:
        geoact.silu.backward(x, x=np.ascontiguousarray(x[::-1]), stats=stats)
    return stats


def every_record(x):
    pers = ("tensor", "channel", "row")
    forward = [geometry(x, per, level) for per in pers for level in ("counts", "moments")]
    return forward + [gradient(x, per) for per in pers]


# --- data of one rank -----------------------------------------------------------------------------


def normal(rank, rows, mean=0.2, sd=1.5, dtype=np.float64):
    z = np.random.default_rng([7, rank]).standard_normal((rows, COLUMNS))
    return (mean + sd * z).astype(dtype)


def not_finite(rank, world):
    x = normal(rank, 20, dtype=np.float32)
    if rank == 0:  # whose means are the pivot
        x[3, 0], x[6, 2], x[4, 3] = np.nan, np.inf, np.inf
    if rank == 1:
        x[5, 1], x[7, 3] = np.nan, -np.inf
    return x


def tiny(far):
    """The first rank has one row of far outliers, the others much narrow data."""
    return lambda rank, world: normal(rank, 1, far, 0.0) if rank == 0 else normal(rank, 20_000, 0.5 + rank / 1e7, 1e-6)


# rank, world -> array (rows, COLUMNS), or None where the rank makes no call
DATA = {
    "unequal shards": lambda rank, world: normal(rank, 30 + 11 * rank, dtype=np.float32),
    "an empty shard": lambda rank, world: normal(rank, 25 * rank),
    "no call on the last rank": lambda rank, world: None if rank == world - 1 else normal(rank, 9, 50),
    "no call on the first rank": lambda rank, world: None if rank == 0 else normal(rank, 9, -20),
    "no call anywhere": lambda rank, world: None,
    "not finite": not_finite,
    "mean 1000, sd 1": lambda rank, world: normal(rank, 400 - 100 * rank, 1000, 1),
    "mean .5, sd 1e-4": lambda rank, world: normal(rank, 400 - 100 * rank, 0.5, 1e-4),
    "far apart": lambda rank, world: normal(rank, 300, (-1) ** rank * 10.0 ** (4 * rank), 1e-3),
    "a tiny rank above": tiny(1e6),
    "a tiny rank below": tiny(-1e6),
    "constant": lambda rank, world: np.full((10 + rank, COLUMNS), 0.7),
    "huge": lambda rank, world: np.full((1000, COLUMNS), 4e305 * (1 + rank)),
    # 20 d^2 is .4 of the smallest subnormal number
    "subnormal squares": lambda rank, world: np.full((20, COLUMNS), (rank > 0) * 0.02**0.5 * 2.0**-537),
    "other means": lambda rank, world: np.full((4, COLUMNS), [0.0, 1.0, 2.0, 3.0, 4.0]) + rank,
}

# name -> what this rank brings to a call that must fail on every rank
UNLIKE = {
    "number": lambda odd: [geometry(None)] * (3 if odd else 2),
    "kind": lambda odd: [geometry(None), gradient(None) if odd else geometry(None)],
    "per": lambda odd: [geometry(None), geometry(None, "tensor" if odd else "row")],
    "level": lambda odd: [geometry(None), geometry(None, level="counts" if odd else "moments")],
    "tiers": lambda odd: [geometry(None), geometry(None, sketch=64 if odd else 32)],
    "saturation": lambda odd: [geometry(None), geometry(None, saturation=0.1 if odd else 0.05)],
    "channel_axis": lambda odd: [geometry(None), geometry(None, channel_axis=1 if odd else -1)],
    "dtype": lambda odd: [geometry(None), geometry(normal(0, 4, dtype=np.float32 if odd else np.float64))],
    "channels": lambda odd: [geometry(None), geometry(normal(0, 4)[:, : 4 if odd else 5])],
    "type": lambda odd: [geometry(None), 3 if odd else geometry(None)],
    "no sequence": lambda odd: geometry(None) if odd else [geometry(None)],
}


# --- what a rank does -----------------------------------------------------------------------------


class Counted:
    """Names of the collectives called while it is open."""

    NAMES = (
        "all_reduce",
        "all_gather",
        "all_gather_into_tensor",
        "all_gather_object",
        "broadcast",
        "barrier",
        "reduce",
    )

    def __enter__(self):
        self.kept = {name: getattr(dist, name) for name in self.NAMES}
        self.calls = []
        for name, call in self.kept.items():
            setattr(dist, name, self.counting(name, call))
        return self.calls

    def counting(self, name, call):
        def wrapped(*arguments, **named):
            self.calls.append(name)
            return call(*arguments, **named)

        return wrapped

    def __exit__(self, *error):
        for name, call in self.kept.items():
            setattr(dist, name, call)


def run(stats, group=None):
    before = [pickle.dumps(entry) for entry in stats]
    with Counted() as calls:
        reduced = all_reduce(stats, group)
    again = all_reduce(stats, group)
    return {
        "local": stats,
        "reduced": reduced,
        "again": again,
        "untouched": before == [pickle.dumps(entry) for entry in stats],
        "calls": calls,
    }


def fail(call, *arguments):
    started = time.monotonic()
    try:
        call(*arguments)
    except Exception as error:  # what is raised, and how soon, is the result
        return {"error": type(error).__name__, "text": str(error), "seconds": time.monotonic() - started}
    return {"error": None}


def reading(rank, world):
    """Ranks first run the layers in different orders; the last rank never runs block.0."""
    never = rank == world - 1
    late = geometry(None if never else normal(rank, 6)), gradient(None if never else normal(rank, 6))
    layers = [
        Layer("block.b", "silu", 0 if rank else 1, 2 + rank, geometry(normal(rank, 8))),
        Layer(
            "block.a", "silu", 1 if rank else 0, 5, geometry(normal(rank + 5, 7), "tensor"), gradient(normal(rank, 7))
        ),
        Layer("block.0", "silu", 0 if never else 2, 0 if never else 1, *late),
    ]
    return Reading(10 + rank, tuple(layers), (Alert("block.0", "dead", 1.0, 0.5, "half dead"),))


def other_layers(odd):
    return Reading(0, (Layer("odd" if odd else "even", "silu", 0, 0, geometry(None)),))


def other_settings(odd):
    layers = [
        Layer(name, "silu", 0, 0, geometry(None, level="counts" if odd and name == "b" else "moments"))
        for name in "abc"
    ]
    return Reading(0, tuple(layers))


def main(rank, world, folder):
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    pair = dist.new_group([0, world - 1])
    lonely = dist.new_group(timeout=timedelta(seconds=TIMEOUT))
    odd = rank == 1

    results = {}
    for name, data in DATA.items():
        x = data(rank, world)
        results[name] = run(every_record(x)) | {"x": x}
    results["one"] = run([geometry(normal(rank, 3))])
    results["none"] = run([])
    asked = {"histogram": "all", "pairs": True, "sketch": 32}
    results["tiers"] = run([geometry(normal(rank, 31 + 11 * rank, 50 * rank), "tensor", **asked)])
    late = None if rank == 0 else normal(rank, 40, 7)
    results["tiers, none on the first rank"] = run([geometry(late, "channel", **asked)])
    results["rows only"] = run([geometry(normal(rank, 3), "row")])
    results["axis"] = run([geometry(normal(rank, 3), "tensor", channel_axis=0 if odd else -1)])
    results["method"] = {
        "reduced": [geometry(normal(rank, 3)).all_reduce(), gradient(normal(rank, 3)).all_reduce(group=None)],
        "expected": all_reduce([geometry(normal(rank, 3)), gradient(normal(rank, 3))]),
    }
    member = rank in (0, world - 1)
    results["pair"] = run([geometry(normal(rank, 3))], pair) if member else fail(all_reduce, [], pair)
    for name, bring in UNLIKE.items():
        results[f"unlike {name}"] = fail(all_reduce, bring(odd))
    results["unlike calls"] = fail(
        *((all_reduce_reading, other_layers(False)) if odd else (all_reduce, [geometry(None)]))
    )
    results["unlike layers"] = fail(all_reduce_reading, other_layers(odd))
    results["unlike settings of a layer"] = fail(all_reduce_reading, other_settings(odd))
    results["unlike reading"] = fail(all_reduce_reading, 3 if odd else other_layers(False))
    results["afterwards"] = run(every_record(normal(rank, 4)))
    mine = reading(rank, world)
    results["reading"] = {"local": mine, "reduced": all_reduce_reading(mine)}

    done = folder / "done"
    if rank == world - 1:  # alive, but it never joins
        while not done.exists():
            time.sleep(0.05)
    else:
        results["lost"] = fail(all_reduce, [geometry(normal(rank, 3))], lonely)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(results))
    if all((folder / f"{other}.pickle").exists() for other in range(world - 1)):
        done.touch()
    # The abandoned group cannot be shut down in order.
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
