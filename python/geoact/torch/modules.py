"""Drop-in modules: torch.nn's activations, computed and measured by geoact.

Each is a subclass of the module it replaces (so ``isinstance(m, torch.nn.ReLU)`` still holds) with the same constructor
arguments, repr and state_dict; only ``forward`` differs. ``stats=`` and ``gradient_stats=`` take accumulators that
every call adds to. A tensor that geoact cannot compute on goes to torch's own module, with one warning.
"""

from __future__ import annotations

import inspect
import math
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


def _count(num_parameters: int) -> int:
    if isinstance(num_parameters, bool) or not isinstance(num_parameters, int):
        raise TypeError(f"num_parameters must be an int, got {type(num_parameters).__name__}")
    if num_parameters < 1:
        raise ValueError(f"num_parameters must be at least 1, got {num_parameters}")
    return num_parameters


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
        self.num_parameters = _count(num_parameters)
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


class FixedGAL(Activation):
    """Scale (leaky_relu(x) - shift) with fixed numbers: what a frozen :class:`GAL` is.

    Parameters
    ----------
    negative_slope, scale, shift : float
        Of scale ((x if x > 0 else negative_slope x) - shift).
    inplace : bool
        Write y over x.
    """

    _row = "gal"
    _arguments = ("negative_slope", "scale", "shift", "inplace")
    _numbers = ("negative_slope", "scale", "shift")

    def __init__(
        self,
        negative_slope: float = 0.01,
        scale: float = 1.0,
        shift: float = 0.0,
        inplace: bool = False,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        self.negative_slope = negative_slope
        self.scale = scale
        self.shift = shift
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The numbers, and what is measured."""
        given = f"negative_slope={self.negative_slope:g}, scale={self.scale:g}, shift={self.shift:g}"
        parts = (given, "inplace=True" if self.inplace else "", super().extra_repr())
        return ", ".join(part for part in parts if part)

    def _by_torch(self, input: Tensor) -> Tensor:
        return self.scale * (nn.functional.leaky_relu(input, self.negative_slope) - self.shift)


class _Trained(Activation):
    """Several trained parameters, each of one value or of one per channel."""

    num_parameters: int
    channel_axis: int
    _first: dict[str, tuple[int, float]]  # how many values a parameter has, and the first of each

    def __init_subclass__(cls) -> None:
        nn.Module.__init_subclass__()

    def _make(
        self, first: dict[str, tuple[int, float]], device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        self._first = first
        for name, (count, value) in first.items():
            setattr(self, name, nn.Parameter(torch.full((count,), float(value), device=device, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Set the parameters to their first values."""
        for name, (_, value) in self._first.items():
            nn.init.constant_(getattr(self, name), value)

    def extra_repr(self) -> str:
        """How many parameters, along which axis, and what is measured."""
        axis = f"channel_axis={self.channel_axis}"
        parts = (f"num_parameters={self.num_parameters}", axis, super().extra_repr())
        return ", ".join(part for part in parts if part)

    def _placed(self, name: str, x: Tensor) -> Tensor:
        """A parameter in a shape that broadcasts against x."""
        parameter: Tensor = getattr(self, name)
        if parameter.numel() == 1:
            return parameter.reshape(())
        shape = [1] * x.dim()
        shape[self.channel_axis if x.dim() > 1 else 0] = -1
        return parameter.reshape(shape)


class AconC(_Trained):
    """(p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x: learns whether, and how sharply, to bend.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels.
    p1, p2, beta : float
        First values. Those of here make it SiLU; the authors draw p1 and p2 from a normal distribution and start with
        beta = 1.
    channel_axis : int
        Where the channels lie.
    device, dtype
        Of the parameters.

    Notes
    -----
    ``p1``, ``p2``, ``beta``: Parameters of shape (num_parameters,). Source: Ma, Zhang, Liu, Sun (2021), Activate or
    not: learning customized activation.
    """

    _row = "acon_c"
    _arguments = ("p1", "p2", "beta", "channel_axis")

    def __init__(
        self,
        num_parameters: int = 1,
        p1: float = 1.0,
        p2: float = 0.0,
        beta: float = 1.0,
        channel_axis: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        self.num_parameters = count = _count(num_parameters)
        self.channel_axis = channel_axis
        self._make({"p1": (count, p1), "p2": (count, p2), "beta": (count, beta)}, device, dtype)

    def _by_torch(self, input: Tensor) -> Tensor:
        p1, p2, beta = (self._placed(name, input) for name in ("p1", "p2", "beta"))
        d = (p1 - p2) * input
        return d * torch.sigmoid(beta * d) + p2 * input


class XIELU(_Trained):
    """a x^2 + beta x for x > 0, b (exp(x) - 1 - x) + beta x below, with trained a > 0 and b > beta.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels.
    a, b : float
        First values: ``alpha_p`` and ``alpha_n`` start where a = softplus(alpha_p) and b = beta + softplus(alpha_n).
    beta : float
        Slope at 0.
    eps : float
        x above which exp(x) is held, at most 0.
    channel_axis : int
        Where the channels lie.
    device, dtype
        Of the parameters.

    Raises
    ------
    ValueError
        If a <= 0 or b <= beta.

    Notes
    -----
    ``alpha_p``, ``alpha_n``: Parameters of shape (num_parameters,). Source: Huang (2024), Deriving activation functions
    using integration.
    """

    _row = "xielu"
    _arguments = ("alpha_p", "alpha_n", "beta", "eps", "channel_axis")

    def __init__(
        self,
        num_parameters: int = 1,
        a: float = 0.8,
        b: float = 0.8,
        beta: float = 0.5,
        eps: float = -1e-6,
        channel_axis: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        if not a > 0:
            raise ValueError(f"a must be above 0, got {a}")
        if not b > beta:
            raise ValueError(f"b must be above beta = {beta}, got {b}")
        self.num_parameters = count = _count(num_parameters)
        self.channel_axis = channel_axis
        self.beta = float(beta)
        self.eps = float(eps)
        first = {"alpha_p": (count, _softplus_inverse(a)), "alpha_n": (count, _softplus_inverse(b - beta))}
        self._make(first, device, dtype)

    def _by_torch(self, input: Tensor) -> Tensor:
        a = nn.functional.softplus(self._placed("alpha_p", input))
        b = self.beta + nn.functional.softplus(self._placed("alpha_n", input))
        low = input.clamp_max(0)
        below = b * (torch.expm1(low.clamp_max(self.eps)) - low)
        return torch.where(input > 0, a * input * input, below) + self.beta * input


def _softplus_inverse(v: float) -> float:
    return v + math.log(-math.expm1(-v))


class _InsteadOfNorm(_Trained):
    """What DyT and Derf share: some parameters of one value, then weight and bias per channel, on the last axis."""

    _single: tuple[str, ...]

    def __init__(
        self,
        num_parameters: int = 1,
        alpha: float = 0.5,
        channel_axis: int = -1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        self.num_parameters = count = _count(num_parameters)
        self.channel_axis = channel_axis
        single = {name: (1, alpha if name == "alpha" else 0.0) for name in self._single}
        self._make({**single, "weight": (count, 1.0), "bias": (count, 0.0)}, device, dtype)


class DyT(_InsteadOfNorm):
    """weight tanh(alpha x) + bias: what stands in for a normalisation layer.

    Parameters
    ----------
    num_parameters : int
        Values of weight and bias: the number of channels, or 1. alpha has one.
    alpha : float
        First value. weight starts at 1, bias at 0.
    channel_axis : int
        Where the channels lie: the last axis, as in a transformer.
    device, dtype
        Of the parameters.

    Notes
    -----
    ``alpha``: Parameter of shape (1,); ``weight``, ``bias``: of shape (num_parameters,). Source: Zhu, Chen, He, LeCun,
    Liu (2025), Transformers without normalization.
    """

    _row = "dyt"
    _single = ("alpha",)
    _arguments = ("alpha", "weight", "bias", "channel_axis")

    def _by_torch(self, input: Tensor) -> Tensor:
        alpha, weight, bias = (self._placed(name, input) for name in ("alpha", "weight", "bias"))
        return weight * torch.tanh(alpha * input) + bias


class Derf(_InsteadOfNorm):
    """weight erf(alpha x + shift) + bias: what stands in for a normalisation layer.

    Parameters
    ----------
    num_parameters : int
        Values of weight and bias: the number of channels, or 1. alpha and shift have one.
    alpha : float
        First value. shift and bias start at 0, weight at 1.
    channel_axis : int
        Where the channels lie: the last axis, as in a transformer.
    device, dtype
        Of the parameters.

    Notes
    -----
    ``alpha``, ``shift``: Parameters of shape (1,); ``weight``, ``bias``: of shape (num_parameters,). Source: Chen, Lu,
    Zhu, Sun, Liu (2025), Stronger normalization-free transformers.
    """

    _row = "derf"
    _single = ("alpha", "shift")
    _arguments = ("alpha", "shift", "weight", "bias", "channel_axis")

    def _by_torch(self, input: Tensor) -> Tensor:
        alpha, shift, weight, bias = (self._placed(name, input) for name in ("alpha", "shift", "weight", "bias"))
        return weight * torch.erf(alpha * input + shift) + bias
