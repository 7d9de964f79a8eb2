"""Drop-in modules: torch.nn's activations, computed and measured by geoact.

Each is a subclass of the module it replaces (so ``isinstance(m, torch.nn.ReLU)`` still holds) with the same constructor
arguments, repr and state_dict; only ``forward`` differs. ``stats=`` and ``gradient_stats=`` take accumulators that
every call adds to. A tensor that geoact cannot compute on goes to torch's own module, with one warning.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn

from geoact import backends
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import functional as F
from geoact.torch import masks

if TYPE_CHECKING:
    from geoact.torch.probe import Probe

_FLOATING = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_warned: set[str] = set()


def supported(x: object) -> bool:
    """Whether geoact computes on this tensor: floating point, dense, on the CPU or a GPU (or shapes only, on meta)."""
    return isinstance(x, fx.Proxy) or (  # what torch.fx traces with stands for any tensor
        isinstance(x, Tensor)
        and x.dtype in _FLOATING
        and x.layout is torch.strided
        and (x.device.type in ("cpu", "meta") or (x.device.type == "cuda" and not backends.why_no_gpu()))
        and not x.is_quantized
        and not x.is_nested
    )


def is_number(value: object, name: str) -> bool:
    """Whether geoact takes this value for a parameter; torch also takes tensors and bools there."""
    return type(value) in (int, float) and (name != "beta" or value != 0)


def _describe(x: object) -> str:
    if not isinstance(x, Tensor):
        return type(x).__name__
    if x.is_nested:
        return f"nested {str(x.dtype).removeprefix('torch.')} tensor"
    return f"{str(x.dtype).removeprefix('torch.')} tensor of layout {x.layout} on {x.device.type}"


def _bare(kind: type[nn.Module]) -> nn.Module:
    """A module without its attributes, which unpickling brings."""
    return kind.__new__(kind)


class Activation(nn.Module):
    """What all of them share: statistics, the probe of a monitor, and the way back to torch."""

    # Class attributes, so that a module whose class was changed (convert) needs nothing set.
    stats: GeometryStats | None = None
    gradient_stats: GradientStats | None = None
    _probe: Probe | None = None
    _row: str  # of the registry, and the function
    _arguments: tuple[str, ...] = ()  # attributes that the function takes after its input
    _numbers: tuple[str, ...] = ()  # those of them that must be numbers
    _before: tuple[type[nn.Module], tuple[str, ...]] | None = None  # what convert() made it of, and what it added

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        for name, value, kind in (("stats", stats, GeometryStats), ("gradient_stats", gradient_stats, GradientStats)):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} must be a geoact.{kind.__name__}, got {type(value).__name__}")
        super().__init__(*args, **kwargs)
        self.stats = stats
        self.gradient_stats = gradient_stats

    def __init_subclass__(cls) -> None:
        # torch's arguments and ours, for help() and editors.
        super().__init_subclass__()
        original = cls.__bases__[-1]
        given = inspect.signature(original).parameters.values() if "__init__" in vars(original) else ()
        if original is not Activation and "__init__" not in vars(cls):
            ours = inspect.signature(Activation).parameters.values()
            keywords = [p for p in ours if p.kind is p.KEYWORD_ONLY]
            cls.__signature__ = inspect.Signature([*given, *keywords])  # type: ignore[attr-defined]

    def _function(self, input: Tensor, stats: Any, gradient_stats: Any) -> Tensor:  # noqa: ANN401
        """The function of :mod:`geoact.torch.functional`, with this module's parameters."""
        function: Callable[..., Tensor] = getattr(F, self._row)
        given = [getattr(self, name) for name in self._arguments]
        return function(input, *given, stats=stats, gradient_stats=gradient_stats)

    def forward(self, input: Tensor) -> Tensor:
        """Y = f(input), of the same shape, dtype and memory format."""
        if not supported(input):
            return self._fall_back(input)
        for name in self._numbers:
            if not is_number(getattr(self, name), name):
                return self._fall_back(input)
        if self._probe is None:
            return self._function(input, self.stats, self.gradient_stats)
        return self._function(input, *self._probe.statistics(input, self.training))

    def _fall_back(self, input: Tensor) -> Tensor:
        what = _describe(input)
        odd = [name for name in self._numbers if not is_number(getattr(self, name), name)]
        if odd:
            what += f" with {odd[0]}={getattr(self, odd[0])!r}"
        if self.stats is not None or self.gradient_stats is not None:
            raise TypeError(
                f"input is a {what}; measured are float16, bfloat16, float32 and float64, dense, on the CPU or where "
                "geoact.info() says that cuda is on"
            )
        if what not in _warned and not torch.compiler.is_dynamo_compiling():
            _warned.add(what)
            warnings.warn(
                "geoact computes on dense tensors of floating point, on the CPU and where geoact.info() says that cuda "
                f"is on: {type(self).__name__} of a {what} is left to torch",
                stacklevel=5,  # past forward and the two of nn.Module.__call__
            )
        return self._by_torch(input)

    def _by_torch(self, input: Tensor) -> Tensor:
        """The same function in torch's own operators, for tensors that geoact cannot compute on."""
        return cast(Tensor, super().forward(input))

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401
        # A copy or a pickle of a model that is being watched is the model, not the watch.
        if self._probe is None:
            return super().__reduce_ex__(protocol)
        state = {name: value for name, value in vars(self).items() if name not in self._probe.added}
        return _bare, (self._probe.original or type(self),), state

    def extra_repr(self) -> str:
        """Torch's own, and what is measured."""
        parts = [super().extra_repr()]
        parts += [
            f"{name}=<per {s.per}>" for name, s in (("stats", self.stats), ("gradient_stats", self.gradient_stats)) if s
        ]
        return ", ".join(part for part in parts if part)


class Sigmoid(Activation, nn.Sigmoid):
    """torch.nn.Sigmoid."""

    _row = "sigmoid"


class Tanh(Activation, nn.Tanh):
    """torch.nn.Tanh."""

    _row = "tanh"


class ReLU(Activation, nn.ReLU):
    """torch.nn.ReLU.

    Parameters
    ----------
    inplace : bool
        Write y over x.
    save : "output" or "mask"
        What autograd keeps for backward: y, or one bit per element (docs/masks.md).
    """

    _row = "relu"
    _arguments = ("inplace",)
    save = "output"

    def __init__(
        self,
        inplace: bool = False,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
        save: str = "output",
    ) -> None:
        if save not in masks.SAVES:
            raise ValueError(masks.not_accepted(save))
        super().__init__(inplace, stats=stats, gradient_stats=gradient_stats)
        if save != "output":
            self.save = save

    def _function(self, input: Tensor, stats: Any, gradient_stats: Any) -> Tensor:  # noqa: ANN401
        return F.relu(input, self.inplace, stats=stats, gradient_stats=gradient_stats, save=self.save)

    def extra_repr(self) -> str:
        """Torch's own, what is saved unless it is y, and what is measured."""
        saved = "" if self.save == "output" else f"save={self.save!r}"
        return ", ".join(part for part in (super().extra_repr(), saved) if part)


class LeakyReLU(Activation, nn.LeakyReLU):
    """torch.nn.LeakyReLU."""

    _row = "leaky_relu"
    _arguments = ("negative_slope", "inplace")
    _numbers = ("negative_slope",)


class ELU(Activation, nn.ELU):
    """torch.nn.ELU."""

    _row = "elu"
    _arguments = ("alpha", "inplace")
    _numbers = ("alpha",)


class SiLU(Activation, nn.SiLU):
    """torch.nn.SiLU."""

    _row = "silu"
    _arguments = ("inplace",)


class GELU(Activation, nn.GELU):
    """torch.nn.GELU."""

    _row = "gelu"
    _arguments = ("approximate",)


class Softplus(Activation, nn.Softplus):
    """torch.nn.Softplus."""

    _row = "softplus"
    _arguments = ("beta", "threshold")
    _numbers = ("beta", "threshold")


class Hardsigmoid(Activation, nn.Hardsigmoid):
    """torch.nn.Hardsigmoid."""

    _row = "hardsigmoid"
    _arguments = ("inplace",)


class Hardswish(Activation, nn.Hardswish):
    """torch.nn.Hardswish."""

    _row = "hardswish"
    _arguments = ("inplace",)


class Mish(Activation, nn.Mish):
    """torch.nn.Mish."""

    _row = "mish"
    _arguments = ("inplace",)


class PReLU(Activation, nn.PReLU):
    """torch.nn.PReLU."""

    _row = "prelu"
    _arguments = ("weight",)


class CenteredSigmoid(Activation):
    """sigmoid(x) - 1/2: a sigmoid that does not push the mean of its output away from zero."""

    _row = "centered_sigmoid"

    def _by_torch(self, input: Tensor) -> Tensor:
        return torch.tanh(input / 2) / 2


class ReLUSquared(Activation):
    """max(0, x)^2, with ReLU's argument.

    Parameters
    ----------
    inplace : bool
        Write y over x.
    """

    _row = "relu_squared"
    _arguments = ("inplace",)

    inplace = False

    def __init__(
        self, inplace: bool = False, *, stats: GeometryStats | None = None, gradient_stats: GradientStats | None = None
    ) -> None:
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        self.inplace = inplace

    def extra_repr(self) -> str:
        """As torch.nn.ReLU."""
        return ", ".join(part for part in ("inplace=True" if self.inplace else "", super().extra_repr()) if part)

    def _by_torch(self, input: Tensor) -> Tensor:
        return torch.square(torch.relu(input))


def _along_channels(parameter: Tensor, x: Tensor) -> Tensor:
    """One value per channel (axis 1) in a shape that broadcasts against x."""
    return parameter if parameter.numel() == 1 or x.dim() < 3 else parameter.reshape(-1, *(1,) * (x.dim() - 2))


class Swish(Activation):
    """x sigmoid(beta x) with a trainable beta, as torch.nn.PReLU has its weight.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels (axis 1).
    init : float
        First value of beta.
    device, dtype
        Of beta.

    Notes
    -----
    ``beta``: Parameter of shape (num_parameters,). Source: Ramachandran, Zoph, Le (2017), Searching for activation
    functions.
    """

    _row = "swish"
    _arguments = ("beta",)

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        if isinstance(num_parameters, bool) or not isinstance(num_parameters, int):
            raise TypeError(f"num_parameters must be an int, got {type(num_parameters).__name__}")
        if num_parameters < 1:
            raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
        self.num_parameters = num_parameters
        self.init = init
        self.beta = nn.Parameter(torch.full((num_parameters,), float(init), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Set beta to its first value."""
        nn.init.constant_(self.beta, self.init)

    def extra_repr(self) -> str:
        """As torch.nn.PReLU."""
        return ", ".join(part for part in (f"num_parameters={self.num_parameters}", super().extra_repr()) if part)

    def _by_torch(self, input: Tensor) -> Tensor:
        return input * torch.sigmoid(_along_channels(self.beta, input) * input)


class ScaledSiLU(Activation):
    """x sigmoid(beta x) with a fixed beta: the "quick GELU" of CLIP has 1.702.

    Parameters
    ----------
    beta : float
        Not trained.
    """

    _row = "swish"
    _arguments = ("beta",)

    def __init__(
        self, beta: float = 1.702, *, stats: GeometryStats | None = None, gradient_stats: GradientStats | None = None
    ) -> None:
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        self.beta = float(beta)

    def _by_torch(self, input: Tensor) -> Tensor:
        return input * torch.sigmoid(self.beta * input)

    def extra_repr(self) -> str:
        """beta, and what is measured."""
        return ", ".join(part for part in (f"beta={self.beta:g}", super().extra_repr()) if part)
