"""Without the DLPack exchange table (torch 2.6 to 2.9): the core is told where the memory lies."""

import geoact
import pytest
from geoact import _core
from support.cases import each_row

pytest.importorskip("torch.distributed")
import torch
from geoact.torch import autograd, fast
from support.torch_cases import (
    DTYPES,
    arguments,
    each_dtype,
    each_inplace,
    each_layout,
    each_trained,
    gradients,
    same_bits,
    split,
    tensor,
)


@pytest.fixture
def old(monkeypatch):
    """A core that cannot read tensors, as it cannot where their type has no table. Returns how often it was asked."""
    asked = []

    def refusing(function):
        def call(index, *arguments):
            tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
            tensors += [v for a in arguments if isinstance(a, tuple) for v in a if isinstance(v, torch.Tensor)]
            asked.append(bool(tensors))
            if tensors:
                raise TypeError("x must be an array, got Tensor")
            return function(index, *arguments)

        return call

    # Under the name that callers look up: the functions themselves stay.
    monkeypatch.setattr(autograd, "_HAS_EXCHANGE", False)
    monkeypatch.setattr(fast, "_forward", None)  # which is compiled for one torch, and not for an old one
    monkeypatch.setattr(_core, "forward", refusing(_core.forward))
    monkeypatch.setattr(_core, "backward", refusing(_core.backward))
    return asked


def _both(case, x, dy, tensors):
    pair = geoact.GeometryStats(per="channel", channel_axis=1), geoact.GradientStats()
    bind, _ = split(case, case.values)
    measured = bind(lambda x, *a: case.row(x, *a, stats=pair[0], gradient_stats=pair[1]))
    found = gradients(measured, x, *tensors, dy=dy)
    found += (measured(x, *tensors),)
    return found, [s.cells() for s in pair]


@each_row
@each_dtype
def test_the_same_numbers_by_address(case, dtype, request):
    x, dy = tensor(3, 4, 6, dtype=dtype), tensor(3, 4, 6, dtype=dtype, seed=1)
    _, tensors = split(case, arguments(case, dtype, channels=4))
    expected, cells = _both(case, x, dy, tensors)
    asked = request.getfixturevalue("old")
    found, again = _both(case, x, dy, tensors)
    for a, b in zip(found, expected, strict=True):
        same_bits(a, b)
    for a, b in zip(again, cells, strict=True):
        assert {k: tuple(v) for k, v in a.items()} == {k: tuple(v) for k, v in b.items()}
    assert asked.count(False) == 3  # forward, backward, and forward again


@each_layout
def test_layouts_by_address(layout, request):
    x, dy = layout(tensor(2, 4, 3, 5)), layout(tensor(2, 4, 3, 5, seed=1))
    expected = gradients(geoact.silu, x, dy=dy)
    request.getfixturevalue("old")
    for a, b in zip(gradients(geoact.silu, x, dy=dy), expected, strict=True):
        same_bits(a, b)
        assert a.stride() == b.stride()
    assert geoact.silu(tensor(0, 3)).shape == (0, 3)
    assert geoact.silu(torch.tensor(1.0)).shape == ()


@each_inplace
def test_in_place_by_address(case, old):
    x = tensor(3, 4)
    y, version = case(x), x._version
    assert case(x, out=x) is x
    assert x._version == version + 1
    same_bits(x, y)
    base = tensor(3, 4, requires_grad=True)
    h = base * 1
    case(h, out=h)
    same_bits(h, y)
    (dx,) = torch.autograd.grad(h.sum(), base)
    same_bits(dx, gradients(lambda x: case(x), base.detach())[1])


@each_trained
def test_parameters_by_address(case, old):
    x = tensor(3, 4, 2, requires_grad=True)
    for weight in (torch.rand(4, requires_grad=True), torch.rand(1, requires_grad=True), torch.rand(8)[::2]):
        y = case.row(x, weight)
        y.sum().backward()
        same_bits(y, case.row(x.detach(), weight.detach()))
        if weight.requires_grad:
            assert weight.grad.shape == weight.shape
    dx, dweight, *_ = case.row.backward(torch.ones(3, 4, 2), 0.25, x=x.detach())
    assert (dx.shape, type(dweight)) == ((3, 4, 2), float)


def test_errors_by_address_name_the_argument_and_change_nothing(old):
    stats, out = geoact.GeometryStats(), torch.zeros(5)
    for call, error, message in (
        (lambda: geoact.silu(torch.arange(3), stats=stats), TypeError, "x has dtype torch.int64"),
        (lambda: geoact.silu(tensor(4), out=out, stats=stats), ValueError, "out"),
        (lambda: geoact.prelu(tensor(3, 4), torch.rand(3), stats=stats), ValueError, "weight"),
        (lambda: geoact.silu(torch.eye(3).to_sparse(), stats=stats), TypeError, "layout"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert stats.calls == 0
    assert not out.any()
    assert set(DTYPES) == {"float16", "bfloat16", "float32", "float64"}
