"""Values and gradients of the rows on tensors: against torch's own functions, in every dtype, layout and corner."""

import inspect

import geoact
import numpy as np
import pytest
from support import inputs
from support.cases import PLAIN, each_case, each_row, ulps

pytest.importorskip("torch.distributed")  # of a real torch, and not of a folder of that name
import torch
import torch.nn.functional as F
from geoact.torch import functional
from support.torch_cases import (
    LAYOUTS,
    REFERENCES,
    TWINS,
    arguments,
    each_dtype,
    each_layout,
    each_twin,
    gradients,
    same_bits,
    split,
    tensor,
)


def test_every_row_has_a_reference_and_a_function():
    assert set(REFERENCES) == set(geoact.activations())
    missing = [name for name in geoact.activations() if not hasattr(functional, name)]
    assert missing == ["gelu_tanh"]  # which is gelu(approximate="tanh")


@pytest.mark.parametrize("name", [name for name in TWINS if hasattr(functional, name)])
def test_signature_is_that_of_torch_and_the_statistics(name):
    ours = inspect.signature(getattr(functional, name)).parameters.values()
    positional = [(p.name, p.default) for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in ours if p.kind is p.KEYWORD_ONLY] == [
        "stats",
        "gradient_stats",
        *(["save"] * (name == "relu")),
    ]
    if inspect.isbuiltin(getattr(F, name)):  # no signature to read, but the call below would fail
        return
    try:
        theirs = inspect.signature(getattr(F, name)).parameters.values()
    except ValueError:
        pytest.skip("torch does not tell its arguments")
    assert positional == [(p.name, p.default) for p in theirs]


# --- values ---------------------------------------------------------------------------------------


@each_case
def test_float32_is_within_the_promise_of_the_row(case):
    x = inputs.float32_sample()[::37]
    y = case(torch.from_numpy(x)).numpy()
    expected = case.value(x, x.dtype)
    with np.errstate(over="ignore"):
        finite = np.isfinite(expected.astype(np.float32))
    assert ulps(y, expected, x.dtype, case.size(x, x.dtype))[finite].max() <= case.row.ulp["float32"]


@each_twin
@each_dtype
def test_value_and_gradient_are_those_of_torch(case, dtype):
    x = torch.cat([tensor(4, 3, 50, dtype=dtype), tensor(4, 3, 14, dtype=dtype, scale=20)], dim=2)
    values = arguments(case, dtype, channels=3)
    bind, tensors = split(case, values)
    dy = tensor(*x.shape, dtype=dtype, seed=1)
    ours, theirs = (gradients(bind(f), x, *tensors, dy=dy) for f in (case.row, TWINS[case.name]))
    torch.testing.assert_close(ours[0], theirs[0])
    narrow, unit = dtype in (torch.float16, torch.bfloat16), torch.finfo(dtype).eps
    torch.testing.assert_close(ours[1], theirs[1])
    # torch rounds the products of a weight's gradient to 16 bits before it adds them up; ours are added unrounded.
    tolerance = {"atol": 32 * unit, "rtol": 4 * unit} if narrow else {}
    torch.testing.assert_close(ours[2:], theirs[2:], **tolerance)


@each_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_values_are_the_rounded_float32_result(case, dtype):
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    same_bits(case(every), case(every.float()).to(dtype))


@each_twin
@each_dtype
def test_special_values_are_those_of_torch(case, dtype):
    limits = torch.finfo(dtype)
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, limits.max, limits.min], dtype=dtype)
    if case.name == "hardswish":  # torch's 6 x overflows before it is divided by 6
        x = x[:5]
    if case.name == "gelu" and dtype != torch.float64:  # oneDNN's is NaN or infinite out there, on some processors
        x = x[[0, 3, 4]]
    bind, tensors = split(case, arguments(case, dtype))
    ours, theirs = bind(case.row)(x, *tensors), bind(TWINS[case.name])(x, *tensors)
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    zeros = theirs == 0
    assert torch.equal(ours[zeros].signbit(), theirs[zeros].signbit())


@each_case
@each_dtype
def test_subnormal_numbers_are_not_flushed(case, dtype):
    limits = torch.finfo(dtype)
    x = torch.tensor([limits.tiny / 2, -limits.tiny / 2, limits.smallest_normal, -limits.tiny / 4], dtype=dtype)
    y, wide = case(x).double(), case(x.double())
    spacing = limits.smallest_normal * limits.eps
    torch.testing.assert_close(y, wide, rtol=2 * limits.eps, atol=1.01 * spacing)


@each_twin
def test_gradient_of_special_values_is_that_of_torch(case):
    x = torch.tensor([float("nan"), 0.0, -0.0, 3.0, -3.0, 20.0, 1e4, -1e4], dtype=torch.float32)
    if case.name in ("elu", "hardswish"):  # where x is NaN torch has the slope 1 here, and we NaN
        x = x[1:]
    bind, tensors = split(case, arguments(case, torch.float32))
    ours, theirs = (gradients(bind(f), x, *tensors) for f in (case.row, TWINS[case.name]))
    torch.testing.assert_close(ours[1], theirs[1], equal_nan=True)


def test_slope_of_relu_at_zero_is_zero():
    x = torch.tensor([0.0, -0.0], requires_grad=True)
    functional.relu(x).sum().backward()
    assert x.grad.tolist() == [0, 0]


# --- shapes and layouts ---------------------------------------------------------------------------


@each_row
@each_layout
def test_layout_of_the_result_and_the_gradient(case, layout):
    base = tensor(2, 4, 3, 5)
    bind, tensors = split(case, arguments(case, torch.float32, channels=4))
    x = layout(base)
    y = bind(case.row)(x, *tensors)
    assert y.stride() == torch.empty_like(x).stride()
    same_bits(y, bind(case.row)(x.contiguous(), *tensors))
    flat = gradients(bind(case.row), x.contiguous(), *tensors)
    for dy_layout in LAYOUTS.values():
        dy = dy_layout(tensor(2, 4, 3, 5, seed=2))
        _, *found = gradients(bind(case.row), x, *tensors, dy=dy)
        _, *expected = gradients(bind(case.row), x.contiguous(), *tensors, dy=dy.contiguous())
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)
        same_bits(found[0], expected[0])
    assert flat[0].is_contiguous()


@each_row
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (0, 4), (1, 1, 1, 1, 1, 1), (7,)], ids=str)
def test_any_shape(case, shape):
    x = tensor(*shape, dtype=torch.float64)
    bind, tensors = split(case, arguments(case, torch.float64))
    ours, theirs = (gradients(bind(f), x, *tensors) for f in (case.row, REFERENCES[case.name]))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other)


@each_row
def test_a_gradient_that_is_one_number_expanded(case):
    x = tensor(3, 4, requires_grad=True)
    case(x).sum().backward()
    again = x.detach().clone().requires_grad_()
    case(again).backward(torch.ones(3, 4))
    same_bits(x.grad, again.grad)


# --- who is followed ------------------------------------------------------------------------------


@each_row
def test_only_what_requires_a_gradient_gets_one(case):
    x = tensor(3, 4)
    bind, tensors = split(case, arguments(case, torch.float32, channels=4, requires_grad=True))
    y = bind(case.row)(x, *tensors)
    assert y.requires_grad == bool(case.row.trainable)
    if case.row.trainable:
        y.sum().backward()
        assert x.grad is None
        assert all(t.grad.shape == (4,) for t in tensors)
    with torch.no_grad():
        assert not bind(case.row)(x.requires_grad_(), *tensors).requires_grad
    with torch.inference_mode():
        y = bind(case.row)(x, *tensors)
        assert y.is_inference()
        same_bits(y, bind(case.row)(torch.nn.Parameter(x.detach().clone()), *tensors))


@each_row
def test_a_parameter_is_a_tensor(case):
    x = torch.nn.Parameter(tensor(3, 4))
    y = case(x)
    assert type(y) is torch.Tensor
    y.sum().backward()
    same_bits(x.grad, gradients(lambda t: case(t), x.detach())[1])


@pytest.mark.parametrize("case", [case for case in PLAIN if case.row.trainable], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (4,)], ids=str)
def test_gradient_of_a_parameter_has_its_shape_and_dtype(case, shape):
    for dtype in (torch.float32, torch.bfloat16):
        weights = [torch.full(shape, 0.25, dtype=dtype, requires_grad=True) for _ in range(case.row.trainable)]
        x = tensor(5, 4, 3, dtype=dtype, requires_grad=True)
        case.row(x, *weights, *case.values[len(weights) :]).sum().backward()
        for weight in weights:
            assert weight.grad.shape == weight.shape
            assert weight.grad.dtype == dtype
