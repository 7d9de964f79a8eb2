"""Calls of torch's functions that geoact computes instead: where it can, and torch where it cannot.

Two ways to come by such a call: a function kept in an attribute, replaced by :class:`SwappedFunction`, and a mode that
sees the calls of a block of code, :class:`Catching`.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from geoact.torch import functional, known, modules

_compiling = torch.compiler.is_dynamo_compiling
_function_modes = torch._C._len_torch_function_stack

_ARGUMENTS = {
    name: tuple(inspect.signature(getattr(functional, name)).parameters)[:-2] for name, _ in known.FUNCTIONS.values()
}  # without stats and gradient_stats
_NUMBERS = ("negative_slope", "alpha", "beta", "threshold")


def takes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether geoact computes this call of torch's function; if not, torch does, and says what is wrong if anything."""
    names = _ARGUMENTS[name]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x = given.get("input")
    if len(args) > len(names) or given.pop("out", None) is not None or not set(given) <= set(names):
        return False
    if not isinstance(x, torch.Tensor) or not modules.supported(x):
        return False
    weight = given.get("weight", x)
    if not isinstance(weight, torch.Tensor) or not modules.supported(weight):
        return False
    return all(modules.is_number(given[n], n) for n in _NUMBERS if n in given)


class SwappedFunction:
    """A function of torch kept in an attribute of a module, computed by geoact where it can.

    Attributes
    ----------
    original : callable
        torch's function, or a functools.partial of one.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        inner = original.func if isinstance(original, functools.partial) else original
        self.name = known.FUNCTIONS[inner][0]

    @staticmethod
    def of(value: object) -> SwappedFunction | None:
        """The swap of an attribute's value, or None where that is nothing of ours."""
        inner = value.func if isinstance(value, functools.partial) else value
        return SwappedFunction(value) if callable(inner) and known.function_for(inner) is not None else None  # type: ignore[arg-type]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """As the original."""
        inner = self.original
        if not _compiling() and _function_modes() and _caught():
            return inner(*args, **kwargs)  # whoever catches torch's functions is to see one
        if isinstance(inner, functools.partial):
            args, kwargs = (*inner.args, *args), {**inner.keywords, **kwargs}
            inner = inner.func
        ours = known.function_for(inner) if takes(self.name, args, kwargs) else None
        return (ours or inner)(*args, **{k: v for k, v in kwargs.items() if k != "out" or ours is None})

    def __repr__(self) -> str:
        return f"<geoact's {self.name}>"


class Catching(TorchFunctionMode, ABC):
    """A mode that sees the calls of torch's activation functions and says what becomes of each."""

    @abstractmethod
    def catch(
        self,
        name: str,
        ours: Callable[..., Any] | None,
        theirs: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """The result of a call of the activation ``name``; ``ours`` is None where only torch can compute it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Called by torch for each of its functions."""
        kwargs = kwargs or {}
        ours = known.function_for(func)
        if ours is None:
            return func(*args, **kwargs)
        name = known.FUNCTIONS[func][0]
        if not takes(name, args, kwargs):
            return self.catch(name, None, func, args, kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key != "out"}  # which is None
        return self.catch(name, ours, func, args, kwargs)


def _caught() -> bool:
    """Whether one of the modes that see torch's functions now is ours; torch.device, for one, is a mode as well."""
    return any(isinstance(mode, Catching) for mode in _get_current_function_mode_stack())
