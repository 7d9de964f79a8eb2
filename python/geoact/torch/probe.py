"""The probe of one layer: where a monitored module finds the statistics of the data it was given.

A layer may see several kinds of data: a ReLU module that several convolutions share sees several numbers of channels,
autocast brings another dtype. Statistics of different kinds do not mix, so there is one pair for each, made when it is
first met. A traced program (torch.compile) cannot make objects as it runs; it holds the number of the family, and the
operator asks the family when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, fx, nn

from geoact.statistics import GeometryStats, GradientStats, Numbered

_Stats = TypeVar("_Stats", GeometryStats, GradientStats)
_compiling = torch.compiler.is_dynamo_compiling
_transformed = torch._C._are_functorch_transforms_active
_traced = torch._C._get_tracing_state

# Modules that a monitor holds: nobody else may watch or convert them meanwhile.
claimed: WeakSet[nn.Module] = WeakSet()
followed: WeakSet[nn.Module] = WeakSet()  # those whose functional calls one watches


def running_backward() -> bool:
    """Whether autograd is at work: a forward pass now is one that activation checkpointing repeats."""
    return torch._C._current_graph_task_id() != -1


def channel_axis(rank: int) -> int:
    """The axis of the channels: 1 for images (N, C, H, W) and volumes, the last for everything else (N, ..., C)."""
    return 1 if rank in (4, 5) else -1


class Family(Numbered, Generic[_Stats]):
    """Statistics of one layer in one direction, one for each kind of data."""

    def __init__(self, make: Callable[[str, int], _Stats], per: str, axis: int | None) -> None:
        super().__init__()
        self._make: Callable[[str, int], _Stats] = make
        self._per = per
        self._axis = axis
        self.members: dict[tuple[str, int | None], _Stats] = {}

    def of(self, x: Tensor) -> _Stats:
        """The statistics that data like x is added to."""
        axis = channel_axis(x.dim()) if self._axis is None else self._axis
        per = self._per if x.dim() else "tensor"  # a number on its own has no channels
        there = per == "channel" and -x.dim() <= axis < x.dim()  # if not, the statistics say what is wrong
        key = (str(x.dtype).removeprefix("torch."), int(x.shape[axis]) if there else None)
        found = self.members.get(key)
        if found is None:
            found = self.members[key] = self._make(per, axis)
        return found


class Probe:
    """Both directions of one layer."""

    def __init__(
        self, forward: Family[GeometryStats], backward: Family[GradientStats] | None, training: bool | None = None
    ) -> None:
        self.forward = forward
        self.backward = backward
        # Measure only while the module trains, only while it does not, or always.
        self.training = training
        # What the module was before it was watched, and the attributes that it got: a copy of it gets neither.
        self.original: type | None = None
        self.added: frozenset[str] = frozenset()

    def reset(self) -> None:
        """Forget what was measured."""
        self.forward.members.clear()
        if self.backward is not None:
            self.backward.members.clear()

    def statistics(self, x: Tensor, training: bool) -> tuple[Any, Any]:
        """(stats, gradient_stats) for a call on x; the families themselves where the call is being traced."""
        if self.training is not None and training != self.training:
            return None, None
        if _compiling():
            return self.forward, self.backward
        if _transformed() or _traced() is not None or isinstance(x, fx.Proxy):
            return None, None  # whoever traces or transforms the model runs it on something else than its data
        forward = None if running_backward() else self.forward.of(x)
        return forward, None if self.backward is None else self.backward.of(x)
