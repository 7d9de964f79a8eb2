"""Gated activations of torch tensors: autograd of any order, operators, torch.compile, modules, and a monitor."""

import copy
import pickle

import geoact
import numpy as np
import pytest

pytest.importorskip("torch.distributed")
import geoact.torch
import torch
import torch.nn.functional as F
from geoact import _gates as registry
from geoact.torch import gated, gated_ops
from support.torch_cases import each_dtype, same_bits, tensor
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import hessian, jacrev, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

FLOAT64 = torch.float64
GATES = geoact.gates()
each_gate = pytest.mark.parametrize("row", GATES.values(), ids=GATES)


def _clipped(gate, up, alpha=1.702, limit=7.0):
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


# What the rows compute, in torch's words.
REFERENCES = {
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "swiglu_clipped": _clipped,
    "geglu": lambda gate, up: F.gelu(gate) * up,
    "geglu_tanh": lambda gate, up: F.gelu(gate, approximate="tanh") * up,
    "reglu": lambda gate, up: F.relu(gate) * up,
}


def pair(*shape, dtype=FLOAT64, requires_grad=True):
    """(gate, up), away from kinks, both sides of the clips met."""
    gate, up = tensor(*shape, dtype=FLOAT64, scale=4), tensor(*shape, dtype=FLOAT64, seed=1, scale=5)
    for kink in (7.0, -7.0):
        gate = torch.where((gate - kink).abs() < 0.05, gate + 0.11, gate)
        up = torch.where((up - kink).abs() < 0.05, up + 0.11, up)
    return tuple(t.to(dtype).requires_grad_(requires_grad) for t in (gate, up))


def gradients(function, gate, up, dy=None):
    """(y, dgate, dup) of fresh leaves."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in (gate, up)]
    y = function(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y) if dy is None else dy)


def statistics(**settings):
    return geoact.GeometryStats(**settings), geoact.GradientStats(**settings)


def cells(*stats):
    return [{name: tuple(np.atleast_1d(value)) for name, value in s.cells().items()} for s in stats]


# --- values and derivatives -----------------------------------------------------------------------


@each_gate
@each_dtype
def test_values_and_gradients_are_near_those_of_torch(row, dtype):
    gate, up = pair(40, 50, dtype=dtype, requires_grad=False)
    dy = tensor(40, 50, dtype=dtype, seed=2)
    ours = gradients(row, gate, up, dy)
    wide = gradients(REFERENCES[row.name], *(t.to(FLOAT64) for t in (gate, up, dy)))
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 2e-6, FLOAT64: 1e-11}[dtype]
    for a, b in zip(ours, wide, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.to(FLOAT64), b, rtol=tolerance, atol=tolerance)


@each_gate
@each_dtype
def test_edges_are_those_of_torch(row, dtype):
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0, -1.0, 7.0, -7.0, 8.0], dtype=dtype)
    gate, up = (t.flatten() for t in torch.meshgrid(special, special, indexing="ij"))
    # In float64: oneDNN's gelu, which torch uses below, is NaN at infinity on some processors.
    ours, theirs = gradients(row, gate, up), gradients(REFERENCES[row.name], gate.to(FLOAT64), up.to(FLOAT64))
    everywhere, finite = torch.ones_like(gate, dtype=torch.bool), ~gate.isinf()
    # Where torch multiplies infinity by 0 our slopes are their limits.
    for a, b, keep in zip(ours, theirs, (everywhere, finite, everywhere), strict=True):
        torch.testing.assert_close(a[keep].to(FLOAT64), b[keep], equal_nan=True, rtol=1e-2, atol=1e-2)


@each_gate
def test_what_torch_runs_is_what_numpy_runs(row):
    gate, up = pair(30, 41, dtype=torch.float32, requires_grad=False)
    dy = tensor(30, 41, seed=2)
    y, dgate, dup = gradients(row, gate, up, dy)
    arrays = [t.numpy() for t in (dy, gate, up)]
    same_bits(y, torch.from_numpy(row(*arrays[1:])))
    for a, b in zip((dgate, dup), row.backward(*arrays), strict=True):
        same_bits(a, torch.from_numpy(b))
    for a, b in zip(row.backward(dy, gate, up), (dgate, dup), strict=True):
        same_bits(a, b)


@each_gate
def test_gradcheck_in_every_mode(row):
    assert gradcheck(
        row,
        pair(3, 4),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        check_undefined_grad=True,
    )
    gate, up = pair(3, 4)
    assert gradcheck(row, (gate, up.detach()), check_forward_ad=True)
    assert gradcheck(row, (gate.detach(), up), check_forward_ad=True)


@each_gate
def test_gradgradcheck_in_every_mode(row):
    assert gradgradcheck(row, pair(2, 4), check_batched_grad=True, check_fwd_over_rev=True)


@each_gate
def test_gradcheck_with_other_parameters(row):
    if not row.parameters:
        pytest.skip("has none")
    assert gradcheck(lambda gate, up: row(gate, up, 0.7, 3.01), pair(3, 4), check_forward_ad=True)


@each_gate
def test_third_derivative(row):
    found = []
    for function in (row, REFERENCES[row.name]):
        gate, up = pair(6)
        derivative = function(gate, up)
        for _ in range(3):
            (derivative,) = torch.autograd.grad(
                (derivative * gate).sum(), gate, create_graph=True, materialize_grads=True
            )
        found.append(derivative)
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)


@each_gate
def test_torch_func(row):
    gate, up = pair(5, 3, requires_grad=False)
    reference = REFERENCES[row.name]
    for both in ((0, 0), (1, 0), (None, 0), (0, None)):
        inputs = [t.T if axis == 1 else t if axis == 0 else t[0] for t, axis in zip((gate, up), both, strict=True)]
        torch.testing.assert_close(vmap(row, both)(*inputs), vmap(reference, both)(*inputs), rtol=1e-10, atol=1e-10)
    for transform in (jacrev, hessian):
        ours = transform(lambda g, u: row(g, u).sum(), argnums=(0, 1))(gate, up)
        theirs = transform(lambda g, u: reference(g, u).sum(), argnums=(0, 1))(gate, up)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


# --- statistics -----------------------------------------------------------------------------------


@each_gate
def test_statistics_are_filled_in_both_directions_and_change_nothing(row):
    gate, up = pair(50, 30, dtype=torch.float32, requires_grad=False)
    dy = tensor(50, 30, seed=2)
    stats, gradient_stats = statistics(per="channel")
    measured = gradients(lambda g, u: row(g, u, stats=stats, gradient_stats=gradient_stats), gate, up, dy)
    for a, b in zip(measured, gradients(row, gate, up, dy), strict=True):
        same_bits(a, b)
    expected = statistics(per="channel")
    arrays = [t.numpy() for t in (dy, gate, up)]
    row(*arrays[1:], stats=expected[0])
    row.backward(*arrays, stats=expected[1])
    assert cells(stats, gradient_stats) == cells(*expected)
    assert (stats.calls, gradient_stats.calls) == (1, 1)


def test_checkpointing_measures_once():
    gate, up = pair(20, 30, dtype=torch.float32)
    stats, gradient_stats = statistics()
    y = checkpoint(
        lambda g, u: geoact.swiglu(g, u, stats=stats, gradient_stats=gradient_stats), gate, up, use_reentrant=False
    )
    y.sum().backward()
    assert (stats.calls, gradient_stats.calls) == (1, 1)


# --- layouts, in place, errors --------------------------------------------------------------------


@each_gate
@each_dtype
def test_packed_halves_and_odd_layouts(row, dtype):
    both = tensor(6, 7, 34, dtype=dtype, scale=4)
    layouts = (
        both.chunk(2, -1),
        (both[..., ::2], both[..., 1::2]),
        (both.transpose(0, 2), both.permute(2, 1, 0)),
        (both[:1].expand(6, 7, 34), both),
        (both[0, 0, 0], both[1, 1, 1]),
        (both[:0], both[:0]),
        (torch._neg_view(both), both),
    )
    for gate, up in layouts:
        copies = [t.detach().clone(memory_format=torch.contiguous_format).resolve_neg() for t in (gate, up)]
        same_bits(row(gate, up), row(*copies))
        for a, b in zip(gradients(row, gate, up), gradients(row, *copies), strict=True):
            same_bits(a, b)
    packed = both.clone().requires_grad_()
    row(*packed.chunk(2, -1)).sum().backward()
    separate = gradients(row, *both.chunk(2, -1))
    same_bits(packed.grad, torch.cat(separate[1:], -1))


@each_gate
def test_in_place(row):
    gate, up = pair(9, 20, dtype=torch.float32, requires_grad=False)
    expected = row(gate, up)
    for which in (0, 1):
        given = [gate.clone(), up.clone()]
        before = given[which]._version
        assert row(*given, out=given[which]) is given[which]
        assert given[which]._version > before
        same_bits(given[which], expected)
    followed = gate.clone().requires_grad_()
    with pytest.raises(ValueError, match="^out= does not support automatic differentiation"):
        row(followed, up, out=up)
    with torch.no_grad():
        same_bits(row(followed, up, out=torch.empty_like(up)), expected)
    dy = tensor(9, 20, seed=2)
    dgate, dup = row.backward(dy, gate, up)
    places = gate.clone(), up.clone()
    ours = row.backward(dy, *places, out=places)
    assert ours[0] is places[0]
    same_bits(places[0], dgate)
    same_bits(places[1], dup)


X, Y = torch.ones(3, 4), torch.ones(3, 4)
swiglu = geoact.swiglu
WRONG_STATS, WRONG_GRADIENT_STATS = geoact.GradientStats(), geoact.GeometryStats()
BAD = {
    "array": (TypeError, "^up must be a torch tensor as gate is, got ndarray", lambda: swiglu(X, Y.numpy())),
    "shape": (ValueError, r"^up has shape \(3, 3\), but gate", lambda: swiglu(X, Y[:, 1:])),
    "no broadcasting": (ValueError, r"^up has shape \(4,\), but gate", lambda: swiglu(X, Y[0])),
    "dtype": (TypeError, "^up is float64, but gate is float32", lambda: swiglu(X, Y.double())),
    "integers": (TypeError, "^gate has dtype torch.int64", lambda: swiglu(X.long(), Y)),
    "sparse": (TypeError, "^up has layout torch.sparse", lambda: swiglu(X, Y.to_sparse())),
    "device": (ValueError, "^up is on the device meta", lambda: swiglu(X, Y.to("meta"))),
    "stats": (TypeError, "^stats must be a geoact.GeometryStats", lambda: swiglu(X, Y, stats=WRONG_STATS)),
    "gradient stats": (
        TypeError,
        "^gradient_stats must be a geoact.GradientStats",
        lambda: swiglu(X, Y, gradient_stats=WRONG_GRADIENT_STATS),
    ),
    "out": (TypeError, "^out must be a torch tensor as gate is", lambda: swiglu(X, Y, out=X.numpy())),
    "out shape": (ValueError, r"^out has shape \(3, 3\)", lambda: swiglu(X, Y, out=torch.ones(3, 3))),
    "negated out": (ValueError, "^out is a lazily negated", lambda: swiglu(X, Y, out=torch._neg_view(X.clone()))),
    "one out": (TypeError, r"^out must be a pair", lambda: swiglu.backward(X, X, Y, out=X.clone())),
    "out twice": (ValueError, r"^out\[0\] and out\[1\] share memory", lambda: swiglu.backward(X, X, Y, out=(X, X))),
    "backward dtype": (TypeError, "^up is float64, but dy is float32", lambda: swiglu.backward(X, X, Y.double())),
    "backward array": (TypeError, "^gate must be a torch tensor", lambda: swiglu.backward(X, X.numpy(), Y)),
}


@pytest.mark.parametrize("bad", BAD)
def test_wrong_arguments(bad):
    error, match, call = BAD[bad]
    before = X.clone(), Y.clone()
    with pytest.raises(error, match=match):
        call()
    same_bits(X, before[0])
    same_bits(Y, before[1])


def test_shapes_alone():
    gate = torch.empty(3, 8, device="meta")
    y = geoact.swiglu(*gate.chunk(2, -1))
    assert y.is_meta
    assert y.shape == (3, 4)
    assert [d.shape for d in geoact.swiglu.backward(y, y, y)] == [(3, 4), (3, 4)]


def test_a_torch_without_the_exchange_table_is_served_by_addresses(monkeypatch):
    gate, up = pair(5, 6, dtype=torch.float32, requires_grad=False)
    expected, stats = gradients(geoact.swiglu, gate, up), geoact.GeometryStats()
    monkeypatch.setattr(gated_ops.autograd, "_HAS_EXCHANGE", False)
    for a, b in zip(gradients(lambda g, u: geoact.swiglu(g, u, stats=stats), gate, up), expected, strict=True):
        same_bits(a, b)
    assert stats.n == 30
    same_bits(geoact.swiglu(gate, up, out=gate.clone()), expected[0])


def test_a_device_with_nothing_but_triton_is_refused(monkeypatch):
    class Elsewhere:
        is_cuda, device = True, "cuda:0"

    monkeypatch.setattr(gated_ops.backends, "load_cuda", lambda: "geoact._cuda was not built")
    with pytest.raises(ValueError, match="^gate is on the device cuda:0, where gated activations need geoact's CUDA"):
        gated_ops.core_forward(geoact.swiglu, Elsewhere(), Elsewhere(), (), None, None)


# --- operators and torch.compile ------------------------------------------------------------------


def _operator(name):
    return getattr(torch.ops.geoact, name).default


@each_gate
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(row, requires_grad):
    gate, up = pair(3, 4, dtype=torch.float32, requires_grad=requires_grad)
    dy, values = tensor(3, 4, seed=2, requires_grad=requires_grad), tuple(p.default for p in row.parameters)
    opcheck(_operator(row.name), (gate, up, *values))
    opcheck(_operator(f"{row.name}_backward"), (dy, gate, up, *values))
    stats, gradient_stats = statistics()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    arguments = gate, up, *values, stats._token
    opcheck(_operator(f"{row.name}_measured"), (*arguments, gradient_stats._token), test_utils=tests)
    opcheck(_operator(f"{row.name}_measured"), (*arguments, None), test_utils=tests)
    arguments = dy.detach(), gate, up, *values, gradient_stats._token
    opcheck(_operator(f"{row.name}_backward_measured"), arguments, test_utils=tests[:3])
    assert stats.calls > 0
    assert gradient_stats.calls > 0


@each_gate
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_in_one_graph_with_the_same_bits_and_statistics(row, backend):
    if backend == "inductor" and row.name != "swiglu":
        pytest.skip("compiled code is the same for all rows")
    torch.compiler.reset()
    both, dy = tensor(30, 40, scale=4), tensor(30, 20, seed=2)
    pairs = [statistics(per="channel") for _ in range(2)]

    def model(stats, gradient_stats):
        return lambda x: row(*x.chunk(2, -1), stats=stats, gradient_stats=gradient_stats)

    found = []
    for function in (torch.compile(model(*pairs[0]), backend=backend, fullgraph=True), model(*pairs[1])):
        x = both.clone().requires_grad_()
        y = function(x)
        y.backward(dy)
        found.append((y.detach(), x.grad))
    for a, b in zip(*found, strict=True):
        same_bits(a, b)
    assert cells(*pairs[0]) == cells(*pairs[1])
    torch.compiler.reset()


def test_other_tracers_see_the_operators():
    gate, up = pair(3, 4, requires_grad=False)
    graph = make_fx(lambda g, u: geoact.geglu(g, u, approximate="tanh"))(gate, up)
    assert "geoact.geglu_tanh" in graph.code
    same_bits(graph(gate, up), geoact.geglu_tanh(gate, up))
    traced = torch.fx.symbolic_trace(nn.Sequential(geoact.torch.SwiGLU(packed=True)))
    x = tensor(3, 8)
    same_bits(traced(x), geoact.swiglu(*x.chunk(2, -1)))
    program = torch.export.export(geoact.torch.ClippedSwiGLU(limit=2.0), (gate, up))
    same_bits(program.module()(gate, up), geoact.swiglu_clipped(gate, up, limit=2.0))


def test_compiled_errors_name_the_argument():
    torch.compiler.reset()
    compiled = torch.compile(lambda g, u: geoact.swiglu(g, u), backend="eager")
    with pytest.raises(Exception, match=r"up has shape \(3, 3\), but gate has shape \(3, 4\)"):
        compiled(X, Y[:, 1:])
    torch.compiler.reset()


def test_vmap_wants_channels_counted_from_the_end():
    gate, up = pair(3, 4, requires_grad=False)
    stats = geoact.GeometryStats(per="channel", channel_axis=0)
    with pytest.raises(ValueError, match="under vmap count channel_axis from the end"):
        vmap(lambda g, u: geoact.swiglu(g, u, stats=stats))(gate, up)
    stats = geoact.GeometryStats()
    vmap(lambda g, u: geoact.swiglu(g, u, stats=stats))(gate, up)
    assert stats.n == 12


# --- modules --------------------------------------------------------------------------------------

MODULES = {
    "swiglu": geoact.torch.SwiGLU,
    "swiglu_clipped": geoact.torch.ClippedSwiGLU,
    "geglu": geoact.torch.GEGLU,
    "geglu_tanh": lambda **options: geoact.torch.GEGLU("tanh", **options),
    "reglu": geoact.torch.ReGLU,
}


@each_gate
def test_modules(row):
    both = tensor(5, 12)
    gate, up = both.chunk(2, -1)
    stats, gradient_stats = statistics()
    for packed in (False, True):
        module = MODULES[row.name](packed=packed, stats=stats, gradient_stats=gradient_stats)
        arguments = (both.clone().requires_grad_(),) if packed else (gate, up.clone().requires_grad_())
        y = module(*arguments)
        y.sum().backward()
        same_bits(y.detach(), row(gate, up))
        assert not list(module.parameters())
        assert ("packed=True" in repr(module)) == packed
        assert "stats=<per tensor>" in repr(module)
        plain = MODULES[row.name](packed=packed)
        for twin in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
            same_bits(twin(*arguments).detach(), y.detach())
            assert repr(twin) == repr(plain)
    assert (stats.calls, gradient_stats.calls) == (2, 2)
    assert set(MODULES) == set(GATES)


def test_wrong_modules():
    for call, error, match in (
        (lambda: geoact.torch.SwiGLU("yes"), TypeError, "^packed must be a bool, got str"),
        (lambda: geoact.torch.SwiGLU(stats=1), TypeError, "^stats must be a geoact.GeometryStats"),
        (lambda: geoact.torch.GEGLU("erf"), ValueError, r"^approximate is 'erf'"),
        (lambda: geoact.torch.ClippedSwiGLU(limit=-1), ValueError, r"^limit is -1.0"),
        (lambda: geoact.torch.SwiGLU()(X), TypeError, r"^SwiGLU\(packed=False\) takes gate and up"),
        (lambda: geoact.torch.SwiGLU(packed=True)(X, Y), TypeError, r"^SwiGLU\(packed=True\) takes one tensor"),
        (lambda: geoact.torch.SwiGLU(packed=True)(X[:, 1:]), ValueError, r"^both has shape \(3, 3\); its last axis"),
        (lambda: gated.halves(X[0, 0]), ValueError, r"^both has shape \(\)"),
        (lambda: gated.halves(X.numpy()), TypeError, "^both must be a torch tensor, got ndarray"),
    ):
        with pytest.raises(error, match=match):
            call()


def test_halves_of_nothing():
    gate, up = gated.halves(torch.empty(3, 0))
    assert geoact.torch.SwiGLU(packed=True)(torch.empty(3, 0)).shape == gate.shape == up.shape == (3, 0)


class FeedForward(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.up = nn.Linear(6, 16)
        self.gate = gate
        self.down = nn.Linear(8, 6)

    def forward(self, x):
        return self.down(self.gate(self.up(x)))


def test_a_monitor_watches_the_gate():
    torch.manual_seed(0)
    model = nn.Sequential(FeedForward(geoact.torch.SwiGLU(packed=True)), FeedForward(geoact.torch.GEGLU("tanh", True)))
    x = torch.randn(10, 6)
    plain = model(x)
    with geoact.torch.instrument(model) as monitor:
        y = model(x)
        y.square().mean().backward()
    same_bits(y.detach(), plain.detach())
    reading = monitor.last
    assert [(layer.name, layer.activation) for layer in reading] == [("0.gate", "swiglu"), ("1.gate", "geglu_tanh")]
    gate = model[0].up(x).chunk(2, -1)[0].detach().double()
    np.testing.assert_allclose(reading["0.gate"].forward.mean_x, gate.mean(0).numpy(), rtol=1e-5, atol=1e-6)
    assert reading["0.gate"].backward.groups == 8
    assert model[0].gate._probe is None


def test_every_gate_is_an_operator_with_formulas():
    assert set(gated_ops._FORMULAS) == set(gated_ops._ROWS) == set(registry.gates()) == set(REFERENCES)
