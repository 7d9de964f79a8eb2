"""Gated activations: y = f(gate) h(up) of two arrays in one pass, with the statistics of the gate.

One row per gate, and the row is the public callable, as in :mod:`geoact.activations`. A row states what the compiled
struct of the same name (``csrc/ops/gates.h``) computes: its f, which is an activation that may also stand alone, and
what f is multiplied by. Every callable here is re-exported by ``geoact``; ``geoact.gates()`` lists the rows.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from geoact import _core, frontends
from geoact import _reference as _ref
from geoact.activations import Parameter
from geoact.statistics import GeometryStats, GradientStats

_Float64 = npt.NDArray[np.float64]
_INDEX = {name: index for index, (name, *_) in enumerate(_core.gates())}
_ROWS: dict[str, Gate] = {}


def _same(up: _Float64) -> _Float64:
    return np.asarray(up, dtype=np.float64)


def _one(up: _Float64) -> _Float64:
    return np.ones_like(up, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Gate:
    """A gated activation: a row of the registry that can be called.

    Attributes
    ----------
    name : str
        Public name, the same in C++ and Python.
    formula : str
        Definition, for the documentation.
    inner, slope : callable
        Float64 NumPy references of f and f', ``inner(gate, *parameters)`` and ``slope(gate, *parameters)``.
    factor, factor_slope : callable
        The same of h and h', ``factor(up, *parameters)``.
    parameters : tuple of Parameter
        In the order of the arguments after ``up``; numbers.
    kinks : tuple of float
        Gates where f' jumps; numerical derivatives are not taken across them.
    """

    name: str
    formula: str
    inner: Callable[..., _Float64] = field(repr=False)
    slope: Callable[..., _Float64] = field(repr=False)
    factor: Callable[..., _Float64] = field(default=_same, repr=False)
    factor_slope: Callable[..., _Float64] = field(default=_one, repr=False)
    parameters: tuple[Parameter, ...] = ()
    kinks: tuple[float, ...] = field(default=(), repr=False)
    source: str = field(default="", repr=False)
    variants: dict[str, str] = field(default_factory=dict, repr=False)  # approximate= -> row

    _index: int = field(init=False, repr=False)
    _names: tuple[str, ...] = field(init=False, repr=False)
    _defaults: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _INDEX[self.name])
        object.__setattr__(self, "_names", tuple(p.name for p in self.parameters))
        object.__setattr__(self, "_defaults", tuple(p.default for p in self.parameters))
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "__doc__", self._docstring())
        _ROWS[self.name] = self

    def __reduce__(self) -> tuple[Callable[[str], Gate], tuple[str]]:
        # A row is unique: pickling or copying a model that holds one must not make a second.
        return get, (self.name,)

    def __call__(
        self,
        gate: Any,  # noqa: ANN401
        up: Any,  # noqa: ANN401
        *values: object,
        out: object = None,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
        **named: object,
    ) -> Any:  # noqa: ANN401
        """Apply the gate; see the docstring of the row."""
        if isinstance(stats, GeometryStats):
            stats._refuse_tiers("a gate")
        row, numbers = self._bind(values, named) if values or named else (self, self._defaults)
        frontend = frontends.BY_TYPE.get(type(gate)) or frontends.find(gate)
        return frontend.gated_forward(row, gate, up, numbers, out, stats, gradient_stats)

    def backward(
        self,
        dy: Any,  # noqa: ANN401
        gate: Any,  # noqa: ANN401
        up: Any,  # noqa: ANN401
        *values: object,
        out: object = None,
        stats: GradientStats | None = None,
        **named: object,
    ) -> tuple[Any, Any]:
        """Gradients with respect to gate and up.

        Parameters
        ----------
        dy : array
            Gradient with respect to y, same shape and dtype as y.
        gate, up : array
            The inputs of the forward call.
        *values, **named
            The parameters of the forward call.
        out : pair of arrays, optional
            Where (dgate, dup) are written; each may be ``dy``, ``gate`` or ``up`` itself, but not both the same.
            Without it nothing that came in is overwritten.
        stats : GradientStats, optional
            Accumulator that measures, in the same pass, what f does to the gradient: dy is dy h(up) in the precision
            of the computation, dx is dgate, the slope is f'(gate).

        Returns
        -------
        dgate, dup : array
            dy h(up) f'(gate) and dy f(gate) h'(up), of the shape, dtype and memory layout of dy.

        Raises
        ------
        TypeError, ValueError
            As the forward call.
        """
        row, numbers = self._bind(values, named) if values or named else (self, self._defaults)
        if out is None:
            outs: tuple[Any, Any] = (None, None)
        elif isinstance(out, (tuple, list)) and len(out) == 2:
            outs = (out[0], out[1])
        else:
            raise TypeError(f"out must be a pair (dgate, dup), got {type(out).__name__}")
        frontend = frontends.BY_TYPE.get(type(dy)) or frontends.find(dy)
        return frontend.gated_backward(row, dy, gate, up, numbers, outs, stats)

    # --- references ---

    def value(self, gate: _Float64, up: _Float64, *values: float) -> _Float64:
        """Float64 reference of y."""
        return np.asarray(self.inner(gate, *values) * self.factor(up, *values))

    def gradients(self, dy: _Float64, gate: _Float64, up: _Float64, *values: float) -> tuple[_Float64, _Float64]:
        """Float64 references of (dgate, dup), for finite arguments."""
        dgate = dy * self.factor(up, *values) * self.slope(gate, *values)
        return dgate, dy * self.inner(gate, *values) * self.factor_slope(up, *values)

    # --- arguments ---

    def _bind(self, values: tuple[object, ...], named: dict[str, object]) -> tuple[Gate, tuple[float, ...]]:
        """Arguments after up, by position or name, to the row that is meant and one number per parameter."""
        names = ("approximate",) if self.variants else self._names
        known = ", ".join((*names, "out", "stats"))
        if len(values) > len(names):
            raise TypeError(f"{self.name} takes {2 + len(names)} positional arguments, got {2 + len(values)}")
        bound = dict(zip(names, values, strict=False))
        for name, value in named.items():
            if name not in names:
                raise TypeError(f"{self.name} got an unknown argument {name!r} (accepted: {known})")
            if name in bound:
                raise TypeError(f"{self.name} got {name} twice")
            bound[name] = value
        if self.variants:
            choice = bound["approximate"]
            if not isinstance(choice, str) or choice not in self.variants:
                raise ValueError(f"approximate is {choice!r} (accepted: {', '.join(map(repr, self.variants))})")
            return _ROWS[self.variants[choice]], ()
        return self, tuple(self._number(p, bound.get(p.name, p.default)) for p in self.parameters)

    @staticmethod
    def _number(parameter: Parameter, value: object) -> float:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.floating)):
            raise TypeError(f"{parameter.name} must be a number, got {type(value).__name__}")
        number = float(value)
        if math.isnan(number) or (parameter.name == "limit" and number < 0):
            accepted = "a number of at least 0" if parameter.name == "limit" else "any number but NaN"
            raise ValueError(f"{parameter.name} is {number} (accepted: {accepted})")
        return number

    @property
    def __signature__(self) -> inspect.Signature:
        kinds = inspect.Parameter
        arguments = [kinds("gate", kinds.POSITIONAL_ONLY), kinds("up", kinds.POSITIONAL_ONLY)]
        arguments += [kinds(p.name, kinds.POSITIONAL_OR_KEYWORD, default=p.default) for p in self.parameters]
        if self.variants:
            arguments.append(kinds("approximate", kinds.POSITIONAL_OR_KEYWORD, default="none"))
        arguments += [kinds(name, kinds.KEYWORD_ONLY, default=None) for name in ("out", "stats", "gradient_stats")]
        return inspect.Signature(arguments)

    def _docstring(self) -> str:
        parameters = "".join(f"{p.name} : float, {p.doc}; {p.default:g}\n" for p in self.parameters)
        if self.variants:
            parameters = 'approximate : "none" or "tanh", as geoact.gelu takes it\n'
        return (
            f"{self.formula}\n\n{self.source}\n\n"
            "Parameters\n----------\n"
            "gate, up : arrays of float16, bfloat16, float32 or float64, of one shape and dtype, any strides\n"
            f"{parameters}"
            "out : array like gate, optional; gate or up itself computes in place\n"
            "stats : GeometryStats, optional; measures f in the same pass: x is gate, y is f(gate) rounded to the\n"
            "    dtype, the slope is f'(gate). The result is the same with or without\n"
            "gradient_stats : GradientStats, optional; torch only: measured when autograd runs backward\n\n"
            "Returns\n-------\ny : array of the shape, dtype and memory layout of gate\n\n"
            "Raises\n------\nTypeError, ValueError\n"
            "    Naming the argument, before anything is written; stats is then as it was.\n"
        )


def gates() -> dict[str, Gate]:
    """All rows by name, in the order of the registry."""
    return dict(_ROWS)


def get(name: str) -> Gate:
    """Find a row by its name.

    Raises
    ------
    ValueError
        If there is no such gate; the message lists those there are.
    """
    if name not in _ROWS:
        raise ValueError(f"name is {name!r}, which is no gate (accepted: {', '.join(_ROWS)})")
    return _ROWS[name]


def _clipped(gate: _Float64, alpha: float, limit: float) -> _Float64:
    return _ref.swish(np.minimum(gate, limit), alpha)


def _clipped_slope(gate: _Float64, alpha: float, limit: float) -> _Float64:
    return np.where(gate <= limit, _ref.swish_slope(np.minimum(gate, limit), alpha), 0.0)


def _clipped_factor(up: _Float64, alpha: float, limit: float) -> _Float64:
    return np.asarray(np.clip(up, -limit, limit) + 1)


def _clipped_factor_slope(up: _Float64, alpha: float, limit: float) -> _Float64:
    return np.where(np.abs(up) <= limit, 1.0, 0.0)


_SHAZEER = "Shazeer (2020), GLU variants improve transformer."

swiglu = Gate("swiglu", "silu(gate) up", _ref.silu, _ref.silu_slope, source=_SHAZEER)
swiglu_clipped = Gate(
    "swiglu_clipped",
    "g sigmoid(alpha g) (u + 1), g = min(gate, limit), u = min(max(up, -limit), limit)",
    _clipped,
    _clipped_slope,
    _clipped_factor,
    _clipped_factor_slope,
    (
        Parameter("alpha", 1.702, "sharpness of the sigmoid"),
        Parameter("limit", 7.0, "where gate and up are clipped, at least 0"),
    ),
    kinks=(7.0,),
    source="OpenAI (2025), gpt-oss-120b & gpt-oss-20b model card. Gradients are 0 where a clip is at work, or at NaN.",
)
geglu = Gate(
    "geglu",
    "gelu(gate) up",
    _ref.gelu,
    _ref.gelu_slope,
    source=f"{_SHAZEER} approximate='tanh' is the row geglu_tanh.",
    variants={"none": "geglu", "tanh": "geglu_tanh"},
)
geglu_tanh = Gate("geglu_tanh", "gelu_tanh(gate) up", _ref.gelu_tanh, _ref.gelu_tanh_slope, source=_SHAZEER)
reglu = Gate("reglu", "relu(gate) up", _ref.relu, _ref.step, kinks=(0.0,), source=_SHAZEER)

__all__ = ["Gate", *_ROWS]  # the functions would hide the module and geoact.get
