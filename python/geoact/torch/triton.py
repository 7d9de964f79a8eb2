"""The Triton kernels on torch tensors: forward and backward passes with records that stay on the device.

    y = forward(geoact.gelu, x, ())
    state = new_state("forward", groups=64, device=x.device)
    y = forward(geoact.prelu, x, (weight,), state=state, per="channel", channel_axis=1)
    dx, dweight = backward(geoact.prelu, dy, x, (weight,))

A call is one launch on the current stream of x's device: y (or dx and the gradient of a parameter) and, where a state
is given, the record of the call added to it, on the device. Nothing waits for the device, and calls can be captured in
a CUDA graph. CPU tensors are computed by Triton's interpreter, for tests, in a process with TRITON_INTERPRET=1.

Contiguous tensors, channels-last ones and rows with gaps between them are read where they lie; others are copied first.

What lives here: states, parameters, checks, room for partial results, launches. The kernels are in ``geoact.kernels``,
their view of a tensor in ``geoact.torch.triton_views``, operators of torch.library in ``geoact.torch.triton_ops``.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

try:
    import triton
except ImportError as error:
    raise ImportError("geoact.torch.triton needs Triton: pip install geoact[triton]") from error

from geoact import _core
from geoact.kernels import fused, tiles
from geoact.kernels.activations import ACTIVATIONS
from geoact.torch import triton_tiers
from geoact.torch.triton_tiers import Tiers
from geoact.torch.triton_views import Seen, View, product, view_of

if TYPE_CHECKING:
    from geoact.activations import Activation

Tensor = torch.Tensor

HEADER = 4  # 8-byte words of a state before its cells: enabled, calls, two that are reserved
CELLS = {direction: len(_core.fields(direction)) for direction in ("forward", "backward")}
CELLS_OF_COUNTS = 12  # of a forward record with level="counts"

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LEVELS = {"counts": fused.COUNTS.value, "moments": fused.MOMENTS.value}
_NOTHING, _NUMBER = fused.NOTHING.value, fused.NUMBER.value
_ONE_VALUE, _PER_GROUP, _PER_ELEMENT = fused.ONE_VALUE.value, fused.PER_GROUP.value, fused.PER_ELEMENT.value
_INTERPRETED = not isinstance(fused.forward, triton.runtime.JITFunction)


# --- states ------------------------------------------------------------------------------------------------


def new_state(direction: str, groups: int, *, level: str = "moments", device: Any = None) -> Tensor:  # noqa: ANN401
    """A state that has measured nothing and is enabled.

    Parameters
    ----------
    direction : "forward" or "backward"
    groups : int
        1 for per="tensor", else channels or rows.
    level : "counts" or "moments"
        What ``forward`` is to measure.

    Returns
    -------
    Tensor
        float64 of shape (4 + cells * groups,). Word 0 (int64) is 1 while the state is to be added to, word 1 (int64)
        counts calls, two are reserved; then the cells [field][group] in the order of ``_core.fields(direction)``.
    """
    count = CELLS_OF_COUNTS if direction == "forward" and level == "counts" else CELLS[direction]
    names = [name for name, _ in _core.fields(direction)][:count]
    empty = {"x_min": torch.inf, "y_min": torch.inf, "x_max": -torch.inf, "y_max": -torch.inf}
    header = torch.tensor([1, 0, 0, 0], dtype=torch.int64).view(torch.float64)
    cells = torch.tensor([empty.get(name, 0.0) for name in names], dtype=torch.float64)
    return torch.cat([header, cells.repeat_interleave(groups)]).to(device)


def cells_of(state: Tensor, groups: int) -> Tensor:
    """The cells of a state, a view of shape (fields, groups)."""
    return state[HEADER:].view(-1 if groups else 0, groups)


def calls_of(state: Tensor) -> Tensor:
    """How many calls were added to a state: a view, 0-d int64."""
    return state[:HEADER].view(torch.int64)[1]


def set_enabled(state: Tensor, enabled: bool) -> None:
    """Switch measuring on or off, on the device: also between replays of a CUDA graph."""
    state[:HEADER].view(torch.int64)[0] = int(enabled)


# --- parameters --------------------------------------------------------------------------------------------


def _bits(value: float) -> int:
    """A number as the kernels take it: a float argument would be rounded to float32."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


_MOST = 4  # parameters that the kernels take


def _digits(kinds: Sequence[int]) -> int:
    """Kinds of parameters as the kernels take them."""
    return sum(kind * 4**k for k, kind in enumerate(kinds))


@dataclass(frozen=True)
class _Parameters:
    """The parameters of a call: numbers, or a tensor of one value or of one per channel for a trained one."""

    numbers: tuple[float, ...]
    weights: tuple[Tensor | None, ...]
    axis: int | None  # along which weights vary

    @classmethod
    def of(cls, row: Activation, x: Tensor, values: Sequence[object], weight_axis: int) -> _Parameters:
        if len(values) != len(row.parameters):
            raise TypeError(f"values has {len(values)} entries, but {row.name} has {len(row.parameters)} parameters")
        numbers, axis = [0.0] * _MOST, None
        weights: list[Tensor | None] = [None] * _MOST
        for k, (parameter, value) in enumerate(zip(row.parameters, values, strict=True)):
            if k < row.trainable and isinstance(value, Tensor):
                weight = weights[k] = cls._weight(parameter.name, value, x, weight_axis)
                if weight.numel() != 1:
                    axis = _axis(x, weight_axis, "weight_axis") if x.dim() > 1 else 0
            elif isinstance(value, Tensor) or not isinstance(value, (int, float)):
                raise TypeError(f"{parameter.name} must be a number, got {type(value).__name__}")
            else:
                numbers[k] = float(value)
        return cls(tuple(numbers), tuple(weights), axis)

    @staticmethod
    def _weight(name: str, weight: Tensor, x: Tensor, weight_axis: int) -> Tensor:
        _check(name, weight, x)
        if weight.numel() == 1:
            return weight.reshape(1)
        axis = _axis(x, weight_axis, "weight_axis") if x.dim() > 1 else 0
        channels = x.shape[axis] if x.dim() > 1 else 1
        if weight.dim() != 1 or weight.numel() != channels:
            raise ValueError(
                f"{name} has shape {tuple(weight.shape)}, but must have one value or one per channel: axis {axis} "
                f"of x, which has shape {tuple(x.shape)}"
            )
        return weight.contiguous()

    def varies(self, k: int) -> bool:
        """Whether parameter k has a value per channel."""
        weight = self.weights[k]
        return weight is not None and weight.numel() != 1

    def everywhere(self, weight: Tensor, x: Tensor) -> Tensor:
        """The weight in the shape of x, without a copy."""
        return weight.reshape([-1 if axis == self.axis else 1 for axis in range(x.dim())]).expand(x.shape)

    def arguments(self, seen: Seen, x: Tensor) -> dict[str, Any]:
        kinds, found = [], {f"p{k}_bits": _bits(number) for k, number in enumerate(self.numbers)}
        pointers: dict[str, Tensor] = {}
        for k, weight in enumerate(self.weights):
            pointer, kind = x if weight is None else weight, _NUMBER if weight is None else _ONE_VALUE
            if self.varies(k) and self.axis == seen.view.kept:
                kind = _PER_GROUP
            elif weight is not None and self.varies(k):
                # Groups along another axis: rare enough that a copy of x's size will do. All step alike.
                pointer, kind = seen.add("w", self.everywhere(weight, x)), _PER_ELEMENT
            kinds.append(kind)
            pointers[f"w{k}_ptr"] = pointer
        return {**found, **pointers, "WEIGHTS": _digits(kinds)}


# --- checks ------------------------------------------------------------------------------------------------


def _check(name: str, value: object, x: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if value.dtype not in _DTYPES:
        raise TypeError(f"{name} has dtype {value.dtype} (accepted: float16, bfloat16, float32, float64)")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} has layout {value.layout} (accepted: torch.strided)")
    if value.device != x.device:
        raise ValueError(f"{name} is on the device {value.device}, but x is on {x.device}; they must be equal")


def _check_like(name: str, value: Any, x: Tensor, what: str) -> None:  # noqa: ANN401
    _check(name, value, x)
    if value.shape != x.shape or value.dtype != x.dtype:
        got = f"shape {tuple(value.shape)} and dtype {value.dtype}"
        raise ValueError(f"{name} has {got}, but {what} has {tuple(x.shape)} and {x.dtype}")


def _check_out(name: str, value: Any, x: Tensor, what: str) -> None:  # noqa: ANN401
    _check_like(name, value, x, what)
    if torch._debug_has_internal_overlap(value) == 1:
        raise ValueError(f"{name} has several elements in the same place")


def _check_device(x: Tensor) -> None:
    if x.device.type != "cuda" and not (_INTERPRETED and x.device.type == "cpu"):
        raise ValueError(
            f"x is on the device {x.device}; the Triton kernels compute on CUDA devices, and on the CPU in a process "
            "with TRITON_INTERPRET=1"
        )


def _axis(x: Tensor, axis: int, name: str) -> int:
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeError(f"{name} must be an int, got {type(axis).__name__}")
    if not -x.dim() <= axis < x.dim():
        raise ValueError(f"{name} is {axis}, but x has shape {tuple(x.shape)}")
    return axis % x.dim()


def _check_state(state: Tensor, x: Tensor, per: str, axis: int, cells: int) -> None:
    groups = {"tensor": 1, "channel": x.shape[axis], "row": product([n for a, n in enumerate(x.shape) if a != axis])}
    words = HEADER + cells * groups[per]
    if not isinstance(state, Tensor):
        raise TypeError(f"state must be a torch tensor, got {type(state).__name__}")
    if state.dtype != torch.float64 or state.shape != (words,) or not state.is_contiguous():
        raise ValueError(
            f"state must be contiguous float64 of shape ({words},) for {groups[per]} groups, got {state.dtype} of "
            f"shape {tuple(state.shape)}; see new_state"
        )
    if state.device != x.device:
        raise ValueError(f"state is on the device {state.device}, but x is on {x.device}; they must be equal")


def _grouping(x: Tensor, state: Tensor | None, per: str, channel_axis: int) -> tuple[str, int]:
    """What groups are, and along which axis; one group where nothing is measured."""
    if per not in ("tensor", "channel", "row"):
        raise ValueError(f"per is {per!r} (accepted: 'tensor', 'channel', 'row')")
    if state is None or per == "tensor":
        return "tensor", 0
    return per, _axis(x, channel_axis, "channel_axis")


def _along_an_axis(x: Tensor) -> Tensor:
    return x.reshape(1) if x.dim() == 0 else x


# --- launches ----------------------------------------------------------------------------------------------

_tickets: dict[tuple[int, int], Tensor] = {}


def _zeroed_tickets(x: Tensor, count: int) -> Tensor:
    """Zeros that a launch leaves as it found them, so that one memory serves all launches of a stream.

    A graph gets its own, which it sets to zero at every replay: it may be replayed beside other work.
    """
    if x.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(count, dtype=torch.int32, device=x.device)
    key = x.device.index, torch.cuda.current_stream(x.device).cuda_stream
    found = _tickets.get(key)
    if found is None or found.numel() < count:
        found = _tickets[key] = torch.zeros(max(count, 2048), dtype=torch.int32, device=x.device)
    return found


def _launch(
    kernel: Any,  # noqa: ANN401
    seen: Seen,
    like: Tensor,
    cells: int,
    sums: int,
    arguments: dict[str, Any],
) -> None:
    """One launch; ``cells`` is the size of a record and ``sums`` how many parameters have a gradient."""
    view, sizes = seen.view, seen.sizes
    tile = tiles.tile(view.columns, like.element_size(), sizes[1], sizes[2])
    grid = tiles.grid(view.columns, sizes, tile, reduces=cells > 0 or sums > 0)
    varies = any(arguments.get("PARAMETERS", 0) // 4**k % 4 == _PER_GROUP for k in range(_MOST))
    by_group = (cells > 0 and not view.whole) or varies
    records = grid.blocks * grid.splits
    if by_group:
        records = grid.splits * (sizes[0] * sizes[2] if view.columns else sizes[1])
    records = max(records, grid.blocks * grid.splits)
    room = torch.empty(max(1, records * (cells + sums)), dtype=torch.float64, device=like.device)
    tickets = _zeroed_tickets(like, 1 + (grid.blocks if grid.splits > 1 else 0))
    room_for: dict[str, Any] = {"partial_ptr": room, "ticket_ptr": tickets}
    if "sums_ptr" in kernel.arg_names:
        room_for |= {"sums_ptr": room[records * cells :] if sums else room, "sums_step": records}
    with torch.cuda.device(like.device) if like.is_cuda else contextlib.nullcontext():
        kernel[(grid.blocks, grid.splits)](
            **{"state_ptr": room, **arguments, **room_for, **seen.arguments()},
            tiles_of_program=grid.tiles_of_program,
            WHOLE=view.whole,
            SINGLE=grid.splits == 1,
            COLUMNS=view.columns,
            GROUPS=tile.groups,
            WIDTH=tile.width,
            LOCAL=tile.local,
            CHUNK=tile.chunk,
            num_warps=tiles.WARPS,
            enable_fp_fusion=False,
            maxnreg=tile.registers,
        )


def forward(
    row: Activation,
    x: Tensor,
    values: Sequence[object],
    out: Tensor | None = None,
    state: Tensor | None = None,
    *,
    per: str = "tensor",
    channel_axis: int = -1,
    saturation: float = 0.05,
    level: str = "moments",
    weight_axis: int = 1,
    tiers: Tiers | None = None,
    tier_state: Tensor | None = None,
) -> Tensor:
    """Y = f(x), and the record of the call added to ``state``.

    Parameters
    ----------
    row : Activation
        A row of the registry.
    x : Tensor
        float16, bfloat16, float32 or float64; any shape and strides.
    values : sequence
        One value per parameter of the row: numbers, or for a trained one a tensor of one value or of one per
        channel (axis ``weight_axis``).
    out : Tensor, optional
        Where y is written, of the shape and dtype of x; may be x. Not followed by autograd.
    state : Tensor, optional
        As ``new_state`` makes it, for "forward", the groups of x, and ``level``.
    per, channel_axis, saturation, level
        As of ``geoact.GeometryStats``. With per="row" a state holds the rows of one call, in their order.
    tiers, tier_state : Tiers and Tensor, optional
        What is measured between samples, of rows along ``channel_axis``, and the state it is added to by launches of
        their own; see ``geoact.torch.triton_tiers``.

    Returns
    -------
    Tensor
        y, of the shape, dtype and memory format of x, or ``out``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, before anything is written.
    """
    _check("x", x, x)
    _check_device(x)
    if level not in _LEVELS:
        raise ValueError(f"level is {level!r} (accepted: 'counts', 'moments')")
    shape, functions = x.shape, ACTIVATIONS[row.name]
    if out is not None:
        _check_out("out", out, x, "x")
    parameters = _Parameters.of(row, x, values, weight_axis)
    x = _along_an_axis(x)
    per, axis = _grouping(x, state, per, channel_axis)
    cells = 0
    if state is not None:
        cells = CELLS["forward"] if level == "moments" else CELLS_OF_COUNTS
        _check_state(state, x, per, axis, cells)
    if tiers is not None:
        if tier_state is None:
            raise TypeError("tier_state must be a torch tensor where there are tiers, got None")
        triton_tiers.check(tiers, tier_state, x)
        rows_along = _axis(x, channel_axis, "channel_axis") if len(shape) else 0
        # First, for y may be written over x.
        weights = [
            parameters.everywhere(weight, x) if weight is not None and parameters.varies(k) else weight
            for k, weight in enumerate(parameters.weights)
        ]
        triton_tiers.observe(
            functions.value,
            x,
            weights,
            [_bits(n) for n in parameters.numbers],
            tiers,
            tier_state,
            rows_along,
            _zeroed_tickets,
        )
    y = torch.empty_like(x) if out is None else _along_an_axis(out)
    seen = Seen(view_of(x, per, axis, parameters.axis), x)
    target, written = seen.add_target("y", y)
    arguments = {
        "x_ptr": seen.add("x", x),
        "y_ptr": target,
        **parameters.arguments(seen, x),
        "saturation_bits": _bits(saturation),
        "VALUE": functions.value,
        "SLOPE": functions.slope,
        "SAVES_Y": functions.saves == "y",
        "LEVEL": _NOTHING if state is None else _LEVELS[level],
    }
    if state is not None:
        arguments["state_ptr"] = state
    if x.numel() or state is not None:
        _launch(fused.forward, seen, x, cells, 0, arguments)
    written()
    return y.reshape(shape) if out is None else out


def backward(
    row: Activation,
    dy: Tensor,
    saved: Tensor,
    values: Sequence[object],
    out: Tensor | None = None,
    state: Tensor | None = None,
    *,
    per: str = "tensor",
    channel_axis: int = -1,
    weight_axis: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Dx = dy f'(x), the gradients of trained parameters, and the record of the call added to ``state``.

    Parameters
    ----------
    row, values, weight_axis
        As of ``forward``.
    dy : Tensor
        Gradient with respect to y.
    saved : Tensor
        x or y of the forward call, as ``row.saves`` says; shape and dtype of dy.
    out : Tensor, optional
        Where dx is written; may be dy or ``saved``.
    state : Tensor, optional
        As ``new_state`` makes it, for "backward" and the groups of dy.
    per, channel_axis
        As of ``geoact.GradientStats``.

    Returns
    -------
    dx : Tensor, or (dx, dparameter, ...)
        A tuple where the row has trained parameters. Each dparameter has the shape and dtype of its parameter, or is a
        0-d float64 tensor where a number was given. They are reductions of the same launch, of a second one where the
        groups of ``state`` and the channels of the parameters lie along different axes.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, before anything is written.
    """
    _check("dy", dy, dy)
    _check_device(dy)
    _check_like(row.saves, saved, dy, "dy")
    shape, functions = dy.shape, ACTIVATIONS[row.name]
    if out is not None:
        _check_out("out", out, dy, "dy")
    parameters = _Parameters.of(row, dy, values, weight_axis)
    dy, saved = _along_an_axis(dy), _along_an_axis(saved)
    per, axis = _grouping(dy, state, per, channel_axis)
    if state is not None:
        _check_state(state, dy, per, axis, CELLS["backward"])
    dx = torch.empty_like(dy) if out is None else _along_an_axis(out)
    gradients = [
        dy.new_empty((), dtype=torch.float64) if weight is None else torch.empty_like(weight)
        for weight in parameters.weights[: row.trainable]
    ]

    def run(view: View, measured: Tensor | None, stores: bool, reduced: Sequence[Tensor]) -> None:
        seen = Seen(view, dy)
        target, written = seen.add_target("dx", dx) if stores else (dy, lambda: None)
        arguments = {
            "dy_ptr": seen.add("dy", dy),
            "saved_ptr": seen.add("saved", saved),
            "dx_ptr": target,
            "dx_stride0": 0,
            "dx_stride1": 0,
            **parameters.arguments(seen, dy),
            "SLOPE": functions.slope,
            "GRADIENT": functions.gradient,
            "PARAM_SLOPE": functions.param_slope,
            "STORE": stores,
            "MEASURE": measured is not None,
            "PARAMETERS": _digits([_PER_GROUP if parameters.varies(k) else _ONE_VALUE for k in range(len(reduced))]),
            "TRAINED": len(reduced),
            **{f"dw{k}_ptr": reduced[k] if k < len(reduced) else dy for k in range(_MOST)},
        }
        if measured is not None:
            arguments["state_ptr"] = measured
        cells = CELLS["backward"] if measured is not None else 0
        _launch(fused.backward, seen, dy, cells, len(reduced), arguments)
        written()

    if dy.numel() or state is not None or gradients:
        view = view_of(dy, per, axis, parameters.axis)
        if gradients and parameters.axis is not None and parameters.axis != view.kept:
            # Before dx, which may be written over what this reads.
            run(view_of(dy, "tensor", 0, parameters.axis), None, False, gradients)
            run(view, state, True, ())
        else:
            run(view, state, True, gradients)
    result = dx.reshape(shape) if out is None else out
    if not gradients:
        return result
    return result, *(
        gradient.reshape(given.shape) if isinstance(given, Tensor) else gradient
        for gradient, given in zip(gradients, values, strict=False)
    )
