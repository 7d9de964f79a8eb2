"""What other software makes of the GPU cases, as its users would write it. One that is not there says why.

``plain`` is torch's activation, which measures nothing. ``measuring`` are those that also compute the record of
level="moments": 16-bit data are widened to float32 for it, since a float16 or bfloat16 sum of millions is no statistic.
``fused`` are activation kernels of other packages, without statistics.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import cases
import geoact
import gpu_check
import numpy as np
import peers
import torch
import torch_calls
from geoact.bench import Contender, Unavailable
from geoact.torch.slopes import SLOPES
from torch.nn import functional as F

Tensor = torch.Tensor
Make = Callable[[str, Any, Tensor], Contender]

PLAIN: dict[str, Callable[..., Tensor]] = {
    **torch_calls.PEERS,
    "tanh": torch.tanh,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "prelu": F.prelu,
}


def plain(name: str) -> Callable[..., Tensor]:
    """Torch's own function."""
    if name not in PLAIN:
        raise Unavailable("torch has no such function")
    return PLAIN[name]


def with_record(row: geoact.Activation) -> Callable[[Tensor], Any]:
    """Y and the record, in torch."""
    function, slope, values = plain(row.name), SLOPES[row.name], cases.values_of(row)

    def measured(x: Tensor) -> Any:
        y = function(x)
        wide_x, wide_y = x.float(), y.float()
        return y, peers.torch_record(torch, wide_x, wide_y, slope(wide_y if row.saves == "y" else wide_x, *values))

    return measured


def _contender(name: str, row: geoact.Activation, x: Tensor, run: Callable[[], Any]) -> Contender:
    """``run`` returns (y, record); the record is checked against that of the peer's own y, in float64."""

    def check() -> None:
        values = cases.values_of(row)
        y, record = run()
        y = torch.as_tensor(y, device=x.device)
        expected, _, _ = gpu_check.record(row, x, y, values, gpu_check.kept_axes(x, "tensor", -1))
        peers.compare(record, {field: cell.numpy() for field, cell in expected.items()}, f"{name} {row.name}")
        unit = 8 * torch.finfo(x.dtype).eps
        torch.testing.assert_close(y, row(x, *values), rtol=unit, atol=unit)

    return Contender(name, [run], check)


def torch_eager(name: str, row: geoact.Activation, x: Tensor) -> Contender:
    function = with_record(row)
    return _contender(name, row, x, lambda: function(x))


def torch_compiled(backend: str) -> Make:
    def make(name: str, row: geoact.Activation, x: Tensor) -> Contender:
        torch.compiler.reset()
        function = torch.compile(with_record(row), dynamic=False, fullgraph=True, backend=backend)
        try:
            function(x)
        except Exception as error:  # the compiler's own errors have no common base
            raise Unavailable(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}") from error
        return _contender(name, row, x, lambda: function(x))

    return make


# --- CuPy ---------------------------------------------------------------------------------------------------


def _cupy(row: geoact.Activation, x: Tensor) -> tuple[Any, Any]:
    """The package, and x as its array: the same memory."""
    try:
        import cupy
    except ImportError as error:
        raise Unavailable(f"CuPy: {error}") from error
    if x.device.type != "cuda":
        raise Unavailable("CuPy: no CUDA device")
    if x.dtype != torch.float32:
        raise Unavailable(f"CuPy: it has no functions of {x.dtype}")
    if row.name not in ("relu", "sigmoid"):
        raise Unavailable("CuPy: its core has no such function")
    return cupy, cupy.from_dlpack(x)


def _running(make: Callable[[], Contender]) -> Contender:
    """A contender that has run once, or the reason why it cannot."""
    try:
        contender = make()
        contender.runs[0]()
    except Unavailable:
        raise
    except Exception as error:  # a peer that fails is absent, and says how it failed
        raise Unavailable(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    return contender


def cupy_plain(name: str, row: geoact.Activation, x: Tensor) -> Contender:
    """Elementwise functions and reductions, one kernel each: NumPy's code on CuPy's arrays."""

    def make() -> Contender:
        cupy, array = _cupy(row, x)
        out = cupy.empty_like(array)
        record = peers.numpy_peer(row.name, array, out)
        return _contender(name, row, x, lambda: (out, record()))

    return _running(make)


def cupy_fused(name: str, row: geoact.Activation, x: Tensor) -> Contender:
    """cupy.fuse: the elementwise part of every statistic and its sum are one kernel."""

    def make() -> Contender:
        cupy, array = _cupy(row, x)
        fuse = cupy.fuse
        value = {
            "relu": fuse(lambda x: cupy.maximum(x, 0)),
            "sigmoid": fuse(lambda x: 1 / (1 + cupy.exp(-x))),
        }[row.name]
        slope = {
            "relu": lambda y: cupy.where(y > 0, np.float32(1), np.float32(0)),
            "sigmoid": lambda y: y * (1 - y),
        }[row.name]

        def summed(function: Callable[..., Any]) -> Callable[..., Any]:
            return fuse(lambda *arrays: cupy.sum(function(*arrays)))

        def counted(condition: Callable[..., Any]) -> Callable[..., Any]:
            return fuse(lambda a: cupy.sum(cupy.where(condition(a), 1, 0)))

        count = [
            *((counted(lambda x: x < 0), "x"), (counted(lambda x: x > 0), "x"), (counted(lambda y: y == 0), "y")),
            (counted(lambda y: cupy.abs(slope(y)) < peers.SATURATION), "y"),
            (counted(lambda y: (cupy.abs(y) < peers.TINY) & (y != 0)), "y"),
            *((counted(lambda a: ~cupy.isfinite(a)), which) for which in "xy"),
        ]
        deviation = fuse(lambda a, m: cupy.sum((a - m) * (a - m)))
        covariance = fuse(lambda a, b, m, n: cupy.sum((a - m) * (b - n)))
        size, positive = summed(lambda y: cupy.abs(y)), summed(lambda x: cupy.maximum(x, 0))
        squared = summed(lambda x: cupy.maximum(x, 0) ** 2)
        slopes = summed(slope), summed(lambda y: slope(y) * slope(y))

        def run() -> Any:
            y = value(array)
            arrays = {"x": array, "y": y}
            mean_x, mean_y = array.mean(), y.mean()
            return y, (
                *(array.size, *(function(arrays[which]) for function, which in count)),
                *(array.min(), array.max(), y.min(), y.max(), mean_x, mean_y),
                *(deviation(array, mean_x), deviation(y, mean_y), covariance(array, y, mean_x, mean_y)),
                *(size(y), positive(array), squared(array), *(function(y) for function in slopes)),
            )

        return _contender(name, row, x, run)

    return _running(make)


def measuring(row: str, compiler: str) -> list[tuple[str, Make, float | None]]:
    """(name, how to make it, how many times longer than geoact it must take), where torch has the function."""
    if row not in PLAIN:
        return []
    return [
        ("torch eager", torch_eager, 10),
        ("torch.compile", torch_compiled(compiler), 1.5),
        ("CuPy", cupy_plain, None),
        ("CuPy fuse", cupy_fused, None),
    ]


# --- activation kernels of other packages -------------------------------------------------------------------

# package, module, function, row
OTHERS = (
    ("FLA", "fla.modules.activations", "sigmoid", "sigmoid"),
    ("FlagGems", "flag_gems.ops", "relu", "relu"),
    ("FlagGems", "flag_gems.ops", "sigmoid", "sigmoid"),
    ("FlagGems", "flag_gems.ops", "gelu", "gelu"),
    ("Liger", "liger_kernel.ops.relu_squared", "LigerReLUSquaredFunction", "relu_squared"),
)


def fused(name: str) -> list[tuple[str, Make]]:
    """Kernels of this activation in other packages."""

    def make_of(module: str, attribute: str) -> Make:
        def make(label: str, row: geoact.Activation, x: Tensor) -> Contender:
            try:
                function = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise Unavailable(f"{module}: {error}") from error
            function = getattr(function, "apply", function)

            def check() -> None:
                unit = 8 * torch.finfo(x.dtype).eps
                torch.testing.assert_close(function(x), row(x), rtol=unit, atol=unit)

            return _running(lambda: Contender(label, [lambda: function(x)], check))

        return make

    return [(package, make_of(module, attribute)) for package, module, attribute, row in OTHERS if row == name]
