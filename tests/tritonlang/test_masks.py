"""ReLU's bit mask by Triton: the bits of NumPy, the values of the CPU, whatever the strides."""

import geoact
import numpy as np
import pytest
import torch
from geoact import masks
from geoact.torch import functional, gpu
from support.interpreter import TORCH, array, tensor
from support.torch_cases import same_bits


def special(*shape, dtype=torch.float32, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-42, -1e-42], dtype=torch.float64)
    x.reshape(-1)[: min(7, x.numel())] = odd[: x.numel()]
    return x.to(dtype)


@pytest.fixture(autouse=True)
def served_by_triton(monkeypatch):
    """CPU tensors count as those of a GPU; every launch is counted."""
    from geoact.torch import triton_masks

    calls, run = [], triton_masks._run
    monkeypatch.setattr(triton_masks, "_run", lambda *a: (calls.append(a[0]), run(*a))[1])
    monkeypatch.setattr(gpu, "simulated", True)
    geoact.set_gpu_backend("triton")
    yield calls
    geoact.set_gpu_backend("auto")


def by_the_core(call):
    gpu.simulated = False
    try:
        return call()
    finally:
        gpu.simulated = True


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: torch.repeat_interleave(x, 2, dim=-1)[..., ::2],
    "permuted": lambda x: x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
    "broadcast": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("columns", [1, 7, 8, 65])
def test_values_bits_and_gradients(dtype, layout, columns, served_by_triton):
    x = LAYOUTS[layout](special(2, 3, 5, columns, dtype=TORCH[dtype]))
    y, mask = masks.relu(x)
    expected, bits = by_the_core(lambda: masks.relu(x))
    same_bits(y, expected)
    assert y.stride() == torch.empty_like(x).stride()
    assert torch.equal(mask, bits)
    wide = array(y.contiguous()).astype(np.float64)
    np.testing.assert_array_equal(mask.numpy(), np.packbits(~(wide <= 0), axis=-1, bitorder="little"))
    dy = LAYOUTS[layout](special(2, 3, 5, columns, dtype=TORCH[dtype], seed=4))
    same_bits(masks.relu_backward(dy, mask), by_the_core(lambda: geoact.relu.backward(dy, y=expected)))
    assert len(served_by_triton) == 2
    if layout != "broadcast":
        assert masks.relu_backward(dy, mask, out=dy) is dy
        assert masks.relu(x, out=x)[0] is x
        same_bits(x, expected)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1,), (300,), (1100, 3)], ids=str)
def test_shapes(shape):
    x = special(*shape)
    y, mask = masks.relu(x)
    expected, bits = by_the_core(lambda: masks.relu(x))
    same_bits(y, expected)
    assert torch.equal(mask, bits)
    same_bits(
        masks.relu_backward(x, mask), y if not x.isnan().any() else by_the_core(lambda: masks.relu_backward(x, bits))
    )


def test_every_pattern_of_bfloat16():
    import ml_dtypes

    x = tensor(np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).reshape(256, 256))
    y, mask = masks.relu(x)
    expected, bits = by_the_core(lambda: masks.relu(x))
    same_bits(y, expected)
    assert torch.equal(mask, bits)


def test_autograd_and_statistics(monkeypatch, served_by_triton):
    """The measured relu runs first, and the bits are made of y."""
    records = []
    monkeypatch.setattr(gpu, "forward", lambda row, x, values, out, *rest: (records.append(rest), x.clamp(min=0))[1])
    x = torch.randn(7, 20, requires_grad=True)
    y = functional.relu(x, save="mask")
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], (x > 0).float())
    stats = geoact.GeometryStats()
    y = functional.relu(x, save="mask", stats=stats)
    assert records == [(stats._accumulator, 1)]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], (x > 0).float())
    assert len(served_by_triton) == 4


def test_misuse():
    x = special(4, 6)
    mask = masks.relu(x)[1]
    with pytest.raises(ValueError, match="^out has several elements"):
        masks.relu(x, out=x[:, :1].expand(4, 6))
    storage = torch.zeros(100, dtype=torch.uint8)
    storage[-4:] = mask[:, 0]
    with pytest.raises(ValueError, match="^out overlaps mask"):
        masks.relu_backward(x, storage[-4:].view(4, 1), out=storage[:96].view(torch.float32).view(4, 6))
