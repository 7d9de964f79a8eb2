"""What the GPU benchmark checks its contenders with: right on right results, and not to be fooled by wrong ones."""

import sys
from pathlib import Path

import geoact
import numpy as np
import pytest
from support.cases import each_case, each_row

pytest.importorskip("torch.distributed")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu_cases
import gpu_check
import gpu_peers
import gpu_place
import torch
from peers import FIELDS, GRADIENT_FIELDS
from support import inputs

FLOATS = (torch.float32, torch.bfloat16)
each_float = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def tensor(seed=0, dtype=torch.float32, shape=(64, 48)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(1.5).add(0.2).to(dtype)


def one(tensor, index, by):
    changed = tensor.clone()
    changed.view(-1)[index] += by * torch.finfo(tensor.dtype).eps * changed.view(-1)[index].abs().clamp_min(1e-3)
    return changed


@each_case
def test_the_references_on_tensors_are_those_of_numpy(case):
    x = np.concatenate([inputs.float32_sample()[::17].astype(np.float64), [np.inf, -np.inf, np.nan]])
    values = tuple(np.float64(np.float32(v)) for v in case.values)
    for on_tensors, on_arrays in ((gpu_check.value, case.row.value), (gpu_check.slope, case.row.slope)):
        with np.errstate(all="ignore"):
            expected = np.broadcast_to(on_arrays(x, *values), x.shape)
        found = on_tensors(case.row)(torch.from_numpy(x), *map(float, values)).expand(x.shape).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-300)


@each_row
@each_float
def test_values(case, dtype):
    x = tensor(dtype=dtype)
    y = case(x)
    gpu_check.check_values(case.row, x, y, case.values)
    top = int(y.float().abs().argmax())
    with pytest.raises(AssertionError, match="promised"):
        gpu_check.check_values(case.row, x, one(y, top, 8), case.values)
    y.view(-1)[7] = torch.nan
    with pytest.raises(AssertionError, match="inf ULP"):
        gpu_check.check_values(case.row, x, y, case.values)


class Record:
    """A record with one cell changed: a count by one, a sum by a little."""

    def __init__(self, stats, name):
        self._cells = stats.cells()
        counted = name in gpu_check.EXACT | {"saturated"}
        self._cells[name] = self._cells[name] + 1 if counted else self._cells[name] * 1.0001

    def cells(self):
        return self._cells


@each_row
@each_float
@pytest.mark.parametrize(("per", "axis"), [("tensor", -1), ("channel", 1), ("channel", 0), ("row", -1)])
def test_records(case, dtype, per, axis):
    x = tensor(dtype=dtype)
    stats = geoact.GeometryStats(per=per, channel_axis=axis)
    y = case(x, stats=stats)
    expected = gpu_check.record(case.row, x, y, case.values, gpu_check.kept_axes(x, per, axis))
    gpu_check.check_record(stats, expected)
    for name in FIELDS:
        if not np.any(stats.cells()[name]):
            continue
        wrong = Record(stats, name)
        with pytest.raises(AssertionError, match=name):
            gpu_check.check_record(wrong, expected)


@each_row
@each_float
def test_gradients_and_their_records(case, dtype):
    x, dy, stats = tensor(dtype=dtype), tensor(1, dtype), geoact.GradientStats()
    y = case(x)
    dx = case.backward(dy, x, y, stats=stats)
    gpu_check.check_gradient(case.row, dy, dx, x, y, case.values)
    saved = y if case.row.saves == "y" else x
    expected = gpu_check.gradient_record(case.row, dy, dx, saved, case.values, (0, 1))
    gpu_check.check_record(stats, expected)
    top = int(dx.float().abs().argmax())
    with pytest.raises(AssertionError, match="dx is wrong"):
        gpu_check.check_gradient(case.row, dy, one(dx, top, 200), x, y, case.values)
    for name in GRADIENT_FIELDS:
        if not np.any(stats.cells()[name]):
            continue
        wrong = Record(stats, name)
        with pytest.raises(AssertionError, match=name):
            gpu_check.check_record(wrong, expected)


@pytest.mark.parametrize("name", [name for name, row in geoact.activations().items() if row.trainable])
@pytest.mark.parametrize("layout", [gpu_place.FLAT, gpu_place.MATRIX, gpu_place.NCHW], ids=lambda layout: layout.name)
def test_gradients_of_parameters(name, layout):
    shape = {"flat": (960,), "matrix": (20, 48), "NCHW": (2, 48, 3, 5)}[layout.name]
    row, x, dy = geoact.get(name), tensor(shape=shape), tensor(1, shape=shape)
    values = gpu_place.parameters(row, x, layout)
    _, *found = row.backward(dy, *values, x=x)
    shaped = gpu_place.spread(values, x)
    gpu_check.check_parameter_gradients(row, dy, x, shaped, found)
    for k, parameter in enumerate(row.parameters[: row.trainable]):
        wrong = [g * 1.001 + 1e-3 if i == k else g for i, g in enumerate(found)]
        with pytest.raises(AssertionError, match=f"the gradient of {parameter.name}"):
            gpu_check.check_parameter_gradients(row, dy, x, shaped, wrong)


def test_checksums_tell_results_apart():
    x = tensor()
    assert gpu_check.checksum(x) == gpu_check.checksum(x.clone())
    assert gpu_check.checksum(x) != gpu_check.checksum(one(x, 5, 1))
    assert gpu_check.checksum(x, x) == "-".join([gpu_check.checksum(x)] * 2)


def test_the_faster_backend_is_preferred_and_no_other_where_it_is_not_known():
    def row(low, high):
        labels = {"activation": "relu", "dtype": "float32", "elements": 64}
        return {"bar": gpu_cases.BACKENDS, "low": low, "high": high, "labels": labels}

    for interval, choice in (((0.8, 0.9), "cuda"), ((1.1, 1.2), "triton"), ((0.9, 1.1), "either")):
        assert gpu_cases.preferences([row(*interval)]) == {"relu": {"float32": {"64": choice}}}
    assert gpu_cases.preferences([{"bar": gpu_cases.BACKENDS, "labels": {}}, {"bar": "other"}]) == {}


def test_every_activation_is_measured_in_every_way():
    names = set(geoact.activations())
    place = gpu_place.Place("cpu", bytes_big=1 << 12, small=(64,), compared=(64,), compiler="eager")
    found = {}
    for family in gpu_cases.suite(place).families:
        group = family.make()
        found.setdefault((family.name, group.labels["dtype"]), set()).add(group.labels["activation"])
        assert group.bars
    for dtype in ("float32", "bfloat16"):
        assert all(found[family, dtype] == names for family in ("tensor", "channel", "backward", "backends"))
        assert found["small", dtype] == set(gpu_cases.NAMED)
        assert found["peers", dtype] >= set(gpu_cases.NAMED)
    assert found["backends", "float16"] == names
    assert set(gpu_peers.PLAIN) <= names
