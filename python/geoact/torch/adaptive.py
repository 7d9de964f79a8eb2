"""Modules driven by statistics of their input: GAL, which measures them, and TAT, which assumes them.

Both are a scaled and shifted leaky rectifier with the same numbers for every element. The formulas are those of
:mod:`geoact.adaptive`; docs/adaptive.md says what the modules do and what is not known of them. PolyNorm, GaussianTopK
and MetaAconC, whose statistics differ from row to row or from channel to channel, come from
:mod:`geoact.torch.composed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from geoact import _registry as _rows
from geoact.adaptive import KAPPA, Gal, PartialMoments, _number, gal, share_for_depth, tat_scale, tat_slope
from geoact.statistics import GeometryStats
from geoact.torch.composed import (
    GaussianTopK,
    MetaAconC,
    PolyNorm,
    check_input,
    gaussian_topk,
    gaussian_topk_geglu,
    wide,
)
from geoact.torch.modules import supported
from geoact.torch.probe import running_backward

__all__ = ["GAL", "TAT", "Affine", "GaussianTopK", "MetaAconC", "PolyNorm", "gaussian_topk", "gaussian_topk_geglu"]

_compiling = torch.compiler.is_dynamo_compiling
_transformed = torch._C._are_functorch_transforms_active


def _scaled_leaky(x: Tensor, numbers: Gal, stats: GeometryStats | None = None) -> Tensor:
    """Compute scale (x+ + slope x- - shift), in the dtype of x, and measure x on the way."""
    y: Tensor = _rows.gal(x, *numbers, stats=stats)
    return y


class Affine(nn.Module):
    """scale x + offset with two fixed numbers, in torch's own operators; what :meth:`GAL.fold` ends with.

    Parameters
    ----------
    scale, offset : float
        Finite.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """

    def __init__(self, scale: float, offset: float) -> None:
        super().__init__()
        self.scale = _number("scale", scale)
        self.offset = _number("offset", offset)

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape and floating dtype, to the same."""
        offset = torch.full((), self.offset, dtype=input.dtype, device=input.device)
        return torch.add(offset, input, alpha=self.scale)

    def extra_repr(self) -> str:
        """Both numbers."""
        return f"scale={self.scale:g}, offset={self.offset:g}"


class _ScaledLeaky(nn.Module):
    """What GAL and TAT share: y = scale (x+ + slope x- - shift), and how that folds into what torch has."""

    @property
    def numbers(self) -> Gal:
        """Slope, scale and shift that the next call uses."""
        raise NotImplementedError

    def fold(self) -> nn.Sequential:
        """The function as it is now, in torch's own operators and without state: LeakyReLU, then Affine.

        Returns
        -------
        torch.nn.Sequential
            Equal to this module in eval mode up to rounding.
        """
        slope, scale, shift = self.numbers
        return nn.Sequential(nn.LeakyReLU(slope), Affine(scale, -scale * shift))

    def fold_into(self, linear: nn.Linear) -> nn.Sequential:
        """Fold this function and the linear layer that follows it into LeakyReLU and a linear layer.

        Parameters
        ----------
        linear : torch.nn.Linear
            Stays as it is. (A convolution that pads its input with zeros has no such fold: its borders would change.)

        Returns
        -------
        torch.nn.Sequential
            LeakyReLU and a new Linear with scale W and b - scale shift W 1, so that the scale and the shift cost
            nothing. It always has a bias.

        Raises
        ------
        TypeError
            If linear is no torch.nn.Linear.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear must be a torch.nn.Linear, got {type(linear).__name__}")
        slope, scale, shift = self.numbers
        old = linear.weight
        new = nn.Linear(linear.in_features, linear.out_features, device=old.device, dtype=old.dtype)
        with torch.no_grad():
            weight = old.double()
            bias = 0.0 if linear.bias is None else linear.bias.double()
            new.weight.copy_(scale * weight)
            new.bias.copy_(bias - scale * shift * weight.sum(1))
        new.requires_grad_(old.requires_grad).train(linear.training)
        return nn.Sequential(nn.LeakyReLU(slope), new)


# torch.compiler.disable would import the compiler for those who never compile: this waits for the first call.
@_disable_dynamo
def _outside(module: GAL, input: Tensor) -> Tensor:
    """A call in training mode that no compiler sees: it branches on what it has measured."""
    return module._measured(input)


class GAL(_ScaledLeaky):
    """Geometry-adaptive leaky unit: scale (x+ + slope x- - shift), with numbers that follow from what x was.

    In training mode every call measures its input in the pass that computes y, and the numbers of the *next* call
    follow from it: they are those for which, on data with the running partial moments, y has mean 0, the variance of
    x, and the linear share 1 - kappa / depth (:func:`geoact.adaptive.gal`). No gradient flows through them. In eval
    mode they are frozen. Before the first call in training mode they are those of N(0, 1) input.

    Parameters
    ----------
    depth : int
        Number of activations one after the other in the network; at least 1.
    kappa : float
        Above 0 and below depth: what all of them together may lose.
    momentum : float, optional
        Weight of the newest call in the running moments, above 0 and at most 1; the first calls weigh 1 / (their
        number) if that is more. None: all calls weigh the same.
    max_scale : float
        At least 1; see :func:`geoact.adaptive.gal`. math.inf for none.
    process_group : torch.distributed.ProcessGroup, optional
        The ranks whose data are measured together; default: all.

    Attributes
    ----------
    moments : Tensor of shape (4,), float64
        Buffer: running E x+, E x-, E x+^2, E x-^2.
    scalars : Tensor of shape (3,), float64
        Buffer: slope, scale, shift of the next call.
    steps : Tensor of shape (), int64
        Buffer: calls measured.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; in forward, if input is no floating tensor, or in training mode not one that geoact can
        measure.

    Notes
    -----
    Input of any shape and of float16, bfloat16, float32 or float64; y has its shape and dtype, computed in float32 or
    float64. Moments are kept in float64, whatever dtype the model is cast to.

    - **Not measured** is a call without elements, or with NaN or infinity: the numbers then stay. Nor is the forward
      pass that activation checkpointing repeats, which uses the numbers that the last call used (and so is exact for a
      module that is called once per step).
    - **Ranks.** Where torch.distributed is initialised, a call in training mode is collective: one all_reduce of five
      numbers, after which every rank holds the moments of all data. A rank without data takes part.
    - **torch.compile.** In eval mode it is part of the graph; in training mode it runs outside, after a graph break.
    - **CUDA.** Reading the measurement waits for the device, once per call in training mode.
    """

    moments: Tensor
    scalars: Tensor
    steps: Tensor

    def __init__(
        self,
        depth: int,
        kappa: float = KAPPA,
        momentum: float | None = 0.1,
        max_scale: float = 10.0,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.share = share_for_depth(depth, kappa)
        if momentum is not None and not 0 < _number("momentum", momentum) <= 1:
            raise ValueError(f"momentum must be above 0 and at most 1, or None, got {momentum}")
        self.depth, self.kappa = int(depth), float(kappa)
        self.momentum = momentum
        self.max_scale = max_scale
        self.process_group = process_group
        self._used: Gal | None = None  # by the last call in training mode
        self._read: tuple[Tensor, int, Gal] | None = None
        first = PartialMoments.gaussian()
        numbers = gal(first, self.share, max_scale)
        self.register_buffer("moments", torch.tensor(_listed(first), dtype=torch.float64))
        self.register_buffer("scalars", torch.tensor(numbers, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def reset_running_stats(self) -> None:
        """Forget what was measured."""
        self._store(PartialMoments.gaussian(), 0)

    @property
    def numbers(self) -> Gal:
        """Slope, scale and shift that the next call uses."""
        # Kept until the buffer changes: reading it waits for its device.
        held = self.scalars
        if held.is_inference():  # has no version
            return Gal(*held.tolist())
        if self._read is None or self._read[0] is not held or self._read[1] != held._version:
            self._read = held, held._version, Gal(*held.tolist())
        return self._read[2]

    @property
    def running(self) -> PartialMoments:
        """The running moments, as the functions of :mod:`geoact.adaptive` take them."""
        return PartialMoments(*self.moments.tolist())

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape and floating dtype, to the same."""
        check_input(input)
        if self.training:
            return _outside(self, input) if _compiling() else self._measured(input)
        if _compiling() or _transformed() or self.scalars.is_meta or not supported(input):
            return self._by_torch(input)
        return _scaled_leaky(input, self.numbers)

    def _by_torch(self, input: Tensor) -> Tensor:
        """The same in torch's operators, with the numbers as tensors: nothing is read on the host."""
        x = wide(input)
        slope, scale, shift = self.scalars.to(x.dtype)
        y: Tensor = scale * torch.where(x > 0, x, slope * x) - scale * shift
        return y.to(input.dtype)

    def _measured(self, input: Tensor) -> Tensor:
        if running_backward():  # checkpointing repeats a call
            return _scaled_leaky(input, self._used or self.numbers)
        now = self._used = self.numbers
        stats = GeometryStats()
        y = _scaled_leaky(input, now, stats)
        self._add(stats)
        return y

    def _add(self, stats: GeometryStats) -> None:
        """Take in what one call has measured, on all ranks alike."""
        sums = _sums(stats)
        if dist.is_available() and dist.is_initialized():
            from geoact.torch.distributed import _Ranks

            sums = _Ranks(self.process_group).reduce([sums], dist.ReduceOp.SUM)
        n, *sums_of_moments = sums.tolist()
        if n == 0:
            return
        steps = int(self.steps) + 1
        weight = 1 / steps if self.momentum is None else max(self.momentum, 1 / steps)
        pairs = zip(self.moments.tolist(), sums_of_moments, strict=True)
        self._store(PartialMoments(*((1 - weight) * old + weight * new / n for old, new in pairs)), steps)

    def _store(self, moments: PartialMoments, steps: int) -> None:
        numbers = gal(moments, self.share, self.max_scale)
        with torch.no_grad():
            self.moments.copy_(torch.tensor(_listed(moments), dtype=torch.float64))
            self.scalars.copy_(torch.tensor(numbers, dtype=torch.float64))
            self.steps.fill_(steps)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GAL:
        # half() and its like move the numbers, but leave them their precision.
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, held in before.items():
            after = self._buffers[name]
            if held is not None and after is not None and after.dtype != held.dtype:
                self._buffers[name] = held.to(after.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": None}

    def extra_repr(self) -> str:
        """The arguments that differ from module to module."""
        return f"depth={self.depth}, kappa={self.kappa:g}, momentum={self.momentum}, max_scale={self.max_scale:g}"


def _listed(moments: PartialMoments) -> list[float]:
    return [moments.mean_pos, moments.mean_neg, moments.sq_pos, moments.sq_neg]


def _sums(stats: GeometryStats) -> npt.NDArray[np.float64]:
    """Sum 1 and the four powers over one call, shape (5,); zeros where there is nothing, or nothing finite."""
    if not stats.groups or not stats.n or not math.isfinite(stats.mean_sq_pos_x + stats.mean_sq_neg_x):
        return np.zeros(5)
    sums: npt.NDArray[np.float64] = stats.n * np.array([1.0, *_listed(PartialMoments.of(stats))])
    return sums


class TAT(_ScaledLeaky):
    """Leaky rectifier of Tailored Activation Transformation: sqrt(2 / (1 + a^2)) (x+ + a x-), a fixed by the depth.

    Parameters
    ----------
    depth : int
        Number of activations one after the other in the network; at least 1.
    eta : float
        Between 0 and 1: the cosine after all layers of two inputs that are orthogonal.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; in forward, if input is no floating tensor.

    Notes
    -----
    Input of any shape and of float16, bfloat16, float32 or float64; y has its shape and dtype, computed in float32 or
    float64. There is no state. Source: Zhang, Botev, Martens (2022), Deep learning without shortcuts: shaping the
    kernel with tailored rectifiers.
    """

    def __init__(self, depth: int, eta: float = 0.9) -> None:
        super().__init__()
        slope = tat_slope(depth, eta)
        self._numbers = Gal(slope, tat_scale(slope), 0.0)
        self.depth, self.eta = int(depth), float(eta)

    @property
    def numbers(self) -> Gal:
        """Slope, scale, and the shift 0."""
        return self._numbers

    @property
    def negative_slope(self) -> float:
        """The slope a."""
        return self._numbers.slope

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape and floating dtype, to the same."""
        check_input(input)
        if supported(input):
            return _scaled_leaky(input, self.numbers)
        y: Tensor = self.fold()(input)
        return y

    def extra_repr(self) -> str:
        """The arguments, and the slope that follows from them."""
        return f"depth={self.depth}, eta={self.eta:g}, negative_slope={self.negative_slope:.4g}"
