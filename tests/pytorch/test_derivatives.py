"""Derivatives of any order and mode: gradcheck, gradgradcheck, torch.func, vmap over any axis."""

import geoact
import pytest
from support.cases import each_case, each_row

pytest.importorskip("torch.distributed")
import torch
from support.torch_cases import REFERENCES, TRAINED, arguments, each_trained, gradients, split, tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

FLOAT64 = torch.float64
# torch's own rules of forward differentiation are compiled by torch.jit when the first is needed.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def _inputs(case, *shape, channels=None):
    bind, tensors = split(case, arguments(case, channels=channels, requires_grad=True))
    return bind, (tensor(*shape, dtype=FLOAT64, requires_grad=True), *tensors)


@each_case
def test_gradcheck_in_every_mode(case):
    bind, inputs = _inputs(case, 3, 4, channels=None)
    assert gradcheck(
        bind(case.row),
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        check_undefined_grad=True,
    )


@each_case
def test_gradgradcheck_in_every_mode(case):
    bind, inputs = _inputs(case, 2, 4)
    assert gradgradcheck(bind(case.row), inputs, check_batched_grad=True, check_fwd_over_rev=True)


@each_trained
@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 3), (3,)], ids=str)
def test_gradients_with_one_parameter_per_channel(case, shape):
    bind, inputs = _inputs(case, *shape, channels=3 if len(shape) > 1 else None)
    assert gradcheck(bind(case.row), inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(bind(case.row), inputs, check_fwd_over_rev=True)
    channels = shape[-1] if len(shape) > 1 else 1
    last = [torch.rand(channels, dtype=FLOAT64, requires_grad=True) for _ in inputs[1:]]
    assert gradcheck(lambda x, *w: bind(case.row)(x, *w, channel_axis=-1), (inputs[0], *last), check_forward_ad=True)


@pytest.mark.parametrize("case", [case for case in TRAINED if case.row.trainable > 1], ids=str)
def test_each_parameter_by_itself(case):
    """A tensor per channel beside numbers and tensors of one value, in first and second derivatives."""
    x, trained = tensor(2, 3, 2, dtype=FLOAT64, requires_grad=True), case.row.trainable
    for place in range(trained):
        chosen = torch.linspace(0.2, 1.1, 3, dtype=FLOAT64).requires_grad_()
        one = torch.full((), 0.4, dtype=FLOAT64, requires_grad=True)

        def call(x, w, v, place=place):
            values = [w if k == place else v if k == (place + 1) % trained else n for k, n in enumerate(case.values)]
            return case.row(x, *values)

        assert gradcheck(call, (x, chosen, one), check_forward_ad=True)
        assert gradgradcheck(call, (x, chosen, one), check_fwd_over_rev=True)


@each_row
def test_third_derivative(case):
    bind, inputs = _inputs(case, 5)
    found = []
    for function in (bind(case.row), bind(REFERENCES[case.name])):
        derivative = function(*inputs)
        for _ in range(3):
            (derivative,) = torch.autograd.grad(
                (derivative * inputs[0]).sum(), inputs[0], create_graph=True, materialize_grads=True
            )
        found.append(derivative)
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


@each_row
def test_second_derivative_where_the_gradient_depends_on_the_same_tensor(case):
    bind, inputs = _inputs(case, 6)
    found = []
    for function in (bind(case.row), bind(REFERENCES[case.name])):
        y = function(*inputs)
        (dx,) = torch.autograd.grad(y, inputs[0], y * inputs[0], create_graph=True)
        found.append(torch.autograd.grad(dx.pow(2).sum(), inputs))
    torch.testing.assert_close(*found)


@each_row
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_second_and_forward_derivatives_keep_16_bits(case, dtype):
    bind, tensors = split(case, arguments(case, dtype))
    x = tensor(20, dtype=dtype, requires_grad=True)
    (dx,) = torch.autograd.grad(bind(case.row)(x, *tensors).sum(), x, create_graph=True)
    (ddx,) = torch.autograd.grad(dx.sum(), x, materialize_grads=True)
    _, dy = jvp(lambda x: bind(case.row)(x, *tensors), (x.detach(),), (torch.ones_like(x),))
    assert dx.dtype == ddx.dtype == dy.dtype == dtype
    torch.testing.assert_close(dy, dx.detach(), rtol=1e-2, atol=1e-2)


@each_trained
def test_only_one_of_the_gradients_goes_on(case):
    for first in range(1 + case.row.trainable):
        found = []
        for function in (case.row, REFERENCES[case.name]):
            bind, inputs = _inputs(case, 2, 3)
            one = torch.autograd.grad((bind(function)(*inputs) ** 2).sum(), inputs, create_graph=True)[first]
            found.append(torch.autograd.grad(one.sum(), inputs, materialize_grads=True))
        torch.testing.assert_close(*found)


# --- torch.func -----------------------------------------------------------------------------------


def _squares(function):
    return lambda *inputs: (function(*inputs) ** 2 * inputs[0]).sum()


# name -> transform of a function of (x, *parameters); the function it makes takes the same.
TRANSFORMS = {
    "grad": lambda f: grad(_squares(f)),
    "grad of grad": lambda f: grad(lambda *a: grad(_squares(f))(*a).pow(3).sum()),
    "jvp": lambda f: lambda *a: jvp(f, a, tuple(t.cos() for t in a)),
    "jvp of jvp": lambda f: lambda *a: jvp(lambda *b: jvp(f, b, b)[1], a, a)[1],
    "vjp": lambda f: lambda *a: vjp(f, *a)[1](a[0].sin()),
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda f: hessian(_squares(f)),
    "jacrev of jacrev": lambda f: jacrev(jacrev(_squares(f))),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(_squares(f))),
    "jvp of grad": lambda f: lambda *a: jvp(grad(_squares(f)), a, a)[1],
}


@each_row
def test_transforms_are_those_of_the_reference(case):
    bind, inputs = _inputs(case, 2, 4)
    inputs = tuple(t.detach() for t in inputs)
    for name, transform in TRANSFORMS.items():
        ours, theirs = (transform(bind(f))(*inputs) for f in (case.row, REFERENCES[case.name]))
        torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")


@each_trained
def test_transforms_with_respect_to_the_parameter(case):
    x, (bind, weights) = tensor(2, 3, 3, 2, dtype=FLOAT64), split(case, arguments(case, channels=3))
    every = tuple(range(1 + len(weights)))
    for transform in (
        lambda f: grad(f, every[1:]),
        lambda f: hessian(f, every),
        lambda f: vmap(grad(f, every), (0, *(None for _ in weights))),
    ):
        ours, theirs = (transform(_squares(bind(f)))(x, *weights) for f in (case.row, REFERENCES[case.name]))
        torch.testing.assert_close(ours, theirs)


def test_no_grad_inside_and_outside_of_a_transform():
    x = tensor(4, dtype=FLOAT64)

    def partly(f):
        def call(x):
            with torch.no_grad():
                constant = f(x)
            return (f(x) * constant).sum()

        return call

    torch.testing.assert_close(grad(partly(geoact.silu))(x), grad(partly(torch.nn.functional.silu))(x))
    with torch.no_grad():
        torch.testing.assert_close(grad(_squares(geoact.tanh))(x), grad(_squares(torch.tanh))(x))


def test_a_tensor_that_autograd_follows_outside_of_the_transform():
    x = tensor(4, dtype=FLOAT64, requires_grad=True)
    for function, reference in ((geoact.silu, torch.nn.functional.silu), (geoact.tanh, torch.tanh)):
        ours, theirs = (torch.autograd.grad(grad(_squares(f))(x).sum(), x)[0] for f in (function, reference))
        torch.testing.assert_close(ours, theirs)


def test_gradients_per_sample_of_a_model():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), geoact.torch.PReLU(3), torch.nn.Linear(3, 1))
    plain = torch.nn.Sequential(model[0], torch.nn.PReLU(3), model[2])
    parameters, x = dict(model.named_parameters()), tensor(6, 2, 4)
    ours, theirs = (
        vmap(grad(lambda p, x, m=m: functional_call(m, p, (x,)).sum()), (None, 0))(parameters, x)
        for m in (model, plain)
    )
    torch.testing.assert_close(ours, theirs)


# --- vmap -----------------------------------------------------------------------------------------


@each_row
@pytest.mark.parametrize("axis", [0, 1, 3, -1])
def test_vmap_over_any_axis(case, axis):
    bind, tensors = split(case, arguments(case))
    x = tensor(3, 4, 2, 5, dtype=FLOAT64)
    in_dims, inner = ((a, *(None for _ in tensors)) for a in (axis, 0))
    for out in (0, -1):
        ours, theirs = (vmap(bind(f), in_dims, out)(x, *tensors) for f in (case.row, REFERENCES[case.name]))
        torch.testing.assert_close(ours, theirs)
    ours, theirs = (vmap(vmap(bind(f), inner), in_dims)(x, *tensors) for f in (case.row, REFERENCES[case.name]))
    torch.testing.assert_close(ours, theirs)


@each_trained
@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "in_dims"),
    [
        ((5, 2, 3, 4), (5, 3), (0, 0)),
        ((5, 2, 3, 4), (3,), (0, None)),
        ((2, 3, 4), (5, 3), (None, 0)),
        ((2, 3, 5, 4), (3, 5), (2, 1)),
        ((2, 3, 4, 5), (5, 3), (-1, 0)),
        ((5, 2, 3), (5, 3), (0, 0)),
        ((5, 3), (5,), (0, 0)),
        ((5,), (1,), (0, None)),
        ((5, 3), (5, 1), (0, 0)),
        ((5, 2, 3), (1,), (0, None)),
    ],
    ids=str,
)
def test_vmap_with_a_parameter_of_its_own(case, x_shape, weight_shape, in_dims):
    bind, weights = split(case, arguments(case))
    count = len(weights)
    x, *weights = (tensor(*x_shape, dtype=FLOAT64), *(tensor(*weight_shape, dtype=FLOAT64, seed=5 + k)
                   for k in range(count)))  # fmt: skip
    in_dims, every = (in_dims[0], *in_dims[1:] * count), tuple(range(1 + count))

    def one_by_one(function):
        pick = [
            (lambda i, t=t, d=d: t) if d is None else (lambda i, t=t, d=d: t.select(d, i))
            for t, d in zip((x, *weights), in_dims, strict=True)
        ]
        results = [function(*(p(i) for p in pick)) for i in range(5)]
        return (
            tuple(map(torch.stack, zip(*results, strict=True)))
            if isinstance(results[0], tuple)
            else torch.stack(results)
        )

    row, reference = bind(case.row), bind(REFERENCES[case.name])
    torch.testing.assert_close(vmap(row, in_dims)(x, *weights), one_by_one(row))
    of_all, expected = (grad(lambda *a, f=f: _squares(f)(*a), every) for f in (row, reference))
    torch.testing.assert_close(vmap(of_all, in_dims)(x, *weights), one_by_one(expected))


@each_trained
def test_vmap_does_not_take_the_batch_for_channels(case):
    bind, weights = split(case, arguments(case))
    mapped = vmap(bind(case.row), (0, *(None for _ in weights)))
    given = [torch.rand(4) for _ in weights]
    with pytest.raises(ValueError, match="x has 1 channel|per channel"):
        mapped(tensor(3, 4), *given)


def test_vmap_measures_the_whole_batch_once():
    x, stats, columns = tensor(3, 4, 5), geoact.GeometryStats(), geoact.GeometryStats(per="channel", channel_axis=-1)
    y = vmap(lambda x: geoact.silu(x, stats=stats) + geoact.silu(x, stats=columns), in_dims=1)(x)
    torch.testing.assert_close(y, 2 * torch.nn.functional.silu(x).movedim(1, 0))
    assert (stats.n, stats.calls, columns.groups) == (60, 1, 5)
    wrong = geoact.GeometryStats(per="channel", channel_axis=1)
    with pytest.raises(ValueError, match="channel_axis from the end"):
        vmap(lambda x: geoact.silu(x, stats=wrong))(x)
    with pytest.raises(ValueError, match="differs from sample to sample"):
        vmap(lambda x, w: geoact.prelu(x, w, stats=wrong))(x, torch.rand(3, 1))
    assert wrong.calls == 0


def test_a_batch_of_gradients_is_not_measured():
    x, stats = tensor(4, requires_grad=True), geoact.GradientStats()
    y = geoact.silu(x, gradient_stats=stats)
    (rows,) = torch.autograd.grad(y, x, torch.eye(4), is_grads_batched=True)
    torch.testing.assert_close(rows, torch.autograd.functional.jacobian(torch.nn.functional.silu, x.detach()))
    assert stats.calls == 0


@each_row
def test_dual_numbers(case):
    bind, tensors = split(case, arguments(case))
    x, dx = tensor(3, 4, dtype=FLOAT64), tensor(3, 4, dtype=FLOAT64, seed=1)
    with forward_ad.dual_level():
        y, dy = forward_ad.unpack_dual(bind(case.row)(forward_ad.make_dual(x, dx), *tensors))
    expected = gradients(lambda x: bind(REFERENCES[case.name])(x, *tensors), x, dy=dx)[1]
    torch.testing.assert_close(dy, expected)
    torch.testing.assert_close(y, bind(REFERENCES[case.name])(x, *tensors))
