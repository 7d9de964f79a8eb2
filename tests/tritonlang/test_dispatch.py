"""geoact's own functions served by Triton: records shared with the core's, modules, autograd, the choice of kernels."""

import ctypes
import json

import geoact
import numpy as np
import pytest
import torch
from geoact import _core, backends
from geoact.torch import gpu

X = torch.linspace(-3, 3, 210).reshape(14, 15)


class HostMemory:
    """Host memory in the place of a device's."""

    @staticmethod
    def capturing(device):
        return False

    @staticmethod
    def upload(address, data, device):
        ctypes.memmove(address, data, len(data))

    @staticmethod
    def fill(address, byte, size, device):
        ctypes.memset(address, byte, size)

    @staticmethod
    def download(address, size, device):
        return ctypes.string_at(address, size)


@pytest.fixture(autouse=True)
def served_by_triton(monkeypatch):
    """CPU tensors count as those of a GPU, and every call of Triton's kernels is counted."""
    from geoact.torch import triton

    calls = []
    for name in ("forward", "backward"):
        function = getattr(triton, name)
        monkeypatch.setattr(triton, name, lambda *a, _f=function, _n=name, **k: (calls.append(_n), _f(*a, **k))[1])
    monkeypatch.setattr(gpu, "simulated", True)
    geoact.set_gpu_backend("triton")
    _core.register_memory(HostMemory, [1])
    yield calls
    _core.register_backend(None, [1])
    geoact.set_gpu_backend("auto")


def on_the_core(call):
    """The same by the CPU kernels."""
    _core.register_backend(None, [1])
    gpu.simulated = False
    try:
        return call()
    finally:
        gpu.simulated = True
        _core.register_memory(HostMemory, [1])


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_statistics_are_kept_with_those_of_the_core(per, served_by_triton):
    ours = geoact.GeometryStats(per=per)
    y = geoact.relu(X, stats=ours)
    geoact.relu(X + 1, stats=ours)
    assert served_by_triton == ["forward"] * 2
    theirs = geoact.GeometryStats(per=per)
    expected = on_the_core(lambda: geoact.relu(X, stats=theirs))
    on_the_core(lambda: geoact.relu(X + 1, stats=theirs))
    assert torch.equal(y, expected)
    assert (ours.calls, ours.groups) == (theirs.calls, theirs.groups)
    for name, cell in ours.cells().items():
        np.testing.assert_allclose(cell, theirs.cells()[name], rtol=1e-6, atol=1e-6, err_msg=name)
    merged = ours + theirs
    assert merged.calls == 4


def test_autograd_and_modules_go_there_too(served_by_triton):
    from geoact.torch import PReLU, Sigmoid

    stats, gradient = geoact.GeometryStats(), geoact.GradientStats()
    x = X.clone().requires_grad_()
    module = torch.nn.Sequential(Sigmoid(stats=stats, gradient_stats=gradient), PReLU(15))
    module(x).sum().backward()
    assert served_by_triton.count("forward") == 2
    assert served_by_triton.count("backward") == 2
    assert (stats.calls, gradient.calls) == (1, 1)
    twin = X.clone().requires_grad_()
    reference = torch.nn.Sequential(torch.nn.Sigmoid(), torch.nn.PReLU(15))
    reference(twin).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    torch.testing.assert_close(module[1].weight.grad, reference[1].weight.grad)


def test_a_number_for_a_weight(served_by_triton):
    dx, dweight = geoact.prelu.backward(torch.ones_like(X), 0.25, x=X)
    assert dx.shape == X.shape
    assert float(dweight) == pytest.approx(float(X.clamp(max=0).sum()), rel=1e-6)
    assert served_by_triton == ["backward"]


def test_what_is_asked_for_is_what_runs(monkeypatch, served_by_triton):
    choose = backends.choose_gpu_kernels
    monkeypatch.setattr(backends, "load_cuda", lambda: "")
    geoact.set_gpu_backend("cuda")
    assert choose("relu", "float32", 10, "a GPU") == "cuda"
    geoact.set_gpu_backend("auto")
    assert choose("relu", "float32", 10, "a GPU") == "cuda"
    monkeypatch.setattr(backends, "load_cuda", lambda: "no driver")
    choose.cache_clear()
    assert choose("relu", "float32", 10, "a GPU") == "triton"
    geoact.set_gpu_backend("cuda")
    with pytest.raises(ValueError, match="the CUDA kernels cannot run: no driver"):
        geoact.relu(X)
    with pytest.raises(ValueError, match=r"name is 'opencl' \(accepted: 'auto', 'cuda', 'triton'\)"):
        geoact.set_gpu_backend("opencl")


def test_measured_preferences_decide_where_both_can_run(monkeypatch, tmp_path, served_by_triton):
    table = tmp_path / "result.json"
    preferences = {"relu": {"float32": {"1024": "cuda", "1048576": "triton"}}}
    table.write_text(json.dumps({"environment": {"gpu": {"name": "a GPU"}}, "preferences": preferences}))
    monkeypatch.setattr(backends, "load_cuda", lambda: "")
    monkeypatch.setenv("GEOACT_GPU_PREFERENCES", str(table))
    backends._preferences.cache_clear()
    geoact.set_gpu_backend("auto")
    choose = backends.choose_gpu_kernels
    try:
        assert choose("relu", "float32", 10, "a GPU") == "cuda"
        assert choose("relu", "float32", 24, "a GPU") == "triton"
        assert choose("gelu", "float32", 24, "a GPU") == "cuda"
        assert choose("relu", "float32", 24, "another GPU") == "cuda"
        table.write_text("{")
        backends._preferences.cache_clear()
        choose.cache_clear()
        with pytest.raises(ValueError, match="GEOACT_GPU_PREFERENCES"):
            choose("relu", "float32", 24, "a GPU")
    finally:
        backends._preferences.cache_clear()
        choose.cache_clear()


def with_tiers(direction="forward", per="tensor"):
    return _core.Accumulator(direction, per, -1, "moments", 0.05, "all", True, 32)


def measured(accumulator, x):
    """One more call on the accumulator."""
    stats = geoact.GeometryStats(per=accumulator.per)
    stats._accumulator = accumulator
    return geoact.relu(x, stats=stats)


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_tiers_are_kept_with_the_record_of_the_groups(per, served_by_triton):
    ours, theirs = with_tiers(per=per), with_tiers(per=per)
    for x in (X, X + 1):
        assert torch.equal(measured(ours, x), on_the_core(lambda x=x: measured(theirs, x)))
    assert served_by_triton == ["forward"] * 2
    assert ours.calls == 2
    np.testing.assert_allclose(ours.cells(), theirs.cells(), rtol=1e-6, atol=1e-6)
    expected = theirs.tier_cells()
    np.testing.assert_allclose(ours.tier_cells(), expected, rtol=1e-5, atol=1e-4)
    twin = ours.copy()
    np.testing.assert_array_equal(twin.tier_cells(), ours.tier_cells())
    on_the_core(lambda: measured(ours, X))  # one object, both kernels
    theirs.merge(twin)
    (name, at, size), *_ = ours.tier_fields()
    assert name == "histogram_x"
    assert ours.tier_cells()[at : at + size].sum() == 3 * X.numel()
    assert theirs.tier_cells()[at : at + size].sum() == 4 * X.numel()
    ours.set_tier_cells(expected)
    np.testing.assert_array_equal(ours.tier_cells(), expected)
    ours.reset()
    np.testing.assert_array_equal(ours.tier_cells(), with_tiers().tier_cells())
    assert ours.calls == 0
    measured(ours, X)
    assert ours.tier_cells()[at : at + size].sum() == X.numel()


def test_tiers_are_switched_and_checked_with_the_record_of_the_groups():
    accumulator = with_tiers()
    measured(accumulator, X)
    before = accumulator.tier_cells()
    accumulator.enabled = False
    measured(accumulator, X)
    np.testing.assert_array_equal(accumulator.tier_cells(), before)
    accumulator.enabled = True
    with pytest.raises(ValueError, match="compares rows"):
        measured(accumulator, X[0])
    np.testing.assert_array_equal(accumulator.tier_cells(), before)
