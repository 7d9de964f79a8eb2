"""Gated activations on a GPU: the CUDA kernels against the CPU core; there are none in Triton."""

import geoact
import pytest

pytest.importorskip("torch.distributed")
import torch
from geoact import backends
from support import oracle
from support.gpu import DEVICE, PER, normal, pair
from support.torch_cases import each_dtype, same_bits

GATES = geoact.gates()
each_gate = pytest.mark.parametrize("row", GATES.values(), ids=GATES)


@pytest.fixture(autouse=True)
def kernels():
    if DEVICE == "cuda" and (why := backends.load_cuda()):
        pytest.skip(why)


def triple(*shape, dtype):
    return tuple(normal(*shape, dtype=dtype, seed=seed, sd=4) for seed in (1, 2, 3))


def near(a, b):
    """Within a few roundings; float32 on a GPU divides by an approximate reciprocal."""
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 3e-6, torch.float64: 1e-13}[a.dtype]
    torch.testing.assert_close(a.cpu(), b, rtol=tolerance, atol=tolerance, equal_nan=True)


@each_gate
@each_dtype
@pytest.mark.parametrize("shape", [(0,), (1,), (257,), (6, 4, 9, 5), (3, 65537)], ids=str)
def test_values_gradients_and_statistics_are_those_of_the_cpu(row, dtype, shape):
    dy, gate, up = triple(*shape, dtype=dtype)
    there = dy.cpu(), gate.cpu(), up.cpu()
    y, gradients = row(*there[1:]), row.backward(*there)
    for settings in PER if len(shape) == 4 else PER[:1]:
        (stats, gradient), expected = pair(settings), pair(settings)
        ours, derived = row(gate, up, stats=stats), row.backward(dy, gate, up, stats=gradient)
        near(ours, y)
        same_bits(ours, row(gate, up))
        for a, b, plain in zip(derived, gradients, row.backward(dy, gate, up), strict=True):
            near(a, b)
            same_bits(a, plain)
        row(*there[1:], stats=expected[0])
        row.backward(*there, stats=expected[1])
        for a, b in zip((stats, gradient), expected, strict=True):
            cells = b.cells()
            kept = {k: (v, 2e3 if dtype in (torch.float16, torch.bfloat16) else 4) for k, v in cells.items()}
            for name, (value, scale) in kept.items():
                size = 0 if name == "n" or name.startswith("nonfinite") else scale * (abs(value) + cells["n"])
                kept[name] = value, size
            oracle.assert_cells(a.cells(), kept, context=f"{row.name} {settings}")


@each_gate
def test_halves_in_place_and_autograd(row):
    both = normal(33, 140, sd=4)
    gate, up = both.chunk(2, -1)
    y = row(gate.contiguous(), up.contiguous())
    same_bits(row(gate, up), y)
    packed = both.clone()
    halves = packed.chunk(2, -1)
    row(*halves, out=halves[1], stats=geoact.GeometryStats())
    same_bits(halves[1], y)
    packed = both.clone().requires_grad_()
    row(*packed.chunk(2, -1)).sum().backward()
    expected = torch.cat(row.backward(torch.ones_like(y), gate.contiguous(), up.contiguous()), -1)
    same_bits(packed.grad, expected)


def test_compiled():
    gate, up = normal(64, 30), normal(64, 30, seed=1)
    compiled = torch.compile(lambda g, u: geoact.swiglu(g, u), fullgraph=True)
    same_bits(compiled(gate, up), geoact.swiglu(gate, up))
