"""torch's own samples (OpInfo) for the functions that both have: values, gradients, second and forward derivatives."""

import functools

import pytest

pytest.importorskip("torch.distributed")
import torch
from geoact.torch import functional
from support.torch_cases import each_dtype
from torch.autograd import gradcheck, gradgradcheck

invocations = pytest.importorskip("torch.testing._internal.common_methods_invocations")

NAMES = ["relu", "sigmoid", "tanh", "leaky_relu", "elu", "silu", "gelu", "softplus", "hardsigmoid", "hardswish", "mish",
         "prelu"]  # fmt: skip
# torch has no integer rule for most of these and promotes integers to float32 for sigmoid and tanh; geoact computes on
# floating point alone and says so (test_tensors.py), so integer samples are left out by the choice of dtypes.
OPS = {op.name.removeprefix("nn.functional."): op for op in invocations.op_db if op.variant_test_name == ""}
each_name = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def _samples(name, dtype, requires_grad):
    return list(OPS[name].sample_inputs("cpu", dtype, requires_grad=requires_grad))


def _copied(sample):
    x = sample.input.detach().clone(memory_format=torch.preserve_format).requires_grad_(sample.input.requires_grad)
    more = [
        a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a for a in sample.args
    ]
    return x, more


def _graded(function, sample):
    x, more = _copied(sample)
    y = function(x, *more, **sample.kwargs)
    result = y if not sample.kwargs.get("inplace") else x
    leaves = [t for t in (x, *more) if isinstance(t, torch.Tensor) and t.requires_grad and t.is_leaf]
    if not leaves:
        return y, result, []
    dy = torch.linspace(0.5, 1.5, max(y.numel(), 1), dtype=y.dtype)[: y.numel()].reshape(y.shape)
    return y, result, torch.autograd.grad(y, leaves, dy)


@each_name
@each_dtype
@pytest.mark.parametrize("requires_grad", [False, True])
def test_samples_of_torch(name, dtype, requires_grad):
    ours, theirs = getattr(functional, name), OPS[name].op
    unit = torch.finfo(dtype).eps
    # A weight's gradient is a sum, whose terms torch rounds to 16 bits first.
    summed = {"atol": 32 * unit, "rtol": 16 * unit} if dtype.itemsize == 2 else {}
    compared = 0
    for sample in _samples(name, dtype, requires_grad):
        if sample.kwargs.get("inplace") and requires_grad:
            continue  # a leaf; see test_inplace.py
        mine, other = _graded(ours, sample), _graded(theirs, sample)
        assert mine[0].dtype == other[0].dtype
        assert mine[0].stride() == other[0].stride()
        torch.testing.assert_close(mine[0], other[0])
        torch.testing.assert_close(mine[1], other[1])
        torch.testing.assert_close(mine[2], other[2], **summed)
        compared += 1
    assert compared


@each_name
def test_derivatives_on_the_samples_of_torch(name):
    checked = 0
    for sample in _samples(name, torch.float64, True):
        x, more = _copied(sample)
        if sample.kwargs.get("inplace"):
            continue
        if x.numel() > 40:  # gradcheck is quadratic
            if name == "prelu":
                continue
            x = x.detach().reshape(-1)[:20].requires_grad_()
        function = functools.partial(getattr(functional, name), **sample.kwargs)
        assert gradcheck(function, (x, *more), check_forward_ad=True)
        assert gradgradcheck(function, (x, *more), check_fwd_over_rev=True)
        checked += 1
    assert checked


@pytest.mark.parametrize("name", [name for name in NAMES if OPS[name].error_inputs_func])
def test_errors_are_for_the_inputs_that_torch_refuses(name):
    for wrong in OPS[name].error_inputs("cpu"):
        sample = wrong.sample_input
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            getattr(functional, name)(sample.input, *sample.args, **sample.kwargs)
