"""Functional calls of a model (F.relu, torch.sigmoid, x.tanh()), measured under the name of the module that made them.

A call has no name of its own. While a module of the model runs, hooks keep the names of the modules that are at work
and a function mode sees the calls; a call belongs to the innermost module, and is told from others of the same module
by its function and its place among them. Everything is put in place when a step is measured and taken away after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from geoact.torch import known
from geoact.torch.catching import Catching
from geoact.torch.modules import Activation
from geoact.torch.probe import Probe

_compiling = torch.compiler.is_dynamo_compiling


def _row(name: str, kwargs: dict[str, Any], args: tuple[Any, ...]) -> str:
    tanh = name == "gelu" and "tanh" in (kwargs.get("approximate"), *args[1:2])
    return "gelu_tanh" if tanh else name


class Calls(Catching):
    """Measures the functional calls of a model while it is armed.

    Parameters
    ----------
    model : torch.nn.Module
    wanted : callable
        Tells by its name whether a call is measured.
    make : callable
        Makes the probe of a call that is met for the first time.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool], make: Callable[[], Probe]) -> None:
        super().__init__()
        self._model = model
        self._wanted = wanted
        self._make = make
        self._handles: list[Any] = []
        # Innermost last: the name of the module, whether it trains, and how often it has called each function.
        self._running: list[tuple[str, bool, Counter[str]]] = []
        self.probes: dict[str, tuple[str, Probe]] = {}  # name of the call: row of the registry, probe

    def arm(self) -> None:
        """Measure from now on."""
        if self._handles:
            return
        for name, module in self._model.named_modules():
            if isinstance(module, Activation) or known.twin_of(module) is not None:
                continue  # watched as a module: its own call is not another layer
            label = name.replace("_orig_mod.", "").removesuffix("_orig_mod")
            self._handles.append(module.register_forward_pre_hook(self._before(label)))
            self._handles.append(module.register_forward_hook(self._after, always_call=True))

    def disarm(self) -> None:
        """Stop measuring and leave no trace in the model."""
        while self._handles:
            self._handles.pop().remove()

    def _before(self, label: str) -> Callable[..., None]:
        def before(module: nn.Module, _: Any) -> None:  # noqa: ANN401
            if _compiling():
                return  # a mode cannot be entered in a traced program
            self._running.append((label, module.training, Counter()))
            if len(self._running) == 1:
                self.__enter__()  # type: ignore[no-untyped-call]

        return before

    def _after(self, *_: Any) -> None:  # noqa: ANN401
        if _compiling() or not self._running:
            return
        self._running.pop()
        if not self._running:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def catch(
        self,
        name: str,
        ours: Callable[..., Any] | None,
        theirs: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Measure a call that a module at work makes."""
        if ours is None or not self._running:
            return theirs(*args, **kwargs)
        label, training, made = self._running[-1]
        made[name] += 1
        place = f"{label}:{name}" if made[name] == 1 else f"{label}:{name}#{made[name]}"
        if not self._wanted(place):
            return theirs(*args, **kwargs)
        if place not in self.probes:
            self.probes[place] = (_row(name, kwargs, args), self._make())
        x = args[0] if args else kwargs["input"]
        stats, gradient_stats = self.probes[place][1].statistics(x, training)
        return ours(*args, **kwargs, stats=stats, gradient_stats=gradient_stats)
