"""Derivatives for autograd: one function for the forward and one for the backward pass of every activation.

``Forward`` saves what the derivative needs (y where y is enough) and ``Backward`` is itself differentiable, through the
formulas of :mod:`geoact.torch.slopes`. Both are told how to run the kernels by a call object: ``Direct`` goes to the
compiled core, ``ops.Traced`` to the custom operators.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch._C._functorch import is_legacy_batchedtensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from geoact import _core
from geoact.torch import gpu, slopes

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

        def dispatched(self, dy: torch.Tensor, saved: torch.Tensor, weight: torch.Tensor | None) -> tuple[Any, Any]:
            """The same as a call that torch dispatches from the top."""


_NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_HAS_EXCHANGE = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")  # torch >= 2.10


def borrow(tensor: torch.Tensor) -> _core.Borrowed:
    """The memory of a tensor, for a torch whose tensors the core cannot read by itself."""
    name = _NAMES.get(tensor.dtype, str(tensor.dtype))
    described = (tensor, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), name)
    if tensor.device.type != "cuda":
        return _core.Borrowed(*described)

    def allocate(size: int) -> tuple[torch.Tensor, int]:
        memory = torch.empty(size, dtype=torch.uint8, device=tensor.device)
        return memory, memory.data_ptr()

    stream = torch.cuda.current_stream(tensor.device).cuda_stream
    return _core.Borrowed(*described, device=(2, tensor.device.index), stream=stream, allocate=allocate)


def autocast(row: Activation, x: torch.Tensor, values: tuple[Any, ...]) -> tuple[torch.Tensor, tuple[Any, ...]]:
    """What torch's autocast does before its own function of this name: prelu runs in the lower precision.

    Source: the op lists of torch.amp, checked against torch itself in tests/pytorch/test_tensors.py.
    """
    device = x.device.type
    if row.name != "prelu" or device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return x, values
    dtype = torch.get_autocast_dtype(device)

    def cast(value: Any) -> Any:  # noqa: ANN401
        eligible = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(dtype) if eligible else value

    return cast(x), tuple(cast(v) for v in values)


class Direct:
    """Runs the kernels of the compiled core on plain tensors, on the CPU or a CUDA device."""

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
        if gpu.takes_triton(row, x):
            return gpu.forward(row, x, values, out, self.accumulator, self.channel_axis)
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
        if dy.is_neg():
            dy = dy.resolve_neg()
        if weight is not None and weight.is_neg():
            weight = weight.resolve_neg()
        values = self.values if weight is None else (weight,)
        accumulator = self.gradient_accumulator
        if gpu.takes_triton(row, dy):
            return gpu.backward(row, dy, saved, values, out, accumulator, self.channel_axis)
        if _HAS_EXCHANGE:
            result = _core.backward(
                row._index, dy, saved, row.saves, values, row._names, out, accumulator, self.channel_axis
            )
            if not row.trainable:
                return result, None
            dx, gradient = result
        else:
            dx = torch.empty_like(dy) if out is None else out
            values = self.values if weight is None else (borrow(weight),)
            inputs, target = (borrow(dy), borrow(saved)), borrow(dx)
            room = self._room(dy, weight)
            result = _core.backward(
                row._index, *inputs, row.saves, values, row._names, target, accumulator, self.channel_axis,
                None if room is None else borrow(room),
            )  # fmt: skip
            if not row.trainable:
                return dx, None
            gradient = result[1] if room is None else room
        if isinstance(gradient, torch.Tensor):
            return dx, gradient if weight is None else gradient.reshape(weight.shape)
        if weight is None:
            return dx, torch.from_numpy(gradient)
        return dx, torch.from_numpy(gradient).to(weight.device, weight.dtype).reshape(weight.shape)

    def _room(self, dy: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor | None:
        """Where the kernels write the gradient of the weight: on a device, as the weight is; else the core finds it."""
        if not self.row.trainable or dy.device.type != "cuda" or not dy.numel():
            return None
        if weight is None:
            return dy.new_empty(1, dtype=torch.float64)
        return torch.empty_like(weight, memory_format=torch.contiguous_format)

    def dispatched(self, dy: torch.Tensor, saved: torch.Tensor, weight: torch.Tensor | None) -> tuple[Any, Any]:
        """(dx, dweight) by the operators, for gradients that only torch can take apart: a batch under vmap.

        Not measured: such a batch holds directions to differentiate in, not a gradient that goes on.
        """
        from geoact.torch import ops  # which imports this module

        return ops.untraced(self.row, self.values, self.channel_axis).dispatched(dy, saved, weight)


def _restore(ctx: Any) -> tuple[torch.Tensor, torch.Tensor | None]:  # noqa: ANN401
    saved = ctx.saved_tensors
    return saved[0], saved[1] if len(saved) > 1 else None


def _levels_below() -> contextlib.AbstractContextManager[Any]:
    """Forward mode stays on for the levels of functorch below: torch switches it off where it asks for a derivative."""
    return forward_ad._set_fwd_grad_enabled(True) if _transformed() else contextlib.nullcontext()


def _primal(tensor: torch.Tensor) -> torch.Tensor:
    """Without the tangent of this level."""
    if not _transformed():
        return tensor
    primal: torch.Tensor = forward_ad.unpack_dual(tensor).primal
    return primal


class Forward(torch.autograd.Function):
    """Y = f(x, weight)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        weight: torch.Tensor | None,
        call: Call,
        in_place: bool,
        source: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the kernel and save what its derivative reads: ``source`` where x is overwritten and would be read."""
        ctx.call, ctx.in_place = call, in_place
        ctx.set_materialize_grads(False)
        if in_place:
            ctx.mark_dirty(x)
        y = call.forward(x, weight, x if in_place else None)
        saved = y if call.row.saves == "y" else x if source is None else source
        tensors = (saved,) if weight is None else (saved, weight)
        ctx.save_for_backward(*tensors)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*tensors)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """Dx = dy f'(x), and the gradient of the weight."""
        if dy is None:
            return (None,) * len(ctx.needs_input_grad)
        saved, weight = _restore(ctx)
        dx, gradient = derivative(dy, saved, weight, ctx.call)
        return dx, gradient if weight is not None else None, *(None,) * (len(ctx.needs_input_grad) - 2)

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor | None, dweight: torch.Tensor | None, *_: None) -> torch.Tensor:  # noqa: ANN401
        """Dy = f'(x) dx + df/dweight dweight."""
        with _levels_below():
            saved, weight = _restore(ctx)
            saved, weight = _primal(saved), None if weight is None else _primal(weight)
            dy = slopes.forward_derivative(ctx.call, saved, weight, dx, dweight)
        return dx.copy_(dy) if ctx.in_place and dx is not None else dy


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
        tensors = (dy, saved) if weight is None else (dy, saved, weight)
        ctx.save_for_backward(*tensors)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*tensors)
        dx, gradient = call.backward(dy, saved, weight)
        return dx, gradient if weight is not None else None

    @staticmethod
    def backward(ctx: Any, ddx: torch.Tensor | None, ddweight: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """The second derivative, in torch's own operators, so that any further order works too."""
        dy, saved, *weights = ctx.saved_tensors
        weight = weights[0] if weights else None
        return (*slopes.second_derivative(ctx.call, dy, saved, weight, ctx.needs_input_grad, ddx, ddweight), None)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:  # noqa: ANN401
        """Forward over reverse: what torch.func.hessian asks for."""
        with _levels_below():
            dy, saved, *weights = map(_primal, ctx.saved_tensors)
            weight = weights[0] if weights else None
            return slopes.backward_derivative(ctx.call, dy, saved, weight, *tangents[:3])


# Below Function.apply, which only serves functorch transforms with setup_context. Those calls come through the
# operators, whose autograd kernel is asked at one level of the transforms at a time.
_forward = super(torch.autograd.Function, Forward).apply
_backward = super(torch.autograd.Function, Backward).apply
_transformed = torch._C._are_functorch_transforms_active


def _apply(function: Any, *arguments: Any) -> Any:  # noqa: ANN401
    if not _transformed():
        return function(*arguments)
    with enable_single_level_autograd_function():
        return function(*arguments)


def forward(x: torch.Tensor, weight: torch.Tensor | None, call: Call) -> torch.Tensor:
    """Y = f(x, weight), followed by autograd."""
    y: torch.Tensor = _apply(_forward, x, weight, call, False)
    return y


def backward(dy: torch.Tensor, saved: torch.Tensor, weight: torch.Tensor | None, call: Call) -> tuple[Any, Any]:
    """(dx, dweight), followed by autograd."""
    dx, gradient = _apply(_backward, dy, saved, weight, call)
    return dx, gradient


def derivative(dy: torch.Tensor, saved: torch.Tensor, weight: torch.Tensor | None, call: Call) -> tuple[Any, Any]:
    """(dx, dweight) in a backward pass, whoever runs it: a transform, autograd that differentiates it, or neither."""
    if _transformed() or type(dy) is not torch.Tensor or is_legacy_batchedtensor(dy):
        return call.dispatched(dy, saved, weight)
    if torch.is_grad_enabled():
        return backward(dy, saved, weight, call)
    return call.backward(dy, saved, weight)


class Touch(torch.autograd.Function):
    """Writes nothing: autograd's own checks of an in-place operation, before the kernel has written."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """X, as if it had been written."""
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Dy as it is."""
        return dy

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Dx as it is: the tangent of a tensor written in place is that tensor's."""
        return dx


_touch: Any = super(torch.autograd.Function, Touch).apply


def forward_in_place(x: torch.Tensor, weight: torch.Tensor | None, call: Call) -> torch.Tensor:
    """The same, written over x."""
    # A copy that autograd follows, for the second derivative.
    source = x.clone() if call.row.saves == "x" else None
    check_in_place(x)
    y: torch.Tensor = _apply(_forward, x, weight, call, True, source)
    return y


def check_in_place(x: torch.Tensor) -> None:
    """Autograd's own checks of an in-place operation, before the kernel has written."""
    if x.requires_grad and torch.is_grad_enabled():
        if x.is_leaf and not x._is_view():
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        if x._is_view():
            _touch(x)
