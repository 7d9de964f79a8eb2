"""Tensors out of the ordinary: autocast, lazy signs, subclasses, shapes without data, and what is refused."""

import geoact
import pytest
from support.cases import each_row
from support.errors import Untouched

pytest.importorskip("torch.distributed")
import torch
from geoact.torch import functional
from support.torch_cases import (
    DTYPES,
    REFERENCES,
    TWINS,
    arguments,
    each_dtype,
    each_trained,
    each_twin,
    gradients,
    same_bits,
    split,
    tensor,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

# --- autocast -------------------------------------------------------------------------------------


@each_twin
@each_dtype
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_gives_the_dtype_of_torch(case, dtype, lower):
    x, stats = tensor(3, 4, dtype=dtype), geoact.GeometryStats()
    bind, tensors = split(case, arguments(case, dtype, channels=4))
    ours, measured = bind(case.row), bind(lambda x, *a: case.row(x, *a, stats=stats))
    # Casting is prelu's affair alone, and compiling takes time.
    compiled = torch.compile(measured, backend="eager", fullgraph=True) if case.row.trainable else measured
    with torch.autocast("cpu", lower):
        expected = bind(TWINS[case.name])(x, *tensors).dtype
        for function in (ours, measured, compiled):
            followed = x.clone().requires_grad_()
            assert function(x, *tensors).dtype == function(followed, *tensors).dtype == expected
            function(followed, *tensors).sum().backward()
            assert followed.grad.dtype == dtype
    assert (stats.dtype, stats.calls) == (str(expected).removeprefix("torch."), 6)
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["swish", "acon_c", "xielu", "dyt", "derf"])
def test_trained_parameters_follow_x_under_autocast(name):
    row = geoact.get(name)
    values = [torch.nn.Parameter(torch.full((4,), 0.4)) for _ in range(row.trainable)]
    layer = torch.nn.Linear(3, 4)
    for function in (row, torch.compile(row, backend="eager")):
        with torch.autocast("cpu", torch.bfloat16):
            y = function(layer(torch.randn(5, 3)).detach(), *values)
        assert y.dtype == torch.bfloat16
        y.float().sum().backward()
        assert all(v.grad.dtype == torch.float32 for v in values)
    torch.compiler.reset()


def test_autocast_leaves_a_mixed_float64_weight_to_the_error_of_mixed_dtypes():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="weight is float64"):
        functional.prelu(tensor(3, 4), torch.rand(4).double())


# --- lazily negated, conjugated -------------------------------------------------------------------


def _negated(*shape, seed=0):
    x = torch.complex(tensor(*shape, seed=seed + 7), tensor(*shape, seed=seed)).conj().imag
    assert x.is_neg()
    return x


@each_row
def test_a_lazily_negated_view_anywhere(case):
    bind, tensors = split(case, tuple(-t for t in arguments(case, torch.float32, channels=4)) if case.row.trainable
                          else case.values)  # fmt: skip
    lazy = tuple(torch.complex(t, -t).conj().imag for t in tensors)
    x, dy = _negated(3, 4), _negated(3, 4, seed=1)
    plain = gradients(bind(case.row), x.resolve_neg(), *tensors, dy=dy.resolve_neg())
    assert all(t.is_neg() for t in lazy)
    same_bits(bind(case.row)(x, *lazy), plain[0])
    followed = x.detach().requires_grad_()
    y = bind(case.row)(followed, *lazy)
    (dx,) = torch.autograd.grad(y, followed, dy)
    same_bits(y, plain[0])
    same_bits(dx, plain[1])
    stats = geoact.GeometryStats()
    bind(lambda *a: case.row(*a, stats=stats))(x, *lazy)
    assert float(stats.x_min) == x.min().item()


def test_backward_of_the_row_refuses_a_lazily_negated_gradient():
    with pytest.raises(ValueError, match="dy is a lazily negated view"):
        geoact.silu.backward(_negated(3), x=tensor(3))


# --- no data --------------------------------------------------------------------------------------


@each_row
@pytest.mark.parametrize("requires_grad", [False, True])
def test_meta_and_fake_tensors_have_the_shape_of_the_result(case, requires_grad):
    real = tensor(2, 4, 3, 5).contiguous(memory_format=torch.channels_last)
    bind, tensors = split(case, arguments(case, torch.float32, channels=4))
    y = bind(case.row)(real, *tensors)
    stats = geoact.GeometryStats()

    def check(x, *parameters):
        result = bind(lambda *a: case.row(*a))(x.requires_grad_(requires_grad), *parameters)
        assert (result.shape, result.dtype, result.stride()) == (y.shape, y.dtype, y.stride())
        assert result.device == x.device
        if requires_grad:
            assert torch.autograd.grad(result.sum(), x)[0].shape == x.shape

    check(real.to("meta"), *(t.to("meta") for t in tensors))
    with FakeTensorMode() as mode:
        check(mode.from_tensor(real), *map(mode.from_tensor, tensors))
    assert stats.calls == 0


# --- subclasses and modes -------------------------------------------------------------------------


class Wrapped(torch.Tensor):
    """Holds a tensor; every operator is run on what it holds."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, strides=inner.stride(), requires_grad=inner.requires_grad
        )

    def __init__(self, inner):
        self.inner = inner.detach()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Wrapped, lambda t: t.inner, (args, kwargs or {}))
        out = tree_map_only(torch.Tensor, Wrapped, function(*args, **kwargs))
        return return_and_correct_aliasing(function, args, kwargs, out) if function is torch.ops.aten.detach else out


class Named(torch.Tensor):
    """Torch's default: results of functions are of this class too."""


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@each_row
def test_subclasses_of_tensor_pass_through(case):
    x, stats = tensor(3, 4), geoact.GeometryStats()
    bind, tensors = split(case, arguments(case, torch.float32))
    expected = gradients(bind(case.row), x, *tensors)
    wrapped = Wrapped(x.clone().requires_grad_())
    y = bind(lambda *a: case.row(*a, stats=stats))(wrapped, *tensors)
    assert type(y) is Wrapped
    same_bits(y.inner, expected[0])
    (dx,) = torch.autograd.grad(y, wrapped, Wrapped(torch.ones(3, 4)))
    same_bits(dx.inner, expected[1])
    named = bind(case.row)(x.as_subclass(Named), *tensors)
    assert type(named) is Named
    same_bits(named.as_subclass(torch.Tensor), expected[0])
    assert (stats.n, stats.calls) == (12, 1)


@each_row
def test_a_gradient_that_is_a_subclass(case):
    x = tensor(3, 4, requires_grad=True)
    bind, tensors = split(case, arguments(case, torch.float32))
    expected = gradients(bind(case.row), x.detach(), *tensors)[1]
    (dx,) = torch.autograd.grad(bind(case.row)(x, *tensors), x, Wrapped(torch.ones(3, 4)))
    same_bits(dx.inner, expected)


def test_a_dispatch_mode_sees_one_operator_per_direction():
    x, stats = tensor(3, requires_grad=True), geoact.GeometryStats()
    with Recorder() as recorder:
        geoact.silu(x, stats=stats).sum().backward()
    ours = [name for name in recorder.seen if name.startswith("geoact")]
    assert ours == ["geoact.silu_measured.default", "geoact.silu_backward.default"]
    assert stats.calls == 1


# --- refused --------------------------------------------------------------------------------------


def _quantised():
    return torch.quantize_per_tensor(tensor(4), 0.1, 0, torch.quint8)


UNSUPPORTED = {
    "int64": (lambda: torch.arange(4), "x has dtype torch.int64"),
    "bool": (lambda: torch.ones(4, dtype=torch.bool), "x has dtype torch.bool"),
    "complex64": (lambda: torch.ones(4, dtype=torch.complex64), "x has dtype torch.complex64"),
    "conjugated": (lambda: torch.ones(4, dtype=torch.complex64).conj(), "x has dtype torch.complex64"),
    "float8": (lambda: torch.ones(4).to(torch.float8_e4m3fn), "x has dtype torch.float8_e4m3fn"),
    "sparse": (lambda: torch.eye(4).to_sparse(), r"x has layout torch.sparse_coo.*x.to_dense\(\)"),
    "sparse, followed": (lambda: torch.eye(4).to_sparse().requires_grad_(), "x has layout torch.sparse_coo"),
    "sparse rows": (lambda: torch.eye(4).to_sparse_csr(), "x has layout torch.sparse_csr"),
    "quantised": (_quantised, "x has dtype torch.quint8"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "x is a nested tensor"),
}


@pytest.mark.filterwarnings("ignore:.*quantize|.*nested tensors|Sparse .* support:UserWarning")
@pytest.mark.parametrize(("make", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
@pytest.mark.parametrize("name", ["silu", "prelu"])
def test_a_tensor_that_cannot_be_computed_on_is_named(make, message, name):
    stats = geoact.GeometryStats()
    with pytest.raises(TypeError, match=message):
        geoact.get(name)(make(), *((0.25,) if name == "prelu" else ()), stats=stats)
    assert stats.calls == 0


@each_trained
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (torch.rand(4).double(), TypeError, "is float64, but x is float32"),
        (torch.rand(4).bfloat16(), TypeError, "is bfloat16, but x is float32"),
        (torch.arange(4), TypeError, "has dtype torch.int64"),
        (torch.rand(3), ValueError, "one value, or one per channel"),
        (torch.rand(4, 1), ValueError, "one value, or one per channel"),
        (torch.rand(4, device="meta"), ValueError, "is on the device meta, but x is on cpu"),
        (torch.rand(4).to_sparse(), TypeError, "has layout torch.sparse_coo"),
        ("0.25", TypeError, ""),
    ],
    ids=["float64", "bfloat16", "integer", "count", "2-d", "meta", "sparse", "str"],
)
def test_a_wrong_parameter_is_named(case, requires_grad, weight, error, message):
    stats, out = geoact.GeometryStats(), torch.zeros(3, 4)
    x = tensor(3, 4, requires_grad=requires_grad)
    with pytest.raises(error, match=f"({case.row.parameters[0].name}).*{message}"):
        case.row(x, weight, stats=stats, out=None if requires_grad else out)
    assert stats.calls == 0
    assert not out.any()


def _used(kind):
    stats = kind()
    x = tensor(4, dtype=torch.float64, requires_grad=True)
    geoact.silu(x, **{"stats" if kind is geoact.GeometryStats else "gradient_stats": stats}).sum().backward()
    assert stats.calls == 1
    return stats


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("path", ["direct", "operator"])
@pytest.mark.parametrize(
    ("stats", "error", "message"),
    [
        ({"stats": {}}, TypeError, "stats must be a geoact.GeometryStats, got dict"),
        ({"stats": geoact.GradientStats()}, TypeError, "stats must be a geoact.GeometryStats, got GradientStats"),
        ({"gradient_stats": geoact.GeometryStats()}, TypeError, "gradient_stats must be a geoact.GradientStats, got"),
        ({"gradient_stats": 1}, TypeError, "gradient_stats must be a geoact.GradientStats, got int"),
        (
            {"stats": _used(geoact.GeometryStats)},
            ValueError,
            "stats holds statistics of float64 data, but x is float32",
        ),
        ({"stats": geoact.GeometryStats(per="channel", channel_axis=2)}, ValueError, "channel_axis"),
    ],
    ids=["dict", "gradient", "geometry", "int", "dtype", "axis"],
)
def test_wrong_statistics_change_nothing(requires_grad, path, stats, error, message):
    x, out = tensor(3, 4, requires_grad=requires_grad), torch.zeros(3, 4)
    held = [s for s in stats.values() if isinstance(s, (geoact.GeometryStats, geoact.GradientStats))]
    mode = Recorder() if path == "operator" else torch.enable_grad()
    with mode, Untouched(*held), pytest.raises(error, match=message):
        geoact.silu(x, **({} if requires_grad else {"out": out}), **stats)
    assert all(s.calls == (s.dtype != "") for s in held)
    assert not out.any()


def test_gradient_statistics_of_another_dtype_fail_in_backward_and_keep_what_they_hold():
    stats = _used(geoact.GradientStats)
    x = tensor(3, requires_grad=True)
    y = geoact.silu(x, gradient_stats=stats)
    with pytest.raises(ValueError, match="stats holds statistics of float64 data"):
        y.sum().backward()
    assert (stats.calls, stats.n) == (1, 4)
    assert x.grad is None


def test_elu_of_a_negative_plateau():
    x = tensor(50, requires_grad=True)
    ours, theirs = functional.elu(x, -1.0), torch.nn.functional.elu(x, -1.0)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), x), torch.autograd.grad(theirs.sum(), x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_elu_keeps_its_slope_far_below_zero(dtype):
    x = torch.tensor([-1.0, -4, -6, -7, -17, -30], dtype=dtype, requires_grad=True)
    functional.elu(x).sum().backward()
    torch.testing.assert_close(x.grad.double(), x.detach().double().exp(), rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_every_dtype_is_covered():
    assert set(map(str, DTYPES.values())) == {"torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"}
    assert set(TWINS) < set(REFERENCES)


def test_backward_of_meta_tensors_is_of_shapes():
    dy, saved = torch.empty(3, 4, device="meta"), torch.empty(3, 4, device="meta")
    dx = geoact.sigmoid.backward(dy, y=saved, stats=geoact.GradientStats())
    assert dx.is_meta
    assert dx.shape == dy.shape
    dx, dweight = geoact.prelu.backward(dy, torch.empty(4, device="meta"), x=saved)
    assert (dx.shape, dweight.shape) == (dy.shape, (4,))
    with pytest.raises(ValueError, match=r"^y is on the device cpu, but dy is on meta"):
        geoact.sigmoid.backward(dy, y=torch.empty(3, 4))
