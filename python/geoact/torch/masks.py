"""ReLU of torch tensors whose derivative reads one bit per element: see :mod:`geoact.masks`.

``rectify`` is what ``functional.relu(x, save="mask")`` and ``ReLU(save="mask")`` call. Where the mask would not be what
is saved (torch.compile, which decides for itself, functorch, forward mode, tensor subclasses, meta tensors) it is the
ordinary relu, and where nothing is saved no mask is made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from geoact import _core, _registry
from geoact.frontends import torch as frontend
from geoact.masks import check_shape, mask_shape
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import autograd, gpu
from geoact.torch.probe import running_backward

SAVES = ("output", "mask")
_ROW = _registry.relu
_HAS_EXCHANGE = autograd._HAS_EXCHANGE


def not_accepted(save: object) -> str:
    """What is wrong with an argument ``save``."""
    return f"save is {save!r} (accepted: {', '.join(map(repr, SAVES))})"


# --- the kernels -------------------------------------------------------------------------------------------


def _forward(x: torch.Tensor, out: Any, accumulator: _core.Accumulator | None) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    """Y and the mask of a plain tensor."""
    shape = mask_shape(tuple(x.shape))
    if gpu.takes_triton(_ROW, x):
        from geoact.torch import triton_masks

        return triton_masks.forward(x, out, accumulator)
    mask = torch.empty(shape, dtype=torch.uint8, device=x.device)
    if _HAS_EXCHANGE:
        y: torch.Tensor = _core.relu_mask(x, mask.data_ptr(), mask.numel(), out, accumulator)
        return y, mask
    y = torch.empty_like(x) if out is None else out
    _core.relu_mask(autograd.borrow(x), mask.data_ptr(), mask.numel(), autograd.borrow(y), accumulator)
    return y, mask


def _backward(dy: torch.Tensor, mask: torch.Tensor, out: Any = None) -> torch.Tensor:  # noqa: ANN401
    """Dx of plain tensors."""
    dy, mask = dy.resolve_neg(), mask.contiguous()
    if gpu.takes_triton(_ROW, dy):
        from geoact.torch import triton_masks

        return triton_masks.backward(dy, mask, out)
    if _HAS_EXCHANGE:
        dx: torch.Tensor = _core.relu_mask_backward(dy, mask.data_ptr(), mask.numel(), out)
        return dx
    dx = torch.empty_like(dy) if out is None else out
    _core.relu_mask_backward(autograd.borrow(dy), mask.data_ptr(), mask.numel(), autograd.borrow(dx))
    return dx


def passing(mask: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The bits of a mask as bools, one per element of a tensor of this shape."""
    places = torch.arange(8, dtype=torch.uint8, device=mask.device)
    bits = (mask.unsqueeze(-1) >> places) & 1
    columns = shape[-1] if shape else 1
    return bits.flatten(-2)[..., :columns].reshape(shape).bool()


# --- autograd ----------------------------------------------------------------------------------------------


class _Derivative:
    """How dx is made of dy and the mask, and where gradients are measured."""

    __slots__ = ("accumulator",)

    def __init__(self, accumulator: _core.Accumulator | None) -> None:
        self.accumulator = accumulator

    def __call__(self, dy: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.accumulator is None:
            return _backward(dy, mask)
        # The record asks y for nothing but where it is positive: any y of that mask is measured alike.
        y = passing(mask, dy.shape).to(dy.dtype)
        return autograd.Direct(_ROW, (), None, self.accumulator).backward(dy, y, ())[0]


def _derivative(dy: torch.Tensor, mask: torch.Tensor, run: _Derivative) -> torch.Tensor:
    if type(dy) is not torch.Tensor or is_legacy_batchedtensor(dy):  # a batch under vmap, not a gradient that goes on
        return torch.where(passing(mask, dy.shape), dy, torch.zeros_like(dy))
    if torch.is_grad_enabled():
        dx: torch.Tensor = _mask_backward(dy, mask, run)
        return dx
    return run(dy, mask)


class _MaskForward(torch.autograd.Function):
    """Y of x; the mask is all that is saved, and put into a list: a second output could not stand beside a view."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        in_place: bool,
        accumulator: _core.Accumulator | None,
        run: _Derivative,
        made: list[torch.Tensor],
    ) -> torch.Tensor:
        """Run the kernel."""
        if in_place:
            ctx.mark_dirty(x)
        y, mask = _forward(x, x if in_place else None, accumulator)
        made.append(mask)
        ctx.run = run
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(mask)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """Dx: dy where the bit is set."""
        if dy is None:
            return (None,) * 5
        (mask,) = ctx.saved_tensors
        return _derivative(dy, mask, ctx.run), None, None, None, None


class _MaskBackward(torch.autograd.Function):
    """Dx of dy: linear, and its own derivative, because the second derivative of relu is 0 almost everywhere."""

    @staticmethod
    def forward(ctx: Any, dy: torch.Tensor, mask: torch.Tensor, run: _Derivative) -> torch.Tensor:  # noqa: ANN401
        """Run the kernel."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(mask)
        return run(dy, mask)

    @staticmethod
    def backward(ctx: Any, ddx: torch.Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """The same of ddx; not measured, as it is no gradient that goes on."""
        if ddx is None:
            return None, None, None
        (mask,) = ctx.saved_tensors
        return _derivative(ddx, mask, _Derivative(None)), None, None


_mask_forward: Any = _MaskForward.apply
_mask_backward: Any = _MaskBackward.apply


def _ordinary(x: torch.Tensor) -> bool:
    """Whether a call is one that goes straight to the kernels."""
    return not (
        frontend._compiling()
        or type(x) not in frontend._PLAIN
        or frontend._transformed()
        or frontend._modes()
        or frontend._traced() is not None
        or forward_ad._current_level >= 0
        or x.is_meta
    )


def _measured(stats: GeometryStats | None) -> _core.Accumulator | None:
    accumulator = frontend._accumulator(stats, GeometryStats, "stats")
    return None if running_backward() else accumulator  # activation checkpointing repeats a call that was measured


def _followed(
    x: torch.Tensor, in_place: bool, accumulator: _core.Accumulator | None, gradient: _core.Accumulator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    frontend._check("x", x, x)
    if in_place:
        autograd.check_in_place(x)
    made: list[torch.Tensor] = []
    y: torch.Tensor = _mask_forward(x, in_place, accumulator, _Derivative(gradient), made)
    return y, made[0]


def rectify(
    x: torch.Tensor,
    inplace: bool,
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    save: str,
) -> torch.Tensor:
    """relu(x), of which autograd saves what ``save`` says."""
    if save not in SAVES:
        raise ValueError(not_accepted(save))
    if save == "mask" and isinstance(stats, GeometryStats):
        stats._refuse_tiers("save='mask'")
    saves_mask = save == "mask" and isinstance(x, torch.Tensor) and torch.is_grad_enabled() and x.requires_grad
    if not saves_mask or not _ordinary(x):
        y: torch.Tensor = _ROW(x, out=x if inplace else None, stats=stats, gradient_stats=gradient_stats)
        return y
    if inplace:
        frontend._check_out(_ROW, x, x)
    else:
        x = x.resolve_neg()
    gradient = frontend._accumulator(gradient_stats, GradientStats, "gradient_stats")
    return _followed(x, inplace, _measured(stats), gradient)[0]


# --- geoact.masks on tensors -------------------------------------------------------------------------------


def relu(x: torch.Tensor, out: Any, stats: GeometryStats | None) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    """As :func:`geoact.masks.relu`."""
    frontend._check("x", x, x)
    if not _ordinary(x):
        raise TypeError(
            "x is traced, transformed or of shapes alone, where no mask can be made; call geoact.relu, or "
            "geoact.torch.functional.relu(x, save='mask')"
        )
    if out is None:
        x = x.resolve_neg()
    else:
        frontend._check("out", out, x)
        frontend._check_out(_ROW, x, out)
    accumulator = _measured(stats)
    if x.requires_grad and torch.is_grad_enabled():
        if out is not None and out is not x:
            raise ValueError("out= does not support automatic differentiation; call under torch.no_grad(), or out=x")
        return _followed(x, out is x, accumulator, None)
    y, mask = _forward(x, out, accumulator)
    if out is not None:
        frontend._written(out)
    return y, mask


def relu_backward(dy: torch.Tensor, mask: Any, out: Any) -> torch.Tensor:  # noqa: ANN401
    """As :func:`geoact.masks.relu_backward`; not differentiable."""
    frontend._check("dy", dy, dy)
    if not _ordinary(dy):
        raise TypeError("dy is traced, transformed or of shapes alone, where no mask can be read")
    if dy.is_neg():
        raise ValueError("dy is a lazily negated view; pass dy.resolve_neg()")
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"mask must be a torch tensor as dy is, got {type(mask).__name__}")
    if mask.dtype != torch.uint8:
        raise TypeError(f"mask has dtype {mask.dtype} (accepted: uint8, as geoact.masks.relu makes it)")
    check_shape(tuple(mask.shape), tuple(dy.shape))
    if mask.device != dy.device:
        raise ValueError(f"mask is on the device {mask.device}, but dy is on {dy.device}; they must be equal")
    if out is not None:
        frontend._check("out", out, dy, "dy")
        frontend._check_out(_ROW, dy, out)
    with torch.no_grad():
        dx = _backward(dy, mask, out)
    if out is not None:
        frontend._written(out)
    return dx
