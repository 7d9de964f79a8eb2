"""What is refused on a GPU: a TypeError or ValueError that names the argument, before anything is written."""

import geoact
import numpy as np
import pytest

pytest.importorskip("torch.distributed")
import torch
from support.gpu import needs_cuda, normal, same_cells
from support.torch_cases import same_bits

REFUSED = (TypeError, ValueError)
SHAPE = (6, 8)


@pytest.fixture
def stats(backend):
    used = geoact.GeometryStats()
    geoact.silu(normal(*SHAPE), stats=used)
    return used


def rejected(match, call, *tensors, stats):
    """The call fails, and every tensor and the accumulator are as before."""
    kept, record, calls = [t.clone() for t in tensors], stats.copy(), stats.calls
    with pytest.raises(REFUSED, match=match) as caught:
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    for before, after in zip(kept, tensors, strict=True):
        same_bits(before, after)
    same_cells(stats, record)
    assert stats.calls == calls
    return str(caught.value)


@needs_cuda
def test_out_on_the_other_device(stats):
    here, there = normal(*SHAPE), normal(*SHAPE).cpu()
    for x, out in ((here, there), (there, here)):
        message = rejected("out", lambda x=x, out=out: geoact.relu(x, out=out, stats=stats), x, out, stats=stats)
        assert "cpu" in message.lower()
        assert "cuda" in message.lower()


@needs_cuda
def test_backward_on_two_devices(stats):
    here, there = normal(*SHAPE), normal(*SHAPE).cpu()
    gradient = geoact.GradientStats()
    for dy, y in ((here, there), (there, here)):
        rejected("device", lambda dy=dy, y=y: geoact.relu.backward(dy, y=y, stats=gradient), dy, y, stats=gradient)


@needs_cuda
def test_a_weight_on_the_other_device(stats):
    x, weight = normal(*SHAPE), torch.full((8,), 0.25)
    message = rejected("weight", lambda: geoact.prelu(x, weight, stats=stats), x, stats=stats)
    assert "cuda" in message


@needs_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus(stats):
    x, out = normal(*SHAPE), torch.empty(SHAPE, device="cuda:1")
    rejected("out", lambda: geoact.relu(x, out=out, stats=stats), x, out, stats=stats)


@needs_cuda
def test_out_of_numpy(stats):
    x, out = normal(*SHAPE), np.zeros(SHAPE, np.float32)
    rejected("out", lambda: geoact.relu(x, out=out, stats=stats), x, stats=stats)
    assert not out.any()


@pytest.mark.parametrize("other", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_mixed_dtypes(stats, other):
    x, out = normal(*SHAPE), normal(*SHAPE, dtype=other)
    gradient = geoact.GradientStats()
    rejected("out", lambda: geoact.relu(x, out=out, stats=stats), x, out, stats=stats)
    rejected("dtype|float", lambda: geoact.relu.backward(x, y=out, stats=gradient), x, out, stats=gradient)
    rejected("weight", lambda: geoact.prelu(x, out[0], stats=stats), x, out, stats=stats)


@pytest.mark.parametrize("other", [torch.int32, torch.int64, torch.bool, torch.complex64, torch.uint8], ids=str)
def test_dtypes_that_are_not_floats(stats, other):
    x = normal(*SHAPE).to(other)
    message = rejected("dtype", lambda: geoact.relu(x, stats=stats), stats=stats)
    assert "bfloat16" in message


@pytest.mark.parametrize("shape", [(), (48,), (6, 7), (1, 6, 8), (8, 6)], ids=str)
def test_shapes(stats, shape):
    x, out = normal(*SHAPE), normal(*shape)
    gradient = geoact.GradientStats()
    rejected("out", lambda: geoact.relu(x, out=out, stats=stats), x, out, stats=stats)
    rejected("shape", lambda: geoact.relu.backward(x, y=out, stats=gradient), x, out, stats=gradient)


def test_overlapping_memory(stats):
    memory = normal(101)
    x, out = memory[:100], memory[1:]
    rejected("out", lambda: geoact.relu(x, out=out, stats=stats), memory, stats=stats)
    wide = torch.zeros(1, 8, device=memory.device).expand(6, 8)
    rejected("out", lambda: geoact.relu(normal(*SHAPE), out=wide, stats=stats), wide, stats=stats)


def test_layouts_without_strides(stats):
    x = normal(*SHAPE).to_sparse()
    rejected("to_dense", lambda: geoact.relu(x, stats=stats), stats=stats)


def test_statistics_of_another_dtype(stats):
    x = normal(*SHAPE, dtype=torch.float64)
    rejected("stats", lambda: geoact.relu(x, stats=stats), x, stats=stats)


def test_statistics_of_another_number_of_channels(backend):
    stats = geoact.GeometryStats(per="channel")
    geoact.relu(normal(4, 8), stats=stats)
    x = normal(4, 9)
    rejected("stats", lambda: geoact.relu(x, stats=stats), x, stats=stats)


def test_statistics_of_the_wrong_kind(stats):
    x = normal(*SHAPE)
    rejected("stats must be", lambda: geoact.relu(x, stats=geoact.GradientStats()), x, stats=stats)
    rejected("stats must be", lambda: geoact.relu.backward(x, y=x, stats=stats), x, stats=stats)
