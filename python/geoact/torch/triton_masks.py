"""ReLU with its bit mask by the Triton kernels: see :mod:`geoact.masks`. Arguments are checked by the callers."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from geoact import _core, _registry
from geoact.kernels import masks
from geoact.masks import mask_shape
from geoact.torch import gpu
from geoact.torch.triton import _check_device, _check_out

Tensor = torch.Tensor

_BLOCK = 128  # bytes of a program


def _matrix(x: Tensor) -> Tensor | None:
    """X as (rows, columns) of its own memory, or None where it cannot be seen so."""
    columns = x.shape[-1] if x.dim() else 1
    try:
        return x.view(x.numel() // columns, columns)
    except RuntimeError:  # strides that do not join
        return None


def _run(kernel: Any, x: Tensor, y: Tensor, mask: Tensor) -> None:  # noqa: ANN401
    """One launch; where the memory cannot be seen as a matrix, on copies."""
    if not x.numel():
        return
    source, target = _matrix(x), _matrix(y)
    if source is None:
        source = x.reshape(-1, x.shape[-1])
    into = torch.empty_like(source) if target is None else target
    rows, row_bytes = source.shape[0], mask.shape[-1]
    with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
        kernel[(-(-mask.numel() // _BLOCK),)](
            source, into, mask, rows, source.shape[1], row_bytes, *source.stride(), *into.stride(), BLOCK=_BLOCK,
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    if target is None:
        y.copy_(into.view(y.shape))


def forward(x: Tensor, out: Tensor | None, accumulator: _core.Accumulator | None) -> tuple[Tensor, Tensor]:
    """Y and the mask. Where y is measured the mask is made of it by a second launch: relu(y) is y."""
    _check_device(x)
    if out is not None:
        _check_out("out", out, x, "x")
    mask = torch.empty(mask_shape(tuple(x.shape)), dtype=torch.uint8, device=x.device)
    if accumulator is None:
        y = torch.empty_like(x) if out is None else out
        _run(masks.forward, x, y, mask)
    else:
        y = gpu.forward(_registry.relu, x, (), out, accumulator, 1)
        _run(masks.forward, y, y, mask)
    return y, mask


def backward(dy: Tensor, mask: Tensor, out: Tensor | None) -> Tensor:
    """Dx of dy and a contiguous mask."""
    _check_device(dy)
    if out is not None:
        _check_out("out", out, dy, "dy")
        if out.untyped_storage().data_ptr() == mask.untyped_storage().data_ptr():
            raise ValueError("out overlaps mask in memory; pass a separate array")
    dx = torch.empty_like(dy) if out is None else out
    _run(masks.backward, dy, dx, mask)
    return dx
