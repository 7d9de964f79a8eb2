"""Where the GPU cases run, and the data and shapes they share. A case itself is in gpu_cases.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cases
import geoact
import torch
from geoact.bench.devices.cupy_device import CupyDevice

Tensor = torch.Tensor


@dataclass
class Place:
    """Where the cases run, and with which of geoact's backends."""

    device: str
    bytes_big: int = 256 << 20  # of x
    small: tuple[int, ...] = (1 << 10, 1 << 14, 1 << 16)  # elements
    compared: tuple[int, ...] = (1 << 16, 1 << 22, 1 << 26)  # elements, for CUDA against Triton
    backends: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    kernels: CupyDevice | None = None
    no_kernels: str = "no CUDA device"
    compiler: str = "inductor"

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def select(self, backend: str) -> None:
        """Make geoact use a backend; on the CPU there is nothing to choose."""
        if self.cuda:
            geoact.set_gpu_backend(backend)

    def find_backends(self) -> None:
        """Which backends can be forced here, and why not the others."""
        if not self.cuda:
            self.missing = dict.fromkeys(("cuda", "triton"), "no CUDA device")
            return
        found = []
        for name in ("cuda", "triton"):
            try:
                self.select(name)
                geoact.relu(torch.ones(8, device=self.device))
                found.append(name)
            except Exception as error:  # whatever keeps a backend from running is its reason to be absent
                self.missing[name] = f"{type(error).__name__}: {error}"
        self.backends = tuple(found)
        self.select("auto")


@dataclass(frozen=True)
class Layout:
    """How the elements lie, and what a group of the statistics is. The axis of the channels is 1, as in torch."""

    name: str
    per: str

    def shape(self, elements: int) -> tuple[int, ...]:
        big = elements >= 1 << 24
        if self.name == "flat":
            return (elements,)
        if self.name == "matrix":
            return (elements // 4096, 4096) if big else (elements // 64, 64)
        return (elements >> 20, 256, 64, 64) if big else (elements >> 9, 8, 8, 8)

    @property
    def axis(self) -> int:
        return -1 if self.name == "flat" else 1


FLAT, MATRIX, NCHW = Layout("flat", "tensor"), Layout("matrix", "channel"), Layout("NCHW", "channel")


# --- data ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def data(shape: tuple[int, ...], dtype: torch.dtype, device: str, seed: int) -> Tensor:
    """Normal data, mean 0.2, sd 1.5: shared, not to be written."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device).mul_(1.5).add_(0.2).to(dtype)


def parameters(row: geoact.Activation, x: Tensor, layout: Layout) -> tuple[Any, ...]:
    """Numbers, or a tensor where the parameter is trained: one value per channel where there are channels."""
    channels, values = x.shape[1] if layout.per == "channel" else 1, cases.values_of(row)
    trained = (
        torch.linspace(0.15 + 0.3 * k, 0.35 + 0.3 * k, channels, device=x.device).to(x.dtype)
        for k in range(row.trainable)
    )
    return (*trained, *values[row.trainable :])


def spread(values: tuple[Any, ...], x: Tensor) -> tuple[Any, ...]:
    """The same, in shapes that broadcast against x."""
    return tuple(v.reshape(-1, *(1,) * (x.dim() - 2)) if isinstance(v, Tensor) and v.numel() > 1 else v for v in values)


def size_of(place: Place, dtype: torch.dtype) -> int:
    return place.bytes_big // dtype.itemsize


def title(row: geoact.Activation, dtype: torch.dtype, more: str) -> str:
    return f"{row.name}, {str(dtype).removeprefix('torch.')}, {more}"


def mebibytes(count: int) -> str:
    return f"{count / cases.MIB:g} MiB"
