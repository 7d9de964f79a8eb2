"""Other software doing the same: the activation, and the statistics of level="moments", as its users would write it.

Every peer is imported where it is used. One that is not installed is reported as not measured, with the reason; no
number is ever put in its place. A peer's ``cells`` are compared with geoact's before and after it is timed.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from geoact.bench import Unavailable

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
ROUGH = 2e-7  # the sigmoid of ONNX Runtime is a rational function with an absolute error near 1e-7
Run = Callable[[], Any]  # one call: returns the record, in the order of FIELDS


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
    plain = torch_plain(name, x, y)

    def run() -> tuple[Any, ...]:
        plain()
        return torch_record(torch, tx, ty, (tx > 0).to(tx.dtype) if name == "relu" else ty * (1 - ty))

    return run


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


# --- ONNX Runtime -------------------------------------------------------------------------------------------


class _Graph:
    """The nodes of an ONNX graph; a call adds one and returns the name of its output."""

    def __init__(self, helper: Any) -> None:
        self.helper = helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{operator}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, inputs, [out], **attributes))
        return out

    def constant(self, value: float) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.helper.make_tensor(name, self.helper.TensorProto.FLOAT, (), [value]))
        return name


def _onnx_record(graph: _Graph, name: str) -> None:
    """The record of the activation ``name`` of "x" to "y"; its outputs are called as FIELDS, without n."""
    zero = graph.constant(0)
    kind = graph.helper.TensorProto

    def count(out: str, condition: str) -> None:
        graph("ReduceSum", graph("Cast", condition, to=kind.INT64), keepdims=0, out=out)

    def reduce(out: str, operator: str, of: str) -> str:
        return graph(operator, of, keepdims=0, out=out)

    size, positive = graph("Abs", "y"), graph("Relu", "x")
    if name == "relu":
        slope = graph("Cast", graph("Greater", "x", zero), to=kind.FLOAT)
    else:
        slope = graph("Mul", "y", graph("Sub", graph.constant(1), "y"))
    y_is_zero = graph("Equal", "y", zero)
    count("negative", graph("Less", "x", zero))
    count("positive", graph("Greater", "x", zero))
    count("zero", y_is_zero)
    count("saturated", graph("Less", graph("Abs", slope), graph.constant(SATURATION)))
    count("subnormal", graph("And", graph("Less", size, graph.constant(TINY)), graph("Not", y_is_zero)))
    for of in ("x", "y"):
        count(f"nonfinite_{of}", graph("Or", graph("IsNaN", of), graph("IsInf", of)))
        reduce(f"{of}_min", "ReduceMin", of)
        reduce(f"{of}_max", "ReduceMax", of)
    apart = [graph("Sub", of, reduce(f"mean_{of}", "ReduceMean", of)) for of in ("x", "y")]
    for of, difference in zip(("x", "y"), apart, strict=True):
        reduce(f"m2_{of}", "ReduceSumSquare", difference)
    reduce("c_xy", "ReduceSum", graph("Mul", *apart))
    for what, of in (("abs_y", size), ("pos_x", positive), ("slope", slope)):
        reduce(f"sum_{what}", "ReduceSum", of)
    for what, of in (("pos_x", positive), ("slope", slope)):
        reduce(f"sum_sq_{what}", "ReduceSumSquare", of)


def _onnx_call(name: str, x: np.ndarray, y: np.ndarray, record: dict[str, np.ndarray]) -> Run:
    """A session of one thread that reads ``x`` and writes ``y``, and the cells of ``record``, where they are."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError as error:
        raise Unavailable(f"onnxruntime: {error}") from error
    graph = _Graph(helper)
    graph({"relu": "Relu", "sigmoid": "Sigmoid"}[name], "x", out="y")
    if record:
        _onnx_record(graph, name)
    shown = {"y": y} | record
    outputs = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for k, a in shown.items()
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,  # that of opset 18: a runtime older than the onnx package reads it
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, x.dtype, x.shape, x.ctypes.data)
    for key, array in shown.items():
        binding.bind_output(key, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return lambda: session.run_with_iobinding(binding)


def onnxruntime_plain(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    return _onnx_call(name, x, y, {})


def onnxruntime_peer(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    counts = FIELDS[1 : FIELDS.index("x_min")]
    record = {field: np.zeros((), np.int64 if field in counts else np.float32) for field in FIELDS[1:]}
    run = _onnx_call(name, x, y, record)

    def with_record() -> tuple[Any, ...]:
        run()
        return (x.size, *record.values())

    return with_record


# --- all of them --------------------------------------------------------------------------------------------


def torch_plain(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    torch = torch_module()
    tx, ty = tensors(torch, x, y)
    if name == "relu":
        return lambda: torch.clamp_min(tx, 0, out=ty)  # torch.relu has no out=
    return lambda: torch.sigmoid(tx, out=ty)


PLAIN: dict[str, Callable[[str, np.ndarray, np.ndarray], Run]] = {
    "torch": torch_plain,
    "onnxruntime": onnxruntime_plain,
}
"""The activation alone, written to an array that is there."""

PEERS: dict[str, Callable[[str, np.ndarray, np.ndarray], Run]] = {
    "torch eager": torch_eager,
    "torch.compile": torch_compiled,
    "NumPy": numpy_peer,
    "numexpr": numexpr_peer,
    "onnxruntime": onnxruntime_peer,
}
"""The activation and the record."""


def same_values(y: np.ndarray, ours: np.ndarray, what: str) -> None:
    """A peer must have written the same values, as far as its own accuracy goes."""
    absolute = ROUGH if what.startswith("onnxruntime") else 1e-37
    np.testing.assert_allclose(y, ours, rtol=2e-6, atol=absolute, err_msg=what)


def compare(record: Any, cells: dict[str, np.ndarray], what: str) -> None:
    """A peer must have measured the same thing: counts and extremes alike, sums as far as its float32 sums go.

    numexpr adds float32 values one after another: over 32 Mi of them its variance is 8 % and its E f' 29 % too small.
    """
    sums = 0.5 if what.startswith("numexpr") else 0.02
    least = ROUGH if what.startswith("onnxruntime") else 1e-7
    for field, value in zip(FIELDS, record, strict=True):
        ours, theirs = float(cells[field][0]), float(value)
        n = float(cells["n"][0])
        loose = sums if field.startswith(("m2", "c_", "sum", "mean")) else 1e-5
        assert abs(ours - theirs) <= loose * abs(ours) + 1e-6 * n * (loose > 1e-3) + least, (
            f"{what}: {field} is {theirs}, geoact says {ours}"
        )
