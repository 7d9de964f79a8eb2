"""Merge laws, and everything else that moves a record about: pickle, copy, reset, dict, table, print."""

import copy
import itertools
import json
import pickle

import geoact
import numpy as np
import pytest
from geoact import _core
from hypothesis import given, settings
from hypothesis import strategies as st
from support import inputs
from support.cases import DTYPES

FORWARD = [("tensor", "moments"), ("tensor", "counts"), ("channel", "moments"), ("channel", "counts")]
COUNTS = {"n", "negative", "positive", "zero", "saturated", "subnormal", "underflow"}
COUNTS |= {"nonfinite_x", "nonfinite_y", "nonfinite_dy", "nonfinite_dx"}


def geometry(x, per="tensor", level="moments", axis=-1):
    stats = geoact.GeometryStats(per=per, level=level, channel_axis=axis)
    geoact.silu(x, stats=stats)
    return stats


def gradient(x, per="tensor"):
    stats = geoact.GradientStats(per=per)
    geoact.silu.backward(x, x=np.ascontiguousarray(x[::-1]), stats=stats)
    return stats


def assert_same_record(a, b, relative=1e-12):
    """Equal up to the rounding of float64 sums; counts and extremes exactly."""
    assert (a.groups, a.dtype) == (b.groups, b.dtype)
    x, y = a.cells(), b.cells()
    merges = dict(_core.fields(a._direction))
    n = np.maximum(x["n"], 1)
    for name in x:
        if name in COUNTS or merges[name] in ("minimum", "maximum"):
            np.testing.assert_array_equal(x[name], y[name], err_msg=name)
            continue
        size = np.abs(x[name])
        if name.startswith(("mean", "c_xy")):
            spread = np.sqrt(x["m2_x"] + x["m2_y"])
            size = size + (spread * spread if name == "c_xy" else spread / np.sqrt(n))
        elif name in ("sum_slope",):
            size = size + n
        assert np.all(np.abs(x[name] - y[name]) <= relative * size), name


def parts_of(lengths, seed, dtype=np.float32, columns=5):
    random = np.random.default_rng(seed)
    return [(random.normal(random.normal() * 3, 2, (n, columns))).astype(dtype) for n in lengths]


lengths = st.lists(st.integers(0, 300), min_size=3, max_size=3)
seeds = st.integers(0, 1 << 30)


@pytest.mark.parametrize(("per", "level"), FORWARD)
@settings(max_examples=40)
@given(lengths=lengths, seed=seeds)
def test_merging_is_associative_and_commutative(per, level, lengths, seed):
    a, b, c = (geometry(x, per, level) for x in parts_of(lengths, seed))
    assert_same_record((a + b) + c, a + (b + c))
    assert_same_record(a + b, b + a)


@pytest.mark.parametrize(("per", "level"), FORWARD)
@settings(max_examples=40)
@given(cut=st.integers(0, 999), seed=seeds)
def test_statistics_of_two_parts_merge_to_those_of_the_whole(per, level, cut, seed):
    x = np.concatenate(parts_of([500, 499], seed))
    merged = geometry(x[:cut], per, level) + geometry(x[cut:], per, level)
    # the parts are float32 sums cut elsewhere
    assert_same_record(merged, geometry(x, per, level), relative=2e-6)


@settings(max_examples=40)
@given(cut=st.integers(0, 999), seed=seeds)
def test_gradient_statistics_of_two_parts_merge_to_those_of_the_whole(cut, seed):
    x = np.concatenate(parts_of([500, 499], seed))
    for per in ("tensor", "channel"):
        whole, first, second = (geoact.GradientStats(per=per) for _ in range(3))
        for part, stats in ((x, whole), (x[:cut], first), (x[cut:], second)):
            geoact.silu.backward(part, x=part, stats=stats)
        assert_same_record(first + second, whole, relative=2e-6)


@settings(max_examples=30)
@given(lengths=lengths, seed=seeds)
def test_accumulating_over_calls_is_merging(lengths, seed):
    parts = parts_of(lengths, seed)
    for per in ("tensor", "channel"):
        running = geoact.GeometryStats(per=per)
        for part in parts:
            geoact.silu(part, stats=running)
        assert_same_record(running, sum(geometry(part, per) for part in parts))


@pytest.mark.parametrize(("per", "level"), [*FORWARD, ("row", "moments"), ("row", "counts")])
def test_an_empty_record_is_neutral(per, level, dtype):
    record, empty = (
        geometry(inputs.normal((40, 7), dtype), per, level),
        geoact.GeometryStats(per=per, level=level),
    )
    assert_same_record(record + empty, record, relative=0)
    assert_same_record(empty + record, record, relative=0)
    assert (empty + empty).groups == empty.groups


def test_data_of_no_elements_are_neutral(dtype):
    record = geometry(inputs.normal((40, 7), dtype), "channel")
    nothing = geometry(np.empty((0, 7), dtype), "channel")
    assert (nothing.n == 0).all()
    assert_same_record(record + nothing, record, relative=0)
    assert_same_record(nothing + record, record, relative=0)


def test_huge_means_merge_without_overflow():
    x = np.full((8, 3), 3e38, np.float32)
    stats = geometry(x, "channel") + geoact.GeometryStats(per="channel") + geometry(x, "channel")
    np.testing.assert_allclose(stats.mean_x, 3e38, rtol=1e-6)
    np.testing.assert_array_equal(stats.var_x, 0)


def test_merging_does_not_lose_a_variance_far_from_zero():
    x = np.random.default_rng(1).normal(1e8, 1, (64, 1000))
    merged = sum(geometry(part) for part in x)
    assert merged.var_x == pytest.approx(x.var(), rel=1e-9)


def test_rows_are_appended_in_order(isa):
    a, b = inputs.normal((3, 40), np.float32), inputs.normal((5, 40), np.float32, seed=4)
    running = geometry(a, "row")
    geoact.silu(b, stats=running)
    for stats in (running, geometry(a, "row") + geometry(b, "row"), geometry(np.concatenate([a, b]), "row")):
        assert stats.groups == 8
        np.testing.assert_allclose(stats.mean_x, np.r_[a.mean(axis=1), b.mean(axis=1)], rtol=1e-5, atol=1e-6)


def test_sum_plus_equals_and_self():
    parts = [geometry(inputs.normal(100, np.float32, seed=k)) for k in range(4)]
    before = [pickle.dumps(part) for part in parts]
    total = sum(parts)
    assert total.n == 400
    assert [pickle.dumps(part) for part in parts] == before
    target = same = parts[0].copy()
    target += parts[1]
    assert target is same
    assert target.n == 200
    target += target
    assert target.n == 400
    assert (target + target).var_x == pytest.approx(target.var_x)
    assert sum([parts[0]]) is not parts[0]
    assert sum([parts[0]]).n == 100


# --- what does not merge --------------------------------------------------------------------------


def record(per="channel", level="moments", saturation=0.05, axis=-1, columns=4, kind=np.float32):
    stats = geoact.GeometryStats(per=per, level=level, saturation=saturation, channel_axis=axis)
    geoact.relu(inputs.normal((columns, columns), kind), stats=stats)
    return stats


DIFFERENT = {
    "per": {"per": "tensor"},
    "level": {"level": "counts"},
    "saturation": {"saturation": 0.1},
    "channel_axis": {"axis": 0},
    "number of channels": {"columns": 5},
    "dtype": {"kind": np.float64},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_unlike_records_do_not_merge_and_stay_as_they_were(what):
    a, b = record(), record(**DIFFERENT[what])
    before = pickle.dumps(a), pickle.dumps(b)
    for left, right in ((a, b), (b, a)):
        for merge in (left.merge, left.__add__, left.__iadd__):
            with pytest.raises(ValueError, match=f"other.*{what}"):
                merge(right)
    assert (pickle.dumps(a), pickle.dumps(b)) == before


@pytest.mark.parametrize("other", [geoact.GradientStats(per="channel"), 3, None, "stats"], ids=repr)
def test_other_kinds_do_not_merge(other):
    a = record()
    before = pickle.dumps(a)
    with pytest.raises(TypeError, match="other"):
        a.merge(other)
    with pytest.raises(TypeError, match="unsupported operand"):
        a + other
    with pytest.raises(TypeError, match="unsupported operand"):
        a += other
    assert pickle.dumps(a) == before


# --- copies ---------------------------------------------------------------------------------------


def records():
    for per, level, kind in itertools.product(("tensor", "channel", "row"), ("counts", "moments"), DTYPES.values()):
        yield geometry(inputs.normal((6, 5), kind), per, level, axis=-2)
        yield geoact.GeometryStats(per=per, level=level)
    yield gradient(inputs.normal((6, 5), np.float32))
    yield gradient(inputs.normal((6, 5), np.float32), "channel")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_and_copies_hold_the_same_record(protocol):
    for stats in records():
        for twin in (
            pickle.loads(pickle.dumps(stats, protocol)),
            stats.copy(),
            copy.copy(stats),
            copy.deepcopy(stats),
        ):
            assert type(twin) is type(stats)
            assert repr(twin) == repr(stats)
            assert_same_record(twin, stats, relative=0)


def test_a_copy_is_independent():
    stats = record()
    for twin in (stats.copy(), copy.copy(stats), copy.deepcopy(stats)):
        before = pickle.dumps(stats)
        twin.merge(record())
        assert pickle.dumps(stats) == before
        twin.reset()
        assert pickle.dumps(stats) == before


# geoact.relu(numpy.array([-1, 0, 2, 4], "float32"), stats=GeometryStats()), pickled by the first version of schema 1
STATE = {
    "schema": 1,
    "settings": {"per": "tensor", "channel_axis": -1, "level": "moments", "saturation": 0.05},
    "cells": [
        [4],
        [1],
        [2],
        [2],
        [2],
        [0],
        [0],
        [0],
        [-1],
        [4],
        [0],
        [4],
        [1.25],
        [1.5],
        [14.75],
        [11],
        [12.5],
        [6],
        [6],
        [20],
        [2],
        [2],
    ],
    "dtype": "float32",
}


def test_a_pickle_of_this_schema_is_read():
    stats = geoact.GeometryStats.__new__(geoact.GeometryStats)
    stats.__setstate__({**STATE, "cells": np.array(STATE["cells"], float)})
    fresh = geoact.GeometryStats()
    geoact.relu(np.array([-1, 0, 2, 4], np.float32), stats=fresh)
    assert_same_record(stats, fresh, relative=1e-15)
    assert stats.mean_y == 1.5


def test_a_pickle_of_another_schema_is_refused():
    stats = geoact.GeometryStats()
    for changed in (
        {"schema": 2},
        {"cells": np.zeros((3, 1))},
        {"dtype": "float128"},
        {"cells": np.zeros((22, 2))},
    ):
        state = {**STATE, "cells": np.array(STATE["cells"], float), **changed}
        with pytest.raises(ValueError, match=next(iter(changed))):
            stats.__setstate__(state)


def test_reset_forgets_all_but_the_settings():
    stats = geoact.GeometryStats(per="channel", channel_axis=0, saturation=0.2)
    empty = pickle.dumps(stats)
    geoact.relu(inputs.normal((3, 9), np.float32), stats=stats)
    stats.reset()
    assert pickle.dumps(stats) == empty
    geoact.relu(inputs.normal((5, 9), np.float64), stats=stats)
    assert (stats.groups, stats.dtype) == (5, "float64")


# --- reading --------------------------------------------------------------------------------------


def test_to_dict_is_json_and_holds_every_derived_value():
    for stats in records():
        table = stats.to_dict()
        assert json.loads(json.dumps(table)).keys() == table.keys()
        assert (table["schema"], table["kind"], table["dtype"]) == (1, type(stats).__name__, stats.dtype)
        assert table["settings"]["per"] == stats.per
        for name, value in table["groups"].items():
            np.testing.assert_array_equal(value, getattr(stats, name))
        assert ("layer" in table) == (stats.per == "channel")
        for name, value in table.get("layer", {}).items():
            np.testing.assert_array_equal(value, getattr(stats, name))


def test_to_dataframe_has_a_row_per_group():
    pytest.importorskip("pandas")
    for stats in records():
        frame = stats.to_dataframe()
        assert len(frame) == stats.groups
        assert frame.index.name == stats.per
        assert list(frame.columns) == list(stats.to_dict()["groups"])
        np.testing.assert_array_equal(frame["n"], stats.n)


def test_print_shows_kind_grouping_and_every_value():
    for stats in records():
        text = str(stats)
        assert text.startswith(f"{type(stats).__name__} per {stats.per}")
        assert stats.dtype in text
        if stats.groups:
            assert all(name in text for name in stats.to_dict()["groups"])
        else:
            assert "no data yet" in text
        assert repr(stats).startswith(f"<{type(stats).__name__} per={stats.per!r}")
        assert f"groups={stats.groups}" in repr(stats)


def test_dir_lists_what_can_be_read():
    stats = record()
    for name in ("gain", "linear_share", "dead_fraction", "merge"):
        assert name in dir(stats)
    assert "gain" not in dir(record(level="counts"))
    assert "dead_fraction" not in dir(gradient(inputs.normal((4, 4), np.float32)))
