"""All-reduced statistics are those of all ranks' data, on every rank, and wrong calls fail on every rank.

Groups of two and three processes (support_distributed.py) reduce all scenarios once; the tests look at what they got.
"""

import os
import pickle
import re
import subprocess
import sys
from fractions import Fraction
from functools import reduce
from operator import add
from pathlib import Path

import geoact
import numpy as np
import pytest
from geoact import _core

# Where torch is missing, this folder, which has its name and lies in a folder of sys.path, would pass for it.
dist = pytest.importorskip("torch.distributed")
torch = pytest.importorskip("torch")
if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from geoact.torch.distributed import _wrong_stats, all_reduce, all_reduce_reading
from geoact.torch.reading import Layer, Reading

COUNTS = {"n", "negative", "positive", "zero", "saturated", "subnormal", "underflow"}
COUNTS |= {"nonfinite_x", "nonfinite_y", "nonfinite_dy", "nonfinite_dx"}
FINITE = [
    "unequal shards",
    "an empty shard",
    "no call on the last rank",
    "no call on the first rank",
    "mean 1000, sd 1",
    "mean .5, sd 1e-4",
    "far apart",
    "a tiny rank above",
    "a tiny rank below",
    "constant",
    "other means",
]
SCENARIOS = [*FINITE, "huge", "subnormal squares", "not finite", "no call anywhere"]
UNLIKE = {
    "number": "stats must hold as many statistics on every rank, got 2 on rank 0 and 3 on rank 1",
    "kind": r"stats\[1\].*kind: 'GeometryStats' on rank 0, 'GradientStats' on rank 1",
    "per": r"stats\[1\].*per: 'row' on rank 0, 'tensor' on rank 1",
    "level": r"stats\[1\].*level: 'moments' on rank 0, 'counts' on rank 1",
    "tiers": r"stats\[1\].*tiers: .*sketch=32.* on rank 0, .*sketch=64.* on rank 1",
    "saturation": r"stats\[1\].*saturation: 0.05 on rank 0, 0.1 on rank 1",
    "channel_axis": r"stats\[1\].*channel_axis: -1 on rank 0, 1 on rank 1",
    "dtype": r"stats\[1\].*dtype: 'float64' on rank 0, 'float32' on rank 1",
    "channels": r"stats\[1\].*number of channels: 5 on rank 0, 4 on rank 1",
    "calls": "ranks 0 and 1 do not reduce the same",
    "layers": "reading has other layers on rank 1 than on rank 0",
    "settings of a layer": r"GeometryStats of layer 'b' differs between ranks in level",
}
WRONG = {
    "type": r"stats\[1\] must be one of GeometryStats and GradientStats, got int",
    "no sequence": "stats must be a sequence of GeometryStats and GradientStats, got GeometryStats",
    "reading": "reading must be a Reading, got int",
}


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, tmp_path_factory):
    """What every rank got: a dictionary of scenarios per rank."""
    folder = tmp_path_factory.mktemp(f"ranks{request.param}")
    program = Path(__file__).with_name("support_distributed.py")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(program), str(rank), str(request.param), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(request.param)
    ]
    try:
        printed = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * request.param, "\n".join(printed)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(request.param)]


def bits(stats):
    """Settings, dtype and cells, to the last bit."""
    return [(repr(entry), entry._accumulator.cells().tobytes()) for entry in stats]


def merged_exactly(records):
    """Cells of all records together in rational arithmetic, rounded once; for groups whose cells are finite."""
    tables = [record.cells() for record in records if record.dtype]
    merges = dict(_core.fields(records[0]._direction))
    n = [[Fraction(v) for v in table["n"]] for table in tables]
    groups = range(len(n[0]))
    total = [sum(part[g] for part in n) for g in groups]

    def mean(name):
        return [
            sum(w[g] * Fraction(t[name][g]) for w, t in zip(n, tables, strict=True)) / max(total[g], 1) for g in groups
        ]

    def deviation(name):
        first, second = (f"mean_{v}" for v in (name[-2:] if name == "c_xy" else 2 * name[-1]))
        a, b = mean(first), mean(second)
        return [
            sum(
                Fraction(t[name][g]) + w[g] * (Fraction(t[first][g]) - a[g]) * (Fraction(t[second][g]) - b[g])
                for w, t in zip(n, tables, strict=True)
            )
            for g in groups
        ]

    of = {
        "sum": lambda name: [sum(Fraction(t[name][g]) for t in tables) for g in groups],
        "minimum": lambda name: np.min([t[name] for t in tables], axis=0),
        "maximum": lambda name: np.max([t[name] for t in tables], axis=0),
        "mean": mean,
        "squared_deviation": deviation,
        "co_deviation": deviation,
    }
    return {name: np.array([float(v) for v in of[merges[name]](name)]) for name in tables[0]}


def assert_close(cells, expected, relative):
    """Equal up to rounding; counts and extremes exactly."""
    assert cells.keys() == expected.keys()
    for name in expected:
        size = np.abs(expected[name])
        if name in COUNTS or name.endswith(("_min", "_max")) or name.startswith("absmax"):
            size = 0
        elif name.startswith("mean"):
            size = size + np.sqrt(expected["m2" + name[4:]] / np.maximum(expected["n"], 1))
        elif name == "c_xy":
            size = size + np.sqrt(expected["m2_x"]) * np.sqrt(expected["m2_y"])
        same = cells[name] == expected[name]  # infinities are equal, not close
        with np.errstate(invalid="ignore"):
            assert np.all(same | (np.abs(cells[name] - expected[name]) <= relative * size)), name


@pytest.mark.parametrize("scenario", FINITE)
def test_the_result_is_the_merge_of_all_ranks(ranks, scenario):
    locals_of = zip(*(rank[scenario]["local"] for rank in ranks), strict=True)
    for records, reduced in zip(locals_of, ranks[0][scenario]["reduced"], strict=True):
        merged = reduce(add, records)
        assert repr(reduced) == repr(merged)
        if reduced.per == "row":
            np.testing.assert_array_equal(reduced._accumulator.cells(), merged._accumulator.cells())
            continue
        assert_close(reduced.cells(), merged_exactly(records), 1e-14)
        assert_close(reduced.cells(), merged.cells(), 1e-12)


@pytest.mark.parametrize("scenario", FINITE)
def test_the_result_is_that_of_one_process_with_all_data(ranks, scenario):
    shards = [rank[scenario]["x"] for rank in ranks if rank[scenario]["x"] is not None]
    x = np.concatenate(shards)
    turned = np.concatenate([shard[::-1] for shard in shards])  # where each rank evaluated the slope
    for reduced in ranks[0][scenario]["reduced"]:
        settings = {"per": reduced.per}
        if isinstance(reduced, geoact.GeometryStats):
            whole = geoact.GeometryStats(**settings, level=reduced.level)
            geoact.silu(x, stats=whole)
        else:
            whole = geoact.GradientStats(**settings)
            geoact.silu.backward(x, x=turned, stats=whole)
        assert repr(reduced) == repr(whole)
        assert_close(reduced.cells(), whole.cells(), 1e-6 if x.dtype == np.float32 else 1e-10)


def test_counts_see_every_element(ranks):
    # an independent look at a few values: what NumPy says of all shards
    x = np.concatenate([rank["other means"]["x"] for rank in ranks])
    channel = next(s for s in ranks[-1]["other means"]["reduced"] if (s.per, s.level) == ("channel", "moments"))
    np.testing.assert_array_equal(channel.n, len(x))
    np.testing.assert_array_equal(channel.cells()["x_min"], x.min(axis=0))
    np.testing.assert_array_equal(channel.cells()["x_max"], x.max(axis=0))
    np.testing.assert_allclose(channel.mean_x, x.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(channel.var_x, x.var(axis=0), rtol=1e-14)


def moments(stats):
    """Those of one scenario that know means and variances of x and y."""
    found = [s for s in stats if isinstance(s, geoact.GeometryStats) and s.level == "moments" and s.per != "row"]
    assert len(found) == 2
    return found


def test_one_value_on_all_ranks_has_this_mean_and_no_variance(ranks):
    for stats in moments(ranks[0]["constant"]["reduced"]):
        np.testing.assert_array_equal(stats.mean_x, 0.7)
        np.testing.assert_array_equal(stats.var_x, 0)


def test_means_near_the_end_of_float64_do_not_overflow(ranks):
    for stats in moments(ranks[0]["huge"]["reduced"]):
        np.testing.assert_allclose(stats.mean_x, 4e305 * (len(ranks) + 1) / 2, rtol=1e-14)
        np.testing.assert_array_equal(stats.var_x, np.inf)  # as from a merge


def test_a_variance_that_underflows_is_not_negative(ranks):
    for stats in moments(ranks[0]["subnormal squares"]["reduced"]):
        assert np.all(stats.cells()["m2_x"] >= 0)
        assert np.all(stats.cells()["m2_x"] <= 1e-323)


def test_what_is_not_finite_comes_out_as_from_a_merge(ranks):
    locals_of = list(zip(*(rank["not finite"]["local"] for rank in ranks), strict=True))
    for records, reduced in zip(locals_of, ranks[0]["not finite"]["reduced"], strict=True):
        merged, found = reduce(add, records).cells(), reduced.cells()
        for name in merged:
            if name.startswith("mean"):
                continue  # the merge of an infinite with a finite mean depends on which comes first
            np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(merged[name]), err_msg=name)
            np.testing.assert_allclose(found[name], merged[name], rtol=1e-12, err_msg=name)
    channel = next(s for s in ranks[0]["not finite"]["reduced"] if (s.per, s.level) == ("channel", "moments"))
    x = np.concatenate([rank["not finite"]["x"] for rank in ranks]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(channel.mean_x, x.mean(axis=0), rtol=1e-6)  # NaN, NaN, infinity, NaN, a number
        np.testing.assert_allclose(channel.var_x, x.var(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(channel.mean_x), [True, True, False, True, False])
    assert channel.mean_x[2] == np.inf


def test_a_group_in_which_nobody_measured_stays_empty(ranks):
    for rank in ranks:
        for local, reduced in zip(rank["no call anywhere"]["local"], rank["no call anywhere"]["reduced"], strict=True):
            assert bits([reduced]) == bits([local])
            assert reduced.dtype == ""


def test_rows_follow_in_the_order_of_the_ranks(ranks):
    x = np.concatenate([rank["unequal shards"]["x"] for rank in ranks])
    row = next(s for s in ranks[0]["unequal shards"]["reduced"] if (s.per, s.level) == ("row", "moments"))
    np.testing.assert_array_equal(row.cells()["x_max"], x.max(axis=1))
    assert row.groups == len(x)


@pytest.mark.parametrize("scenario", [*SCENARIOS, "one", "none", "rows only", "afterwards"])
def test_every_rank_gets_the_same_bits_and_keeps_its_own(ranks, scenario):
    for rank in ranks:
        got = rank[scenario]
        assert bits(got["reduced"]) == bits(ranks[0][scenario]["reduced"])
        assert bits(got["again"]) == bits(got["reduced"]), "reducing again counts nothing twice"
        assert got["untouched"]
        assert all(a is not b for a, b in zip(got["local"], got["reduced"], strict=True))


def test_calls_are_those_of_all_ranks(ranks):
    for i, reduced in enumerate(ranks[0]["unequal shards"]["reduced"]):
        assert reduced.calls == sum(rank["unequal shards"]["local"][i].calls for rank in ranks) > 1


def test_many_statistics_take_as_many_collectives_as_one(ranks):
    all_kinds = ["all_gather", "all_gather", "all_reduce", "all_reduce"]
    for rank in ranks:
        assert len(rank["unequal shards"]["local"]) == 9
        assert rank["unequal shards"]["calls"] == all_kinds
        assert rank["one"]["calls"] == all_kinds
        assert rank["rows only"]["calls"] == all_kinds[:3], "rows have nothing to take the maximum of"
        assert rank["no call anywhere"]["calls"] == all_kinds[:2]
        assert rank["none"]["calls"] == all_kinds[:1]


def test_the_method_reduces_one_record(ranks):
    for rank in ranks:
        # not the same bits: in which order torch adds depends on the place in the buffer
        for reduced, expected in zip(rank["method"]["reduced"], rank["method"]["expected"], strict=True):
            assert repr(reduced) == repr(expected)
            assert_close(reduced.cells(), expected.cells(), 1e-14)
        assert rank["method"]["reduced"][0].n[0] == 3 * len(ranks)


def test_the_channel_axis_of_a_tensor_does_not_matter(ranks):
    # nor does it for merge
    for rank in ranks:
        assert rank["axis"]["reduced"][0].channel_axis == rank["axis"]["local"][0].channel_axis
        assert rank["axis"]["reduced"][0].n == 3 * 5 * len(ranks)


def test_a_group_of_some_ranks_leaves_the_others_out(ranks):
    ends = ranks[0]["pair"], ranks[-1]["pair"]
    assert bits(ends[0]["reduced"]) == bits(ends[1]["reduced"])
    merged = ends[0]["local"][0] + ends[1]["local"][0]
    assert_close(ends[0]["reduced"][0].cells(), merged.cells(), 1e-12)
    for outside in ranks[1:-1]:
        assert outside["pair"]["error"] == "ValueError"
        assert "group does not contain this process" in outside["pair"]["text"]


@pytest.mark.parametrize("what", UNLIKE)
def test_unlike_statistics_fail_alike_on_every_rank(ranks, what):
    for rank in ranks:
        got = rank[f"unlike {what}"]
        assert got["error"] == "ValueError"
        assert re.search(UNLIKE[what], got["text"])
        assert got["text"] == ranks[0][f"unlike {what}"]["text"]
        assert got["seconds"] < 30, "found out, not timed out"


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_on_one_rank_fails_on_every_rank(ranks, what):
    for number, rank in enumerate(ranks):
        got = rank[f"unlike {what}"]
        assert got["error"] == ("TypeError" if number == 1 else "ValueError")
        assert re.search(WRONG[what] if number == 1 else "rank 1 called all_reduce with wrong arguments", got["text"])


def test_a_lost_rank_ends_the_others_in_the_timeout_of_torch(ranks):
    for rank in ranks[:-1]:
        got = rank["lost"]
        assert got["error"] in ("RuntimeError", "DistBackendError")
        assert 2.5 < got["seconds"] < 20
    # the second to give up may see that the first closed its connection
    assert any(re.search("(?i)timed? ?out", rank["lost"]["text"]) for rank in ranks[:-1])


# --- readings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["tiers", "tiers, none on the first rank"])
def test_the_opt_in_tiers_are_the_merge_of_all_ranks(ranks, scenario):
    merged = reduce(add, [rank[scenario]["local"][0] for rank in ranks])
    for rank in ranks:
        (reduced,) = rank[scenario]["reduced"]
        assert repr(reduced) == repr(merged)
        found, expected = reduced._accumulator.tier_cells(), merged._accumulator.tier_cells()
        size = np.abs(expected[np.isfinite(expected)]).max()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * size)
        assert reduced.pairs.count == merged.pairs.count > 0
        assert reduced.linear_cka == pytest.approx(merged.linear_cka, rel=1e-9)
        assert found.tobytes() == ranks[0][scenario]["reduced"][0]._accumulator.tier_cells().tobytes()
        assert rank[scenario]["untouched"]


def test_a_reservoir_is_refused():
    with pytest.raises(ValueError, match=r"stats\[0\] has a reservoir"):
        raise _wrong_stats([geoact.GeometryStats(reservoir=4)])


def test_a_reading_holds_all_ranks(ranks):
    for rank in ranks:
        got = rank["reading"]["reduced"]
        assert isinstance(got, Reading)
        assert got.step == 10 + len(ranks) - 1
        assert got.alerts == ()
        # a and b ran first on some rank, so their names decide; 0 is last on all that ran it
        assert [(layer.name, layer.index) for layer in got] == [("block.a", 0), ("block.b", 1), ("block.0", 2)]
        assert got["block.a"].calls == 5 * len(ranks)
        assert got["block.b"].calls == sum(2 + number for number in range(len(ranks)))
        assert got["block.0"].calls == len(ranks) - 1
        assert got["block.b"].backward is None
        for name in ("block.a", "block.b", "block.0"):
            for kind in ("forward", "backward"):
                records = [getattr(other["reading"]["local"][name], kind) for other in ranks]
                reduced = getattr(got[name], kind)
                if reduced is not None:
                    assert_close(reduced.cells(), reduce(add, records).cells(), 1e-12)
                    assert bits([reduced]) == bits([getattr(ranks[0]["reading"]["reduced"][name], kind)])


def test_a_local_reading_stays_as_it_is(ranks):
    for number, rank in enumerate(ranks):
        local = rank["reading"]["local"]
        assert (local.step, len(local.alerts)) == (10 + number, 1)
        assert [layer.name for layer in local] == ["block.b", "block.a", "block.0"]
        assert local["block.b"].forward.n[0] == 8


# --- in this process ------------------------------------------------------------------------------


def record(per="channel", kind=geoact.GeometryStats):
    stats = kind(per=per)
    x = np.random.default_rng(5).normal(size=(6, 4))
    if kind is geoact.GeometryStats:
        geoact.silu(x, stats=stats)
    else:
        geoact.silu.backward(x, x=x, stats=stats)
    return stats


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_without_a_process_group_it_says_what_to_do():
    for call in (lambda: all_reduce([record()]), record().all_reduce, lambda: all_reduce_reading(Reading(0, ()))):
        with pytest.raises(RuntimeError, match=r"init_process_group.*torchrun"):
            call()


@pytest.mark.usefixtures("alone")
def test_a_rank_alone_gets_copies():
    stats = [
        record(per, kind)
        for per in ("tensor", "channel", "row")
        for kind in (geoact.GeometryStats, geoact.GradientStats)
    ]
    reduced = all_reduce(stats)
    assert bits(reduced) == bits(stats)
    assert bits([record().all_reduce()]) == bits([record()])
    before = bits(stats)
    for copy in reduced:
        copy.reset()
    assert bits(stats) == before
    layers = Layer("b", "silu", 0, 3, record()), Layer("a", "silu", 1, 4, record(), record(kind=geoact.GradientStats))
    reading = all_reduce_reading(Reading(7, layers))
    assert [(layer.name, layer.index, layer.calls) for layer in reading] == [("b", 0, 3), ("a", 1, 4)]
    assert reading.step == 7
    assert bits([reading["b"].forward]) == bits([record()])
    assert all_reduce_reading(Reading(7, ())).layers == ()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("stats", [3, None, "stats", {}, iter(()), record()], ids=lambda v: type(v).__name__)
def test_what_is_no_sequence_of_statistics_is_refused(stats):
    with pytest.raises(TypeError, match=r"stats must be a sequence of .*, got " + type(stats).__name__):
        all_reduce(stats)


@pytest.mark.usefixtures("alone")
def test_wrong_members_and_readings_are_named():
    with pytest.raises(TypeError, match=r"stats\[1\] must be one of .*, got NoneType"):
        all_reduce([record(), None])
    with pytest.raises(TypeError, match="reading must be a Reading, got list"):
        all_reduce_reading([record()])


@pytest.mark.usefixtures("alone")
def test_a_group_that_cannot_use_the_cpu_uses_the_current_cuda_device(monkeypatch):
    from geoact.torch.distributed import _Ranks

    assert _Ranks(None).device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for config, device in (("cuda:nccl", "cuda:3"), ("cpu:gloo,cuda:nccl", "cpu"), ("cpu:mpi,cuda:mpi", "cpu")):
        monkeypatch.setattr(dist, "get_backend_config", lambda group, config=config: config)
        assert _Ranks(None).device == torch.device(device)
