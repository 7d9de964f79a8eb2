"""Writing over x and into out=: what autograd must be told, and what it must refuse before anything is written."""

import geoact
import pytest
from support.cases import each_row

pytest.importorskip("torch.distributed")
import torch
from geoact.torch import functional
from support.torch_cases import TWINS, arguments, each_inplace, each_trained, gradients, same_bits, split, tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def _function(case):
    return lambda x, inplace: getattr(functional, case.name)(x, *case.values, inplace=inplace)


def _over(case, x, *tensors):
    return case.row(x, *(tensors or case.values), out=x)


@each_inplace
def test_inplace_gives_the_same_bits_and_the_same_tensor(case):
    x = tensor(4, 6)
    y, version = _function(case)(x, False), x._version
    assert _function(case)(x, True) is x
    assert x._version == version + 1
    same_bits(x, y)


@each_row
def test_inplace_gradients_are_those_out_of_place(case):
    bind, tensors = split(case, arguments(case, torch.float32, channels=6))
    dy = tensor(4, 6, seed=1)
    expected = gradients(bind(case.row), tensor(4, 6), *tensors, dy=dy)
    found = gradients(lambda x, *w: _over(case, x * 1, *w), tensor(4, 6), *tensors, dy=dy)
    for a, b in zip(found, expected, strict=True):
        same_bits(a, b)


@each_row
def test_inplace_derivatives_of_every_mode(case):
    bind, tensors = split(case, arguments(case, requires_grad=True))
    x = tensor(2, 3, dtype=torch.float64, requires_grad=True)
    over = lambda x, *w: _over(case, x.clone(), *w)  # noqa: E731
    assert gradcheck(over, (x, *tensors), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(over, (x, *tensors))
    inside = torch.func.grad(lambda x, *w: (over(x, *w) ** 2).sum())
    outside = torch.func.grad(lambda x, *w: (bind(case.row)(x, *w) ** 2).sum())
    torch.testing.assert_close(inside(x, *tensors), outside(x, *tensors))


@each_row
def test_saved_and_then_modified_is_an_error(case):
    x = tensor(4, requires_grad=True)
    before = x * 1
    y = case(before)
    (y if case.row.saves == "y" else before).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    before = x * 1
    y = case(before)
    (before if case.row.saves == "y" else y).add_(1)  # which backward does not read
    y.sum().backward()


def test_what_was_saved_by_another_operation_is_an_error_too():
    x = tensor(4, requires_grad=True)
    before = x * 1
    z = before.exp()
    functional.relu(z, inplace=True)  # exp saved z
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def _no_grad_view(x):
    with torch.no_grad():
        return x[1:]


WRONG = {
    "leaf": lambda x: x,
    "view of a leaf": lambda x: x[1:],
    "view made without grad": _no_grad_view,
    "one of several views": lambda x: (x * 1).split(2)[0],
    "view made in a custom function": lambda x: (x * 1).unbind(0)[1],
}


@each_inplace
@pytest.mark.parametrize("view", WRONG.values(), ids=WRONG)
def test_inplace_is_refused_where_torch_refuses_it_and_writes_nothing(case, view):
    stats, x = geoact.GeometryStats(), tensor(4, 3, requires_grad=True)
    target = view(x)
    kept = target.detach().clone()
    with pytest.raises(RuntimeError, match="in-place|inplace"):
        torch.relu_(target)
    with pytest.raises(RuntimeError, match="in-place|inplace"):
        case(target, out=target, stats=stats)
    same_bits(target, kept)
    assert stats.calls == 0


def test_inplace_without_grad_is_allowed_on_a_leaf():
    x = tensor(4, requires_grad=True)
    expected = torch.relu(x.detach())
    with torch.no_grad():
        functional.relu(x, inplace=True)
    same_bits(x, expected)


@each_row
def test_inplace_on_a_view_reaches_the_base(case):
    x = tensor(4, 6, requires_grad=True)

    def graded(function):
        base = x * 1
        function(base[:, ::2])
        return base.detach(), *torch.autograd.grad((base * tensor(4, 6, seed=3)).sum(), x)

    bind, tensors = split(case, arguments(case, torch.float32))

    def apart(view):
        view.copy_(bind(case.row)(view.clone(), *tensors))

    for mine, other in zip(graded(lambda v: _over(case, v, *tensors)), graded(apart), strict=True):
        same_bits(mine, other)


@each_trained
def test_inplace_where_only_the_parameter_is_followed(case):
    x, weight = tensor(3, 4), torch.full((1,), 0.3, requires_grad=True)
    expected = torch.autograd.grad(case.row(x, weight).sum(), weight)[0]
    y = case.row(x, weight, out=x)
    assert y is x
    same_bits(torch.autograd.grad(y.sum(), weight)[0], expected)


def test_inplace_on_a_dual_number():
    x, dx = tensor(5, dtype=torch.float64), tensor(5, dtype=torch.float64, seed=1)
    found = []
    for function in (functional.silu, torch.nn.functional.silu):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone(), dx.clone())
            found.append(tuple(forward_ad.unpack_dual(function(dual, inplace=True))))
    torch.testing.assert_close(*found)


@each_row
def test_out(case):
    x, out, stats = tensor(4, 6), torch.full((6, 4), 9.0).t(), geoact.GeometryStats()
    version = out._version
    assert case(x, out=out, stats=stats) is out
    assert (out.stride(), out._version, stats.n) == ((1, 4), version + 1, 24)
    same_bits(out, case(x))
    with torch.inference_mode():
        inside = torch.empty(4, 6)
        same_bits(case(x, out=inside), out)


def test_out_is_not_followed():
    x, out = tensor(4, requires_grad=True), torch.zeros(4)
    for call in (lambda: geoact.silu(x, out=out), lambda: geoact.silu(out, out=x)):
        with pytest.raises(ValueError, match="out= does not support automatic differentiation"):
            call()
    assert not out.any()
    with torch.no_grad():
        assert geoact.silu(x, out=out) is out
    assert out.any()


def test_out_that_was_saved_is_an_error_in_backward():
    x, other = tensor(4, requires_grad=True), tensor(4, requires_grad=True)
    held = other.exp()
    with torch.no_grad():
        geoact.silu(x, out=held)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        held.sum().backward()


def _halves():
    base = tensor(9)
    return base[:8], base[1:]


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (tensor(4), torch.zeros(5), "out"),
        (tensor(4), torch.zeros(4, dtype=torch.float64), "out"),
        (tensor(4), torch.zeros(4, dtype=torch.int32), "out has dtype torch.int32"),
        (tensor(4), torch.zeros(1).expand(4), "out overlaps itself"),
        (*_halves(), "out"),
        (tensor(4), torch.zeros(4, device="meta"), "out is on the device meta"),
        (tensor(4), torch.zeros(4, dtype=torch.complex64).conj().imag, "out is a lazily negated view"),
        (tensor(4), [0.0] * 4, "out must be"),
        (tensor(4), torch.zeros(4).numpy(), "out must be"),
    ],
    ids=["shape", "dtype", "integer", "expanded", "overlap", "meta", "negated", "list", "numpy"],
)
def test_wrong_out_is_named_and_nothing_changes(x, out, message):
    stats = geoact.GeometryStats()
    kept = x.clone()
    with pytest.raises((TypeError, ValueError), match=message):
        geoact.silu(x, out=out, stats=stats)
    assert stats.calls == 0
    same_bits(x, kept)


@each_trained
def test_backward_of_the_row_into_out(case):
    x, dy, weight = tensor(3, 4), tensor(3, 4, seed=1), torch.full((4,), 0.3)
    dx, dweight, *others = case.row.backward(dy, weight, x=x)
    version = dy._version
    again, dagain, *others_again = case.row.backward(dy, weight, x=x, out=dy)
    assert (again is dy, dy._version) == (True, version + 1)
    same_bits(again, dx)
    same_bits(dagain, dweight)
    assert others == others_again
    assert dweight.shape == (4,)


def test_twins_cover_what_torch_has_in_place():
    assert {name for name in TWINS if hasattr(torch.nn.functional, name + "_")} <= set(geoact.activations())
