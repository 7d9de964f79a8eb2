"""Torch tensors: the cheapest path that is right for the call.

A plain tensor on the CPU or a CUDA device goes straight to the compiled core; one that autograd follows goes through
one autograd function; a call that somebody traces or transforms (torch.compile, export, functorch, a dispatch mode, a
tensor subclass) goes through the operators of :mod:`geoact.torch.ops`, which those understand. All three run the same
kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from geoact import _core, backends
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import autograd, gated_ops, gpu, ops
from geoact.torch.probe import running_backward

if TYPE_CHECKING:
    from geoact.activations import Activation
    from geoact.gates import Gate

_PLAIN = {torch.Tensor, torch.nn.Parameter}
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Looked up once: they are asked at every call.
_compiling = torch.compiler.is_dynamo_compiling
_transformed = torch._C._are_functorch_transforms_active
_modes = torch._C._len_torch_dispatch_stack
_traced = torch._C._get_tracing_state
_grad_enabled = torch.is_grad_enabled


def _accumulator(stats: Any, kind: type[Any], name: str) -> _core.Accumulator | None:  # noqa: ANN401
    if stats is None:
        return None
    if not isinstance(stats, kind):
        raise TypeError(f"{name} must be a geoact.{kind.__name__}, got {type(stats).__name__}")
    accumulator: _core.Accumulator = stats._accumulator
    return accumulator


def _check(name: str, value: object, x: torch.Tensor, like: str = "x") -> None:
    """Refuse what no backend takes, in one place for every path."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor as {like} is, got {type(value).__name__}")
    if value.dtype not in _FLOATING:
        raise TypeError(f"{name} has dtype {value.dtype} (accepted: float16, bfloat16, float32, float64)")
    if value.is_nested:
        raise TypeError(f"{name} is a nested tensor, which has no shape; pass {name}.to_padded_tensor(...)")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} has layout {value.layout} (accepted: torch.strided); pass {name}.to_dense()")
    if value.device.type not in ("cpu", "meta", "cuda"):
        raise ValueError(
            f"{name} is on the device {value.device} (accepted: cpu, cuda); see geoact.info(), or pass {name}.cpu()"
        )
    if value.device.type == "cuda" and (why := backends.why_no_gpu()):
        raise ValueError(
            f"{name} is on the device {value.device}, where geoact cannot compute: {why}; see geoact.info(), or pass "
            f"{name}.cpu()"
        )
    if value.device != x.device:
        raise ValueError(f"{name} is on the device {value.device}, but {like} is on {x.device}; they must be equal")


def forward(
    row: Activation,
    x: torch.Tensor,
    values: tuple[Any, ...],
    out: Any,  # noqa: ANN401
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """Y = f(x), differentiable; the record of this call added to ``stats``."""
    if _compiling() or type(x) not in _PLAIN or _transformed() or _modes() or _traced() is not None:
        return _by_operator(row, x, values, out, stats, gradient_stats, channel_axis)
    if row.trainable:
        x, values = autograd.autocast(row, x, values)
        values = tuple(v.resolve_neg() if isinstance(v, torch.Tensor) else v for v in values)
    if x.is_neg() and out is None:
        x = x.resolve_neg()
    if out is not None:
        _check_out(row, x, out)
    accumulator = _accumulator(stats, GeometryStats, "stats")
    if accumulator is not None and running_backward():
        accumulator = None  # activation checkpointing repeats a call that was measured
    weights = autograd.weights_of(row, values)
    followed = x.requires_grad or any(w is not None and w.requires_grad for w in weights)
    if (followed and _grad_enabled()) or forward_ad._current_level >= 0:
        gradient_accumulator = _accumulator(gradient_stats, GradientStats, "gradient_stats")
        call = autograd.Direct(row, values, accumulator, gradient_accumulator, channel_axis)
        if out is not None and out is not x:
            raise ValueError("out= does not support automatic differentiation; call under torch.no_grad(), or out=x")
        try:
            return autograd.forward(x, weights, call) if out is None else autograd.forward_in_place(x, weights, call)
        except (BufferError, RuntimeError):
            _explain(row, x, values, out)
            if not x.is_meta:
                raise
            return _by_operator(row, x, values, out, stats, gradient_stats, channel_axis)
    if gradient_stats is not None:
        _accumulator(gradient_stats, GradientStats, "gradient_stats")
    try:
        if x.is_cuda or gpu.simulated:  # there are several kernels for it
            y = autograd.Direct(row, values, accumulator, None, channel_axis).forward(x, weights, out)
        else:
            y = _core.forward(row._index, x, values, row._names, out, accumulator, channel_axis)
    except (BufferError, RuntimeError, TypeError, ValueError):
        _explain(row, x, values, out)
        if autograd._HAS_EXCHANGE and not x.is_meta:
            raise
        return _unusual(row, x, values, out, stats, channel_axis)
    if out is not None:
        _written(out)
    return y


def _check_out(row: Activation, x: torch.Tensor, out: Any) -> None:  # noqa: ANN401
    """What the core cannot see: a view whose sign is lazy, and a result that autograd should follow."""
    if not isinstance(out, torch.Tensor):
        return  # which the core explains
    for name, value in (("out", out), ("x", x)):
        if value.is_neg():
            raise ValueError(f"{name} is a lazily negated view; pass {name}.resolve_neg()")
    if out is not x and out.requires_grad and _grad_enabled():
        raise ValueError("out= does not support automatic differentiation; call under torch.no_grad(), or out=x")


def _written(out: torch.Tensor) -> None:
    """Tell autograd that the memory changed, as torch's own in-place operators do."""
    if not out.is_inference():
        torch.autograd.graph.increment_version(out)


def _explain(row: Activation, x: torch.Tensor, values: tuple[Any, ...], out: Any) -> None:  # noqa: ANN401
    """Say what is wrong with the tensors of a call that failed, if it is anything that no backend takes."""
    _check("x", x, x)
    for name, value in zip(row._names, values, strict=True):
        if isinstance(value, torch.Tensor):
            _check(name, value, x)
    if out is not None:
        _check("out", out, x)


def _unusual(
    row: Activation,
    x: torch.Tensor,
    values: tuple[Any, ...],
    out: Any,  # noqa: ANN401
    stats: GeometryStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """What the quick path could not do: a meta tensor, or a torch without the exchange table."""
    if x.is_meta:
        return _by_operator(row, x, values, out, stats, None, channel_axis)
    y = torch.empty_like(x) if out is None else out
    borrowed = tuple(autograd.borrow(v) if isinstance(v, torch.Tensor) else v for v in values)
    source = autograd.borrow(x)
    accumulator = _accumulator(stats, GeometryStats, "stats")
    _core.forward(row._index, source, borrowed, row._names, autograd.borrow(y), accumulator, channel_axis)
    if out is not None:
        _written(out)
    return y


def _by_operator(
    row: Activation,
    x: torch.Tensor,
    values: tuple[Any, ...],
    out: Any,  # noqa: ANN401
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    if out is None:
        return ops.forward(row, x, values, stats, gradient_stats, channel_axis)
    if not isinstance(out, torch.Tensor) or out.shape != x.shape or out.dtype != x.dtype:
        raise ValueError(f"out must be a tensor of shape {tuple(x.shape)} and dtype {x.dtype}, as x is")
    # What backward reads must not be what is written below.
    source = x.clone() if out is x and row.saves == "x" and _grad_enabled() else x
    return out.copy_(ops.forward(row, source, values, stats, gradient_stats, channel_axis))


def backward(
    row: Activation,
    dy: torch.Tensor,
    saved: torch.Tensor,
    values: tuple[Any, ...],
    out: Any,  # noqa: ANN401
    stats: GradientStats | None,
    channel_axis: int,
) -> Any:  # noqa: ANN401
    """Dx = dy f'(x), or (dx, dparameter, ...), and the record of this call added to ``stats``; not differentiable."""
    accumulator = _accumulator(stats, GradientStats, "stats")
    for name, value in (("dy", dy), (row.saves, saved)):
        _check(name, value, dy, "dy")
        if value.is_neg():
            raise ValueError(f"{name} is a lazily negated view; pass {name}.resolve_neg()")
    if out is not None:
        _check("out", out, dy, "dy")
    if dy.is_meta:  # shapes alone
        dx = torch.empty_like(dy) if out is None else out
        of_number = torch.empty((), dtype=torch.float64, device="meta")
        shapes = (of_number if w is None else torch.empty_like(w) for w in autograd.weights_of(row, values))
        return (dx, *shapes) if row.trainable else dx
    call = autograd.Direct(row, values, None, accumulator, channel_axis)
    weights = autograd.weights_of(row, values)
    with torch.no_grad():
        dx, gradients = call.backward(dy, saved, weights, out)
    if out is not None:
        _written(out)
    if not row.trainable:
        return dx
    return dx, *(_of_number(g) if w is None else g for g, w in zip(gradients, weights, strict=True))


def _of_number(gradient: torch.Tensor) -> torch.Tensor | float:
    """A float, but on a device, where reading it would make the caller wait."""
    return gradient[0] if gradient.is_cuda else float(gradient[0])


# --- gates ----------------------------------------------------------------------------------------------------------


def _check_pair(gate: torch.Tensor, up: Any) -> None:  # noqa: ANN401
    """What the core would check, for the paths on which torch would say it in other words, or not at all."""
    _check("gate", gate, gate, "gate")
    _check("up", up, gate, "gate")
    if up.shape != gate.shape:
        raise ValueError(f"up has shape {tuple(up.shape)}, but gate has shape {tuple(gate.shape)}; they must be equal")
    if up.dtype != gate.dtype:
        raise TypeError(f"up is {_name(up)}, but gate is {_name(gate)}; they must be equal")


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refuse_negated(*tensors: tuple[str, Any]) -> None:
    for name, value in tensors:
        if isinstance(value, torch.Tensor) and value.is_neg():
            raise ValueError(f"{name} is a lazily negated view; pass {name}.resolve_neg()")


def gated_forward(
    row: Gate,
    gate: torch.Tensor,
    up: Any,  # noqa: ANN401
    values: tuple[float, ...],
    out: Any,  # noqa: ANN401
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
) -> Any:  # noqa: ANN401
    """Y = f(gate) h(up), differentiable; the record of f added to ``stats``."""
    plain = type(gate) in _PLAIN and type(up) in _PLAIN and not gate.is_meta
    if _compiling() or not plain or _transformed() or _modes() or _traced() is not None:
        if type(gate) in _PLAIN and (type(up) in _PLAIN or not hasattr(type(up), "__torch_function__")):
            _check_pair(gate, up)  # other tensors and stand-ins are for whoever traces to judge
        y = gated_ops.by_operator(row, gate, up, values, stats, gradient_stats)
        return y if out is None else _copied(out, gate, y)
    accumulator = _accumulator(stats, GeometryStats, "stats")
    gradient_accumulator = _accumulator(gradient_stats, GradientStats, "gradient_stats")
    if accumulator is not None and running_backward():
        accumulator = None  # activation checkpointing repeats a call that was measured
    _check_pair(gate, up)
    followed = (gate.requires_grad or up.requires_grad) and _grad_enabled()
    if out is None:
        call = gated_ops.Direct(row, values, accumulator, gradient_accumulator)
        if followed or forward_ad._current_level >= 0:
            return gated_ops.forward(gate, up, call)
        return call.forward(gate, up)
    if followed or forward_ad._current_level >= 0:  # backward reads both inputs
        raise ValueError("out= does not support automatic differentiation; call under torch.no_grad()")
    _check("out", out, gate, "gate")
    _refuse_negated(("out", out), ("gate", gate), ("up", up))
    y = gated_ops.core_forward(row, gate, up, values, out, accumulator)
    _written(out)
    return y


def _copied(out: Any, like: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    if not isinstance(out, torch.Tensor) or out.shape != like.shape or out.dtype != like.dtype:
        raise ValueError(f"out must be a tensor of shape {tuple(like.shape)} and dtype {like.dtype}, as gate is")
    return out.copy_(y)


def gated_backward(
    row: Gate,
    dy: torch.Tensor,
    gate: Any,  # noqa: ANN401
    up: Any,  # noqa: ANN401
    values: tuple[float, ...],
    outs: tuple[Any, Any],
    stats: GradientStats | None,
) -> tuple[Any, Any]:
    """(dgate, dup), and the record of f added to ``stats``; not differentiable."""
    accumulator = _accumulator(stats, GradientStats, "stats")
    tensors = (("dy", dy), ("gate", gate), ("up", up), ("out[0]", outs[0]), ("out[1]", outs[1]))
    for name, value in tensors:
        if value is not None or not name.startswith("out"):
            _check(name, value, dy, "dy")
    _refuse_negated(*tensors)
    if dy.is_meta:  # shapes alone
        dgate, dup = (torch.empty_like(dy) if out is None else out for out in outs)
        return dgate, dup
    with torch.no_grad():
        dgate, dup = gated_ops.core_backward(row, dy, gate, up, values, outs, accumulator)
    for out in outs:
        if out is not None:
            _written(out)
    return dgate, dup
