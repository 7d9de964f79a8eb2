"""The Triton kernels as operators of torch (``torch.ops.geoact_triton``), made when this module is imported.

Generated from the registry. For a row named ``f`` there are

- ``f(x, parameters) -> y``, followed by autograd, and ``f_backward(dy, saved, parameters) -> dx`` (and dparameter);
- ``f_measured(x, parameters, state, per, channel_axis, level, saturation) -> y``, which adds to a state of
  ``geoact.torch.triton.new_state`` and declares that it writes it.

``parameters`` are numbers, or for a trained one ``Tensor weight, int weight_axis``.

They are opaque to a compiler (``custom_op``) and not made by ``triton_op``: Inductor (torch 2.13) writes the constants
of a kernel that it can see into a source file by their ``repr``, and ours are functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.library import custom_op

from geoact.activations import activations
from geoact.torch import triton as kernels

if TYPE_CHECKING:
    from geoact.activations import Activation

Tensor = torch.Tensor


class _Row:
    """The operators of one activation."""

    def __init__(self, row: Activation) -> None:
        self.row, self.count = row, len(row.parameters) + bool(row.trainable)
        kinds = ["Tensor"] * row.trainable + ["float"] * (len(row.parameters) - row.trainable)
        listed = "".join(f", {kind} {p.name}" for kind, p in zip(kinds, row.parameters, strict=True))
        listed += ", int weight_axis" if row.trainable else ""
        state = ", Tensor(a!) state, str per, int channel_axis, str level, float saturation"
        gradients = f"(Tensor{', Tensor' * row.trainable})" if row.trainable else "Tensor"
        self.plain = self._define("", self._forward, f"(Tensor x{listed}) -> Tensor")
        self.measured = self._define("_measured", self._measured, f"(Tensor x{listed}{state}) -> Tensor", ("state",))
        self.back = self._define("_backward", self._backward, f"(Tensor dy, Tensor saved{listed}) -> {gradients}")
        self.plain.register_fake(lambda x, *_: torch.empty_like(x))
        self.measured.register_fake(lambda x, *_: torch.empty_like(x))
        self.back.register_fake(self._backward_shape)
        self.plain.register_autograd(self._derivative, setup_context=self._save)

    def _define(self, suffix: str, function: Callable[..., Any], schema: str, written: tuple[str, ...] = ()) -> Any:  # noqa: ANN401
        name = f"geoact_triton::{self.row.name}{suffix}"
        return custom_op(name, function, mutates_args=written, schema=schema)

    def _split(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], int]:
        """The parameters and the axis of a weight."""
        return (values[:-1], values[-1]) if self.row.trainable else (values, 1)

    def _forward(self, x: Tensor, *values: Any) -> Tensor:  # noqa: ANN401
        parameters, axis = self._split(values)
        return kernels.forward(self.row, x, parameters, weight_axis=axis)

    def _measured(self, x: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        parameters, axis = self._split(arguments[: self.count])
        state, per, channel_axis, level, saturation = arguments[self.count :]
        return kernels.forward(
            self.row,
            x,
            parameters,
            state=state,
            per=per,
            channel_axis=channel_axis,
            level=level,
            saturation=saturation,
            weight_axis=axis,
        )

    def _backward(self, dy: Tensor, saved: Tensor, *values: Any) -> Any:  # noqa: ANN401
        parameters, axis = self._split(values)
        return kernels.backward(self.row, dy, saved, parameters, weight_axis=axis)

    def _backward_shape(self, dy: Tensor, saved: Tensor, *values: Any) -> Any:  # noqa: ANN401
        dx = torch.empty_like(dy)
        return (dx, *map(torch.empty_like, values[: self.row.trainable])) if self.row.trainable else dx

    def _save(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
        x, *values = inputs
        tensors = [value for value in values if isinstance(value, Tensor)]
        ctx.save_for_backward(x if self.row.saves == "x" else output, *tensors)
        ctx.numbers = tuple(value for value in values if not isinstance(value, Tensor))

    def _derivative(self, ctx: Any, dy: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        saved, *tensors = ctx.saved_tensors
        result = self.back(dy, saved, *tensors, *ctx.numbers)
        given = result if self.row.trainable else (result,)
        return (*given, *(None for _ in ctx.numbers))


OPERATORS = {name: _Row(row) for name, row in activations().items()}
