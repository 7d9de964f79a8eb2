"""Which of other people's modules and functions compute one of our activations.

Modules are known by their exact class, found by the name under which a package defines it, so that no package is
imported here. A subclass is left alone: its forward may do more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from geoact.torch import functional, modules


@dataclass(frozen=True)
class Twin:
    """What a foreign module becomes: our class, and the attributes that its forward reads and the module may lack."""

    module: type[Any]
    attributes: dict[str, Any] = field(default_factory=dict)


_TORCH = ("Sigmoid", "Tanh", "ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Softplus", "Hardsigmoid", "Hardswish", "Mish",
          "PReLU")  # fmt: skip
_TANH_GELU = Twin(modules.GELU, {"approximate": "tanh"})
_ERF_GELU = Twin(modules.GELU, {"approximate": "none"})


def _plain(name: str) -> Twin:
    return Twin(getattr(modules, name), {"inplace": False})


_TWINS: dict[str, Twin] = {
    **{f"torch.nn.modules.activation.{name}": Twin(getattr(modules, name)) for name in _TORCH},
    **{
        f"transformers.activations.{name}": twin
        for name, twin in {
            "GELUActivation": _ERF_GELU,
            "GELUTanh": _TANH_GELU,
            "PytorchGELUTanh": _TANH_GELU,
            "NewGELUActivation": _TANH_GELU,
            "FastGELUActivation": _TANH_GELU,
            "AccurateGELUActivation": _TANH_GELU,
            "QuickGELUActivation": Twin(modules.ScaledSiLU, {"beta": 1.702}),
            "SiLUActivation": _plain("SiLU"),
            "MishActivation": _plain("Mish"),
            "ReLUSquaredActivation": _plain("ReLUSquared"),
        }.items()
    },
    # timm's classes keep an ``inplace`` of their own where they have one.
    **{
        f"timm.layers.activations.{name}": twin
        for name, twin in {
            "GELU": _ERF_GELU,
            "GELUTanh": _TANH_GELU,
            "QuickGELU": Twin(modules.ScaledSiLU, {"beta": 1.702}),
            "Swish": Twin(modules.SiLU),
            "Mish": Twin(modules.Mish),
            "Sigmoid": Twin(modules.Sigmoid),
            "Tanh": Twin(modules.Tanh),
            "HardSwish": Twin(modules.Hardswish),
            "HardSigmoid": Twin(modules.Hardsigmoid),
        }.items()
    },
}


def twin_of(module: nn.Module) -> Twin | None:
    """What this module becomes, or None where it is not one of ours."""
    kind = type(module)
    return _TWINS.get(f"{kind.__module__}.{kind.__qualname__}")


def looks_like_activation(module: nn.Module) -> bool:
    """Whether a module that is left alone is an activation, which a report should name."""
    kind = type(module)
    if isinstance(module, modules.Activation):
        return False
    names = [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]
    from_torch = kind.__module__ == "torch.nn.modules.activation" and kind.__name__ != "MultiheadAttention"
    return from_torch or kind.__module__.endswith(".activations") or any(name in _TWINS for name in names)


def _functions() -> dict[Callable[..., Any], tuple[str, bool]]:
    """Torch's functions and methods by identity: the name of ours, and whether theirs works in place."""
    table: dict[Callable[..., Any], tuple[str, bool]] = {}
    names = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "hardsigmoid", "hardswish",
             "mish", "prelu")  # fmt: skip
    for name in names:
        for home in (torch, torch.nn.functional, torch.Tensor):
            for suffix, in_place in (("", False), ("_", True)):
                found = getattr(home, name + suffix, None)
                if found is not None:
                    table[found] = (name, in_place)
    table[torch.special.expit] = ("sigmoid", False)
    return table


FUNCTIONS = _functions()
METHODS = frozenset(name + suffix for name in ("sigmoid", "tanh", "relu") for suffix in ("", "_"))


def function_for(call: Callable[..., Any]) -> Callable[..., Any] | None:
    """Our function for one of torch's, with the same arguments; None where there is none."""
    try:
        found = FUNCTIONS.get(call)
    except TypeError:  # not hashable, so none of torch's
        return None
    if found is None:
        return None
    name, in_place = found
    ours: Callable[..., Any] = getattr(functional, name)
    return functools.partial(_in_place, ours) if in_place else ours


def _in_place(function: Callable[..., Any], input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    from geoact import get

    row = get(function.__name__)
    return row(input, *args, out=input, **kwargs)
