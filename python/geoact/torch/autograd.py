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

        def forward(self, x: torch.Tensor, weights: slopes.Weights, out: torch.Tensor | None) -> torch.Tensor:
            """Y = f(x)."""

        def backward(
            self, dy: torch.Tensor, saved: torch.Tensor, weights: slopes.Weights, out: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, tuple[Any, ...]]:
            """(dx, the gradients of the trained parameters)."""

        def dispatched(
            self, dy: torch.Tensor, saved: torch.Tensor, weights: slopes.Weights
        ) -> tuple[Any, tuple[Any, ...]]:
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


def weights_of(row: Activation, values: tuple[Any, ...]) -> slopes.Weights:
    """The trained parameters: None where one is a number."""
    return tuple(value if isinstance(value, torch.Tensor) else None for value in values[: row.trainable])


def filled(values: tuple[Any, ...], weights: tuple[Any, ...]) -> tuple[Any, ...]:
    """All parameters, from those that the call was made with and the weights of now."""
    given = (value if weight is None else weight for value, weight in zip(values, weights, strict=False))
    return (*given, *values[len(weights) :])


def autocast(row: Activation, x: torch.Tensor, values: tuple[Any, ...]) -> tuple[torch.Tensor, tuple[Any, ...]]:
    """What torch's autocast does before its own function of this name: prelu runs in the lower precision.

    Of activations that torch has not, trained parameters follow x, which the layer before has made narrow or not.
    Source: the op lists of torch.amp, checked against torch itself in tests/pytorch/test_tensors.py.
    """
    device = x.device.type
    if not row.trainable or device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return x, values
    dtype = torch.get_autocast_dtype(device) if row.name == "prelu" else x.dtype

    def cast(value: Any) -> Any:  # noqa: ANN401
        eligible = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(dtype) if eligible else value

    if dtype == torch.float64:
        return x, values
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

    def forward(self, x: torch.Tensor, weights: slopes.Weights, out: torch.Tensor | None) -> torch.Tensor:
        """Y = f(x), measured where asked."""
        row = self.row
        values = filled(self.values, weights)
        if gpu.takes_triton(row, x):
            return gpu.forward(row, x, values, out, self.accumulator, self.channel_axis)
        if _HAS_EXCHANGE:
            y: torch.Tensor = _core.forward(row._index, x, values, row._names, out, self.accumulator, self.channel_axis)
            return y
        y = torch.empty_like(x) if out is None else out
        values = filled(self.values, _borrowed(weights))
        target = borrow(y)
        _core.forward(row._index, borrow(x), values, row._names, target, self.accumulator, self.channel_axis)
        return y

    def backward(
        self, dy: torch.Tensor, saved: torch.Tensor, weights: slopes.Weights, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, tuple[Any, ...]]:
        """(dx, the gradients of the trained parameters), measured where asked."""
        row = self.row
        if dy.is_neg():
            dy = dy.resolve_neg()
        weights = tuple(None if w is None else w.resolve_neg() for w in weights)
        values = filled(self.values, weights)
        accumulator = self.gradient_accumulator
        if gpu.takes_triton(row, dy):
            return gpu.backward(row, dy, saved, values, out, accumulator, self.channel_axis)
        if _HAS_EXCHANGE:
            result = _core.backward(
                row._index, dy, saved, row.saves, values, row._names, out, accumulator, self.channel_axis
            )
            if not row.trainable:
                return result, ()
            dx, *gradients = result
        else:
            dx = torch.empty_like(dy) if out is None else out
            values = filled(self.values, _borrowed(weights))
            inputs, target = (borrow(dy), borrow(saved)), borrow(dx)
            room = self._room(dy, weights)
            result = _core.backward(
                row._index, *inputs, row.saves, values, row._names, target, accumulator, self.channel_axis,
                None if room is None else _borrowed(room),
            )  # fmt: skip
            if not row.trainable:
                return dx, ()
            gradients = result[1:] if room is None else room
        return dx, tuple(_like(gradient, weight) for gradient, weight in zip(gradients, weights, strict=True))

    def _room(self, dy: torch.Tensor, weights: slopes.Weights) -> tuple[torch.Tensor, ...] | None:
        """Where the kernels write the gradients: on a device, each as its weight is; else the core finds room."""
        if not self.row.trainable or dy.device.type != "cuda" or not dy.numel():
            return None
        return tuple(
            dy.new_empty(1, dtype=torch.float64)
            if weight is None
            else torch.empty_like(weight, memory_format=torch.contiguous_format)
            for weight in weights
        )

    def dispatched(self, dy: torch.Tensor, saved: torch.Tensor, weights: slopes.Weights) -> tuple[Any, tuple[Any, ...]]:
        """(dx, dweights) by the operators, for gradients that only torch can take apart: a batch under vmap.

        Not measured: such a batch holds directions to differentiate in, not a gradient that goes on.
        """
        from geoact.torch import ops  # which imports this module

        return ops.untraced(self.row, self.values, self.channel_axis).dispatched(dy, saved, weights)


def _borrowed(weights: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if weight is None else borrow(weight) for weight in weights)


def _like(gradient: Any, weight: torch.Tensor | None) -> torch.Tensor:  # noqa: ANN401
    """A gradient as the core gives it, of the type and shape of its weight."""
    if isinstance(gradient, torch.Tensor):
        return gradient if weight is None else gradient.reshape(weight.shape)
    tensor: torch.Tensor = torch.from_numpy(gradient)
    return tensor if weight is None else tensor.to(weight.device, weight.dtype).reshape(weight.shape)


def _save(ctx: Any, tensors: tuple[torch.Tensor, ...], weights: slopes.Weights) -> None:  # noqa: ANN401
    """Keep what backward reads: the tensors, and those weights that are tensors."""
    ctx.given = tuple(weight is not None for weight in weights)
    kept = (*tensors, *(weight for weight in weights if weight is not None))
    ctx.save_for_backward(*kept)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*kept)


def _restore(ctx: Any) -> tuple[list[torch.Tensor], slopes.Weights]:  # noqa: ANN401
    """What _save has kept."""
    kept = list(ctx.saved_tensors)
    first = len(kept) - sum(ctx.given)
    weights = iter(kept[first:])
    return kept[:first], tuple(next(weights) if given else None for given in ctx.given)


def _only_given(gradients: tuple[Any, ...], weights: slopes.Weights) -> tuple[Any, ...]:
    return tuple(None if weight is None else g for g, weight in zip(gradients, weights, strict=True))


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
    """Y = f(x, weights)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        call: Call,
        in_place: bool,
        source: torch.Tensor | None,
        *weights: torch.Tensor | None,
    ) -> torch.Tensor:
        """Run the kernel and save what its derivative reads: ``source`` where x is overwritten and would be read."""
        ctx.call, ctx.in_place = call, in_place
        ctx.set_materialize_grads(False)
        if in_place:
            ctx.mark_dirty(x)
        y = call.forward(x, weights, x if in_place else None)
        saved = y if call.row.saves == "y" else x if source is None else source
        _save(ctx, (saved,), weights)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """Dx = dy f'(x), and the gradients of the weights."""
        if dy is None:
            return (None,) * len(ctx.needs_input_grad)
        (saved,), weights = _restore(ctx)
        dx, gradients = derivative(dy, saved, weights, ctx.call)
        return dx, None, None, None, *_only_given(gradients, weights)

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor | None, *tangents: torch.Tensor | None) -> torch.Tensor:  # noqa: ANN401
        """Dy = f'(x) dx + sum of df/dweight dweight."""
        with _levels_below():
            (saved,), weights = _restore(ctx)
            primals = tuple(None if weight is None else _primal(weight) for weight in weights)
            dy = slopes.forward_derivative(ctx.call, _primal(saved), primals, dx, tangents[3:])
        return dx.copy_(dy) if ctx.in_place and dx is not None else dy


class Backward(torch.autograd.Function):
    """(dx, *dweights) as a function of (dy, what was saved, *weights)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        dy: torch.Tensor,
        saved: torch.Tensor,
        call: Call,
        *weights: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Run the kernel; everything it read is needed again."""
        ctx.call = call
        ctx.set_materialize_grads(False)
        _save(ctx, (dy, saved), weights)
        dx, gradients = call.backward(dy, saved, weights)
        return dx, *_only_given(gradients, weights)

    @staticmethod
    def backward(ctx: Any, ddx: torch.Tensor | None, *ddweights: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """The second derivative, in torch's own operators, so that any further order works too."""
        (dy, saved), weights = _restore(ctx)
        needed = (*ctx.needs_input_grad[:2], *ctx.needs_input_grad[3:])
        by_dy, by_saved, *by_weights = slopes.second_derivative(ctx.call, dy, saved, weights, needed, ddx, ddweights)
        return by_dy, by_saved, None, *by_weights

    @staticmethod
    def jvp(
        ctx: Any,  # noqa: ANN401
        ddy: torch.Tensor | None,
        dsaved: torch.Tensor | None,
        call: None,
        *dweights: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Forward over reverse: what torch.func.hessian asks for."""
        with _levels_below():
            (dy, saved), weights = _restore(ctx)
            primals = tuple(None if weight is None else _primal(weight) for weight in weights)
            return slopes.backward_derivative(ctx.call, _primal(dy), _primal(saved), primals, ddy, dsaved, dweights)


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


def forward(x: torch.Tensor, weights: slopes.Weights, call: Call) -> torch.Tensor:
    """Y = f(x, weights), followed by autograd."""
    y: torch.Tensor = _apply(_forward, x, call, False, None, *weights)
    return y


def backward(dy: torch.Tensor, saved: torch.Tensor, weights: slopes.Weights, call: Call) -> tuple[Any, tuple[Any, ...]]:
    """(dx, the gradients of the weights), followed by autograd."""
    dx, *gradients = _apply(_backward, dy, saved, call, *weights)
    return dx, tuple(gradients)


def derivative(
    dy: torch.Tensor, saved: torch.Tensor, weights: slopes.Weights, call: Call
) -> tuple[Any, tuple[Any, ...]]:
    """(dx, dweights) in a backward pass, whoever runs it: a transform, autograd that differentiates it, or neither."""
    if _transformed() or type(dy) is not torch.Tensor or is_legacy_batchedtensor(dy):
        return call.dispatched(dy, saved, weights)
    if torch.is_grad_enabled():
        return backward(dy, saved, weights, call)
    return call.backward(dy, saved, weights)


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


def forward_in_place(x: torch.Tensor, weights: slopes.Weights, call: Call) -> torch.Tensor:
    """The same, written over x."""
    # A copy that autograd follows, for the second derivative.
    source = x.clone() if call.row.saves == "x" else None
    check_in_place(x)
    y: torch.Tensor = _apply(_forward, x, call, True, source, *weights)
    return y


def check_in_place(x: torch.Tensor) -> None:
    """Autograd's own checks of an in-place operation, before the kernel has written."""
    if x.requires_grad and torch.is_grad_enabled():
        if x.is_leaf and not x._is_view():
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        if x._is_view():
            _touch(x)
