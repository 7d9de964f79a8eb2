"""What tensors are checked against: the registry's float64 references, run on the device that holds the data.

``geoact._reference`` is loaded a second time with torch in the place of NumPy, so the formulas are those that every
other test uses, and a quarter of a gigabyte is checked where it lies. Runs on any device, the CPU included.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any
from unittest import mock

import geoact
import peers
import torch
from geoact import _reference
from geoact.torch.slopes import PARAMETER_SLOPES, SLOPES

Tensor = torch.Tensor
PART = 1 << 24  # elements that are checked at a time: float64 copies of everything would not fit everywhere
PRECISION = {torch.float16: (11, -14), torch.bfloat16: (8, -126), torch.float32: (24, -126), torch.float64: (53, -1022)}
EXACT = {name for name in peers.FIELDS if name.startswith(("n", "positive", "zero", "x_", "y_", "subnormal"))}
EXACT |= {"underflow", "absmax_dy", "absmax_dx"}


# --- the references on tensors ------------------------------------------------------------------------------


def _numpy_stand_in() -> ModuleType:
    def wide(value: Any, like: Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=like.device)

    np: Any = ModuleType("numpy")
    np.float64, np.nan = float, math.nan
    np.asarray = lambda x, dtype=None: x
    np.where = lambda condition, a, b: torch.where(condition, wide(a, condition), wide(b, condition))
    np.maximum = lambda x, low: torch.clamp(_tensor(x), min=low)
    np.minimum = lambda x, high: torch.clamp(_tensor(x), max=high)
    np.clip = torch.clamp
    for name in ("isnan", "abs", "exp", "expm1", "log1p", "tanh"):
        setattr(np, name, _of_tensor(getattr(torch, name)))
    np.vectorize = lambda function, otypes: function
    np.typing = ModuleType("numpy.typing")
    np.typing.NDArray = {float: float}
    return np


def _tensor(v: Any) -> Tensor:
    """A parameter that is a number, as a tensor."""
    return v if isinstance(v, Tensor) else torch.tensor(float(v), dtype=torch.float64)


def _of_tensor(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Tensor]:
    return lambda v: function(_tensor(v))


@lru_cache
def _references() -> ModuleType:
    stand_in = _numpy_stand_in()
    spec = importlib.util.spec_from_file_location("torch_reference", _reference.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    functions: Any = ModuleType("math")
    functions.erf, functions.erfc, functions.sqrt, functions.pi = torch.erf, torch.erfc, math.sqrt, math.pi
    replaced = {"numpy": stand_in, "numpy.typing": stand_in.typing, "math": functions}
    with mock.patch.dict(sys.modules, replaced):
        spec.loader.exec_module(module)
    return module


def value(row: geoact.Activation) -> Callable[..., Tensor]:
    """F of a float64 tensor."""
    return getattr(_references(), row.value.__name__)


def size(row: geoact.Activation) -> Callable[..., Tensor]:
    """Of a row whose value is a sum that may cancel: its largest term."""
    assert row.size is not None
    return getattr(_references(), row.size.__name__)


def slope(row: geoact.Activation) -> Callable[..., Tensor]:
    """F' of a float64 tensor."""
    return getattr(_references(), row.slope.__name__)


# --- values -------------------------------------------------------------------------------------------------


def unit(expected: Tensor, dtype: torch.dtype) -> Tensor:
    """Distance between neighbours of the format at a magnitude."""
    precision, smallest = PRECISION[dtype]
    _, exponent = torch.frexp(expected)
    return torch.ldexp(torch.ones_like(expected), (exponent - 1).clamp_min(smallest) - (precision - 1))


def promised(row: geoact.Activation, dtype: torch.dtype) -> float:
    """The largest error in units of the format: the row's, or that of a rounded float32 result of the row."""
    precision, _ = PRECISION[dtype]
    return row.ulp["float32"] if precision >= 24 else 0.5 + row.ulp["float32"] * 2.0 ** (precision - 24)


def _rounding(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Parameters as the kernels compute with them: float32."""
    return tuple(v.double() if isinstance(v, Tensor) else float(torch.tensor(v, dtype=torch.float32)) for v in values)


def worst_error(row: geoact.Activation, x: Tensor, y: Tensor, values: tuple[Any, ...]) -> float:
    """Largest error of y in units of its format; infinite where one is NaN and the other is not."""
    worst, function, rounded = 0.0, value(row), _rounding(values)
    rounded = tuple(v.expand_as(x) if isinstance(v, Tensor) else v for v in rounded)  # a value per channel
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for start in range(0, flat_x.numel(), PART):
        part = slice(start, start + PART)
        local = tuple(v.reshape(-1)[part] if isinstance(v, Tensor) else v for v in rounded)
        expected, actual = function(flat_x[part].double(), *local), flat_y[part].double()
        largest = expected if row.size is None else size(row)(flat_x[part].double(), *local)
        error = ((actual - expected).abs() / unit(torch.maximum(largest.abs(), expected.abs()), y.dtype)).nan_to_num(
            nan=math.inf
        )
        equal = (actual == expected) | (actual.isnan() & expected.isnan())
        worst = max(worst, float(torch.where(equal, torch.zeros_like(error), error).max()))
    return worst


def check_values(row: geoact.Activation, x: Tensor, y: Tensor, values: tuple[Any, ...]) -> None:
    """Y is f(x) within what the row promises."""
    worst, limit = worst_error(row, x, y, values), promised(row, y.dtype)
    # The reference is rounded to float64, which is nothing beside half a unit of these formats.
    assert worst <= limit * (1 + 1e-6), f"{row.name} {y.dtype}: an error of {worst:.4g} ULP, promised {limit:.4g}"


def checksum(*tensors: Tensor) -> str:
    """Sum of all bit patterns: equal results have equal ones."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    patterns = (t.contiguous().view(integers[t.dtype.itemsize]).sum(dtype=torch.int64) for t in tensors)
    return "-".join(f"{int(pattern) % (1 << 64):x}" for pattern in patterns)


# --- statistics ---------------------------------------------------------------------------------------------


def kept_axes(x: Tensor, per: str, axis: int) -> tuple[int, ...]:
    """The axes that a record of ``per`` runs over."""
    if per == "tensor":
        return tuple(range(x.dim()))
    return tuple(d for d in range(x.dim()) if (d != axis % x.dim()) == (per == "channel"))


def record(row: geoact.Activation, x: Tensor, y: Tensor, values: tuple[Any, ...], dims: tuple[int, ...]) -> Any:
    """(expected, what an error is compared with) by field, of x and y as stored, in float64."""
    wide_x, wide_y = x.double(), y.double()
    of = SLOPES[row.name](wide_y if row.saves == "y" else wide_x, *_rounding(values))
    numbers = peers.torch_record(torch, wide_x, wide_y, of, dims)
    cells = {k: torch.as_tensor(v).double().reshape(-1).cpu() for k, v in zip(peers.FIELDS, numbers, strict=True)}
    sd_x, sd_y = (cells[m].div(cells["n"]).sqrt() for m in ("m2_x", "m2_y"))
    size = of.abs()
    sizes = dict(cells) | {
        "mean_x": torch.maximum(cells["mean_x"].abs(), sd_x),
        "mean_y": torch.maximum(cells["mean_y"].abs(), sd_y),
        "c_xy": (cells["m2_x"] * cells["m2_y"]).sqrt(),
        "sum_abs_y": torch.maximum(cells["sum_abs_y"], sd_y * cells["n"]),
        "sum_pos_x": torch.maximum(cells["sum_pos_x"], sd_x * cells["n"]),
        "sum_slope": size.clamp_min(0.5).sum(dims).reshape(-1).cpu(),
        "sum_sq_slope": torch.maximum(size * size, size).sum(dims).reshape(-1).cpu(),
    }
    # An f' within rounding of the threshold may fall on either side.
    edge = ((size - peers.SATURATION).abs() < 1e-6 * peers.SATURATION).sum(dims).double().reshape(-1).cpu()
    return cells, sizes, {"saturated": edge}


def gradient_record(
    row: geoact.Activation, dy: Tensor, dx: Tensor, saved: Tensor, values: tuple[Any, ...], dims: tuple[int, ...]
) -> Any:
    """The same of a backward pass."""
    wide_dy, wide_dx = dy.double(), dx.double()
    of = SLOPES[row.name](saved.double(), *_rounding(values)).expand_as(wide_dy)
    numbers = peers.torch_gradient_record(torch, wide_dy, wide_dx, of, dims)
    cells = {k: v.double().reshape(-1).cpu() for k, v in zip(peers.GRADIENT_FIELDS, numbers, strict=True)}
    size = of.abs()
    sizes = dict(cells) | {
        "sum_slope": size.clamp_min(0.5).sum(dims).reshape(-1).cpu(),
        "sum_sq_slope": torch.maximum(size * size, size).sum(dims).reshape(-1).cpu(),
    }
    return cells, sizes, {}


def check_record(stats: Any, expected: Any, relative: float = 1e-6, skip: tuple[str, ...] = ()) -> None:
    """Every cell: counts and extremes exactly, sums within ``relative``."""
    cells, sizes, slack = expected
    actual = stats.cells()
    for name, right in cells.items():
        if name in skip:
            continue
        got = torch.as_tensor(actual[name])
        # n of the reference is one number for all groups
        allowed = torch.zeros_like(right) if name in EXACT else relative * sizes[name].abs()
        allowed = slack.get(name, allowed)
        error = (got - right).abs()
        good = (error <= allowed) | (got == right)
        if not bool(good.all()):
            group = int(torch.argmin(good.int()))
            right = right.expand_as(got)
            raise AssertionError(f"{name} of group {group} is {got[group]:.17g}, expected {right[group]:.17g}")


# --- backward -----------------------------------------------------------------------------------------------


def check_gradient(
    row: geoact.Activation, dy: Tensor, dx: Tensor, x: Tensor, y: Tensor, values: tuple[Any, ...]
) -> None:
    """Dx is dy f' of what backward reads, within a few roundings of f' at max(1, |f'|)."""
    eps = float(torch.finfo(torch.float32).eps)
    rounded = tuple(v.expand_as(x) if isinstance(v, Tensor) else v for v in _rounding(values))
    half = 0.5 * float(torch.finfo(dx.dtype).eps) if dx.dtype != torch.float32 else 0.0
    for start in range(0, dx.numel(), PART):
        part = slice(start, start + PART)
        wide, saved = dy.reshape(-1)[part].double(), (y if row.saves == "y" else x).reshape(-1)[part].double()
        local = tuple(
            v.expand_as(x).reshape(-1)[part] if isinstance(v, Tensor) and v.numel() > 1 else v for v in rounded
        )
        of = SLOPES[row.name](saved, *local)
        expected = wide * of
        tiny = float(torch.finfo(dx.dtype).smallest_normal) * float(torch.finfo(dx.dtype).eps)
        allowed = 16 * eps * wide.abs() * of.abs().clamp_min(1) + 1.001 * half * expected.abs() + tiny
        error = (dx.reshape(-1)[part].double() - expected).abs()
        assert bool((error <= allowed).all()), (
            f"{row.name}: dx is wrong by {float((error - allowed).max()):.3g} too much"
        )


def check_parameter_gradients(
    row: geoact.Activation, dy: Tensor, x: Tensor, values: tuple[Any, ...], gradients: Sequence[Tensor]
) -> None:
    """The gradients of the trained parameters, in shapes that broadcast against x: per channel, or of all."""
    wide = tuple(v.double() if isinstance(v, Tensor) else v for v in values)
    slopes = PARAMETER_SLOPES[row.name](x.double(), *wide)
    for parameter, value, slope, gradient in zip(row.parameters, values, slopes, gradients, strict=False):
        each = dy.double() * slope
        channels = x.dim() - value.dim() if value.numel() > 1 else None  # the axis that is kept
        dims = [axis for axis in range(x.dim()) if axis != channels]
        expected, size = each.sum(dims).reshape(-1), each.abs().sum(dims).reshape(-1)
        allowed = 1e-6 * size + float(torch.finfo(gradient.dtype).eps) * expected.abs()
        error = (gradient.double().reshape(-1) - expected).abs()
        assert bool((error <= allowed).all()), (
            f"{row.name}: the gradient of {parameter.name} is wrong by {error.max():.3g}"
        )
