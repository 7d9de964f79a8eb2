"""Derivatives for autograd: one function for the forward and one for the backward pass of every activation.

``Forward`` saves what the derivative needs (y where y is enough) and ``Backward`` is itself differentiable, through the
formulas of :mod:`geoact.torch.slopes`. Both are told how to run the kernels by a call object: ``Direct`` goes to the
compiled core, ``ops.Traced`` to the custom operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from geoact import _core
from geoact.torch import slopes

if TYPE_CHECKING:
    from typing import Protocol

    from geoact.activations import Activation

    class Call(Protocol):
        """How the kernels of one call are run."""

        row: Activation
        values: tuple[Any, ...]
        channel_axis: int

        def forward(self, x: torch.Tensor, weight: torch.Tensor | None, out: torch.Tensor | None) -> torch.Tensor:
            """Y = f(x)."""

        def backward(
            self, dy: torch.Tensor, saved: torch.Tensor, weight: torch.Tensor | None, out: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, Any]:
            """(dx, dweight); dweight is None where the activation has no parameter."""


_NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_HAS_EXCHANGE = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")  # torch >= 2.10


def borrow(tensor: torch.Tensor) -> _core.Borrowed:
    """The memory of a tensor, for a torch whose tensors the core cannot read by itself."""
    name = _NAMES.get(tensor.dtype, str(tensor.dtype))
    return _core.Borrowed(tensor, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), name)


def autocast(row: Activation, x: torch.Tensor, values: tuple[Any, ...]) -> tuple[torch.Tensor, tuple[Any, ...]]:
    """What torch's autocast does before its own function of this name: prelu runs in the lower precision.

    Source: the op lists of torch.amp, checked against torch itself in tests/torch/test_functional.py.
    """
    device = x.device.type
    if row.name != "prelu" or not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x, values
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), tuple(v.to(dtype) if isinstance(v, torch.Tensor) else v for v in values)


class Direct:
    """Runs the kernels of the compiled core on plain CPU tensors."""

    __slots__ = ("accumulator", "channel_axis", "gradient_accumulator", "row", "values")

    def __init__(
        self,
        row: Activation,
        values: tuple[Any, ...],
        accumulator: _core.Accumulator | None = None,
        gradient_accumulator: _core.Accumulator | None = None,
        channel_axis: int = 1,
    ) -> None:
        self.row = row
        self.values = values
        self.accumulator = accumulator
        self.gradient_accumulator = gradient_accumulator
        self.channel_axis = channel_axis

    def forward(self, x: torch.Tensor, weight: torch.Tensor | None, out: torch.Tensor | None) -> torch.Tensor:
        """Y = f(x), measured where asked."""
        row = self.row
        values = self.values if weight is None else (weight,)
        if _HAS_EXCHANGE:
            y: torch.Tensor = _core.forward(row._index, x, values, row._names, out, self.accumulator, self.channel_axis)
            return y
        y = torch.empty_like(x) if out is None else out
        values = self.values if weight is None else (borrow(weight),)
        target = borrow(y)
        _core.forward(row._index, borrow(x), values, row._names, target, self.accumulator, self.channel_axis)
        return y

    def backward(
        self, dy: torch.Tensor, saved: torch.Tensor, weight: torch.Tensor | None, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Any]:
        """(dx, dweight), measured where asked."""
        row = self.row
        values = self.values if weight is None else (weight,)
        accumulator = self.gradient_accumulator
        if _HAS_EXCHANGE:
            result = _core.backward(
                row._index, dy, saved, row.saves, values, row._names, out, accumulator, self.channel_axis
            )
            if not row.trainable:
                return result, None
            dx, gradient = result
        else:
            dx = torch.empty_like(saved) if out is None else out
            values = self.values if weight is None else (borrow(weight),)
            inputs, target = (borrow(dy), borrow(saved)), borrow(dx)
            result = _core.backward(
                row._index, *inputs, row.saves, values, row._names, target, accumulator, self.channel_axis
            )
            if not row.trainable:
                return dx, None
            gradient = result[1]
        if weight is None:
            return dx, float(gradient[0])
        return dx, torch.from_numpy(gradient).to(weight.dtype).reshape(weight.shape)


def _restore(ctx: Any) -> tuple[torch.Tensor, torch.Tensor | None]:  # noqa: ANN401
    saved = ctx.saved_tensors
    return saved[0], saved[1] if len(saved) > 1 else None


class Forward(torch.autograd.Function):
    """Y = f(x, weight)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor | None, call: Call, in_place: bool) -> torch.Tensor:  # noqa: ANN401
        """Run the kernel and save what its derivative reads."""
        ctx.call = call
        ctx.set_materialize_grads(False)
        saved = None
        if in_place:
            saved = x.clone() if call.row.saves == "x" else None
            ctx.mark_dirty(x)
        y = call.forward(x, weight, x if in_place else None)
        if saved is None:
            saved = y if call.row.saves == "y" else x
        tensors = (saved,) if weight is None else (saved, weight)
        ctx.save_for_backward(*tensors)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*tensors)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """Dx = dy f'(x), and the gradient of the weight."""
        if dy is None:
            return None, None, None, None
        saved, weight = _restore(ctx)
        if torch.is_grad_enabled():
            dx, gradient = Backward.apply(dy, saved, weight, ctx.call)  # type: ignore[no-untyped-call]
        else:
            dx, gradient = ctx.call.backward(dy, saved, weight)
        return dx, gradient if weight is not None else None, None, None

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor | None, dweight: torch.Tensor | None, *_: None) -> torch.Tensor:  # noqa: ANN401
        """Dy = f'(x) dx + df/dweight dweight."""
        saved, weight = _restore(ctx)
        return slopes.forward_derivative(ctx.call, saved, weight, dx, dweight)


class Backward(torch.autograd.Function):
    """(dx, dweight) as a function of (dy, what was saved, weight)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        dy: torch.Tensor,
        saved: torch.Tensor,
        weight: torch.Tensor | None,
        call: Call,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the kernel; everything it read is needed again."""
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, saved, *(() if weight is None else (weight,)))
        dx, gradient = call.backward(dy, saved, weight)
        return dx, gradient if weight is not None else None

    @staticmethod
    def backward(ctx: Any, ddx: torch.Tensor | None, ddweight: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """Differentiate the formula, in torch's own operators, so that any further order works too."""
        dy, saved, *rest = ctx.saved_tensors
        inputs = (dy, saved, *rest)
        gradients = slopes.second_derivative(ctx.call, inputs, ctx.needs_input_grad, ddx, ddweight)
        return (*gradients, *(None,) * (4 - len(gradients)))


# Below Function.apply, which only serves functorch transforms and setup_context: such calls come by the operators.
_forward = super(torch.autograd.Function, Forward).apply


def forward(x: torch.Tensor, weight: torch.Tensor | None, call: Call) -> torch.Tensor:
    """Y = f(x, weight), followed by autograd."""
    y: torch.Tensor = _forward(x, weight, call, False)  # type: ignore[no-untyped-call]
    return y


def forward_in_place(x: torch.Tensor, weight: torch.Tensor | None, call: Call) -> torch.Tensor:
    """The same, written over x."""
    y: torch.Tensor = _forward(x, weight, call, True)  # type: ignore[no-untyped-call]
    return y
