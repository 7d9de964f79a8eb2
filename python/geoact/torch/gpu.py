"""Tensors on a GPU: which kernels compute on them, and how Triton's reach the records of the core.

The CUDA kernels are called through the core like those of the CPU. Triton's are called from here, and add to the same
device-resident records, so that both may serve one statistics object in turn.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch

from geoact import _core, backends

if TYPE_CHECKING:
    from geoact.activations import Activation

_CUDA = (2, 13)  # as DLPack numbers CUDA and CUDA managed memory
simulated = False  # whether CPU tensors count as those of a GPU: for tests, under Triton's interpreter
_connected = False


def takes_triton(row: Activation, x: torch.Tensor) -> bool:
    """Whether a call on x goes to Triton's kernels.

    Raises
    ------
    ValueError
        If nothing can compute on x.
    """
    if not x.is_cuda and not simulated:
        return False
    name = torch.cuda.get_device_name(x.device) if x.is_cuda else x.device.type
    dtype = str(x.dtype).removeprefix("torch.")
    if backends.choose_gpu_kernels(row.name, dtype, x.numel().bit_length(), name) != "triton":
        return False
    _connect(x)
    return True


def _connect(x: torch.Tensor) -> None:
    """Let the core keep records on the device where it has no kernels for it."""
    global _connected
    if not _connected and x.is_cuda and backends.load_cuda():
        _core.register_memory(Memory, _CUDA)
        _connected = True


class Memory:
    """What the core asks of a device that only torch can reach."""

    @staticmethod
    def _at(address: int, size: int, device: int) -> torch.Tensor:
        class Raw:
            __cuda_array_interface__ = {  # noqa: RUF012  a protocol, not a default
                "shape": (size,),
                "typestr": "|u1",
                "data": (address, False),
                "version": 3,
            }

        return torch.as_tensor(Raw(), device=f"cuda:{device}")

    @staticmethod
    def capturing(device: int) -> bool:
        """Whether the current stream is being captured."""
        with torch.cuda.device(device):
            return torch.cuda.is_current_stream_capturing()

    @classmethod
    def upload(cls, address: int, data: bytes, device: int) -> None:
        """Write to the device, in the order of the current stream."""
        cls._at(address, len(data), device).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    @classmethod
    def fill(cls, address: int, byte: int, size: int, device: int) -> None:
        """Set bytes on the device, in the order of the current stream."""
        cls._at(address, size, device).fill_(byte)

    @classmethod
    def download(cls, address: int, size: int, device: int) -> bytes:
        """Read from the device, after all work there."""
        torch.cuda.synchronize(device)
        host = cls._at(address, size, device).cpu()
        return ctypes.string_at(host.data_ptr(), size)


def _measuring(accumulator: _core.Accumulator | None, x: torch.Tensor) -> tuple[Any, dict[str, Any]]:
    if accumulator is None or (accumulator.per == "row" and not accumulator.enabled):  # rows would be appended
        return None, {}
    records = accumulator.records_on(x)
    state = records.owner.view(torch.float64)
    return records, {"state": state, "per": accumulator.per, "channel_axis": accumulator.channel_axis}


def forward(
    row: Activation,
    x: torch.Tensor,
    values: tuple[Any, ...],
    out: torch.Tensor | None,
    accumulator: _core.Accumulator | None,
    channel_axis: int,
) -> torch.Tensor:
    """Y = f(x) by Triton, measured where there is an accumulator."""
    from geoact.torch import triton
    from geoact.torch.triton_tiers import Tiers

    records, measuring = _measuring(accumulator, x)
    tier_records = None
    if accumulator is not None and records is not None:
        measuring.update(saturation=accumulator.saturation, level=accumulator.level)
        tiers = Tiers(*accumulator.tiers)
        if tiers != Tiers():
            tier_records = accumulator.tiers_on(x)
            measuring.update(tiers=tiers, tier_state=tier_records.owner.view(torch.float64))
    y = triton.forward(row, x, values, out, **measuring, weight_axis=channel_axis)
    if accumulator is not None and records is not None:
        accumulator.measured_on(x, records, tier_records)
    return y


def backward(
    row: Activation,
    dy: torch.Tensor,
    saved: torch.Tensor,
    values: tuple[Any, ...],
    out: torch.Tensor | None,
    accumulator: _core.Accumulator | None,
    channel_axis: int,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """(dx, dweights) by Triton, measured where there is an accumulator; that of a number has one element."""
    from geoact.torch import triton

    records, measuring = _measuring(accumulator, dy)
    result = triton.backward(row, dy, saved, values, out, **measuring, weight_axis=channel_axis)
    if accumulator is not None and records is not None:
        accumulator.measured_on(dy, records)
    if isinstance(result, torch.Tensor):
        return result, ()
    dx, *gradients = result
    return dx, tuple(
        gradient if isinstance(value, torch.Tensor) else gradient.reshape(1)
        for value, gradient in zip(values, gradients, strict=False)
    )
