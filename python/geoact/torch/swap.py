"""Swap the activations of a model for ours, in place and reversibly, and report what could not be swapped.

A module is swapped by changing its class: its identity, parameters, hooks, name and everybody who holds it stay as they
are, so shared modules stay shared and the state_dict keeps its keys.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from geoact.torch import known
from geoact.torch.known import Twin
from geoact.torch.modules import Activation


@dataclass(frozen=True)
class Swapped:
    """One module, or a function kept in an attribute of one, that now is ours."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Left:
    """Something that was left as it is, and why."""

    name: str
    what: str
    why: str


@dataclass
class Conversion:
    """What :func:`convert` did to a model; prints as a report."""

    swapped: list[Swapped] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    _undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def revert(self) -> None:
        """Put everything back as it was; a second call does nothing."""
        while self._undo:
            self._undo.pop()()

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} activations converted"]
        width = max([0, *(len(s.name) for s in self.swapped), *(len(entry.name) for entry in self.left)])
        lines += [f"  {s.name:<{width}}  {s.before} -> {s.after}" for s in self.swapped]
        if self.left:
            lines.append(f"{len(self.left)} left as they are")
            lines += [f"  {entry.name:<{width}}  {entry.what}: {entry.why}" for entry in self.left]
        return "\n".join(lines)


_conversions: WeakKeyDictionary[nn.Module, Conversion] = WeakKeyDictionary()


def _model(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model is a ScriptModule, whose code is compiled already; convert it before scripting")
    return model


def show(name: str) -> str:
    """A qualified name for people: without the wrapper of torch.compile, and never empty."""
    return name.replace("_orig_mod.", "").removesuffix("_orig_mod") or "(the model itself)"


def change_class(module: nn.Module, twin: Twin) -> Callable[[], None]:
    """Make a module one of ours; the result undoes it."""
    before = type(module)
    added = {name: value for name, value in twin.attributes.items() if name not in vars(module)}
    for name, value in added.items():
        setattr(module, name, value)
    module.__class__ = twin.module

    def undo() -> None:
        module.__class__ = before
        for name in added:
            delattr(module, name)

    return undo


def convert(model: nn.Module) -> nn.Module:
    """Swap every activation that geoact has, in place.

    Parameters
    ----------
    model : torch.nn.Module
        Its modules of torch.nn, Hugging Face transformers (ACT2FN) and timm are swapped, and torch functions kept in
        an attribute (``self.activation = F.relu``). The model may be an activation itself.

    Returns
    -------
    torch.nn.Module
        The same object. ``conversion(model)`` tells what was swapped and what was not, ``revert(model)`` undoes it.

    Raises
    ------
    TypeError
        If model is not a module, or a compiled ScriptModule.
    """
    _model(model)
    record = _conversions.get(model) or Conversion()
    record.left.clear()
    for name, module in model.named_modules():
        twin = known.twin_of(module)
        if twin is not None:
            before = type(module).__name__
            record._undo.append(change_class(module, twin))
            record.swapped.append(Swapped(show(name), before, f"geoact.torch.{twin.module.__name__}"))
        elif known.looks_like_activation(module):
            record.left.append(Left(show(name), type(module).__name__, "geoact has no such activation"))
        _swap_attributes(name, module, record)
    record.left += functional_calls(model)
    _conversions[model] = record
    return model


def _swap_attributes(name: str, module: nn.Module, record: Conversion) -> None:
    if isinstance(module, Activation):
        return
    for attribute, value in list(vars(module).items()):
        ours = known.function_for(value) if callable(value) else None
        if ours is None:
            continue
        setattr(module, attribute, ours)

        def undo(module: nn.Module = module, attribute: str = attribute, value: Any = value) -> None:  # noqa: ANN401
            setattr(module, attribute, value)

        record._undo.append(undo)
        path = f"{name}.{attribute}" if name else attribute
        record.swapped.append(
            Swapped(path, known.FUNCTIONS[value][0], f"geoact.torch.functional.{known.FUNCTIONS[value][0]}")
        )


def conversion(model: nn.Module) -> Conversion:
    """The report of what :func:`convert` did to a model.

    Raises
    ------
    ValueError
        If the model was not converted.
    """
    record = _conversions.get(_model(model))
    if record is None:
        raise ValueError("model was not converted: call geoact.torch.convert(model) first")
    return record


def revert(model: nn.Module) -> nn.Module:
    """Undo :func:`convert`; returns the model.

    Raises
    ------
    ValueError
        If the model was not converted.
    """
    conversion(model).revert()
    del _conversions[model]
    return model


# --- calls in the code of a forward method ---


_OF_ACTIVATIONS = ("torch.nn.modules.activation", "geoact.")


def functional_calls(model: nn.Module) -> list[Left]:
    """Calls of activation functions in the forward methods of a model, found in their source code.

    They cannot be swapped in a module; :func:`geoact.torch.intercept` catches them as they run. Code whose source
    cannot be had is not looked at.
    """
    found: list[Left] = []
    seen: set[type] = set()
    for name, module in model.named_modules():
        kind = type(module)
        # The forward of an activation module is that activation: it was swapped, or named as a module.
        home = getattr(kind.forward, "__module__", None) or ""
        if kind in seen or known.twin_of(module) or home.startswith(_OF_ACTIVATIONS):
            continue
        seen.add(kind)
        for call in _calls(kind.forward):
            found.append(Left(show(name), f"{call} in {kind.__name__}.forward", "use geoact.torch.intercept()"))
    return found


def _calls(function: Callable[..., Any]) -> Iterator[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return  # built without source, or generated
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    first = inspect.unwrap(function).__code__.co_firstlineno - 1
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        target = _resolve(node.func, scope)
        if target is not None and known.function_for(target) is not None:
            yield f"{ast.unparse(node.func)}() at line {first + node.lineno}"
        elif target is None and _is_method_call(node.func):
            yield f".{node.func.attr}() at line {first + node.lineno}"  # type: ignore[attr-defined]


def _is_method_call(node: ast.expr) -> bool:
    """A method of something only known when it runs: a tensor, unless it is the module, which may have such a name."""
    if not isinstance(node, ast.Attribute) or node.attr not in known.METHODS:
        return False
    return not (isinstance(node.value, ast.Name) and node.value.id == "self")


def _resolve(node: ast.expr, scope: dict[str, Any]) -> Any:  # noqa: ANN401
    """What a dotted name stands for, where it starts at a module or function known when the code was loaded."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, scope)
        if isinstance(owner, types.ModuleType) or owner is torch.Tensor:
            return getattr(owner, node.attr, None)
    return None
