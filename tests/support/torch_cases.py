"""torch's own function for every row of the registry, tensors to try them on, and how results are compared.

Imports torch: only for test files that have made sure there is one.
"""

import geoact
import pytest
import torch
import torch.nn.functional as F
from geoact.torch import functional

from support.cases import PLAIN

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def along_channels(parameter, x):
    """One value per channel (axis 1) in a shape that broadcasts against x; data of one axis have one channel."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    return parameter.reshape(-1, *(1,) * (x.dim() - 2))


def _swish(x, beta=1.0):
    return x * torch.sigmoid((along_channels(beta, x) if isinstance(beta, torch.Tensor) else beta) * x)


def _spread(x, *parameters):
    return [along_channels(p, x) if isinstance(p, torch.Tensor) else p for p in parameters]


def _acon_c(x, p1=1.0, p2=0.0, beta=1.0):
    p1, p2, beta = _spread(x, p1, p2, beta)
    d = (p1 - p2) * x
    return d * torch.sigmoid(beta * d) + p2 * x


def _xielu(x, alpha_p, alpha_n, beta=0.5, eps=-1e-6):
    a, s = (torch.logaddexp(v, v * 0) for v in _spread(x, *map(torch.as_tensor, (alpha_p, alpha_n))))
    # Constants, not clamp: it has no derivative of its derivative in every mode.
    held = torch.where(x < eps, x, torch.full_like(x, eps))
    return torch.where(x > 0, a * x * x, (beta + s) * (torch.expm1(held) - x)) + beta * x


def _dyt(x, alpha=0.5, weight=1.0, bias=0.0):
    alpha, weight, bias = _spread(x, alpha, weight, bias)
    return weight * torch.tanh(alpha * x) + bias


def _derf(x, alpha=0.5, shift=0.0, weight=1.0, bias=0.0):
    alpha, shift, weight, bias = _spread(x, alpha, shift, weight, bias)
    return weight * torch.erf(alpha * x + shift) + bias


# What the rows compute, in torch's words.
TWINS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "prelu": F.prelu,
}
REFERENCES = {
    **TWINS,
    "hardsigmoid": lambda x: torch.clamp(x + 3, 0, 6) / 6,  # torch's own has no second derivative
    "centered_sigmoid": lambda x: torch.tanh(x / 2) / 2,
    "relu_squared": lambda x: F.relu(x) * F.relu(x),
    "swish": _swish,
    "gal": lambda x, slope=0.01, scale=1.0, shift=0.0: scale * (F.leaky_relu(x, slope) - shift),
    "acon_c": _acon_c,
    "xielu": _xielu,
    "dyt": _dyt,
    "derf": _derf,
}
INPLACE = [name for name in geoact.activations() if hasattr(functional, name) and name not in ("prelu", "swish")
           and "inplace" in getattr(functional, name).__code__.co_varnames]  # fmt: skip

# Rows that torch has, and those whose parameter is trained.
WITH_TWIN = [case for case in PLAIN if case.name in TWINS]
TRAINED = [case for case in PLAIN if case.row.trainable]
each_twin = pytest.mark.parametrize("case", WITH_TWIN, ids=str)
each_trained = pytest.mark.parametrize("case", TRAINED, ids=str)
each_inplace = pytest.mark.parametrize("case", [case for case in PLAIN if case.name in INPLACE], ids=str)


def arguments(case, dtype=torch.float64, *, channels=None, requires_grad=False):
    """The parameters of a case as torch's functions take them: a tensor where the parameter is trained."""
    if not case.row.trainable:
        return case.values
    trained = case.row.trainable
    values = [torch.full((1,), value, dtype=torch.float64) for value in case.values[:trained]]
    if channels is not None:
        values = [torch.linspace(-0.5 + 0.3 * k, 1.5, channels, dtype=torch.float64) for k in range(trained)]
    return *(v.to(dtype).requires_grad_(requires_grad) for v in values), *case.values[trained:]


def tensor(*shape, dtype=torch.float32, seed=0, scale=2.0, requires_grad=False):
    """Normal data, away from the kinks at 0 and +-3."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    for kink in (-3.0, 0.0, 3.0):
        x = torch.where((x - kink).abs() < 0.05, x + 0.11, x)
    return x.to(dtype).requires_grad_(requires_grad)


# The same elements, in every way that a tensor may lie in memory.
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: torch.repeat_interleave(x, 2, dim=-1)[..., ::2],
    "offset": lambda x: F.pad(x, (1, 0))[..., 1:],
    "expanded": lambda x: x[:, :1].expand_as(x),
    "permuted": lambda x: x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def same_bits(a, b):
    """Equal to the last bit, signs of zero included; one NaN is as good as another."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.dtype.itemsize]
    a, b = (t.detach().contiguous() for t in (a, b))
    equal = (a.view(integer) == b.view(integer)) | (a.isnan() & b.isnan())
    assert equal.all(), f"{(~equal).sum()} of {a.numel()} differ: {a[~equal][:3]}, {b[~equal][:3]}"


def gradients(function, x, *parameters, dy=None):
    """(y, dx, dparameters) of fresh leaves."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, *parameters)]
    y = function(*leaves)
    found = torch.autograd.grad(y, leaves, torch.ones_like(y) if dy is None else dy)
    return y.detach(), *found


def split(case, values):
    """A function of (x, *tensors) from the row or a reference, and the tensors: numbers are bound."""
    trained = case.row.trainable
    tensors, numbers = values[:trained], values[trained:]
    if trained and not numbers:
        return (lambda function: function), tensors
    return (lambda function: lambda x, *given, **named: function(x, *given, *numbers, **named)), tensors
