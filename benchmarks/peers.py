"""Other software doing the same: the activation, and the statistics of level="moments", as its users would write it.

Every peer is imported where it is used. One that is not installed is reported as not measured, with the reason; no
number is ever put in its place. A peer's ``cells`` are compared with geoact's before and after it is timed.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FIELDS = (
    *("n", "negative", "positive", "zero", "saturated", "subnormal", "nonfinite_x", "nonfinite_y"),
    *("x_min", "x_max", "y_min", "y_max", "mean_x", "mean_y", "m2_x", "m2_y", "c_xy"),
    *("sum_abs_y", "sum_pos_x", "sum_sq_pos_x", "sum_slope", "sum_sq_slope"),
)
"""The record of level="moments", in the order in which the peers return it."""

GRADIENT_FIELDS = (
    *("zero", "underflow", "nonfinite_dy", "nonfinite_dx", "absmax_dy", "absmax_dx"),
    *("sum_sq_dy", "sum_sq_dx", "sum_slope", "sum_sq_slope"),
)
"""The record of a backward pass without n, likewise."""

SATURATION, TINY = 0.05, 2.0**-126
Run = Callable[[], Any]  # one call: returns the record, in the order of FIELDS


class Unavailable(Exception):
    """A peer cannot run here; the message says why."""


def torch_module() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"torch: {error}") from error
    torch.set_num_threads(1)
    return torch


def torch_record(torch: Any, x: Any, y: Any, slope: Any, dims: tuple[int, ...] | None = None) -> tuple[Any, ...]:
    """The record of everything, or along ``dims``, as tensors, in the order of FIELDS."""
    if dims is not None:
        return _record_along(torch, x, y, slope, dims)

    def count(condition: Any) -> Any:
        return torch.count_nonzero(condition)

    var_x, mean_x = torch.var_mean(x, correction=0)
    var_y, mean_y = torch.var_mean(y, correction=0)
    x_min, x_max = torch.aminmax(x)
    y_min, y_max = torch.aminmax(y)
    size, positive = y.abs(), x.clamp_min(0)
    n = x.numel()
    return (
        *(n, count(x < 0), count(x > 0), count(y == 0), count(slope.abs() < SATURATION)),
        count((size < TINY) & (y != 0)),
        *(count(~torch.isfinite(x)), count(~torch.isfinite(y))),
        *(x_min, x_max, y_min, y_max, mean_x, mean_y, var_x * n, var_y * n),
        ((x - mean_x) * (y - mean_y)).sum(),
        *(size.sum(), positive.sum(), (positive * positive).sum(), slope.sum(), (slope * slope).sum()),
    )


def _record_along(torch: Any, x: Any, y: Any, slope: Any, dims: tuple[int, ...]) -> tuple[Any, ...]:
    def count(condition: Any) -> Any:
        return condition.sum(dims)

    var_x, mean_x = torch.var_mean(x, dims, correction=0, keepdim=True)
    var_y, mean_y = torch.var_mean(y, dims, correction=0, keepdim=True)
    size, positive = y.abs(), x.clamp_min(0)
    n = x.numel() // max(1, mean_x.numel())
    return (
        *(n, count(x < 0), count(x > 0), count(y == 0), count(slope.abs() < SATURATION)),
        count((size < TINY) & (y != 0)),
        *(count(~torch.isfinite(x)), count(~torch.isfinite(y))),
        *(x.amin(dims), x.amax(dims), y.amin(dims), y.amax(dims)),
        *(mean_x.squeeze(), mean_y.squeeze(), var_x.squeeze() * n, var_y.squeeze() * n),
        ((x - mean_x) * (y - mean_y)).sum(dims),
        *(size.sum(dims), positive.sum(dims), (positive * positive).sum(dims)),
        *(slope.sum(dims), (slope * slope).sum(dims)),
    )


def torch_gradient_record(torch: Any, dy: Any, dx: Any, slope: Any, dims: tuple[int, ...]) -> tuple[Any, ...]:
    """The record of a backward pass along ``dims``, as tensors, in the order of GRADIENT_FIELDS."""
    size = dx.abs()
    return (
        (dx == 0).sum(dims),
        (((size < TINY) & (dx != 0)) | ((dx == 0) & (dy != 0) & (slope != 0))).sum(dims),
        *((~torch.isfinite(dy)).sum(dims), (~torch.isfinite(dx)).sum(dims)),
        *(dy.abs().amax(dims), size.amax(dims), (dy * dy).sum(dims), (dx * dx).sum(dims)),
        *(slope.sum(dims), (slope * slope).sum(dims)),
    )


def _torch_function(torch: Any, name: str) -> Callable[[Any, Any], tuple[Any, ...]]:
    def relu(x: Any, out: Any) -> tuple[Any, ...]:
        y = torch.relu(x)
        out.copy_(y)
        return torch_record(torch, x, y, (x > 0).to(x.dtype))

    def sigmoid(x: Any, out: Any) -> tuple[Any, ...]:
        y = torch.sigmoid(x)
        out.copy_(y)
        return torch_record(torch, x, y, y * (1 - y))

    return {"relu": relu, "sigmoid": sigmoid}[name]


def tensors(torch: Any, *arrays: np.ndarray) -> list[Any]:
    """The same memory as torch tensors; inputs are read-only arrays, which torch would warn about."""
    result = []
    for a in arrays:
        writeable, a = a.flags.writeable, a.view()
        if not writeable:
            shared = (ctypes.c_char * a.nbytes).from_address(a.ctypes.data)
            a = np.frombuffer(shared, dtype=a.dtype).reshape(a.shape)
        result.append(torch.from_numpy(a))
    return result


def torch_eager(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    torch = torch_module()
    tx, ty = tensors(torch, x, y)

    def relu() -> tuple[Any, ...]:
        torch.clamp_min(tx, 0, out=ty)  # torch.relu has no out=
        return torch_record(torch, tx, ty, (tx > 0).to(tx.dtype))

    def sigmoid() -> tuple[Any, ...]:
        torch.sigmoid(tx, out=ty)
        return torch_record(torch, tx, ty, ty * (1 - ty))

    return {"relu": relu, "sigmoid": sigmoid}[name]


def torch_compiled(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    torch = torch_module()
    if not any(shutil.which(c) for c in ("g++", "c++", "clang++")):
        raise Unavailable("torch.compile: no C++ compiler")
    tx, ty = tensors(torch, x, y)
    function = torch.compile(_torch_function(torch, name), dynamic=False, fullgraph=True)
    try:
        with torch.no_grad():
            function(tx, ty)
    except Exception as error:  # the compiler's own errors have no common base
        raise Unavailable(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}") from error

    def run() -> tuple[Any, ...]:
        with torch.no_grad():
            return function(tx, ty)

    return run


def numpy_peer(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    def run() -> tuple[Any, ...]:
        if name == "relu":
            np.maximum(x, 0, out=y)
            slope = (x > 0).astype(x.dtype)
        else:
            np.negative(x, out=y)
            np.exp(y, out=y)
            np.add(y, 1, out=y)
            np.reciprocal(y, out=y)
            slope = y * (1 - y)
        mean_x, mean_y, size, positive = x.mean(), y.mean(), np.abs(y), np.maximum(x, 0)
        dx, dy = x - mean_x, y - mean_y
        count = np.count_nonzero
        return (
            *(x.size, count(x < 0), count(x > 0), count(y == 0), count(np.abs(slope) < SATURATION)),
            count((size < TINY) & (y != 0)),
            *(count(~np.isfinite(x)), count(~np.isfinite(y))),
            *(x.min(), x.max(), y.min(), y.max(), mean_x, mean_y),
            *((dx * dx).sum(), (dy * dy).sum(), (dx * dy).sum()),
            *(size.sum(), positive.sum(), (positive * positive).sum(), slope.sum(), (slope * slope).sum()),
        )

    return run


def numexpr_peer(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    try:
        import numexpr
    except ImportError as error:
        raise Unavailable(f"numexpr: {error}") from error
    numexpr.set_num_threads(1)
    value = {"relu": "where(x > 0, x, 0 * x)", "sigmoid": "1 / (1 + exp(-x))"}[name]
    slope = {"relu": "where(x > 0, 1, 0)", "sigmoid": "(y * (1 - y))"}[name]

    def run() -> tuple[Any, ...]:
        def reduce(expression: str, **more: Any) -> Any:
            return numexpr.evaluate(expression, {"x": x, "y": y, **more})[()]

        def count(condition: str) -> Any:
            return reduce(f"sum(where({condition}, 1, 0))")

        numexpr.evaluate(value, {"x": x}, out=y, casting="same_kind")
        n = x.size
        mean_x, mean_y = reduce("sum(x)") / n, reduce("sum(y)") / n
        means = {"a": np.float32(mean_x), "b": np.float32(mean_y)}
        return (
            *(n, count("x < 0"), count("x > 0"), count("y == 0"), count(f"abs({slope}) < {SATURATION}")),
            count(f"(abs(y) < {TINY}) & (y != 0)"),
            *(count("(x - x) != 0"), count("(y - y) != 0")),
            *(reduce("min(x)"), reduce("max(x)"), reduce("min(y)"), reduce("max(y)"), mean_x, mean_y),
            *(reduce("sum((x - a) * (x - a))", **means), reduce("sum((y - b) * (y - b))", **means)),
            reduce("sum((x - a) * (y - b))", **means),
            *(reduce("sum(abs(y))"), reduce("sum(where(x > 0, x, 0 * x))"), reduce("sum(where(x > 0, x * x, 0 * x))")),
            *(reduce(f"sum({slope})"), reduce(f"sum({slope} * {slope})")),
        )

    return run


PEERS: dict[str, Callable[[str, np.ndarray, np.ndarray], Run]] = {
    "torch eager": torch_eager,
    "torch.compile": torch_compiled,
    "NumPy": numpy_peer,
    "numexpr": numexpr_peer,
}


def compare(record: Any, cells: dict[str, np.ndarray], what: str) -> None:
    """A peer must have measured the same thing: counts and extremes alike, sums as far as its float32 sums go.

    numexpr adds float32 values one after another: over 32 Mi of them its variance is 8 % and its E f' 29 % too small.
    """
    sums = 0.5 if what.startswith("numexpr") else 0.02
    for field, value in zip(FIELDS, record, strict=True):
        ours, theirs = float(cells[field][0]), float(value)
        n = float(cells["n"][0])
        loose = sums if field.startswith(("m2", "c_", "sum", "mean")) else 1e-5
        assert abs(ours - theirs) <= loose * abs(ours) + 1e-6 * n * (loose > 1e-3) + 1e-7, (
            f"{what}: {field} is {theirs}, geoact says {ours}"
        )


def stream_add() -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    """The 2-read-1-write kernel of stream.cpp."""
    compiler = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if compiler is None:
        raise Unavailable("stream.cpp: no C++ compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/stream.so"
        source = Path(__file__).with_name("stream.cpp")
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", library]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"stream.cpp: {done.stderr.splitlines()[0]}")
        function = ctypes.CDLL(library).add
    function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_size_t]
    function.restype = None
    return lambda a, b, c: function(a.ctypes.data, b.ctypes.data, c.ctypes.data, a.size)
