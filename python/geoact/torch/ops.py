"""The activations as operators of torch (``torch.ops.geoact``): what torch.compile, export, vmap and jvp see.

Generated from the registry. For a row named ``f`` there are

- ``f(x, parameters) -> y`` and ``f_backward(dy, saved, parameters) -> dx`` (and dweight), and
- ``f_measured(x, parameters, state, gradient_state) -> y`` with ``f_backward_measured``, which also add to statistics.

``state`` is a tensor that holds the number of a statistics object. Declaring it as written keeps a compiler from
dropping, repeating or reordering a measurement, even one whose y nobody uses (a plain call whose y nobody uses is
dropped); the record itself stays where it is. The number 0 stands for no
statistics: Inductor cannot lower an operator whose only written argument is optional and missing.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from geoact import statistics
from geoact.activations import activations
from geoact.statistics import GeometryStats, GradientStats, Numbered
from geoact.torch import autograd
from geoact.torch.probe import Family, running_backward

if TYPE_CHECKING:
    from geoact.activations import Activation

Tensor = torch.Tensor
Weights = tuple[Tensor | None, ...]
_LIBRARY = torch.library.Library("geoact", "DEF")
_NOTHING = torch.tensor([0])


def _statistics(state: Tensor | None) -> Any:  # noqa: ANN401
    """The object a state tensor stands for."""
    number = 0 if state is None else int(state[0])
    if number == 0:
        return None
    found = statistics._numbered.get(number)
    if found is None:
        raise RuntimeError("stats: the statistics object that this program was traced with no longer exists")
    return found


def _accumulator(state: Tensor | None, x: Tensor, forward: bool) -> Any:  # noqa: ANN401
    found = _statistics(state)
    if found is None or (forward and running_backward()):
        return None
    return (found.of(x) if isinstance(found, Family) else found)._accumulator


def _state(stats: Any, kind: type, name: str) -> Tensor | None:  # noqa: ANN401
    if stats is None:
        return None
    if not isinstance(stats, Numbered) or not isinstance(stats, (kind, Family)):
        raise TypeError(f"{name} must be a geoact.{kind.__name__}, got {type(stats).__name__}")
    token: Tensor | None = stats._token
    if token is None:
        raise ValueError(f"{name} was made before torch was imported; make it after, or call .copy() on it")
    return token


def refuse_counted_axes(states: tuple[Tensor | None, ...]) -> None:
    """Under vmap the axes of a sample are not those of the call."""
    for state in states:
        stats = _statistics(state)
        if isinstance(stats, (GeometryStats, GradientStats)) and stats.per != "tensor" and stats.channel_axis >= 0:
            raise ValueError("stats: under vmap count channel_axis from the end, as the batch is one more axis")


class _Row:
    """The operators of one activation: schemas, kernels, derivatives, batching rules."""

    def __init__(self, row: Activation) -> None:
        self.row = row
        self.trained = row.trainable
        kinds = ["Tensor"] * row.trainable + ["float"] * (len(row.parameters) - row.trainable)
        parameters = "".join(f", {kind} {p.name}" for kind, p in zip(kinds, row.parameters, strict=True))
        parameters += ", int channel_axis" if row.trainable else ""
        gradients = f"(Tensor{', Tensor' * row.trainable})" if row.trainable else "Tensor"
        self.plain = self._define(f"{row.name}(Tensor x{parameters}) -> Tensor")
        self.measured = self._define(
            f"{row.name}_measured(Tensor x{parameters}, Tensor(a!) state, Tensor? gradient_state) -> Tensor"
        )
        self.back = self._define(f"{row.name}_backward(Tensor dy, Tensor saved{parameters}) -> {gradients}")
        self.back_measured = self._define(
            f"{row.name}_backward_measured(Tensor dy, Tensor saved{parameters}, Tensor(a!) state) -> {gradients}"
        )
        self._register(self.plain, self._forward, self._forward_shape, self._forward_autograd, self._forward_batched)
        self._register(
            self.measured, self._measured, self._forward_shape, self._measured_autograd, self._measured_batched
        )
        self._register(self.back, self._backward, self._backward_shape, self._backward_autograd, self._backward_batched)
        self._register(
            self.back_measured,
            self._back_measured,
            self._backward_shape,
            self._back_measured_autograd,
            self._unmeasured_batched,
        )
        if row.trainable:
            for name in (self.plain, self.measured):
                for key in ("AutocastCPU", "AutocastCUDA"):
                    _LIBRARY.impl(name, functools.partial(self._autocast, name, key), key)

    @staticmethod
    def _define(schema: str) -> str:
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        return schema.partition("(")[0]

    @staticmethod
    def _register(
        name: str,
        kernel: Callable[..., Any],
        shape: Callable[..., Any],
        derivative: Callable[..., Any],
        batched: Callable[..., Any] | None,
    ) -> None:
        for device in ("CPU", "CUDA"):
            _LIBRARY.impl(name, kernel, device)
        _LIBRARY.impl(name, derivative, "Autograd")
        torch.library.register_fake(f"geoact::{name}", shape, lib=_LIBRARY)
        if batched is not None:
            torch.library.register_vmap(f"geoact::{name}", batched, lib=_LIBRARY)

    def _op(self, name: str) -> Any:  # noqa: ANN401
        return getattr(torch.ops.geoact, name).default

    def _split(self, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], Weights, int, tuple[Any, ...]]:
        """Arguments after x to (values, weights, channel axis, states)."""
        count = len(self.row.parameters)
        if self.trained:
            return arguments[:count], arguments[: self.trained], arguments[count], arguments[count + 1 :]
        return arguments[:count], (), 1, arguments[count:]

    def _direct(self, x: Tensor, arguments: tuple[Any, ...], forward: bool) -> tuple[autograd.Direct, Weights]:
        values, weights, axis, states = self._split(arguments)
        accumulator = _accumulator(states[0], x, forward) if states else None
        measured = {"accumulator" if forward else "gradient_accumulator": accumulator}
        return autograd.Direct(self.row, values, channel_axis=axis, **measured), weights

    # --- kernels ---

    def _forward(self, x: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        call, weights = self._direct(x, arguments, forward=True)
        return call.forward(x, weights, None)

    _measured = _forward

    def _backward(self, dy: Tensor, saved: Tensor, *arguments: Any) -> Any:  # noqa: ANN401
        call, weights = self._direct(dy, arguments, forward=False)
        dx, gradients = call.backward(dy, saved, weights)
        return (dx, *gradients) if self.trained else dx

    _back_measured = _backward

    # --- autocast ---

    def _autocast(self, name: str, key: str, x: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        trained = self.row.trainable
        x, weights = autograd.autocast(self.row, x, arguments[:trained])
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))):
            y: Tensor = self._op(name)(x, *weights, *arguments[trained:])
        return y

    # --- shapes ---

    def _forward_shape(self, x: Tensor, *_: Any) -> Tensor:  # noqa: ANN401
        return torch.empty_like(x)

    def _backward_shape(self, dy: Tensor, saved: Tensor, *arguments: Any) -> Any:  # noqa: ANN401
        dx = torch.empty_like(dy)
        return (dx, *map(torch.empty_like, arguments[: self.trained])) if self.trained else dx

    # --- derivatives ---

    def _forward_autograd(self, x: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        values, weights, axis, _ = self._split(arguments)
        return autograd.forward(x, weights, Traced(self, values, axis, None, None))

    def _measured_autograd(self, x: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        values, weights, axis, (state, gradient_state) = self._split(arguments)
        return autograd.forward(x, weights, Traced(self, values, axis, state, gradient_state))

    def _back(self, dy: Tensor, saved: Tensor, arguments: tuple[Any, ...], state: Tensor | None) -> Any:  # noqa: ANN401
        values, weights, axis, _ = self._split(arguments)
        dx, gradients = autograd.backward(dy, saved, weights, Traced(self, values, axis, None, state))
        return (dx, *gradients) if self.trained else dx

    def _backward_autograd(self, dy: Tensor, saved: Tensor, *arguments: Any) -> Any:  # noqa: ANN401
        return self._back(dy, saved, arguments, None)

    def _back_measured_autograd(self, dy: Tensor, saved: Tensor, *arguments: Any) -> Any:  # noqa: ANN401
        return self._back(dy, saved, arguments, self._split(arguments)[3][0])

    # --- vmap: element by element, so a batch is one more axis ---

    def _batch_front(self, tensor: Tensor, axis: int | None, size: int) -> Tensor:
        return tensor.movedim(axis, 0) if axis is not None else tensor.expand(size, *tensor.shape)

    def _one_by_one(self, name: str, size: int, axes: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """The parameter differs from sample to sample: a call for each."""
        results = [
            self._op(name)(*(a if axis is None else a.select(axis, i) for a, axis in zip(arguments, axes, strict=True)))
            for i in range(size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(torch.stack(each) for each in zip(*results, strict=True)), (0,) * len(results[0])

    def _batched_parameters(self, rank: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.trained:
            return arguments
        values, weights, axis, states = self._split(arguments)
        for name, weight in zip(self.row._names, weights, strict=False):
            if rank < 2 and weight is not None and weight.numel() > 1:  # the axis of the batch is not one of channels
                raise ValueError(f"{name} has {weight.numel()} values, but x has 1 channel")
        return (*values, axis + 1 if axis >= 0 and rank >= 2 else axis, *states)

    def _forward_batched(self, info: Any, axes: tuple[Any, ...], x: Tensor, *arguments: Any) -> Any:  # noqa: ANN401
        if any(axis is not None for axis in axes[1:]):
            return self._one_by_one(self.plain, info.batch_size, axes, (x, *arguments))
        moved = self._batch_front(x, axes[0], info.batch_size)
        return self._op(self.plain)(moved, *self._batched_parameters(x.dim() - 1, arguments)), 0

    def _measured_batched(self, info: Any, axes: tuple[Any, ...], x: Tensor, *arguments: Any) -> Any:  # noqa: ANN401
        if any(axis is not None for axis in axes[1:]):
            raise ValueError("stats: a call under vmap whose parameter differs from sample to sample is not measured")
        refuse_counted_axes(arguments[-2:])
        moved = self._batch_front(x, axes[0], info.batch_size)
        return self._op(self.measured)(moved, *self._batched_parameters(x.dim() - 1, arguments)), 0

    def _backward_batched(
        self,
        info: Any,  # noqa: ANN401
        axes: tuple[Any, ...],
        dy: Tensor,
        saved: Tensor,
        *arguments: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if self.trained:  # each sample has a gradient of the parameter of its own
            return self._one_by_one(self.back, info.batch_size, axes, (dy, saved, *arguments))
        pair = (self._batch_front(t, axis, info.batch_size) for t, axis in zip((dy, saved), axes[:2], strict=True))
        return self._op(self.back)(*pair, *arguments), 0

    def _unmeasured_batched(self, info: Any, axes: tuple[Any, ...], *arguments: Any) -> Any:  # noqa: ANN401
        # A batch of directions to differentiate in, not a gradient that goes on.
        return self._backward_batched(info, axes[:-1], *arguments[:-1])


@contextlib.contextmanager
def _below_autograd() -> Iterator[None]:
    """Past the autograd kernels of this level.

    An autograd function switches grad mode off for what it calls, but the levels of functorch below this one have
    derivatives of their own to take.
    """
    with contextlib.ExitStack() as stack:
        if torch._C._are_functorch_transforms_active():
            stack.enter_context(torch.enable_grad())
            stack.enter_context(forward_ad._set_fwd_grad_enabled(True))
        stack.enter_context(torch._C._AutoDispatchBelowAutograd())
        yield


class Traced:
    """Runs the kernels through the operators, below autograd, so that whoever traces sees them."""

    __slots__ = ("channel_axis", "gradient_state", "ops", "row", "state", "values")

    def __init__(
        self, ops: _Row, values: tuple[Any, ...], channel_axis: int, state: Tensor | None, gradient_state: Tensor | None
    ) -> None:
        self.ops = ops
        self.row = ops.row
        self.values = values
        self.channel_axis = channel_axis
        self.state = state
        self.gradient_state = gradient_state

    def _parameters(self, x: Tensor, weights: Weights) -> tuple[Any, ...]:
        if not self.row.trainable:
            return self.values
        # An operator takes tensors for trained parameters.
        filled = autograd.filled(self.values, weights)
        count = self.row.trainable
        given = (v if isinstance(v, Tensor) else x.new_full((1,), v) for v in filled[:count])
        return (*given, *filled[count:], self.channel_axis)

    def forward(self, x: Tensor, weights: Weights, out: Tensor | None) -> Tensor:
        """Y = f(x), measured where asked."""
        ops, parameters = self.ops, self._parameters(x, weights)
        with _below_autograd():
            if self.state is None and self.gradient_state is None:
                y: Tensor = ops._op(ops.plain)(x, *parameters)
            else:
                y = ops._op(ops.measured)(x, *parameters, self.state, self.gradient_state)
        return y

    def backward(
        self,
        dy: Tensor,
        saved: Tensor,
        weights: Weights,
        out: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """(dx, dweights), measured where asked."""
        ops, parameters = self.ops, self._parameters(dy, weights)
        with _below_autograd():
            if self.gradient_state is None:
                result = ops._op(ops.back)(dy, saved, *parameters)
            else:
                result = ops._op(ops.back_measured)(dy, saved, *parameters, self.gradient_state)
        return (result[0], tuple(result[1:])) if self.row.trainable else (result, ())

    def dispatched(self, dy: Tensor, saved: Tensor, weights: Weights) -> tuple[Tensor, tuple[Any, ...]]:
        """The same from the top of the dispatcher, where functorch takes its own levels apart."""
        ops, parameters = self.ops, self._parameters(dy, weights)
        if self.gradient_state is None:
            result = ops._op(ops.back)(dy, saved, *parameters)
        else:
            result = ops._op(ops.back_measured)(dy, saved, *parameters, self.gradient_state)
        return (result[0], tuple(result[1:])) if self.row.trainable else (result, ())


_ROWS = {name: _Row(row) for name, row in activations().items()}
# Packets by name: what a call is traced as.
_PLAIN = {name: getattr(torch.ops.geoact, rows.plain) for name, rows in _ROWS.items()}
_MEASURED = {name: getattr(torch.ops.geoact, rows.measured) for name, rows in _ROWS.items()}


def untraced(row: Activation, values: tuple[Any, ...], channel_axis: int) -> Traced:
    """The operators of a call that went straight to the core, and is not measured."""
    return Traced(_ROWS[row.name], values, channel_axis, None, None)


def forward(
    row: Activation,
    x: Tensor,
    values: tuple[Any, ...],
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    channel_axis: int,
) -> Tensor:
    """Y = f(x) as an operator."""
    if row.trainable:
        # Anything but a number passes as a tensor: torch.fx traces with stand-ins.
        count = row.trainable
        weights = (x.new_full((1,), v) if isinstance(v, (int, float)) else v for v in values[:count])
        values = (*weights, *values[count:], channel_axis)
    if stats is None and gradient_stats is None:
        y: Tensor = _PLAIN[row.name](x, *values)
        return y
    state = _NOTHING if stats is None else _state(stats, GeometryStats, "stats")
    gradient_state = _state(gradient_stats, GradientStats, "gradient_stats")
    y = _MEASURED[row.name](x, *values, state, gradient_state)
    return y  # noqa: RET504  typed
