"""Swap the activations of a model for ours, in place and reversibly, and report what could not be swapped.

A module is swapped by changing its class: its identity, parameters, hooks, name and everybody who holds it stay as they
are, so shared modules stay shared and the state_dict keeps its keys.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from geoact.torch import known
from geoact.torch.catching import SwappedFunction
from geoact.torch.known import Twin
from geoact.torch.modules import Activation
from geoact.torch.probe import claimed, followed


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


@dataclass(frozen=True)
class Conversion:
    """What of a model is swapped and what is not; prints as a report."""

    swapped: tuple[Swapped, ...]
    left: tuple[Left, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} activations converted"]
        width = max([0, *(len(s.name) for s in self.swapped), *(len(entry.name) for entry in self.left)])
        lines += [f"  {s.name:<{width}}  {s.before} -> {s.after}" for s in self.swapped]
        if self.left:
            lines.append(f"{len(self.left)} left as they are")
            lines += [f"  {entry.name:<{width}}  {entry.what}: {entry.why}" for entry in self.left]
        return "\n".join(lines)


def check_model(model: object) -> nn.Module:
    """Raise TypeError unless this is a model whose modules are Python's."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model is a ScriptModule, whose code is compiled already; convert or watch it before scripting")
    return model


def _not_watched(model: object) -> nn.Module:
    checked = check_model(model)
    for name, module in checked.named_modules():
        if module in claimed or module in followed:
            raise RuntimeError(f"{show(name)} is being watched: convert or revert before or after the monitor's block")
    return checked


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
    return lambda: _change_back(module, before, tuple(added))


def _change_back(module: nn.Module, before: type[nn.Module], added: tuple[str, ...]) -> None:
    module.__class__ = before
    for name in added:
        delattr(module, name)


def patched(module: nn.Module) -> bool:
    """Whether somebody gave the module itself another forward, which changing its class would not reach."""
    return "forward" in vars(module)


def convert(model: nn.Module) -> nn.Module:
    """Swap every activation that geoact has, in place.

    Parameters
    ----------
    model : torch.nn.Module
        Its modules of torch.nn, Hugging Face transformers (ACT2FN) and timm are swapped, and torch functions kept in
        an attribute (``self.activation = F.relu``). The model may be an activation itself. Subclasses are left alone.

    Returns
    -------
    torch.nn.Module
        The same object. ``conversion(model)`` tells what is swapped and what is not, ``revert(model)`` undoes it, for
        copies and unpickled models as well.

    Raises
    ------
    TypeError
        If model is not a module, or a compiled ScriptModule.
    RuntimeError
        If a monitor watches it.
    """
    for module in _not_watched(model).modules():
        twin = None if patched(module) else known.twin_of(module)
        if twin is not None:
            before, had = type(module), set(vars(module))
            change_class(module, twin)
            # In the module, so that its copies and pickles can be reverted, too.
            vars(module)["_before"] = before, tuple(set(vars(module)) - had)
        if not isinstance(module, Activation):
            for attribute, value in list(vars(module).items()):
                swapped = SwappedFunction.of(value)
                if swapped is not None:
                    setattr(module, attribute, swapped)
    return model


def conversion(model: nn.Module) -> Conversion:
    """What of a model :func:`convert` swapped, and which activations it left, and why."""
    swapped: list[Swapped] = []
    left: list[Left] = []
    for name, module in check_model(model).named_modules():
        before = vars(module).get("_before")
        if before is not None:
            swapped.append(Swapped(show(name), before[0].__name__, f"geoact.torch.{type(module).__name__}"))
        elif known.looks_like_activation(module):
            left.append(Left(show(name), type(module).__name__, _why_left(module)))
        for attribute, value in vars(module).items():
            if isinstance(value, SwappedFunction):
                path = f"{show(name)}.{attribute}" if name else attribute
                swapped.append(Swapped(path, value.name, f"geoact.torch.functional.{value.name}"))
    return Conversion(tuple(swapped), tuple(left + functional_calls(model)))


def _why_left(module: nn.Module) -> str:
    if known.twin_of(module) is None:
        return "geoact has no such activation"
    return "its forward was replaced" if patched(module) else "not converted"


def revert(model: nn.Module) -> nn.Module:
    """Undo :func:`convert`; returns the model. What was replaced since then stays as it is.

    Raises
    ------
    TypeError, RuntimeError
        As convert.
    """
    for module in _not_watched(model).modules():
        before = vars(module).pop("_before", None)
        if before is not None:
            _change_back(module, *before)
        for attribute, value in list(vars(module).items()):
            if isinstance(value, SwappedFunction):
                setattr(module, attribute, value.original)
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


@functools.lru_cache(1024)  # code does not change while it runs
def _calls(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(_search(function))


def _search(function: Callable[..., Any]) -> Iterator[str]:
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
