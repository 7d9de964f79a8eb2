"""The opt-in tiers by Triton against those of the CPU: buckets of values, pairs of rows, sketches of rows."""

import geoact
import numpy as np
import pytest
import torch
from geoact import _core
from geoact.kernels import tiers as kernels
from geoact.torch import triton, triton_tiers
from geoact.torch.triton_tiers import Tiers
from support import inputs
from support.cases import DTYPES
from support.interpreter import tensor

EVERYTHING = Tiers("all", True, 32)
SUMS = ("sum_sq_x", "sum_sq_y", "least_ratio", "greatest_ratio")


@pytest.fixture(autouse=True)
def several_programs(monkeypatch):
    """Small data have several partial records to fold, and several lots of rows kept aside."""
    monkeypatch.setattr(kernels, "_READ_PER_CELL", 0)
    monkeypatch.setattr(kernels, "_ELEMENTS", 1)
    monkeypatch.setattr(kernels, "_PROGRAMS", 5)
    monkeypatch.setattr(kernels, "_PROGRAMS_OF_SKETCHES", 3)
    monkeypatch.setattr(kernels, "_FILLED", 2)


def accumulator(tiers, axis=-1):
    return _core.Accumulator("forward", "tensor", axis, "counts", 0.05, *tiers)


def on_the_cpu(row, x, values, tiers, axis=-1, calls=1):
    """Fields of the record, and y."""
    stats = geoact.GeometryStats(channel_axis=axis, level="counts")
    stats._accumulator = accumulator(tiers, axis)
    for _ in range(calls):
        y = row(x, *values, stats=stats)
    return named(stats._accumulator.tier_cells(), tiers), y


def by_triton(row, x, values, tiers, axis=-1, calls=1, **options):
    state = triton_tiers.new_tier_state(tiers)
    for _ in range(calls):
        y = triton.forward(row, x, values, tiers=tiers, tier_state=state, channel_axis=axis, **options)
    assert int(triton.calls_of(state)) == calls
    return named(triton_tiers.tier_cells_of(state).numpy(), tiers), y


def named(cells, tiers):
    return {name: cells[at : at + size].copy() for name, at, size in accumulator(tiers).tier_fields()}


def assert_record(actual, expected, context=""):
    """Counts are equal, sums within 1e-6, products of sketches within 1e-5 of the largest of their kind."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        where = f"{name} {context}"
        if name.startswith("sketch_") and not name.startswith("sketch_pairs") and value.size > 1:
            size = np.abs(value).max()
            np.testing.assert_allclose(actual[name], value, rtol=0, atol=1e-5 * size, err_msg=where)
        elif name.endswith(SUMS):
            np.testing.assert_allclose(actual[name], value, rtol=1e-6, err_msg=where)
        else:
            np.testing.assert_array_equal(actual[name], value, err_msg=where)


def check(row, x, tiers=EVERYTHING, axis=-1, values=(), calls=1):
    expected, y = on_the_cpu(row, x, values, tiers, axis, calls)
    actual, ours = by_triton(row, x, values, tiers, axis, calls)
    assert torch.equal(ours.nan_to_num(7), y.nan_to_num(7))  # else buckets may differ by a rounding
    assert_record(actual, expected, f"{tuple(x.shape)} {x.dtype} {tiers}")
    return actual


def normal(shape, dtype="float32", **options):
    return tensor(inputs.normal(shape, DTYPES[dtype], **options))


# --- the record ------------------------------------------------------------------------------------------


def test_layout_is_that_of_the_core():
    for tiers in (Tiers("all"), Tiers("none", True), Tiers("none", False, 64), Tiers("sampled", True, 128)):
        layout = kernels.layout(*tiers)
        cells = accumulator(tiers).tier_cells()
        assert layout.cells == cells.size
        first = {name: at for name, at, _ in accumulator(tiers).tier_fields()}
        assert layout.histogram == first.get("histogram_x", -1)
        assert layout.pairs == first.get("pairs_count", -1)
        assert layout.sketch == first.get("sketch_rows", -1)
        np.testing.assert_array_equal(triton_tiers.tier_cells_of(triton_tiers.new_tier_state(tiers)), cells)


def test_signs_are_those_of_the_hash():
    def mix(v):
        v = (v + 0x9E3779B97F4A7C15) % 2**64
        v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        v = (v ^ v >> 27) * 0x94D049BB133111EB % 2**64
        return v ^ v >> 31

    for columns, k in ((300, 128), (33, 32)):
        signs, turns = triton_tiers.sketch_signs(columns, k)
        for block in range(-(-columns // k)):
            words = [mix(0x67656F616374 + 8 * block + which) for which in range(6)]
            assert [turns[0, block], turns[1, block]] == [words[0] % k, words[5] % k]
            for which, i in ((which, i) for which in (0, 1) for i in range(k)):
                lane = i ^ int(turns[which, block])
                assert signs[which, block, i] == (-1 if words[1 + 2 * which + lane // 64] >> (lane % 64) & 1 else 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_record_is_that_of_the_cpu(dtype):
    actual = check(geoact.relu, normal((71, 50), dtype, sd=2.0), calls=2)
    assert actual["histogram_x"].sum() == 2 * 71 * 50
    assert actual["pairs_count"] == 2 * 35
    assert actual["sketch_rows"] == 2 * 71


@pytest.mark.parametrize("tiers", [Tiers("all"), Tiers("sampled"), Tiers("none", True), Tiers("none", False, 32)])
def test_each_tier_alone(tiers):
    check(geoact.relu, normal((35, 300)), tiers)


@pytest.mark.parametrize("k", [64, 128])
def test_larger_sketches_and_samples_beside_them(k):
    check(geoact.leaky_relu, normal((37, 130)), Tiers("sampled", True, k), values=(0.25,))


@pytest.mark.parametrize("shape", [(1, 40), (2, 1), (3, 7), (1, 1), (0, 5), (5, 0), (16, 33), (33, 32)])
def test_few_rows_and_columns(shape):
    x = normal(shape)
    if x.numel() == 0:
        state = triton_tiers.new_tier_state(EVERYTHING)
        fresh = state.clone()
        triton.forward(geoact.relu, x, (), tiers=EVERYTHING, tier_state=state)
        assert torch.equal(state, fresh)
    else:
        check(geoact.relu, x)


def test_one_axis_and_none_have_buckets():
    for tiers in (Tiers("all"), Tiers("sampled")):
        check(geoact.relu, normal((5000,)), tiers, axis=0)
        check(geoact.relu, torch.tensor(-2.0), tiers)


# --- values that are not ordinary ------------------------------------------------------------------------


def test_rows_that_are_not_finite_are_left_out():
    x = normal((40, 50))
    x[0, 3], x[7, 49], x[20, 0], x[21, 1] = torch.nan, torch.inf, -torch.inf, torch.nan
    actual = check(geoact.relu, x)
    assert actual["sketch_nonfinite"] == 4
    assert actual["sketch_rows"] == 36
    assert actual["pairs_nonfinite"] == 3
    assert check(geoact.relu, torch.full((20, 8), torch.nan))["sketch_rows"] == 0


def test_equal_rows_and_rows_that_become_equal():
    x = normal((12, 40))
    x[1] = x[0]  # identical
    x[2:4] = -x[2:4].abs()  # a collision of ReLU
    actual = check(geoact.relu, x)
    assert actual["pairs_identical"] == actual["sketch_pairs_identical"] == 1
    assert actual["pairs_collisions"] == actual["sketch_pairs_collisions"] == 1


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_squares_beyond_float32(size):
    check(geoact.relu, normal((18, 70)) * size, Tiers("all", True))


def test_every_bucket():
    x = torch.tensor([s * m * 2.0**e for s in (1, -1) for e in range(-36, 37) for m in (1, 1.25, 1.5, 1.75)])
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, -1e-45, 3e38])
    check(geoact.relu, torch.cat([x, special]).reshape(16, -1), Tiers("all"))
    check(geoact.relu, torch.cat([x, special]).double().reshape(16, -1), Tiers("all"))


def test_deviations_about_a_large_mean():
    actual = check(geoact.relu, normal((90, 32), mean=1e4))
    assert np.all(actual["sketch_deviation_s_of_x"] < 1e5)  # and not of the size of the mean's square


# --- where data lie --------------------------------------------------------------------------------------


def test_channels_of_any_axis_and_strides():
    x = normal((3, 37, 3, 2))
    check(geoact.relu, x, axis=1)
    check(geoact.relu, x.to(memory_format=torch.channels_last), axis=1)
    check(geoact.relu, x.permute(2, 1, 0, 3), axis=1)  # rows of more than two axes in memory: copied
    check(geoact.relu, x, axis=0)
    check(geoact.relu, normal((40, 66))[::2, ::3])
    check(geoact.relu, normal((1, 40)).expand(12, 40))


@pytest.mark.parametrize(("axis", "weights"), [(1, 9), (2, 10), (1, 1)])
def test_weight_of_each_channel_and_of_all(axis, weights):
    x, weight = normal((4, 9, 10)), torch.linspace(-0.5, 1, weights)
    actual, y = by_triton(geoact.prelu, x, (weight,), EVERYTHING, weight_axis=axis)
    shape = [-1 if a == axis else 1 for a in range(3)]
    by_hand = torch.where(x > 0, x, weight.reshape(shape) * x)
    assert torch.equal(y, by_hand)
    expected, _ = on_the_cpu(geoact.leaky_relu, by_hand, (1.0,), EVERYTHING)
    for ours, theirs in (("histogram_y", "histogram_x"), ("pairs_sum_sq_y", "pairs_sum_sq_x")):
        np.testing.assert_allclose(actual[ours], expected[theirs], rtol=1e-6)


def test_in_place_measures_x_as_it_was():
    x = normal((20, 40))
    expected, y = on_the_cpu(geoact.relu, x.clone(), (), EVERYTHING)
    actual, _ = by_triton(geoact.relu, x, (), EVERYTHING, out=x)
    assert torch.equal(x, y)
    assert_record(actual, expected)


def test_other_columns_than_zero_are_not_of_the_padding():
    """The sigmoid of nothing is a half: what is beyond the last column must not be seen."""
    check(geoact.hardsigmoid, normal((10, 33)))


# --- states ----------------------------------------------------------------------------------------------


def test_the_same_bits_every_time_and_none_where_disabled():
    x = normal((71, 40))
    states = [triton_tiers.new_tier_state(EVERYTHING) for _ in range(3)]
    triton.set_enabled(states[2], False)
    fresh = states[2].clone()
    for state in states:
        triton.forward(geoact.relu, x, (), tiers=EVERYTHING, tier_state=state)
    assert torch.equal(states[0].view(torch.int64), states[1].view(torch.int64))
    assert torch.equal(states[2], fresh)


def test_the_table_of_the_launches_is_zero_again():
    """It serves all launches of a stream: what one leaves there would be counted by the next."""
    x, table = normal((20, 40)), torch.zeros(2 * kernels.TABLE_WORDS.value, dtype=torch.int32)
    states = [triton_tiers.new_tier_state(EVERYTHING) for _ in range(2)]
    value = triton.ACTIVATIONS["relu"].value
    for _ in range(2):
        triton_tiers.observe(value, x, (), (), EVERYTHING, states[0], 1, lambda x, count: table[:count])
        assert not table.any()
        triton.forward(geoact.relu, x, (), tiers=EVERYTHING, tier_state=states[1])
    assert torch.equal(states[0], states[1])


def test_errors_name_the_argument():
    state = triton_tiers.new_tier_state(EVERYTHING)
    x = normal((4, 5))

    def call(x, tiers, state, **options):
        return triton.forward(geoact.relu, x, (), tiers=tiers, tier_state=state, **options)

    with pytest.raises(TypeError, match="tier_state"):
        call(x, EVERYTHING, None)
    with pytest.raises(ValueError, match="tier_state must be contiguous float64 of shape"):
        call(x, Tiers("all"), state)
    with pytest.raises(ValueError, match="two axes or more"):
        call(x[0], EVERYTHING, state)
    with pytest.raises(ValueError, match="sketch is 48"):
        call(x, Tiers("all", True, 48), state)
    with pytest.raises(ValueError, match="histogram is 'some'"):
        call(x, Tiers("some"), state)
    with pytest.raises(ValueError, match="channel_axis is 2"):
        call(x, EVERYTHING, state, channel_axis=2)
    assert int(triton.calls_of(state)) == 0


def test_plan_covers_all_rows_and_places(monkeypatch):
    monkeypatch.undo()
    for rows, columns in ((1, 1), (1, 10**9), (10**9, 1), (7, 4096), (131072, 4096), (10**7, 64)):
        for tiers in (Tiers("all"), Tiers("sampled"), Tiers("none", True), EVERYTHING, Tiers("none", False, 128)):
            plan = kernels.plan(rows, columns, 2, *tiers)
            places = kernels.columns_looked_at(columns, tiers.histogram, tiers.pairs or tiers.sketch > 0)
            assert (plan.programs - 1) * plan.rows_of_program < rows <= plan.programs * plan.rows_of_program
            along = plan.blocks_of_program * plan.block
            assert (plan.splits - 1) * along < places <= plan.splits * along
            assert plan.rows_of_program % (2 * plan.half) == 0
            assert plan.programs * plan.splits <= 1024
            assert plan.half * plan.block >= 32 * plan.warps
            assert plan.programs * kernels.layout(*tiers).cells * 8 < 2**27
