"""Records of the Triton kernels against float64 NumPy and against the CPU kernels, for every grouping and dtype."""

import itertools

import geoact
import numpy as np
import pytest
import torch
from support import inputs, oracle
from support.cases import DTYPES, PLAIN, Case, assert_same_bits
from support.interpreter import Measured, TritonCase, backend, groups_of, tensor

each_row = pytest.mark.parametrize("case", [TritonCase(case.name, case.values) for case in PLAIN], ids=str)
FLOAT32 = DTYPES["float32"]
NOT_FINITE = (np.nan, np.inf, -np.inf)
COUNTS = [name for name, merge in geoact._core.fields("forward") if merge == "sum"][:8]

# shape, channel axis: one to four axes; few and many rows and channels; several programs, splits and tiles
LAYOUTS = [
    ((300,), 0),
    ((70, 33), -1),
    ((700, 3), 1),
    ((3, 900), 1),
    ((9, 3, 50), -2),
    ((2, 17, 9, 5), 1),
]


def count_of_saturated(slope, dtype):
    """Bounds of the count: an f' within rounding of the threshold may fall on either side."""
    margin = 1e-12 if dtype == np.float64 else 1e-6
    return [(np.abs(slope) < 0.05 + side * margin).sum(axis=1) for side in (-1, 1)]


def check(case, x, per="tensor", axis=-1, level="moments", context=""):
    """The record of one call against the oracle, from x and y as stored."""
    stats = Measured("forward", groups_of(x.shape, per, axis), per, axis, level)
    y = case(x, **stats.options)
    groups = [oracle.grouped(a, per, axis) for a in (x, y, case.measured_slope(x, y))]
    expected, actual = oracle.cells(*groups, x.dtype), stats.cells()
    low, high = count_of_saturated(groups[2], x.dtype)
    context = f"{case} {x.dtype} {x.shape} per {per} {axis} {context}"
    assert ((low <= actual["saturated"]) & (actual["saturated"] <= high)).all(), context
    del expected["saturated"]
    oracle.assert_cells(actual, expected, context=context)
    assert set(actual) == {"saturated", *(name for name in expected if name in actual)}
    assert stats.calls == 1
    return actual, y


# Every dtype and every grouping for every row, without every pair of them.
DTYPE_AND_GROUPING = [("float32", "tensor"), ("float16", "channel"), ("bfloat16", "tensor"), ("float64", "row")]


@pytest.mark.parametrize(("dtype", "per"), DTYPE_AND_GROUPING)
@each_row
def test_record_is_that_of_the_oracle_and_of_the_cpu(case, dtype, per):
    x = inputs.normal((40, 16), DTYPES[dtype], sd=2.0)
    actual, y = check(case, x, per)
    stats = geoact.GeometryStats(per=per)
    twin = Case(case.name, case.values)(x, stats=stats)
    cells = stats.cells()
    for name in COUNTS:
        np.testing.assert_array_equal(actual[name], cells[name], name)
    if np.array_equal(y, twin):
        for name in ("x_min", "x_max", "y_min", "y_max"):
            np.testing.assert_array_equal(actual[name], cells[name], name)
    # y may differ by a rounding between the two; what that does to a sum is bounded by the largest difference.
    groups = [oracle.grouped(a, per) for a in (x, y, case.measured_slope(x, y))]
    spacing = float(np.max(np.abs(y.astype(float) - twin.astype(float)), initial=0))
    for name, (_, size) in oracle.cells(*groups, x.dtype).items():
        allowed = 1e-6 * size + x.size * spacing + 1e-300
        np.testing.assert_array_less(np.abs(actual[name] - cells[name]), allowed, name)


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_record_of_every_grouping(many_programs, shape, axis, per):
    level = "counts" if axis == 0 else "moments"
    check(TritonCase("silu"), inputs.normal(shape, FLOAT32), per, axis, level)


def test_record_with_a_parameter_per_channel_and_groups_along_other_axes():
    x = inputs.normal((20, 9, 31), FLOAT32)
    weight = inputs.normal(9, FLOAT32, mean=0.3, sd=0.2)
    slope = geoact.prelu.slope(x.astype(np.float64), weight.astype(np.float64)[:, None])
    for per, axis in (("tensor", -1), ("channel", 1), ("channel", 0), ("channel", 2), ("row", 1), ("row", 2)):
        stats = Measured("forward", groups_of(x.shape, per, axis), per, axis)
        y = backend.forward(geoact.prelu, tensor(x), (tensor(weight),), **stats.options).numpy()
        assert_same_bits(y, geoact.prelu(x, weight))
        groups = [oracle.grouped(a, per, axis) for a in (x, y, slope)]
        oracle.assert_cells(stats.cells(), oracle.cells(*groups, FLOAT32), context=(per, axis))


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "per"), DTYPE_AND_GROUPING)
@each_row
def test_gradient_record_of_every_row(case, dtype, per):
    x, dy = inputs.normal((40, 16), DTYPES[dtype], sd=2.5), inputs.normal((40, 16), DTYPES[dtype], seed=9)
    y, stats = case(x), Measured("backward", groups_of(x.shape, per), per)
    dx = case.backward(dy, x, y, **stats.options)
    groups = [oracle.grouped(a, per) for a in (dy, dx, case.measured_slope(x, y))]
    oracle.assert_cells(stats.cells(), oracle.gradient_cells(*groups, x.dtype), context=f"{case} {dtype} {per}")
    assert stats.calls == 1


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_gradient_record_of_every_grouping(many_programs, shape, axis, per):
    x, dy, case = inputs.normal(shape, FLOAT32), inputs.normal(shape, FLOAT32, seed=9), TritonCase("relu_squared")
    stats = Measured("backward", groups_of(shape, per, axis), per, axis)
    dx = case.backward(dy, x, None, **stats.options)
    groups = [oracle.grouped(a, per, axis) for a in (dy, dx, case.measured_slope(x, x))]
    oracle.assert_cells(stats.cells(), oracle.gradient_cells(*groups, FLOAT32))


@pytest.mark.parametrize("scale", [1e-25, 1e20, 1e-40])
def test_gradients_whose_squares_leave_the_range_of_float32(scale):
    x, dy = inputs.normal(1100, FLOAT32), (scale * inputs.normal(1100, np.float64, seed=9)).astype(np.float32)
    for name in ("silu", "relu"):
        stats, case = Measured("backward", 1), TritonCase(name)
        y = case(x)
        dx = case.backward(dy, x, y, **stats.options)
        groups = [oracle.grouped(a, "tensor") for a in (dy, dx, case.measured_slope(x, y))]
        oracle.assert_cells(stats.cells(), oracle.gradient_cells(*groups, FLOAT32), context=(name, scale))


def test_gradients_that_are_not_finite_stay_in_their_group():
    for at, bad in itertools.product((0, 17 * 30 + 5), NOT_FINITE):
        x, dy = inputs.normal((40, 30), FLOAT32), inputs.normal((40, 30), FLOAT32, seed=9)
        dy.reshape(-1)[at] = bad
        stats, case = Measured("backward", 30, "channel"), TritonCase("silu")
        dx = case.backward(dy, x, None, **stats.options)
        groups = [oracle.grouped(a, "channel") for a in (dy, dx, case.measured_slope(x, x))]
        oracle.assert_cells(stats.cells(), oracle.gradient_cells(*groups, FLOAT32), context=bad)


# --- data on which naive sums fail ----------------------------------------------------------------


@pytest.mark.parametrize("kind", inputs.HARD)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_hard_data(many_programs, kind, dtype):
    shape, per = ((70, 13), "channel") if dtype == "bfloat16" else ((1100,), "tensor")
    for name in ("relu", "gelu"):
        x = inputs.hard(kind, int(np.prod(shape)), DTYPES[dtype])
        if x is not None:
            check(TritonCase(name), x.reshape(shape), per, context=kind)


@pytest.mark.parametrize(("mean", "sd"), [(0.5, 1e-4), (1000, 1)])
def test_hard_data_of_many_tiles(mean, sd):
    x = inputs.normal(20_000, FLOAT32, mean=mean, sd=sd)
    check(TritonCase("relu"), x)


@pytest.mark.parametrize("name", ["relu", "silu", "sigmoid"])
def test_values_that_are_not_finite_are_counted_and_stay_in_their_group(name):
    for level, bad in itertools.product(("counts", "moments"), NOT_FINITE):
        x = inputs.normal((40, 20), FLOAT32)
        x[17, 5] = bad
        cells, _ = check(TritonCase(name), x, "channel", level=level)
        np.testing.assert_array_equal(cells["nonfinite_x"], np.arange(20) == 5)


def test_nothing_but_nan(dtype):
    cells, _ = check(TritonCase("silu"), np.full((40, 5), np.nan).astype(dtype), "channel")
    assert (cells["nonfinite_x"] == 40).all()


def test_subnormal_values_are_counted(dtype):
    x = (np.arange(-50, 50) * inputs.smallest(dtype)).astype(dtype)
    for name in ("relu", "sigmoid", "silu"):
        check(TritonCase(name), x, level="counts")


# --- the state ------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_several_calls_add_up(per):
    x = inputs.normal((90, 12), FLOAT32)
    stats, case = Measured("forward", groups_of(x.shape, per), per), TritonCase("gelu")
    parts = [case(part, **stats.options) for part in (x[:40], x[40:41], x[41:41], x[41:])]
    y = np.concatenate(parts)
    assert stats.calls == 4
    groups = [oracle.grouped(a, per) for a in (x, y, case.measured_slope(x, y))]
    oracle.assert_cells(stats.cells(), oracle.cells(*groups, FLOAT32))


def test_a_new_state_is_neutral_and_a_disabled_one_stays_as_it_is():
    x = inputs.normal((50, 12), FLOAT32)
    for direction, per in itertools.product(("forward", "backward"), ("tensor", "channel")):
        stats = Measured(direction, groups_of(x.shape, per), per)
        before = stats.state.clone()
        call = backend.forward if direction == "forward" else lambda *a, **k: backend.backward(*a[:2], *a[1:], **k)
        plain = call(geoact.silu, tensor(x), ())
        call(geoact.silu, tensor(x[:0]), (), **stats.options)
        assert stats.calls == 1
        np.testing.assert_array_equal(stats.state[4:].numpy(), before[4:].numpy())
        backend.set_enabled(stats.state, False)
        assert torch.equal(call(geoact.silu, tensor(x), (), **stats.options), plain)
        assert stats.calls == 1
        np.testing.assert_array_equal(stats.state[4:].numpy(), before[4:].numpy())
        backend.set_enabled(stats.state, True)
        call(geoact.silu, tensor(x), (), **stats.options)
        assert stats.calls == 2
        assert stats.cells()["n"].sum() == x.size


def test_an_empty_group_is_what_the_design_says():
    cells = Measured("forward", 2).cells()
    assert {name for name, value in cells.items() if (value == np.inf).all()} == {"x_min", "y_min"}
    assert {name for name, value in cells.items() if (value == -np.inf).all()} == {"x_max", "y_max"}
    assert sum(bool((value == 0).all()) for value in cells.values()) == 18
    assert len(Measured("forward", 1, level="counts").cells()) == 12
    assert (backend.new_state("backward", 3)[4:] == 0).all()


@each_row
def test_measuring_changes_no_bit_and_repeats_bitwise(case):
    x, dy = inputs.normal((30, 21), FLOAT32), inputs.normal((30, 21), FLOAT32, seed=5)
    y = case(x)
    dx = case.backward(dy, x, y)
    records = []
    for _ in range(2):
        forward, back = Measured("forward", 21, "channel"), Measured("backward", 21, "channel")
        assert_same_bits(case(x, **forward.options), y)
        assert_same_bits(case.backward(dy, x, y, **back.options), dx)
        records.append(torch.cat([forward.state, back.state]))
    assert torch.equal(records[0], records[1])


def test_tickets_are_zero_after_every_launch(many_programs, monkeypatch):
    """So one allocation serves all launches of a stream."""
    kept = torch.zeros(4096, dtype=torch.int32)
    monkeypatch.setattr(backend, "_zeroed_tickets", lambda x, count: kept)
    x = inputs.normal((60, 70), FLOAT32)
    for per in ("tensor", "channel", "row", "channel"):
        check(TritonCase("relu"), x, per)
        assert (kept == 0).all()
    weight = torch.linspace(0, 1, 70)
    backend.backward(geoact.prelu, tensor(x), tensor(x), (weight,))
    assert (kept == 0).all()
