"""Backward on a GPU: dx, gradients of parameters, autograd, modules, torch.compile."""

import geoact
import pytest

pytest.importorskip("torch.distributed")
import gpu_check
import gpu_place
import torch
from geoact import torch as gt
from support.cases import PLAIN, each_row
from support.gpu import DEVICE, LAYOUTS, PER, each_few, each_per, normal, on_host, pair, parameters, same_cells
from support.torch_cases import TRAINED, WITH_TWIN, arguments, each_dtype, gradients, same_bits, split
from torch import nn

MODULES = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "softplus": nn.Softplus,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
}
each_trained = pytest.mark.parametrize("case", TRAINED, ids=str)
exact = pytest.mark.parametrize("case", [c for c in PLAIN if c.name in ("relu", "leaky_relu")], ids=str)


@each_row
@each_dtype
def test_dx(backend, case, dtype):
    x, dy = normal(5, 4, 999, dtype=dtype), normal(5, 4, 999, dtype=dtype, seed=1)
    values = parameters(case, x)
    y = case.row(x, *values)
    found = case.row.backward(dy, *values, **{case.row.saves: y if case.row.saves == "y" else x})
    dx = found[0] if case.row.trainable else found
    if dtype == torch.float64:
        host = case.row.backward(
            dy.cpu(), *on_host(values), **{case.row.saves: y.cpu() if case.row.saves == "y" else x.cpu()}
        )
        torch.testing.assert_close(dx.cpu(), host[0] if case.row.trainable else host, rtol=1e-13, atol=1e-15)
    else:
        gpu_check.check_gradient(case.row, dy, dx, x, y, values)


@exact
@each_dtype
def test_dx_of_a_rectifier_is_that_of_the_cpu_bit_by_bit(backend, case, dtype):
    x, dy = normal(1003, dtype=dtype), normal(1003, dtype=dtype, seed=1)
    x[:3] = torch.tensor([0.0, -0.0, torch.nan])
    same_bits(case.backward(dy, x, case(x)).cpu(), case.backward(dy.cpu(), x.cpu(), case(x.cpu())))


@each_trained
@each_dtype
@pytest.mark.parametrize("channels", [1, 6])
def test_gradients_of_parameters(backend, case, dtype, channels):
    x, dy = normal(7, 6, 301, dtype=dtype), normal(7, 6, 301, dtype=dtype, seed=1)
    values = parameters(case, x, channels=channels)
    _, *found = case.row.backward(dy, *values, x=x)
    for gradient, weight in zip(found, values, strict=False):
        assert (gradient.shape, gradient.dtype, gradient.device) == (weight.shape, weight.dtype, weight.device)
    gpu_check.check_parameter_gradients(case.row, dy, x, gpu_place.spread(values, x), found)
    _, *again = case.row.backward(dy, *values, x=x)
    for first, second in zip(found, again, strict=True):
        same_bits(first, second)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@each_row
def test_layout(backend, layout, case):
    x, dy = layout(normal(3, 4, 5, 6)), layout(normal(3, 4, 5, 6, seed=1))
    values = parameters(case, x, channels=4)

    def backward(x, dy):
        y = case.row(x, *values)
        found = case.row.backward(dy, *values, **{case.row.saves: y if case.row.saves == "y" else x})
        return found[0] if case.row.trainable else found

    same_bits(backward(x, dy), backward(x.contiguous(), dy.contiguous()))


@each_row
def test_out_may_be_dy(backend, case):
    x, dy = normal(5, 1000), normal(5, 1000, seed=1)
    y, kept = case(x), dy.clone()
    assert case.backward(dy, x, y, out=dy) is dy
    same_bits(dy, case.backward(kept, x, y))


# --- autograd -------------------------------------------------------------------------------------


@each_row
@each_per
def test_autograd_is_backward_and_measures_it(backend, case, settings):
    x, dy = normal(6, 4, 50), normal(6, 4, 50, seed=1)
    bind, tensors = split(case, parameters(case, x, channels=4))
    followed, called = pair(settings), pair(settings)
    y, *found = gradients(
        bind(lambda x, *a: case.row(x, *a, stats=followed[0], gradient_stats=followed[1])), x, *tensors, dy=dy
    )
    values = parameters(case, x, channels=4)
    again = case.row(x, *values, stats=called[0])
    same_bits(y, again)
    saved = {case.row.saves: again if case.row.saves == "y" else x}
    expected = case.row.backward(dy, *values, **saved, stats=called[1])
    for a, b in zip(found, expected if case.row.trainable else (expected,), strict=True):
        same_bits(a, b)
    for a, b in zip(followed, called, strict=True):
        same_cells(a, b)


@each_row
def test_first_and_second_derivatives(backend, case):
    x = normal(3, 4, dtype=torch.float64)
    x = torch.where((x.abs() < 0.05) | ((x.abs() - 3).abs() < 0.05), x + 0.11, x).requires_grad_()
    bind, tensors = split(case, tuple(
        v.to(DEVICE).detach().requires_grad_() if isinstance(v, torch.Tensor) else v
        for v in arguments(case, torch.float64)))  # fmt: skip
    assert torch.autograd.gradcheck(bind(case.row), (x, *tensors))
    assert torch.autograd.gradgradcheck(bind(case.row), (x, *tensors))


@pytest.mark.parametrize("case", WITH_TWIN, ids=str)
def test_a_converted_model_does_what_torch_does(backend, case):
    model = nn.Sequential(nn.Linear(16, 32), MODULES[case.name](), nn.Linear(32, 4)).to(DEVICE)
    x = normal(64, 16)

    def step():
        model.zero_grad()
        y = model(x)
        y.square().mean().backward()
        return [y.detach().clone(), *(p.grad.clone() for p in model.parameters())]

    before = step()
    gt.convert(model)
    with gt.instrument(model, per="channel") as monitor:
        after = step()
        monitor.step()
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    (layer,) = monitor.last
    assert (layer.forward.groups, layer.forward.calls, layer.backward.calls) == (32, 1, 1)
    gt.revert(model)


@each_few
@each_per
def test_compiled_without_a_graph_break(backend, case, settings):
    torch.compiler.reset()
    x, dy = normal(6, 4, 50), normal(6, 4, 50, seed=1)
    bind, tensors = split(case, parameters(case, x, channels=4))
    traced, eager = pair(settings), pair(settings)

    def measured(stats, gradient_stats):
        return bind(lambda x, *a: case.row(x, *a, stats=stats, gradient_stats=gradient_stats))

    compiler = "inductor" if DEVICE == "cuda" and case.name == "sigmoid" else "aot_eager"
    function = torch.compile(measured(*traced), fullgraph=True, backend=compiler)
    for a, b in zip(
        gradients(function, x, *tensors, dy=dy), gradients(measured(*eager), x, *tensors, dy=dy), strict=True
    ):
        same_bits(a, b)
    for a, b in zip(traced, eager, strict=True):
        same_cells(a, b)
    assert [s.calls for s in traced] == [1, 1]
    torch.compiler.reset()


def test_a_whole_training_loop_goes_down(backend):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), gt.PReLU(64), nn.Linear(64, 1)).to(DEVICE)
    x = normal(256, 8)
    target = x[:, :1] * x[:, 1:2]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert isinstance(model[1].weight.grad, torch.Tensor)


@pytest.mark.parametrize("settings", PER, ids=lambda s: s["per"])
def test_empty_gradients(backend, settings):
    x, stats = normal(0, 4, 3), geoact.GradientStats(**settings)
    assert geoact.relu.backward(x, y=x, stats=stats).shape == x.shape
    assert stats.cells()["n"].sum() == 0
