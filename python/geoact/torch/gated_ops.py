"""Gated activations under autograd, and as operators of torch (``torch.ops.geoact``), beside those of :mod:`ops`.

For a row named ``g`` of :mod:`geoact.gates` there are

- ``g(gate, up, parameters) -> y`` and ``g_backward(dy, gate, up, parameters) -> (dgate, dup)``, and
- ``g_measured(gate, up, parameters, state, gradient_state) -> y`` and ``g_backward_measured(..., state)``.

``Forward`` and ``Backward`` are told how to run the kernels by a call object: ``Direct`` goes to the compiled core,
``Traced`` to the operators. Second derivatives are in torch's own operators, so that any further order works too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from geoact import _core, backends
from geoact import _gates as _registry  # geoact.gates is the function
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import autograd, ops
from geoact.torch.slopes import CURVATURES, SLOPES

if TYPE_CHECKING:
    from typing import Protocol

    from geoact.gates import Gate

    class Call(Protocol):
        """How the kernels of one call are run."""

        row: Gate
        values: tuple[float, ...]

        def forward(self, gate: Tensor, up: Tensor) -> Tensor:
            """Y = f(gate) h(up)."""

        def backward(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
            """(dgate, dup)."""

        def dispatched(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
            """The same as a call that torch dispatches from the top."""


Tensor = torch.Tensor
_Formula = Callable[..., Tensor]


# --- the formulas ---------------------------------------------------------------------------------------------------


def _where_open(of_swish: Callable[..., Tensor | float]) -> _Formula:
    """The slope or curvature of swiglu_clipped's f from that of swish: 0 where the gate is clipped."""

    def formula(gate: Tensor, alpha: float, limit: float) -> Tensor:
        return torch.where(gate <= limit, of_swish(gate.clamp(max=limit), alpha), torch.zeros_like(gate))

    return formula


def _clipped(gate: Tensor, alpha: float, limit: float) -> Tensor:
    x = gate.clamp(max=limit)
    return x * torch.sigmoid(alpha * x)


def _within(up: Tensor, limit: float) -> Tensor:
    return (up.abs() <= limit).to(up.dtype)


_gelu = torch.nn.functional.gelu

# f, f' and f'' of the gate, then h and h' of up; the parameters follow.
_FORMULAS: dict[str, tuple[_Formula, _Formula, Callable[..., Tensor | float], _Formula, _Formula]] = {
    name: (f, SLOPES[of], CURVATURES[of], lambda up: up, torch.ones_like)
    for name, of, f in (
        ("swiglu", "silu", torch.nn.functional.silu),
        ("geglu", "gelu", _gelu),
        ("geglu_tanh", "gelu_tanh", lambda gate: _gelu(gate, approximate="tanh")),
        ("reglu", "relu", torch.relu),
    )
}
_FORMULAS["swiglu_clipped"] = (
    _clipped,
    _where_open(SLOPES["swish"]),
    _where_open(CURVATURES["swish"]),
    lambda up, alpha, limit: up.clamp(-limit, limit) + 1,
    lambda up, alpha, limit: _within(up, limit),
)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _At:
    """f, h and their derivatives at (gate, up), each computed when it is asked for; float32 for narrow dtypes."""

    def __init__(self, call: Call, gate: Tensor, up: Tensor) -> None:
        self._formulas = _FORMULAS[call.row.name]
        self._values = call.values
        self._gate, self._up = _wide(gate), _wide(up)

    def f(self, order: int = 0) -> Any:  # noqa: ANN401
        """The derivative of f of this order."""
        return self._formulas[order](self._gate, *self._values)

    def h(self, order: int = 0) -> Any:  # noqa: ANN401
        """The derivative of h of this order; the second is 0."""
        return self._formulas[3 + order](self._up, *self._values)


def _narrow(wide: Any, like: Tensor) -> Tensor:  # noqa: ANN401
    return wide.to(like.dtype) if isinstance(wide, Tensor) else torch.zeros_like(like)


# --- how the kernels are run ----------------------------------------------------------------------------------------


def _require_kernels(name: str, tensor: Tensor) -> None:
    """Refuse a device on which only Triton's kernels are: they have no gates."""
    if tensor.is_cuda and (why := backends.load_cuda()):
        raise ValueError(
            f"{name} is on the device {tensor.device}, where gated activations need geoact's CUDA kernels: {why}; see "
            f"geoact.info(), or pass {name}.cpu()"
        )


def core_forward(
    row: Gate,
    gate: Tensor,
    up: Tensor,
    values: tuple[float, ...],
    out: Tensor | None,
    accumulator: Any,  # noqa: ANN401
) -> Tensor:
    """Y = f(gate) h(up) by the compiled core."""
    _require_kernels("gate", gate)
    if autograd._HAS_EXCHANGE:
        y: Tensor = _core.gated_forward(row._index, gate, up, values, row._names, out, accumulator)
        return y
    y = torch.empty_like(gate) if out is None else out
    source, factor, target = map(autograd.borrow, (gate, up, y))
    _core.gated_forward(row._index, source, factor, values, row._names, target, accumulator)
    return y


def core_backward(
    row: Gate,
    dy: Tensor,
    gate: Tensor,
    up: Tensor,
    values: tuple[float, ...],
    outs: tuple[Tensor | None, Tensor | None],
    accumulator: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor]:
    """(dgate, dup) by the compiled core."""
    _require_kernels("dy", dy)
    if autograd._HAS_EXCHANGE:
        return _core.gated_backward(row._index, dy, gate, up, values, row._names, *outs, accumulator)
    dgate, dup = (torch.empty_like(dy) if out is None else out for out in outs)
    a, b, c, place, other = map(autograd.borrow, (dy, gate, up, dgate, dup))
    _core.gated_backward(row._index, a, b, c, values, row._names, place, other, accumulator)
    return dgate, dup


class Direct:
    """Runs the kernels of the compiled core on plain tensors."""

    __slots__ = ("accumulator", "gradient_accumulator", "row", "values")

    def __init__(
        self,
        row: Gate,
        values: tuple[float, ...],
        accumulator: Any = None,  # noqa: ANN401
        gradient_accumulator: Any = None,  # noqa: ANN401
    ) -> None:
        self.row = row
        self.values = values
        self.accumulator = accumulator
        self.gradient_accumulator = gradient_accumulator

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Y = f(gate) h(up), measured where asked."""
        return core_forward(self.row, gate.resolve_neg(), up.resolve_neg(), self.values, None, self.accumulator)

    def backward(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """(dgate, dup), measured where asked."""
        dy, gate, up = dy.resolve_neg(), gate.resolve_neg(), up.resolve_neg()
        return core_backward(self.row, dy, gate, up, self.values, (None, None), self.gradient_accumulator)

    def dispatched(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """(dgate, dup) by the operators, for gradients that only torch can take apart; not measured."""
        return Traced(_ROWS[self.row.name], self.values, None, None).dispatched(dy, gate, up)


class Traced:
    """Runs the kernels through the operators, below autograd, so that whoever traces sees them."""

    __slots__ = ("gradient_state", "ops", "row", "state", "values")

    def __init__(
        self, ops: _Row, values: tuple[float, ...], state: Tensor | None, gradient_state: Tensor | None
    ) -> None:
        self.ops = ops
        self.row = ops.row
        self.values = values
        self.state = state
        self.gradient_state = gradient_state

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Y = f(gate) h(up)."""
        of = self.ops
        with ops._below_autograd():
            if self.state is None:
                y: Tensor = of.op(of.plain)(gate, up, *self.values)
            else:
                y = of.op(of.measured)(gate, up, *self.values, self.state, self.gradient_state)
        return y

    def backward(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """(dgate, dup)."""
        with ops._below_autograd():
            return self.dispatched(dy, gate, up)

    def dispatched(self, dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """The same from the top of the dispatcher, where functorch takes its own levels apart."""
        of = self.ops
        result: tuple[Tensor, Tensor]
        if self.gradient_state is None:
            result = of.op(of.back)(dy, gate, up, *self.values)
        else:
            result = of.op(of.back_measured)(dy, gate, up, *self.values, self.gradient_state)
        return result


# --- autograd -------------------------------------------------------------------------------------------------------


class Forward(torch.autograd.Function):
    """Y = f(gate) h(up)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, call: Call) -> Tensor:  # noqa: ANN401
        """Run the kernel and save both inputs."""
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gate, up)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(gate, up)
        return call.forward(gate, up)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        """(dgate, dup)."""
        if dy is None:
            return None, None, None
        gate, up = ctx.saved_tensors
        call = ctx.call
        if autograd._transformed() or type(dy) is not Tensor or is_legacy_batchedtensor(dy):
            return (*call.dispatched(dy, gate, up), None)
        if torch.is_grad_enabled():
            return (*backward(dy, gate, up, call), None)
        return (*call.backward(dy, gate, up), None)

    @staticmethod
    def jvp(ctx: Any, dgate: Tensor | None, dup: Tensor | None, _: None) -> Tensor:  # noqa: ANN401
        """Dy = f'(gate) h(up) dgate + f(gate) h'(up) dup."""
        with autograd._levels_below():
            gate, up = map(autograd._primal, ctx.saved_tensors)
            at, dy = _At(ctx.call, gate, up), 0
            if dgate is not None:
                dy = dy + at.f(1) * at.h() * _wide(dgate)
            if dup is not None:
                dy = dy + at.f() * at.h(1) * _wide(dup)
            return _narrow(dy, gate)


class Backward(torch.autograd.Function):
    """(dgate, dup) as a function of (dy, gate, up)."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, gate: Tensor, up: Tensor, call: Call) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Run the kernel; everything it read is needed again."""
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, gate, up)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(dy, gate, up)
        return call.backward(dy, gate, up)

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, b: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """The gradient of a dy h f' + b dy f h' with respect to dy, gate and up."""
        dy, gate, up = ctx.saved_tensors
        if a is None and b is None:
            return None, None, None, None
        at, wide = _At(ctx.call, gate, up), _wide(dy)
        by_dy: Any = 0
        by_gate: Any = 0
        by_up: Any = 0
        if a is not None:
            a = _wide(a)
            by_dy = by_dy + a * at.h() * at.f(1)
            by_gate = by_gate + a * wide * at.h() * at.f(2)
            by_up = by_up + a * wide * at.h(1) * at.f(1)
        if b is not None:
            b = _wide(b)
            by_dy = by_dy + b * at.f() * at.h(1)
            by_gate = by_gate + b * wide * at.f(1) * at.h(1)
        found = zip((by_dy, by_gate, by_up), (dy, gate, up), ctx.needs_input_grad, strict=False)
        return (*(_narrow(by, like) if needed else None for by, like, needed in found), None)

    @staticmethod
    def jvp(
        ctx: Any,  # noqa: ANN401
        ddy: Tensor | None,
        dgate: Tensor | None,
        dup: Tensor | None,
        _: None,
    ) -> tuple[Tensor, Tensor]:
        """Forward over reverse: what torch.func.hessian asks for."""
        with autograd._levels_below():
            dy, gate, up = map(autograd._primal, ctx.saved_tensors)
            at, wide = _At(ctx.call, gate, up), _wide(dy)
            of_gate: Any = 0
            of_up: Any = 0
            if ddy is not None:
                of_gate = of_gate + _wide(ddy) * at.h() * at.f(1)
                of_up = of_up + _wide(ddy) * at.f() * at.h(1)
            if dgate is not None:
                of_gate = of_gate + wide * _wide(dgate) * at.h() * at.f(2)
                of_up = of_up + wide * _wide(dgate) * at.f(1) * at.h(1)
            if dup is not None:
                of_gate = of_gate + wide * _wide(dup) * at.h(1) * at.f(1)
            return _narrow(of_gate, dy), _narrow(of_up, dy)


# Below Function.apply, which only serves functorch transforms with setup_context (as in autograd.py).
_forward = super(torch.autograd.Function, Forward).apply
_backward = super(torch.autograd.Function, Backward).apply


def forward(gate: Tensor, up: Tensor, call: Call) -> Tensor:
    """Y = f(gate) h(up), followed by autograd."""
    y: Tensor = autograd._apply(_forward, gate, up, call)
    return y


def backward(dy: Tensor, gate: Tensor, up: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """(dgate, dup), followed by autograd."""
    dgate, dup = autograd._apply(_backward, dy, gate, up, call)
    return dgate, dup


# --- operators ------------------------------------------------------------------------------------------------------


class _Row:
    """The operators of one gate: schemas, kernels, derivatives, batching rules."""

    def __init__(self, row: Gate) -> None:
        self.row = row
        self.count = len(row.parameters)
        parameters = "".join(f", float {p.name}" for p in row.parameters)
        inputs, define, register = f"Tensor gate, Tensor up{parameters}", ops._Row._define, ops._Row._register
        self.plain = define(f"{row.name}({inputs}) -> Tensor")
        self.measured = define(f"{row.name}_measured({inputs}, Tensor(a!) state, Tensor? gradient_state) -> Tensor")
        self.back = define(f"{row.name}_backward(Tensor dy, {inputs}) -> (Tensor, Tensor)")
        self.back_measured = define(
            f"{row.name}_backward_measured(Tensor dy, {inputs}, Tensor(a!) state) -> (Tensor, Tensor)"
        )
        shape, pair = self._forward_shape, self._backward_shape
        register(self.plain, self._forward, shape, self._forward_autograd, self._batched(self.plain, 2))
        register(self.measured, self._forward, shape, self._measured_autograd, self._measured_batched)
        register(self.back, self._backward, pair, self._backward_autograd, self._batched(self.back, 3))
        register(self.back_measured, self._backward, pair, self._backward_autograd, self._unmeasured_batched)

    @staticmethod
    def op(name: str) -> Any:  # noqa: ANN401
        """The overload that is called."""
        return getattr(torch.ops.geoact, name).default

    def _split(self, arguments: tuple[Any, ...]) -> tuple[tuple[float, ...], tuple[Any, ...]]:
        """Arguments after the tensors to (values, states)."""
        return arguments[: self.count], arguments[self.count :]

    def _forward(self, gate: Tensor, up: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        values, states = self._split(arguments)
        accumulator = ops._accumulator(states[0], gate, forward=True) if states else None
        return Direct(self.row, values, accumulator).forward(gate, up)

    def _backward(self, dy: Tensor, gate: Tensor, up: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        values, states = self._split(arguments)
        accumulator = ops._accumulator(states[0], dy, forward=False) if states else None
        return Direct(self.row, values, None, accumulator).backward(dy, gate, up)

    def _forward_shape(self, gate: Tensor, up: Tensor, *_: Any) -> Tensor:  # noqa: ANN401
        torch._check(gate.shape == up.shape, lambda: f"up has shape {up.shape}, but gate has {gate.shape}")
        return torch.empty_like(gate)

    def _backward_shape(self, dy: Tensor, *_: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        return torch.empty_like(dy), torch.empty_like(dy)

    def _forward_autograd(self, gate: Tensor, up: Tensor, *values: Any) -> Tensor:  # noqa: ANN401
        return forward(gate, up, Traced(self, values, None, None))

    def _measured_autograd(self, gate: Tensor, up: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        values, (state, gradient_state) = self._split(arguments)
        return forward(gate, up, Traced(self, values, state, gradient_state))

    def _backward_autograd(self, dy: Tensor, gate: Tensor, up: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        values, states = self._split(arguments)
        return backward(dy, gate, up, Traced(self, values, None, states[0] if states else None))

    # --- vmap: element by element, so a batch is one more axis ---

    def _batched(self, name: str, tensors: int) -> Callable[..., Any]:
        def batched(info: Any, axes: tuple[Any, ...], *arguments: Any) -> Any:  # noqa: ANN401
            pairs = zip(arguments[:tensors], axes[:tensors], strict=True)
            moved = [
                t.movedim(axis, 0) if axis is not None else t.expand(info.batch_size, *t.shape) for t, axis in pairs
            ]
            result = self.op(name)(*moved, *arguments[tensors:])
            return result, 0 if isinstance(result, Tensor) else (0, 0)

        return batched

    def _measured_batched(self, info: Any, axes: tuple[Any, ...], *arguments: Any) -> Any:  # noqa: ANN401
        ops.refuse_counted_axes(arguments[-2:])
        return self._batched(self.measured, 2)(info, axes, *arguments)

    def _unmeasured_batched(self, info: Any, axes: tuple[Any, ...], *arguments: Any) -> Any:  # noqa: ANN401
        # A batch of directions to differentiate in, not a gradient that goes on.
        return self._batched(self.back, 3)(info, axes[:-1], *arguments[:-1])


_ROWS = {name: _Row(row) for name, row in _registry.gates().items()}
# Packets by name: what a call is traced as.
_PLAIN = {name: getattr(torch.ops.geoact, rows.plain) for name, rows in _ROWS.items()}
_MEASURED = {name: getattr(torch.ops.geoact, rows.measured) for name, rows in _ROWS.items()}


def by_operator(
    row: Gate,
    gate: Tensor,
    up: Tensor,
    values: tuple[float, ...],
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
) -> Tensor:
    """Y = f(gate) h(up) as an operator."""
    if stats is None and gradient_stats is None:
        y: Tensor = _PLAIN[row.name](gate, up, *values)
        return y
    state = ops._NOTHING if stats is None else ops._state(stats, GeometryStats, "stats")
    gradient_state = ops._state(gradient_stats, GradientStats, "gradient_stats")
    y = _MEASURED[row.name](gate, up, *values, state, gradient_state)
    return y  # noqa: RET504  typed
