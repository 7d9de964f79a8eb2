"""ReLU that saves one bit per element: the same numbers, the bytes that autograd keeps, and all that autograd does."""

import copy
import inspect
import pickle

import geoact
import pytest

pytest.importorskip("torch.distributed")  # of an installed torch

import geoact.torch
import numpy as np
import torch
from geoact import masks
from geoact.torch import autograd, functional
from geoact.torch import masks as ours
from support.torch_cases import each_dtype, each_layout, same_bits
from torch.utils.checkpoint import checkpoint


def special(*shape, dtype=torch.float32, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-42, -1e-42], dtype=torch.float64)
    flat = x.reshape(-1)
    flat[: min(7, x.numel())] = odd[: x.numel()]
    return flat[torch.randperm(x.numel(), generator=torch.Generator().manual_seed(1))].reshape(shape).to(dtype)


def packed(y):
    bits = ~(y.detach().double() <= 0)
    return np.packbits((bits if y.dim() else bits[None]).numpy(), axis=-1, bitorder="little")


def saved_bytes(call):
    """Bytes of the tensors that autograd saves in a call, and its result."""
    sizes = []

    def pack(t):
        sizes.append(t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = call()
    return sum(sizes), y


# --- values ---------------------------------------------------------------------------------------


@each_dtype
@each_layout
def test_values_and_gradients_are_those_of_relu(dtype, layout):
    x = layout(special(2, 6, 5, 19, dtype=dtype)).detach()
    dy = special(*x.shape, dtype=dtype, seed=3)
    leaf, twin = x.clone(memory_format=torch.preserve_format), x.clone(memory_format=torch.preserve_format)
    leaf.requires_grad_(), twin.requires_grad_()
    y, expected = functional.relu(leaf, save="mask"), functional.relu(twin)
    same_bits(y, expected)
    assert y.stride() == expected.stride()
    same_bits(*(torch.autograd.grad(out, source, dy)[0] for out, source in ((y, leaf), (expected, twin))))


@each_dtype
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3), (1,), (9, 63), (64,), (2, 130)], ids=str)
def test_masks_of_tensors(dtype, shape):
    x = special(*shape, dtype=dtype)
    y, mask = masks.relu(x)
    same_bits(y, geoact.relu(x))
    assert mask.dtype == torch.uint8
    np.testing.assert_array_equal(mask.numpy(), packed(y))
    dy = special(*shape, dtype=dtype, seed=5)
    same_bits(masks.relu_backward(dy, mask), geoact.relu.backward(dy, y=y))
    out = torch.empty_like(dy)
    version = out._version
    assert masks.relu_backward(dy, mask, out=out) is out
    assert out._version == version + 1
    y, mask = masks.relu(x, out=x)
    assert y is x
    assert masks.firing_count(mask) == int((~(y.double() <= 0)).sum())


def test_a_torch_without_the_exchange_table(monkeypatch):
    monkeypatch.setattr(ours, "_HAS_EXCHANGE", False)
    x = special(5, 33).requires_grad_()
    y, mask = masks.relu(x)
    np.testing.assert_array_equal(mask.numpy(), packed(y))
    (dx,) = torch.autograd.grad(y.nan_to_num(posinf=1).sum(), x)
    same_bits(dx[y == 0], torch.zeros_like(dx[y == 0]))


# --- what is saved --------------------------------------------------------------------------------


@each_dtype
def test_one_bit_per_element_is_saved(dtype):
    x = torch.randn(64, 1000).to(dtype).requires_grad_()
    of_output, _ = saved_bytes(lambda: functional.relu(x))
    of_mask, y = saved_bytes(lambda: functional.relu(x, save="mask"))
    assert of_output == x.numel() * dtype.itemsize
    assert of_mask == x.numel() // 8
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0).to(dtype))
    layer = geoact.torch.ReLU(save="mask")
    assert saved_bytes(lambda: layer(x))[0] == x.numel() // 8
    assert saved_bytes(lambda: geoact.torch.ReLU()(x))[0] == of_output


def test_a_chain_whose_next_layer_saves_nothing_keeps_the_masks_alone():
    x = torch.randn(32, 256, requires_grad=True)

    def chain(save):
        z = x
        for _ in range(4):
            z = functional.relu(z + 0.1, save=save)
        return z

    (of_mask, y), (of_output, expected) = saved_bytes(lambda: chain("mask")), saved_bytes(lambda: chain("output"))
    assert of_output == 32 * of_mask
    same_bits(*(torch.autograd.grad(out.sum(), x)[0] for out in (y, expected)))


def test_nothing_is_made_where_nothing_is_saved(monkeypatch):
    x = torch.randn(5, 9)

    def fails(*_):
        raise AssertionError("a mask was made")

    monkeypatch.setattr(ours, "_forward", fails)
    same_bits(functional.relu(x, save="mask"), torch.relu(x))
    with torch.no_grad():
        same_bits(functional.relu(x.requires_grad_(), save="mask"), torch.relu(x))
    with torch.inference_mode():
        same_bits(geoact.torch.ReLU(save="mask")(x), torch.relu(x))


# --- autograd -------------------------------------------------------------------------------------


def test_retain_graph_and_hooks_on_saved_tensors():
    x = torch.randn(7, 20, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().tobytes(), lambda b: torch.frombuffer(
        bytearray(b), dtype=torch.uint8).reshape(7, 3)):  # fmt: skip
        y = functional.relu(x, save="mask")
    for _ in range(2):
        (dx,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
        assert torch.equal(dx, (x > 0).float())
    with torch.autograd.graph.save_on_cpu():
        y = functional.relu(x, save="mask")
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], (x > 0).float())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_repeats_the_call_and_measures_once(reentrant):
    x, stats = torch.randn(7, 20, requires_grad=True), geoact.GeometryStats()
    y = checkpoint(lambda z: functional.relu(z, save="mask", stats=stats), x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0).float())
    assert stats.n == x.numel()
    assert stats.calls == 1


def test_second_and_third_derivatives():
    x = torch.randn(4, 9, dtype=torch.float64)
    x[x.abs() < 0.05] += 0.2
    x.requires_grad_()

    def function(z):
        return functional.relu(z * z * z, save="mask")

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)
    for f in (function, lambda z: torch.relu(z * z * z)):
        dx = torch.autograd.grad(f(x).sum(), x, create_graph=True)[0]
        ddx = torch.autograd.grad(dx.square().sum(), x, create_graph=True)[0]
        dddx = torch.autograd.grad(ddx.sum(), x)[0]
        found = (dx, ddx, dddx)
        if f is function:
            expected = found
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    dy = torch.ones(4, 9, dtype=torch.float64, requires_grad=True)
    leaf = x.detach().requires_grad_()
    (dx,) = torch.autograd.grad(functional.relu(leaf, save="mask"), leaf, dy, create_graph=True)
    assert torch.equal(torch.autograd.grad(dx.sum(), dy)[0], (x > 0).double())


def test_batched_gradients():
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y = functional.relu(x, save="mask")
    batch = torch.randn(4, 3, 5, dtype=torch.float64)
    (dx,) = torch.autograd.grad(y, x, batch, is_grads_batched=True)
    assert torch.equal(dx, batch * (x > 0))


def test_in_place():
    x = torch.randn(6, 30, requires_grad=True)
    z = x * 1
    y = functional.relu(z, inplace=True, save="mask")
    assert y is z
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0).float())
    with pytest.raises(RuntimeError, match="leaf Variable"):
        functional.relu(x, inplace=True, save="mask")
    assert torch.equal(x > 0, x.grad > 0)  # nothing was written
    base = torch.randn(4, 8, requires_grad=True) * 1
    before = base.detach().clone()
    functional.relu(base[1:3], inplace=True, save="mask")
    assert torch.equal(base[1:3], before[1:3].relu())
    # y is not read again, so it may be overwritten: what save="output" must refuse.
    y = functional.relu(x * 1, save="mask")
    y.mul_(2)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(dx, 2 * (x > 0))


def test_statistics_of_both_directions():
    x = torch.randn(50, 40, requires_grad=True)
    found = []
    for save in ("mask", "output"):
        stats, gradients = geoact.GeometryStats("channel"), geoact.GradientStats("channel")
        y = functional.relu(x, stats=stats, gradient_stats=gradients, save=save)
        (dx,) = torch.autograd.grad(y.square().sum(), x)
        found.append((dx, stats, gradients))
    (dx, *records), (expected, *others) = found
    same_bits(dx, expected)
    for a, b in zip(records, others, strict=True):
        assert a.calls == b.calls == 1
        for name, cell in a.cells().items():
            np.testing.assert_allclose(cell, b.cells()[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_masks_relu_is_differentiable_and_keeps_the_mask():
    x = torch.randn(5, 17, requires_grad=True)
    size, (y, mask) = saved_bytes(lambda: masks.relu(x))
    assert size == mask.numel() == 15
    assert not mask.requires_grad
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0).float())


# --- what transforms and traces it ----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of forward mode
def test_transforms_take_the_ordinary_relu():
    x = torch.randn(4, 6, dtype=torch.float64)

    def function(z):
        return functional.relu(z, save="mask").square().sum()

    expected = 2 * x.relu()
    torch.testing.assert_close(torch.func.grad(function)(x), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(function))(x), expected)
    _, tangent = torch.func.jvp(lambda z: functional.relu(z, save="mask"), (x,), (torch.ones_like(x),))
    assert torch.equal(tangent, (x > 0).double())
    assert functional.relu(torch.empty(2, 3, device="meta", requires_grad=True), save="mask").is_meta
    negative = torch.randn(3, 4, dtype=torch.complex64).conj().imag.requires_grad_()
    assert negative.is_neg()
    (dx,) = torch.autograd.grad(functional.relu(negative, save="mask").sum(), negative)
    assert torch.equal(dx, (negative > 0).float())


@pytest.mark.filterwarnings("ignore")  # those of the compiler are not ours
def test_compiled():
    x = torch.randn(4, 6, requires_grad=True)
    compiled = torch.compile(geoact.torch.ReLU(save="mask"), backend="aot_eager", fullgraph=True)
    compiled(x).sum().backward()
    assert torch.equal(x.grad, (x > 0).float())


# --- modules --------------------------------------------------------------------------------------


def test_the_module():
    layer = geoact.torch.ReLU(save="mask")
    assert isinstance(layer, torch.nn.ReLU)
    assert list(inspect.signature(geoact.torch.ReLU).parameters) == ["inplace", "stats", "gradient_stats", "save"]
    assert repr(layer) == "ReLU(save='mask')"
    assert repr(geoact.torch.ReLU(True, save="mask")) == "ReLU(inplace=True, save='mask')"
    assert repr(geoact.torch.ReLU()) == repr(torch.nn.ReLU())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.save == "mask"
    with pytest.raises(ValueError, match="^save is 'bits' .accepted: 'output', 'mask'"):
        geoact.torch.ReLU(save="bits")
    with pytest.raises(ValueError, match="^save is None"):
        functional.relu(torch.ones(3), save=None)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), layer)
    with geoact.torch.instrument(model, every=1, warmup=0, sinks=[]) as monitor:
        y = model(torch.randn(5, 6))
        y.sum().backward()
        monitor.step()
    assert monitor.last is not None
    assert layer.save == "mask"


# --- errors ---------------------------------------------------------------------------------------


def test_arguments_that_are_refused():
    x = torch.randn(4, 6)
    mask = masks.relu(x)[1]
    for error, words, call in (
        (TypeError, "^x has dtype torch.int64", lambda: masks.relu(torch.ones(3, dtype=torch.int64))),
        (TypeError, "^x has layout", lambda: masks.relu(x.to_sparse())),
        (TypeError, "^x is traced, transformed or of shapes alone", lambda: masks.relu(x.to("meta"))),
        (TypeError, "^stats must be a geoact.GeometryStats", lambda: masks.relu(x, stats=1)),
        (TypeError, "^out must be a torch tensor", lambda: masks.relu(x, out=x.numpy())),
        (ValueError, "^out has shape", lambda: masks.relu(x, out=x.T)),
        (ValueError, "^out= does not support", lambda: masks.relu(x.clone().requires_grad_(), out=torch.empty(4, 6))),
        (TypeError, "^mask must be a torch tensor", lambda: masks.relu_backward(x, mask.numpy())),
        (TypeError, "^mask has dtype torch.bool", lambda: masks.relu_backward(x, mask.bool())),
        (ValueError, "^mask has shape", lambda: masks.relu_backward(x, mask[:3])),
        (ValueError, "^mask is on the device meta", lambda: masks.relu_backward(x, mask.to("meta"))),
        (TypeError, "^dy has dtype", lambda: masks.relu_backward(mask, mask)),
    ):
        with pytest.raises(error, match=words):
            call()


def test_in_place_checks_are_shared_with_the_other_activations():
    with pytest.raises(RuntimeError, match="leaf Variable"):
        autograd.check_in_place(torch.ones(3, requires_grad=True))


@pytest.mark.parametrize("asked", [{"pairs": True}, {"reservoir": 4}], ids=str)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_tiers_are_refused_with_and_without_a_gradient(asked, requires_grad):
    stats = geoact.GeometryStats(**asked)
    with pytest.raises(ValueError, match="save='mask' does not measure"):
        geoact.torch.ReLU(save="mask", stats=stats)(torch.randn(6, 4, requires_grad=requires_grad))
    assert stats.calls == 0
