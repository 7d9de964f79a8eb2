"""The registry: one row per activation, and the row is the public callable.

A row states what the compiled struct of the same name (``csrc/ops/activations.h``) computes: parameters with torch's
names and defaults, the float64 NumPy reference, the accuracy promised and the source. Tests, benchmarks and the table
in the documentation are generated from these rows. Every public name here is re-exported by ``geoact``.
"""

from __future__ import annotations

import inspect as _inspect
import math as _math
from collections.abc import Callable as _Callable
from dataclasses import dataclass as _dataclass
from dataclasses import field as _field
from typing import Any as _Any

import numpy as _np
import numpy.typing as _npt

from geoact import _core
from geoact import _reference as _ref
from geoact import frontends as _frontends
from geoact.statistics import GeometryStats as _GeometryStats
from geoact.statistics import GradientStats as _GradientStats

_Float64 = _npt.NDArray[_np.float64]
_INDEX = {name: index for index, (name, *_) in enumerate(_core.activations())}
_ROWS: dict[str, Activation] = {}


@_dataclass(frozen=True)
class Parameter:
    """One parameter of an activation. ``default`` is None where the caller must give it."""

    name: str
    default: float | None
    doc: str


@_dataclass(frozen=True, eq=False)
class Activation:
    """An activation function: a row of the registry that can be called.

    Attributes
    ----------
    name : str
        Public name, the same in C++ and Python.
    formula : str
        Definition, for the documentation.
    value, slope : callable
        Float64 NumPy references ``value(x, *parameters)`` and ``slope(x, *parameters)``, written for accuracy.
    parameters : tuple of Parameter
        In the order of the arguments after x.
    param_slope : tuple of callable
        Reference derivatives with respect to the trained parameters: one each, of the first parameters.
    ulp : dict
        Promised largest error of ``value``, in units in the last place, by dtype.
    size : callable, optional
        Where ``value`` is a sum that may cancel: the reference size of its largest term, which the units of ``ulp``
        are then of, as far as that exceeds the value.
    kinks : tuple of float
        Points where the slope jumps; numerical derivatives are not taken across them.
    """

    name: str
    formula: str
    value: _Callable[..., _Float64] = _field(repr=False)
    slope: _Callable[..., _Float64] = _field(repr=False)
    parameters: tuple[Parameter, ...] = ()
    param_slope: tuple[_Callable[..., _Float64], ...] = _field(default=(), repr=False)
    ulp: dict[str, float] = _field(default_factory=lambda: {"float32": 2, "float64": 4}, repr=False)
    size: _Callable[..., _Float64] | None = _field(default=None, repr=False)
    kinks: tuple[float, ...] = _field(default=(), repr=False)
    source: str = _field(default="", repr=False)
    variants: dict[str, str] = _field(default_factory=dict, repr=False)  # approximate= -> row

    def __post_init__(self) -> None:
        names = tuple(p.name for p in self.parameters)
        defaults = tuple(p.default for p in self.parameters)
        object.__setattr__(self, "_index", _INDEX[self.name])
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_defaults", None if None in defaults else defaults)
        object.__setattr__(self, "_filling", defaults)
        object.__setattr__(self, "_places", {name: place for place, name in enumerate(names)})
        object.__setattr__(self, "saves", _core.activations()[self._index][2])
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "__doc__", self._docstring())
        _ROWS[self.name] = self

    _index: int = _field(init=False, repr=False)
    _names: tuple[str, ...] = _field(init=False, repr=False)
    _defaults: tuple[float, ...] | None = _field(init=False, repr=False)
    _filling: tuple[float | None, ...] = _field(init=False, repr=False)
    _places: dict[str, int] = _field(init=False, repr=False)
    saves: str = _field(init=False, repr=False)

    def __reduce__(self) -> tuple[_Callable[[str], Activation], tuple[str]]:
        # A row is unique: pickling or copying a model that holds one must not make a second.
        return get, (self.name,)

    @property
    def trainable(self) -> int:
        """How many parameters are trained, from the first on: ``backward`` also returns their gradients."""
        return len(self.param_slope)

    def __call__(
        self,
        x: _Any,  # noqa: ANN401
        *values: object,
        out: object = None,
        stats: _GeometryStats | None = None,
        gradient_stats: _GradientStats | None = None,
        **named: object,
    ) -> _Any:  # noqa: ANN401
        """Apply the activation to x; see the docstring of the row."""
        if stats is not None and getattr(stats, "_reservoir", None) is not None:
            return stats._keeping(x, lambda: self._run(x, values, out, stats, gradient_stats, named))
        frontend = _frontends.BY_TYPE.get(type(x)) or _frontends.find(x)
        if values or named or self._defaults is None:
            row, values, channel_axis = self._bind(values, named)
            return frontend.forward(row, x, values, out, stats, gradient_stats, channel_axis)
        return frontend.forward(self, x, self._defaults, out, stats, gradient_stats, 1)

    def _run(
        self,
        x: _Any,  # noqa: ANN401
        values: tuple[object, ...],
        out: object,
        stats: _GeometryStats | None,
        gradient_stats: _GradientStats | None,
        named: dict[str, object],
    ) -> _Any:  # noqa: ANN401
        """The call, for who has something to do before and after it."""
        frontend = _frontends.BY_TYPE.get(type(x)) or _frontends.find(x)
        row, values, channel_axis = self._bind(values, named)
        return frontend.forward(row, x, values, out, stats, gradient_stats, channel_axis)

    def backward(
        self,
        dy: _Any,  # noqa: ANN401
        *values: object,
        x: object = None,
        y: object = None,
        out: object = None,
        stats: _GradientStats | None = None,
        **named: object,
    ) -> _Any:  # noqa: ANN401
        """Gradient with respect to x.

        Parameters
        ----------
        dy : array
            Gradient with respect to y, same shape and dtype as y.
        x, y : array
            What ``saves`` names: the input or the output of the forward call. Only that one is read.
        *values, **named
            The parameters of the forward call.
        out : array, optional
            Where dx is written; may be ``dy`` or the saved array itself.
        stats : GradientStats, optional
            Accumulator that measures dy, dx and the slope in the same pass.

        Returns
        -------
        dx : array, or (dx, dparameter, ...)
            A tuple where the activation has trained parameters. Each ``dparameter`` has the shape and dtype of its
            parameter, or is a float where a number was given; of CuPy arrays an array of one float64 and no axes, for
            which the device need not be waited for.

        Raises
        ------
        TypeError, ValueError
            As the forward call; also if the array that ``saves`` names is missing.
        """
        channel_axis, row = 1, self
        if values or named or self._defaults is None:
            row, values, channel_axis = self._bind(values, named)
        else:
            values = self._defaults
        saved = y if row.saves == "y" else x
        if saved is None:
            other = " (x was given)" if row.saves == "y" and x is not None else ""
            other = " (y was given)" if row.saves == "x" and y is not None else other
            raise TypeError(f"{row.name}.backward needs {row.saves}= of the forward call{other}")
        frontend = _frontends.BY_TYPE.get(type(dy)) or _frontends.find(dy)
        return frontend.backward(row, dy, saved, values, out, stats, channel_axis)

    def _bind(self, values: tuple[object, ...], named: dict[str, object]) -> tuple[Activation, tuple[object, ...], int]:
        """Arguments after x, by position or name, to one value per parameter: the quick way, or the careful one."""
        if self.variants:
            if values or len(named) > 1:
                return self._bind_carefully(values, named)
            try:
                return _ROWS[self.variants[named["approximate"]]], (), 1  # type: ignore[index]
            except (KeyError, TypeError):
                return self._bind_carefully(values, named)
        given = len(values)
        bound = [*values, *self._filling[given:]]
        for name, value in named.items():
            place = self._places.get(name, -1)
            if place < given:
                return self._bind_carefully(values, named)
            bound[place] = value
        if len(bound) != len(self._filling):
            return self._bind_carefully(values, named)
        trained = self.trainable
        for place, value in enumerate(bound):
            if value is None if place < trained else type(value) is not float:
                return self._bind_carefully(values, named)
        return self, tuple(bound), 1

    def _bind_carefully(
        self, values: tuple[object, ...], named: dict[str, object]
    ) -> tuple[Activation, tuple[object, ...], int]:
        """The same for any arguments; raises where they are wrong."""
        row = self
        if self.variants:
            if len(values) > 1 or (values and "approximate" in named) or set(named) - {"approximate"}:
                given = ", ".join([*map(repr, values), *(f"{name}={value!r}" for name, value in named.items())])
                raise TypeError(f"{self.name} takes approximate= besides x, out, stats and gradient_stats, got {given}")
            choice = named.get("approximate", values[0] if values else "none")
            if not isinstance(choice, str) or choice not in self.variants:
                raise ValueError(f"approximate is {choice!r} (accepted: {', '.join(map(repr, self.variants))})")
            return _ROWS[self.variants[choice]], (), 1
        channel_axis = 1
        if "channel_axis" in named and self.trainable:
            axis = named.pop("channel_axis")
            if not isinstance(axis, int):
                raise TypeError(f"channel_axis must be an int, got {type(axis).__name__}")
            channel_axis = axis
        if len(values) > len(self.parameters):
            raise TypeError(f"{self.name} takes {1 + len(self.parameters)} positional arguments, got {1 + len(values)}")
        bound = dict(zip(self._names, values, strict=False))
        for name, value in named.items():
            if name not in self._names:
                known = ", ".join((*self._names, "out", "stats", "gradient_stats"))
                raise TypeError(f"{self.name} got an unknown argument {name!r} (accepted: {known})")
            if name in bound:
                raise TypeError(f"{self.name} got {name} twice")
            bound[name] = value
        result = []
        for place, parameter in enumerate(self.parameters):
            value = bound.get(parameter.name, parameter.default)
            if value is None:
                raise TypeError(f"{self.name} needs {parameter.name}")
            if place >= self.trainable and not isinstance(value, (int, float, _np.floating)):
                raise TypeError(f"{parameter.name} must be a number, got {type(value).__name__}")
            result.append(value)
        return row, tuple(result), channel_axis

    @property
    def __signature__(self) -> _inspect.Signature:
        kinds = _inspect.Parameter
        arguments = [kinds("x", kinds.POSITIONAL_ONLY)]
        for p in self.parameters:
            default = kinds.empty if p.default is None else p.default
            arguments.append(kinds(p.name, kinds.POSITIONAL_OR_KEYWORD, default=default))
        if self.variants:
            arguments.append(kinds("approximate", kinds.POSITIONAL_OR_KEYWORD, default="none"))
        if self.trainable:
            arguments.append(kinds("channel_axis", kinds.KEYWORD_ONLY, default=1))
        for name in ("out", "stats", "gradient_stats"):
            arguments.append(kinds(name, kinds.KEYWORD_ONLY, default=None))
        return _inspect.Signature(arguments)

    def _docstring(self) -> str:
        parameters = "".join(f"{p.name} : {p.doc}\n" for p in self.parameters)
        return (
            f"{self.formula}\n\n{self.source}\n\n"
            "Parameters\n----------\n"
            "x : array of float16, bfloat16, float32 or float64, any shape and strides\n"
            f"{parameters}"
            "out : array like x, optional; x itself computes in place\n"
            "stats : GeometryStats, optional; measured in the same pass, y is the same with or without\n"
            "gradient_stats : GradientStats, optional; torch only: measured when autograd runs backward\n\n"
            "Returns\n-------\ny : array of the shape, dtype and memory layout of x\n\n"
            "Raises\n------\nTypeError, ValueError\n"
            "    Naming the argument, before anything is written; stats is then as it was.\n"
        )


def activations() -> dict[str, Activation]:
    """All rows by name, in the order of the registry."""
    return dict(_ROWS)


def get(name: str) -> Activation:
    """Find a row by its name.

    Raises
    ------
    ValueError
        If there is no such activation; the message lists those there are.
    """
    if name not in _ROWS:
        raise ValueError(f"name is {name!r}, which is no activation (accepted: {', '.join(_ROWS)})")
    return _ROWS[name]


_EXACT: dict[str, float] = {"float32": 0.5, "float64": 0.5}
_FOUR: dict[str, float] = {"float32": 4, "float64": 4}

sigmoid = Activation("sigmoid", "1 / (1 + exp(-x))", _ref.sigmoid, _ref.sigmoid_slope)
centered_sigmoid = Activation(
    "centered_sigmoid",
    "tanh(x / 2) / 2 = sigmoid(x) - 1/2",
    _ref.centered_sigmoid,
    _ref.sigmoid_slope,
    source="A sigmoid about zero: the same slope, and no constant that eats the bits of a narrow format.",
)
tanh = Activation("tanh", "tanh(x)", _ref.tanh, _ref.tanh_slope)
relu = Activation("relu", "max(0, x)", _ref.relu, _ref.step, ulp=_EXACT, kinks=(0.0,))
leaky_relu = Activation(
    "leaky_relu",
    "x if x > 0 else negative_slope x",
    _ref.leaky_relu,
    _ref.leaky_relu_slope,
    (Parameter("negative_slope", 0.01, "slope for x <= 0"),),
    ulp=_EXACT,
    kinks=(0.0,),
    source="Maas, Hannun, Ng (2013), Rectifier nonlinearities improve neural network acoustic models.",
)
relu_squared = Activation(
    "relu_squared",
    "max(0, x)^2",
    _ref.relu_squared,
    _ref.relu_squared_slope,
    ulp=_EXACT,
    source="So et al. (2021), Primer: searching for efficient transformers for language modeling.",
)
elu = Activation(
    "elu",
    "x if x > 0 else alpha (exp(x) - 1)",
    _ref.elu,
    _ref.elu_slope,
    (Parameter("alpha", 1.0, "size of the negative plateau"),),
    source="Clevert, Unterthiner, Hochreiter (2016), Fast and accurate deep network learning by ELUs.",
)
silu = Activation(
    "silu",
    "x sigmoid(x)",
    _ref.silu,
    _ref.silu_slope,
    source="Elfwing, Uchibe, Doya (2018), Sigmoid-weighted linear units.",
)
gelu = Activation(
    "gelu",
    "x P(N(0, 1) < x)",
    _ref.gelu,
    _ref.gelu_slope,
    ulp=_FOUR,
    source="Hendrycks, Gimpel (2016), Gaussian error linear units. approximate='tanh' is the row gelu_tanh.",
    variants={"none": "gelu", "tanh": "gelu_tanh"},
)
gelu_tanh = Activation(
    "gelu_tanh",
    "x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))",
    _ref.gelu_tanh,
    _ref.gelu_tanh_slope,
    ulp=_FOUR,
    source="Hendrycks, Gimpel (2016), Gaussian error linear units, the tanh form.",
)
softplus = Activation(
    "softplus",
    "log(1 + exp(beta x)) / beta; x where beta x > threshold",
    _ref.softplus,
    _ref.softplus_slope,
    (
        Parameter("beta", 1.0, "sharpness"),
        Parameter("threshold", 20.0, "beta x above which the function is taken as x, as torch does"),
    ),
    ulp=_FOUR,
    source="Dugas et al. (2001), Incorporating second-order functional knowledge for better option pricing.",
)
hardsigmoid = Activation(
    "hardsigmoid", "min(max(x + 3, 0), 6) / 6", _ref.hardsigmoid, _ref.hardsigmoid_slope, kinks=(-3.0, 3.0)
)
hardswish = Activation(
    "hardswish",
    "x min(max(x + 3, 0), 6) / 6",
    _ref.hardswish,
    _ref.hardswish_slope,
    kinks=(-3.0, 3.0),
    source="Howard et al. (2019), Searching for MobileNetV3.",
)
mish = Activation(
    "mish",
    "x tanh(log(1 + exp(x)))",
    _ref.mish,
    _ref.mish_slope,
    ulp=_FOUR,
    source="Misra (2020), Mish: a self regularized non-monotonic activation function.",
)
gal = Activation(
    "gal",
    "scale ((x if x > 0 else negative_slope x) - shift)",
    _ref.gal,
    _ref.gal_slope,
    (
        Parameter("negative_slope", 0.01, "slope for x <= 0, before scaling"),
        Parameter("scale", 1.0, "factor of everything"),
        Parameter("shift", 0.0, "taken off before scaling"),
    ),
    size=_ref.gal_size,
    kinks=(0.0,),
    source="A leaky rectifier whose parameters are set from measured geometry, not trained.",
)
prelu = Activation(
    "prelu",
    "x if x > 0 else weight x",
    _ref.leaky_relu,
    _ref.leaky_relu_slope,
    (
        Parameter(
            "weight",
            None,
            "number, or array of one value or one per channel (axis channel_axis, 1 as in torch)",
        ),
    ),
    param_slope=(_ref.prelu_param_slope,),
    ulp=_EXACT,
    kinks=(0.0,),
    source="He, Zhang, Ren, Sun (2015), Delving deep into rectifiers.",
)
swish = Activation(
    "swish",
    "x sigmoid(beta x)",
    _ref.swish,
    _ref.swish_slope,
    (Parameter("beta", 1.0, "number, or array of one value or one per channel (axis channel_axis)"),),
    param_slope=(_ref.swish_param_slope,),
    source="Ramachandran, Zoph, Le (2017), Searching for activation functions.",
)
_PER_CHANNEL = "number, or array of one value or one per channel (axis channel_axis)"
acon_c = Activation(
    "acon_c",
    "(p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x",
    _ref.acon_c,
    _ref.acon_c_slope,
    (
        Parameter("p1", 1.0, f"slope where beta (p1 - p2) x is large: {_PER_CHANNEL}"),
        Parameter("p2", 0.0, f"slope on the other side: {_PER_CHANNEL}"),
        Parameter("beta", 1.0, f"how sharply the one turns into the other: {_PER_CHANNEL}"),
    ),
    param_slope=(_ref.acon_c_p1_slope, _ref.acon_c_p2_slope, _ref.acon_c_beta_slope),
    ulp=_FOUR,
    size=_ref.acon_c_size,
    source="Ma, Zhang, Liu, Sun (2021), Activate or not: learning customized activation.",
)
_XIELU = _math.log(_math.expm1(0.8))  # whose softplus is .8, where the paper starts
xielu = Activation(
    "xielu",
    "a x^2 + beta x if x > 0 else (beta + b) (exp(min(x, eps)) - 1 - x) + beta x; "
    "a = log(1 + exp(alpha_p)), b = log(1 + exp(alpha_n))",
    _ref.xielu,
    _ref.xielu_slope,
    (
        Parameter("alpha_p", _XIELU, f"curvature for x > 0, before softplus: {_PER_CHANNEL}"),
        Parameter("alpha_n", _XIELU, f"curvature for x <= 0, before softplus: {_PER_CHANNEL}"),
        Parameter("beta", 0.5, "slope at 0"),
        Parameter("eps", -1e-6, "x above which exp(x) is held, at most 0"),
    ),
    param_slope=(_ref.xielu_alpha_p_slope, _ref.xielu_alpha_n_slope),
    ulp=_FOUR,
    size=_ref.xielu_size,
    kinks=(0.0,),
    source="Huang (2024), Deriving activation functions using integration.",
)
dyt = Activation(
    "dyt",
    "weight tanh(alpha x) + bias",
    _ref.dyt,
    _ref.dyt_slope,
    (
        Parameter("alpha", 0.5, f"steepness: {_PER_CHANNEL}"),
        Parameter("weight", 1.0, f"factor of tanh: {_PER_CHANNEL}"),
        Parameter("bias", 0.0, f"added to it: {_PER_CHANNEL}"),
    ),
    param_slope=(_ref.dyt_alpha_slope, _ref.dyt_weight_slope, _ref.bias_slope),
    ulp=_FOUR,
    size=_ref.dyt_size,
    source="Zhu, Chen, He, LeCun, Liu (2025), Transformers without normalization.",
)
derf = Activation(
    "derf",
    "weight erf(alpha x + shift) + bias",
    _ref.derf,
    _ref.derf_slope,
    (
        Parameter("alpha", 0.5, f"steepness: {_PER_CHANNEL}"),
        Parameter("shift", 0.0, f"added to the argument of erf: {_PER_CHANNEL}"),
        Parameter("weight", 1.0, f"factor of erf: {_PER_CHANNEL}"),
        Parameter("bias", 0.0, f"added to it: {_PER_CHANNEL}"),
    ),
    param_slope=(_ref.derf_alpha_slope, _ref.derf_shift_slope, _ref.derf_weight_slope, _ref.bias_slope),
    ulp=_FOUR,
    size=_ref.derf_size,
    source="Chen, Lu, Zhu, Sun, Liu (2025), Stronger normalization-free transformers.",
)
