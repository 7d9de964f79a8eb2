"""Any shape and strides: values are those of the contiguous tensor; what can be read where it lies is not copied."""

import geoact
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from geoact.torch import triton_views as views
from support import oracle
from support.cases import DTYPES
from support.interpreter import Measured, TritonCase, array, backend, groups_of

SILU = TritonCase("silu")


def data(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LAYOUTS = {
    "contiguous": (lambda x: x, True),
    "channels last": (lambda x: x.contiguous(memory_format=torch.channels_last), True),
    "rows with gaps": (lambda x: F.pad(x.reshape(-1, x.shape[-1]), (0, 3))[:, : x.shape[-1]].view(x.shape), None),
    "transposed": (lambda x: x.transpose(0, 1).contiguous().transpose(0, 1), True),
    "every second": (lambda x: torch.repeat_interleave(x, 2, dim=-1)[..., ::2], False),
    "offset": (lambda x: F.pad(x, (1, 0))[..., 1:], None),
    "expanded": (lambda x: x[:, :1].expand_as(x), False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_records_and_gradients_of_every_layout(layout):
    make, _ = LAYOUTS[layout]
    x, dy = make(data(2, 5, 3, 7)), data(2, 5, 3, 7, seed=1)
    plain = x.contiguous()
    y = backend.forward(geoact.silu, plain, ())
    dx = backend.backward(geoact.silu, dy, plain, ())
    slope = geoact.silu.slope(plain.numpy().astype(np.float64))
    for per in ("tensor", "channel", "row"):
        stats = Measured("forward", groups_of(x.shape, per, 1), per, 1)
        found = backend.forward(geoact.silu, x, (), **stats.options)
        assert torch.equal(found, y)
        if x.is_contiguous(memory_format=torch.channels_last):
            assert found.stride() == x.stride()
        groups = [oracle.grouped(a, per, 1) for a in (plain.numpy(), y.numpy(), slope)]
        oracle.assert_cells(stats.cells(), oracle.cells(*groups, DTYPES["float32"]), context=(layout, per))
    assert torch.equal(backend.backward(geoact.silu, dy, x, ()), dx)
    assert torch.equal(
        backend.backward(geoact.silu, make(dy), x, ()), backend.backward(geoact.silu, make(dy), plain, ())
    )


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@pytest.mark.parametrize("layout", [name for name, (_, in_place) in LAYOUTS.items() if in_place is not None])
def test_dense_tensors_are_not_copied(layout, per):
    make, in_place = LAYOUTS[layout]
    x = make(data(2, 5, 3, 7))
    if layout == "transposed" and per == "row":
        pytest.skip("rows are numbered in the order of the axes, which is not that of memory")
    seen = views.Seen(views.view_of(x, per, 1, None), x)
    assert (seen.add("x", x).data_ptr() == x.data_ptr()) == in_place


def test_rows_with_gaps_are_not_copied():
    x = data(40, 20)[:, :13]
    for per in ("tensor", "channel", "row"):
        seen = views.Seen(views.view_of(x, per, 1, None), x)
        assert seen.add("x", x).data_ptr() == x.data_ptr()


def test_out_of_any_layout():
    x = data(4, 6, 5)
    expected = backend.forward(geoact.silu, x, ())
    for out in (torch.empty(5, 6, 4).permute(2, 1, 0), torch.empty(4, 6, 10)[..., ::2], x.clone()):
        assert backend.forward(geoact.silu, x, (), out) is out
        assert torch.equal(out, expected)
    target = x.clone()
    backend.forward(geoact.silu, target, (), target)
    assert torch.equal(target, expected)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 5), (5, 0), (3, 0, 2), (1, 7), (7, 1), (1, 1, 1)])
def test_small_and_empty(shape):
    x = data(*shape) if shape else torch.tensor(0.7)
    y = backend.forward(geoact.silu, x, ())
    assert y.shape == x.shape
    np.testing.assert_allclose(y.numpy(), geoact.silu(x.numpy()), 1e-6, 1e-7)
    for per in ("tensor", "channel", "row") if shape else ("tensor",):
        stats = Measured("forward", groups_of(shape, per) if shape else 1, per)
        backend.forward(geoact.silu, x, (), **stats.options)
        assert stats.calls == 1
        assert backend.cells_of(stats.state, stats.groups)[:1].sum() == x.numel()
    dx, gradient = backend.backward(geoact.prelu, x, x, (torch.tensor([0.5]),))
    assert dx.shape == x.shape
    assert gradient.shape == (1,)
    if x.numel() == 0:
        assert float(gradient) == 0


def test_sixteen_byte_rows_and_wide_indices_give_the_same(monkeypatch):
    """Whether rows are known to be aligned, and whether offsets have 64 bits, changes how memory is addressed only."""
    for shape, axis in (((3, 4, 16), 1), ((20, 32), 1), ((20, 32), 0)):
        x = data(*shape)
        found = []
        for limit, unit in ((2**30, 16), (0, 16), (2**30, 7)):
            monkeypatch.setattr(views, "_INT32", limit)
            monkeypatch.setattr(views, "_UNIT", unit)
            stats = Measured("forward", shape[axis], "channel", axis)
            y = backend.forward(geoact.silu, x, (), **stats.options)
            found.append((y, stats.state))
        for y, state in found[1:]:
            assert torch.equal(y, found[0][0])
            assert torch.equal(state, found[0][1])


def test_unaligned_storage():
    x = data(101)[1:]
    assert torch.equal(backend.forward(geoact.silu, x, ()), backend.forward(geoact.silu, x.clone(), ()))
    assert array(x).shape == (100,)
