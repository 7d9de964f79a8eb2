"""The operators of torch.ops.geoact: what they promise torch, and what tracers other than the compiler make of them."""

import geoact
import pytest
from support.cases import PLAIN, each_row

pytest.importorskip("torch.distributed")
import torch
from geoact import torch as gt
from support.torch_cases import arguments, gradients, same_bits, split, tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

SHORT = ("sigmoid", "silu", "prelu")  # y saved, x saved, a parameter


def _parameters(case, dtype, requires_grad=False):
    """What an operator takes after x."""
    if case.row.trainable:
        return (*arguments(case, dtype, channels=4, requires_grad=requires_grad), 1)
    return case.values


def _operator(name):
    return getattr(torch.ops.geoact, name).default


def test_every_row_has_its_four_operators():
    for name in geoact.activations():
        for suffix in ("", "_backward", "_measured", "_backward_measured"):
            assert _operator(name + suffix)._schema.is_mutable == suffix.endswith("measured")


@each_row
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_of_the_plain_operators(case, requires_grad):
    for dtype in (torch.float32, torch.bfloat16) if case.name in SHORT else (torch.float64,):
        x = tensor(3, 4, dtype=dtype, requires_grad=requires_grad)
        dy = tensor(3, 4, dtype=dtype, seed=1, requires_grad=requires_grad)
        more = _parameters(case, dtype, requires_grad)
        opcheck(_operator(case.name), (x, *more))
        opcheck(_operator(f"{case.name}_backward"), (dy, x, *more))


@each_row
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_of_the_measuring_operators(case, requires_grad):
    stats, gradient_stats = geoact.GeometryStats(), geoact.GradientStats()
    x, more = tensor(3, 4, requires_grad=requires_grad), _parameters(case, torch.float32, requires_grad)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    if case.name in SHORT:
        tests += ("test_aot_dispatch_dynamic",)
    opcheck(_operator(f"{case.name}_measured"), (x, *more, stats._token, gradient_stats._token), test_utils=tests)
    opcheck(_operator(f"{case.name}_measured"), (x, *more, stats._token, None), test_utils=tests)
    dy = tensor(3, 4, seed=1)
    opcheck(_operator(f"{case.name}_backward_measured"), (dy, x, *more, gradient_stats._token), test_utils=tests)
    assert stats.calls > 0
    assert gradient_stats.calls > 0


@pytest.mark.parametrize("name", SHORT)
def test_opcheck_of_awkward_layouts(name):
    case = next(c for c in PLAIN if c.name == name)
    more = _parameters(case, torch.float32)
    every_second, flipped, one = (
        tensor(2, 4, 3, 10)[..., ::2],
        tensor(5, 4, 3, 2).permute(3, 1, 2, 0),
        tensor(1, 1, 1, 1),
    )
    for x in (every_second, flipped, tensor(2, 4, 3, 5).to(memory_format=torch.channels_last), tensor(2, 4, 0, 5)):
        opcheck(_operator(name), (x, *more), test_utils=("test_faketensor", "test_schema"))
        for dy in (x, one.expand(x.shape), tensor(*x.shape)):
            opcheck(_operator(f"{name}_backward"), (dy, x, *more), test_utils=("test_faketensor", "test_schema"))


def test_a_program_whose_statistics_are_gone_says_so():
    stats = geoact.GeometryStats()
    token = stats._token
    _operator("silu_measured")(tensor(3), token, None)
    assert stats.calls == 1
    del stats
    with pytest.raises(RuntimeError, match="no longer exists"):
        _operator("silu_measured")(tensor(3), token, None)


# --- other tracers --------------------------------------------------------------------------------


def _model(stats=None):
    return torch.nn.Sequential(gt.ReLU(stats=stats), gt.PReLU(4), gt.Swish(4), gt.GELU("tanh"), gt.Softplus(2.0))


@each_row
def test_make_fx_sees_operators_and_computes_the_same(case):
    bind, tensors = split(case, arguments(case, torch.float32, channels=4))
    x = tensor(3, 4)

    def graded(x, *tensors):
        return gradients(bind(case.row), x, *tensors)

    graph = make_fx(graded)(x, *tensors)
    called = {str(node.target) for node in graph.graph.nodes}
    assert {f"geoact.{case.name}.default", f"geoact.{case.name}_backward.default"} <= called
    other = tensor(3, 4, seed=9)
    for a, b in zip(graph(other, *tensors), graded(other, *tensors), strict=True):
        same_bits(a, b)


def test_symbolic_trace_keeps_the_activations_and_their_statistics():
    stats = geoact.GeometryStats()
    model = _model(stats)
    traced = torch.fx.symbolic_trace(model)
    assert stats.calls == 0
    targets = [str(node.target) for node in traced.graph.nodes]
    for name in ("relu_measured", "prelu", "swish", "gelu_tanh", "softplus"):
        assert f"geoact.{name}" in targets
    x = tensor(3, 4)
    y = traced(x)
    assert (stats.n, stats.calls) == (12, 1)
    same_bits(y, model(x))
    y.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_jit_trace_computes_the_same():
    model, x = _model(), tensor(3, 4)
    traced = torch.jit.trace(model, x)
    other = tensor(5, 4, seed=3)
    same_bits(traced(other), model(other))


# --- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_export_runs_saves_and_loads(strict, tmp_path):
    model, x = _model(), tensor(3, 4)
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(model, (x,), dynamic_shapes=shapes, strict=strict)
    other = tensor(7, 4, seed=2)
    same_bits(program.module()(other), model(other))
    torch.export.save(program, tmp_path / "model.pt2")
    same_bits(torch.export.load(tmp_path / "model.pt2").module()(other), model(other))


@pytest.mark.parametrize("strict", [True, False])
def test_export_measures_when_the_program_runs(strict):
    stats, gradient_stats = geoact.GeometryStats(), geoact.GradientStats()
    model, x = gt.SiLU(stats=stats, gradient_stats=gradient_stats), tensor(3, 4)
    program = torch.export.export(model, (x,), strict=strict)
    assert stats.calls == 0
    run = program.module()
    same_bits(run(x), geoact.silu(x))
    run(x.clone().requires_grad_()).sum().backward()
    assert (stats.n, stats.calls, gradient_stats.calls) == (24, 2, 1)
