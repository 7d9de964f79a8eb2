"""The opt-in tiers of statistics by Triton: buckets of values, distances of pairs of rows, sketches of rows.

    tiers = Tiers("all", True, 64)
    state = new_tier_state(tiers, x.device)
    y = triton.forward(geoact.gelu, x, (), tiers=tiers, tier_state=state)

Two launches before that of the forward pass, on its stream; they read x once more, and add to the state on the device.
The kernels are in ``geoact.kernels.tiers``; the record is that of ``_core.Accumulator.tier_cells``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from geoact import _core
from geoact.kernels import fused
from geoact.kernels import tiers as kernels
from geoact.torch.triton_views import joint_stride, product

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor

_FOLDED_AT_ONCE = 128
_PARAMETERS = 4
_SEED = 0x67656F616374  # of SketchFold in csrc/ops/tiers.h


class Tiers(NamedTuple):
    """What is measured: ``histogram`` "none", "sampled" or "all"; pairs; buckets of a sketch, or 0."""

    histogram: str = "none"
    pairs: bool = False
    sketch: int = 0


def new_tier_state(tiers: Tiers, device: Any = None) -> Tensor:  # noqa: ANN401
    """A state of the tiers that has measured nothing and is enabled.

    Returns
    -------
    Tensor
        float64: the header of ``geoact.torch.triton.new_state``, then the cells of ``_core.Accumulator.tier_cells``.
    """
    header = torch.tensor([1, 0, 0, 0], dtype=torch.int64).view(torch.float64)
    empty = _core.Accumulator("forward", "tensor", -1, "counts", 0.05, *tiers).tier_cells()
    return torch.cat([header, torch.from_numpy(empty)]).to(device)


def tier_cells_of(state: Tensor) -> Tensor:
    """The cells of a state, a view."""
    return state[kernels.HEADER.value :]


# --- signs -------------------------------------------------------------------------------------------------


def _mixed(word: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014), as in csrc/ops/tiers.h."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = word ^ (word >> np.uint64(31))
    return mixed


def sketch_signs(columns: int, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """The signs and the turns of the sketches of rows with that many columns.

    Returns
    -------
    signs : float32 of shape (2, blocks, k)
        1 or -1: of sets S and T, per block, of the lane whose value comes to each bucket.
    turns : int32 of shape (2, blocks)
        Bucket i of a block has the value of lane i ^ turn.
    """
    blocks = -(-columns // k)
    block = np.arange(blocks, dtype=np.uint64)[:, None]
    words = _mixed(np.uint64(_SEED) + block * np.uint64(8) + np.arange(6, dtype=np.uint64))
    turns = (words[:, [0, 5]].T & np.uint64(k - 1)).astype(np.int32)
    signs = np.empty((2, blocks, k), np.float32)
    for which in (0, 1):
        lane = np.arange(k, dtype=np.int32) ^ turns[which][:, None]
        bits = np.take_along_axis(words, 1 + 2 * which + lane // 64, 1) >> (lane % 64).astype(np.uint64)
        signs[which] = np.where(bits & np.uint64(1), -1, 1)
    return signs, np.ascontiguousarray(turns)


_signs: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}


def _signs_on(x: Tensor, columns: int, k: int) -> tuple[Tensor, Tensor]:
    """The same on the device of x, copied there by the first call with so many columns."""
    key = columns, k, x.device
    if key not in _signs:
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            raise ValueError(
                f"stats with sketch={k} meets its first data of {columns} channels while a graph is captured; call "
                "once before the capture, as for warming up"
            )
        signs, turns = (torch.from_numpy(a).to(x.device) for a in sketch_signs(columns, k))
        _signs[key] = signs, turns
    return _signs[key]


# --- rows and columns --------------------------------------------------------------------------------------


def _strides(t: Tensor, axis: int, cut: int) -> tuple[int, int, int] | None:
    """Of rows seen as two axes, and of columns; None where they cannot be."""
    others = [a for a in range(t.dim()) if a != axis]
    parts = [
        joint_stride([t.shape[a] for a in axes], [t.stride(a) for a in axes]) for axes in (others[:cut], others[cut:])
    ]
    first, second = parts
    return None if first is None or second is None else (first, second, t.stride(axis))


def _rows_last(t: Tensor, axis: int) -> Tensor:
    """A copy whose rows are adjacent."""
    return t.movedim(axis, -1).contiguous().movedim(-1, axis)


def check(tiers: Tiers, state: Tensor, x: Tensor) -> None:
    """Raise ValueError, naming the argument, where the tiers do not fit x."""
    if tiers.histogram not in kernels.HISTOGRAMS:
        raise ValueError(f"tiers.histogram is {tiers.histogram!r} (accepted: 'none', 'sampled', 'all')")
    if tiers.sketch not in (0, 32, 64, 128):
        raise ValueError(f"tiers.sketch is {tiers.sketch!r} (accepted: 0, 32, 64, 128)")
    if (tiers.pairs or tiers.sketch) and x.dim() < 2:
        raise ValueError(f"tiers compare rows, but x has shape {tuple(x.shape)} (accepted: two axes or more)")
    words = kernels.HEADER.value + kernels.layout(*tiers).cells
    if state.dtype != torch.float64 or state.shape != (words,) or not state.is_contiguous():
        raise ValueError(
            f"tier_state must be contiguous float64 of shape ({words},), got {state.dtype} of shape "
            f"{tuple(state.shape)}; see new_tier_state"
        )
    if state.device != x.device:
        raise ValueError(f"tier_state is on the device {state.device}, but x is on {x.device}; they must be equal")


def observe(
    value: Any,  # noqa: ANN401
    x: Tensor,
    weights: Sequence[Tensor | None],
    bits: Sequence[int],
    tiers: Tiers,
    state: Tensor,
    axis: int,
    zeros: Callable[[Tensor, int], Tensor],
) -> None:
    """Add what the tiers measure of x and y = f(x) to ``state``: two launches, and no word from the device.

    Parameters
    ----------
    value : jit function
        The value of the activation, from ``geoact.kernels.activations``.
    x : Tensor
        Of one axis or more; not written.
    weights : sequence of Tensor or None
        The first parameters, at most four: of one element, or expanded to the shape of x, all along the same axis. One
        that is None or missing is a number.
    bits : sequence of int
        The numbers, by the bits of their float64.
    tiers, state
        Checked by ``check``.
    axis : int
        The axis of the channels, at least 0; rows run along it.
    zeros : callable
        Int32 words on the device of x that are zero and that the launches leave zero: (x, count) to a tensor.
    """
    if x.numel() == 0:
        return
    columns = x.shape[axis]
    others: Sequence[int] = [size for a, size in enumerate(x.shape) if a != axis]
    rows = product(others)
    cuts = [cut for cut in range(len(others), -1, -1) if _strides(x, axis, cut) is not None]
    if not cuts:
        x, cuts = _rows_last(x, axis), [len(others)]
    cut = cuts[0]
    strides = {"x": _strides(x, axis, cut), "w": (0, 0, 0)}
    parameters: dict[str, Any] = {f"p{k}_bits": bits[k] if k < len(bits) else 0 for k in range(_PARAMETERS)}
    kinds = 0
    for k in range(_PARAMETERS):
        weight = weights[k] if k < len(weights) else None
        kind = fused.NUMBER.value
        if weight is not None:
            kind = fused.ONE_VALUE.value if weight.numel() == 1 else fused.PER_ELEMENT.value
        if weight is not None and kind == fused.PER_ELEMENT.value:
            if _strides(weight, axis, cut) is None:
                weight = _rows_last(weight, axis)
            strides["w"] = _strides(weight, axis, cut)
        parameters[f"w{k}_ptr"] = x if weight is None else weight
        kinds += kind * 4**k
    layout = kernels.layout(*tiers)
    plan = kernels.plan(rows, columns, x.element_size(), *tiers)
    k = tiers.sketch
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    partial = torch.empty(plan.programs * layout.cells, dtype=torch.float64, device=x.device)
    kept = plan.filled * 2 * plan.half * 4 * k
    buffer = torch.empty(max(1, plan.programs * kept), dtype=compute, device=x.device)
    words = kernels.TABLE_WORDS.value
    table = zeros(x, 2 * words)[: 2 * words].view(torch.int64)
    signs, turns = _signs_on(x, columns, k) if k else (x, x)
    common = {
        "state_ptr": state,
        "partial_ptr": partial,
        "table_ptr": table,
        "cells": layout.cells,
        "HISTOGRAM": kernels.HISTOGRAMS[tiers.histogram],
        "PAIRS": layout.pairs,
        "SKETCH": layout.sketch,
        "K": k,
        "DOWN": plan.down,
        "num_warps": plan.warps,
        "enable_fp_fusion": False,
    }
    with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
        kernels.observe[(plan.programs, plan.splits)](
            x_ptr=x,
            buffer_ptr=buffer,
            signs_ptr=signs,
            turns_ptr=turns,
            rows=rows,
            inner=max(1, product(others[cut:])),
            columns=columns,
            **{f"{name}_stride{i}": stride for name, s in strides.items() if s for i, stride in enumerate(s)},
            **parameters,
            rows_of_program=plan.rows_of_program,
            blocks_of_program=plan.blocks_of_program,
            VALUE=value,
            WEIGHTS=kinds,
            HALF=plan.half,
            BLOCK=plan.block,
            FILLED=plan.filled,
            **common,
        )
        blocks_of_products = kernels.PRODUCTS.value * (k // plan.down) if k else 1
        kernels.fold[(blocks_of_products,)](programs=plan.programs, CHUNK=_FOLDED_AT_ONCE, **common)
