"""Statistics on a GPU are those of the CPU: counts and extremes exactly where y is equal, sums within 1e-6."""

import itertools
import pickle

import geoact
import numpy as np
import pytest

pytest.importorskip("torch.distributed")
import torch
from support import inputs, oracle
from support.cases import DTYPES as NUMPY_DTYPES
from support.cases import each_row
from support.gpu import (
    DEVICE,
    LAYOUTS,
    PER,
    check_gradient_record,
    check_record,
    each_few,
    each_per,
    normal,
    pair,
    parameters,
    same_cells,
)
from support.torch_cases import each_dtype, same_bits

SHAPES = ((4099,), (130, 37), (5, 700), (3, 4, 70, 70), (2, 17, 9, 5))
EXACT = ("n", "negative", "positive", "nonfinite_x", "x_min", "x_max")


def settings_for(shape):
    yield {"per": "tensor"}
    for axis in range(len(shape)):
        yield {"per": "channel", "channel_axis": axis}
    yield {"per": "row", "channel_axis": -1}


@each_row
@each_dtype
@each_per
def test_records_of_every_row(backend, case, dtype, settings):
    x = normal(6, 37, 41, dtype=dtype, sd=2.5)
    for level in ("counts", "moments"):
        stats = geoact.GeometryStats(level=level, **settings)
        y = case(x, stats=stats)
        check_record(case, stats, x, y, settings, level)


@each_few
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_records_of_every_grouping(backend, case, shape):
    x = normal(*shape)
    for settings in settings_for(shape):
        stats = geoact.GeometryStats(**settings)
        check_record(case, stats, x, case(x, stats=stats), settings)


@each_few
@each_per
def test_the_record_is_that_of_the_cpu(backend, case, settings):
    x = normal(64, 40, 33)
    here, there = geoact.GeometryStats(**settings), geoact.GeometryStats(**settings)
    y, host = case(x, stats=here), case(x.cpu(), stats=there)
    mine, other = here.cells(), there.cells()
    exact = (*EXACT, "zero", "y_min", "y_max", "subnormal") if torch.equal(y.cpu(), host) else EXACT
    for name in exact:
        np.testing.assert_array_equal(mine[name], other[name], err_msg=name)
    assert (here.dtype, here.groups, here.calls) == (there.dtype, there.groups, there.calls)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@each_per
def test_layout_does_not_change_the_groups(backend, layout, settings):
    x = layout(normal(3, 4, 5, 6))
    mine, other = geoact.GeometryStats(**settings), geoact.GeometryStats(**settings)
    geoact.silu(x, stats=mine)
    geoact.silu(x.contiguous(), stats=other)
    for name in EXACT:
        np.testing.assert_array_equal(mine.cells()[name], other.cells()[name], err_msg=name)
    np.testing.assert_allclose(mine.cells()["m2_y"], other.cells()["m2_y"], rtol=2e-6)


# --- hard data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", inputs.HARD)
@each_few
def test_hard_data(backend, case, kind):
    for dtype in NUMPY_DTYPES.values():
        for shape, per in (((9001,), "tensor"), ((700, 13), "channel"), ((13, 700), "row")):
            data = inputs.hard(kind, int(np.prod(shape)), dtype)
            if data is None:
                continue
            wide = torch.from_numpy(data.astype(np.float64)).to(getattr(torch, dtype.name))
            x, settings = wide.reshape(shape).to(DEVICE), {"per": per, "channel_axis": -1}
            stats = geoact.GeometryStats(**settings)
            check_record(case, stats, x, case(x, stats=stats), settings, kind)


@pytest.mark.parametrize(("mean", "sd"), [(1000.0, 1.0), (0.5, 1e-4), (-1000.0, 1.0)])
@each_few
def test_a_large_mean_costs_no_digits(backend, case, mean, sd):
    x, settings = normal((1 << 22) + 3, mean=mean, sd=sd), {"per": "tensor"}
    stats = geoact.GeometryStats()
    check_record(case, stats, x, case(x, stats=stats), settings)


@each_few
@each_dtype
def test_values_that_are_not_finite_stay_in_their_group(backend, case, dtype):
    for settings, level, bad in itertools.product(PER, ("counts", "moments"), (torch.nan, torch.inf, -torch.inf)):
        x = normal(3, 40, 50, dtype=dtype)
        x[1, 17, 5] = bad
        stats = geoact.GeometryStats(level=level, **settings)
        check_record(case, stats, x, case(x, stats=stats), settings, f"{bad}")
        assert np.atleast_1d(stats.nonfinite_x).sum() == 1


@each_dtype
def test_subnormal_values_are_counted(backend, dtype):
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x = (torch.arange(-50, 50, dtype=torch.float64) * smallest).to(dtype).to(DEVICE)
    stats = geoact.GeometryStats()
    y = geoact.relu(x, stats=stats)
    same_bits(y.cpu(), geoact.relu(x.cpu()))
    assert stats.cells()["subnormal"][0] == 49


# --- promises -------------------------------------------------------------------------------------


@each_row
@each_dtype
def test_statistics_change_no_bit(backend, case, dtype):
    x, dy = normal(6, 4, 999, dtype=dtype), normal(6, 4, 999, dtype=dtype, seed=1)
    values = parameters(case, x, channels=4)
    y = case.row(x, *values)
    saved = {case.row.saves: y if case.row.saves == "y" else x}
    plain = case.row.backward(dy, *values, **saved)
    for settings in PER:
        for level in ("counts", "moments"):
            same_bits(case.row(x, *values, stats=geoact.GeometryStats(level=level, **settings)), y)
        measured = case.row.backward(dy, *values, **saved, stats=geoact.GradientStats(**settings))
        for a, b in zip(*(r if case.row.trainable else (r,) for r in (plain, measured)), strict=True):
            same_bits(a, b)


@each_few
@each_per
def test_a_repeated_run_is_the_same_to_the_last_bit(backend, case, settings):
    x, dy = normal(33, 40, 1001), normal(33, 40, 1001, seed=1)
    records = []
    for _ in range(3):
        stats, gradient = pair(settings)
        y = case(x, stats=stats)
        case.backward(dy, x, y, stats=gradient)
        records.append((stats, gradient))
    for later in records[1:]:
        for a, b in zip(later, records[0], strict=True):
            same_cells(a, b)


# --- merging --------------------------------------------------------------------------------------


@each_few
@each_per
def test_calls_go_on_accumulating(backend, case, settings):
    x = normal(8, 40, 300)
    stats = geoact.GeometryStats(**settings)
    y = torch.cat([case(part, stats=stats) for part in x.split(3)])
    assert stats.calls == 3
    check_record(case, stats, x, y, settings)


@each_few
@each_per
def test_a_record_merges_with_one_of_the_cpu(backend, case, settings):
    x = normal(8, 40, 300)
    here, there = geoact.GeometryStats(**settings), geoact.GeometryStats(**settings)
    y = torch.cat([case(x[:5], stats=here).cpu(), case(x[5:].cpu(), stats=there)])
    check_record(case, here + there, x, y, settings)
    assert (here.calls, there.calls) == (1, 1)


@each_few
def test_a_record_survives_copying_pickling_and_resetting(backend, case):
    x, stats = normal(100, 7), geoact.GeometryStats()
    case(x, stats=stats)
    twin, pickled = stats.copy(), pickle.loads(pickle.dumps(stats))
    same_cells(twin, stats)
    same_cells(pickled, stats)
    case(x, stats=twin)
    assert (twin.n, stats.n) == (1400, 700)
    stats.reset()
    assert (stats.calls, pickled.n) == (0, 700)
    case(x, stats=stats)
    same_cells(stats, pickled)


@each_few
@each_dtype
@each_per
def test_gradient_records(backend, case, dtype, settings):
    x, dy = normal(6, 37, 41, dtype=dtype), normal(6, 37, 41, dtype=dtype, seed=1)
    stats = geoact.GradientStats(**settings)
    y = case(x)
    dx = case.backward(dy, x, y, stats=stats)
    check_gradient_record(case, stats, dy, dx, x, y, settings)


def test_derived_values_are_those_of_the_definitions(backend):
    x, stats = normal(2000, 16), geoact.GeometryStats(per="channel")
    y = geoact.relu(x, stats=stats)
    wide_x, wide_y = x.double().cpu().numpy(), y.double().cpu().numpy()
    for name in ("gain", "linear_share", "cosine", "sd_y", "mean_x"):
        expected = [oracle.GROUP[name](a, b, (a > 0).astype(float), np.dtype(np.float32))
                    for a, b in zip(wide_x.T, wide_y.T, strict=True)]  # fmt: skip
        np.testing.assert_allclose(getattr(stats, name), expected, rtol=2e-6, err_msg=name)
    assert "whole layer" in str(stats)
