"""Rules that turn a reading into alerts: one line for each thing wrong, naming the layer.

The defaults are meant to be silent on a healthy network, so each says what a healthy one measures or who measured it.
``gain`` rules judge one layer; what happens over depth includes the weights between activations, so it is judged by
what arrives: the product of all gains, linear layers included, telescopes to the ratio to the first layer (forward) or
to the last (backward). The product of the activations' own gains would condemn every well initialised ReLU network.
Imports :mod:`geoact.torch.reading` only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from geoact.torch.reading import BACKWARD, FORWARD, Alert, Layer, Reading

_SCALARS = tuple(scalar.name for scalar in FORWARD + BACKWARD)
_SQUASHING = ("sigmoid", "centered_sigmoid", "tanh", "hardsigmoid")
# Those whose output and slope vanish for negative x. The negative side of ELU and leaky ReLU carries information.
_RECTIFYING = ("relu", "relu_squared", "gelu", "gelu_tanh", "silu", "swish", "hardswish", "mish")


@dataclass(frozen=True)
class Rule:
    """A limit for one scalar.

    Attributes
    ----------
    name : str
        What an alert is called by; unique within a set of rules.
    scalar : str
        A column of the reading.
    threshold : float
    message : str
        Template of the alert; may use ``{value}`` and ``{threshold}`` with format specifications.
    doc : str
        Why this threshold.
    above : bool
        Whether values above the threshold are wrong, or those below. The threshold itself is fine.
    relative_to : {"first", "last"}, optional
        Judge the ratio to the first or last layer with a positive, finite value, and report the worst layer only.
    activations : tuple of str
        Rows of the registry that the rule is about; empty for all.
    samples : int
        Elements in each group below which the record is too small to be judged.
    """

    name: str
    scalar: str
    threshold: float
    message: str
    doc: str = ""
    above: bool = True
    relative_to: str | None = None
    activations: tuple[str, ...] = ()
    samples: int = 0

    def __post_init__(self) -> None:
        for name in ("name", "scalar", "message", "doc"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a str, got {type(getattr(self, name)).__name__}")
        if not self.name:
            raise ValueError("name is empty")
        if self.scalar not in _SCALARS:
            raise ValueError(f"scalar is {self.scalar!r} (accepted: {', '.join(_SCALARS)})")
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, (int, float)):
            raise TypeError(f"threshold must be a number, got {type(self.threshold).__name__}")
        if math.isnan(self.threshold):
            raise ValueError("threshold is NaN: such a rule would never fire")
        if not isinstance(self.above, bool):
            raise TypeError(f"above must be a bool, got {type(self.above).__name__}")
        if self.relative_to not in (None, "first", "last"):
            raise ValueError(f"relative_to is {self.relative_to!r} (accepted: 'first', 'last', None)")
        if not isinstance(self.activations, tuple) or not all(isinstance(row, str) for row in self.activations):
            raise TypeError(f"activations must be a tuple of str, got {self.activations!r}")
        if isinstance(self.samples, bool) or not isinstance(self.samples, int):
            raise TypeError(f"samples must be an int, got {type(self.samples).__name__}")
        if self.samples < 0:
            raise ValueError(f"samples is {self.samples} (accepted: 0 and more)")
        try:
            self._text(0.5)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"message is {self.message!r}: only {{value}} and {{threshold}} are filled in") from error

    def _text(self, value: float) -> str:
        return self.message.format(value=value, threshold=self.threshold)

    def fires(self, value: float) -> bool:
        """Whether a value is on the wrong side of the threshold; NaN, not measured, never is."""
        return value > self.threshold if self.above else value < self.threshold

    def applies(self, layer: Layer) -> bool:
        """Whether the rule is about this layer's activation and enough of it was seen."""
        if self.activations and layer.activation not in self.activations:
            return False
        return self.samples == 0 or _smallest_group(layer) >= self.samples

    def check(self, reading: Reading) -> list[Alert]:
        """The alerts of this rule alone, in the order of the layers."""
        values = [(layer, layer.scalars()[self.scalar]) for layer in reading if self.applies(layer)]
        if self.relative_to is not None:
            reference = _reference([value for _, value in values], self.relative_to)
            values = [(layer, value / reference) for layer, value in values]
        wrong = [(layer, value) for layer, value in values if self.fires(value)]
        if self.relative_to is not None and wrong:
            # What is lost on the way is lost for every layer behind: one line instead of twenty.
            wrong = [(max if self.above else min)(wrong, key=lambda pair: pair[1])]
        return [
            Alert(layer.name, self.name, value, float(self.threshold), self._text(value), self.scalar)
            for layer, value in wrong
        ]


def _smallest_group(layer: Layer) -> float:
    n = layer.forward._record()["n"]
    return float(np.min(n)) if n.size else 0.0


def _reference(values: list[float], which: str) -> float:
    usable = [value for value in values if 0 < value < math.inf]
    if not usable:
        return math.nan
    return usable[0] if which == "first" else usable[-1]


DEFAULT_RULES: tuple[Rule, ...] = (
    Rule(
        "nonfinite-input",
        "nonfinite_x",
        0,
        "{value:.0f} inputs are NaN or infinite",
        "No finite computation makes one; ReLU hides -inf and NaN may be masked later.",
    ),
    Rule("nonfinite-output", "nonfinite", 0, "{value:.0f} outputs are NaN or infinite", "As for inputs."),
    Rule(
        "nonfinite-gradient",
        "grad_nonfinite",
        0,
        "{value:.0f} entries of the gradient are NaN or infinite",
        "One such entry ruins a step. With a loss scaler a single one after the scale grew is expected.",
    ),
    Rule(
        "dead-channels",
        "dead",
        0.5,
        "{value:.0%} of the channels were never positive",
        "More than half of the width does nothing. A well initialised network has next to none; a too high learning "
        "rate kills as many as 40 % (Stanford CS231n notes on ReLU), and Voita et al. (2023) find over 70 % in some "
        "layers of OPT. 300 elements a channel, because then a unit never seen firing does so in less than 1 % of "
        "cases (rule of three, 95 %): fewer would call a sparse unit dead.",
        activations=_RECTIFYING,
        samples=300,
    ),
    Rule(
        "always-zero",
        "zero",
        0.99,
        "{value:.1%} of the outputs are 0",
        "Half are 0 in a ReLU at initialisation, and some 97 % in trained transformers (Li et al. 2023, The lazy "
        "neuron phenomenon): sparsity is no fault until next to nothing is left.",
    ),
    Rule(
        "saturated",
        "saturated",
        0.5,
        "{value:.0%} of the inputs are where the slope is almost 0",
        "For N(0, 1) inputs 3 % of tanh and 0.4 % of sigmoid are that far out; saturation stops what is below from "
        "learning (Glorot and Bengio 2010). Squashing functions only: a ReLU has slope 0 on half of its inputs.",
        activations=_SQUASHING,
    ),
    Rule(
        "gain-vanishing",
        "scale",
        0.01,
        "squared distances shrink to {value:.2g} of what they were",
        "A factor of 10 in distance in one activation. For N(0, 1) inputs: ReLU .34, tanh .39, sigmoid .043, and "
        "hardsigmoid, the flattest of the registry, .028.",
        above=False,
    ),
    Rule(
        "gain-exploding",
        "scale",
        100,
        "squared distances grow {value:.3g}-fold",
        "A factor of 10 in distance. Where |f'| <= 1.13, as for all but relu_squared and trainable rows, the gain "
        "stays below 1.3.",
    ),
    Rule(
        "gradient-gain-vanishing",
        "grad_gain",
        0.01,
        "the squared gradient shrinks to {value:.2g} of what arrived",
        "As for distances: E f'^2 is .5 for ReLU, .045 for sigmoid and .028 for hardsigmoid at N(0, 1).",
        above=False,
    ),
    Rule(
        "gradient-gain-exploding", "grad_gain", 100, "the squared gradient grows {value:.3g}-fold", "As for distances."
    ),
    Rule(
        "signal-vanishing",
        "sd_x",
        1e-3,
        "its input varies only {value:.1e} times as much as the first layer's",
        "He et al. (2015) and Glorot and Bengio (2010) choose weights to keep this ratio near 1; three decades leave "
        "room for pooling, gates and layers of other widths.",
        above=False,
        relative_to="first",
    ),
    Rule(
        "signal-exploding",
        "sd_x",
        1e3,
        "its input varies {value:.1e} times as much as the first layer's",
        "The same three decades; a residual stream grows with the square root of depth only.",
        relative_to="first",
    ),
    Rule(
        "gradient-vanishing",
        "grad_rms",
        1e-3,
        "its gradient is only {value:.1e} of the last layer's (rms)",
        "Three decades: no single learning rate serves both ends (Glorot and Bengio 2010). Sigmoid loses a factor of "
        "about 4 a layer, so five layers are enough.",
        above=False,
        relative_to="last",
    ),
    Rule(
        "gradient-exploding",
        "grad_rms",
        1e3,
        "its gradient is {value:.1e} times the last layer's (rms)",
        "The same three decades; Pascanu et al. (2013).",
        relative_to="last",
    ),
    Rule(
        "resolution-lost",
        "resolution",
        2,
        "{value:.2g} bits tell the outputs of a channel apart",
        "A standard deviation then spans less than 4 steps of the dtype. At N(0, 1) bfloat16 leaves ReLU 5.7 bits. Of "
        "fewer than 16 samples the deviation says little, of one nothing.",
        above=False,
        samples=16,
    ),
    Rule(
        "output-subnormal",
        "subnormal",
        0.01,
        "{value:.1%} of the outputs are subnormal",
        "Subnormal numbers lose their significand bit by bit, and many devices flush them to 0.",
    ),
    Rule(
        "gradient-underflow",
        "grad_underflow",
        0.01,
        "{value:.1%} of the gradient underflows",
        "Nothing does in a healthy float32 or bfloat16 run; float16 without loss scaling loses enough of the gradient "
        "to ruin the training (Micikevicius et al. 2018, Mixed precision training).",
    ),
)


def check(reading: Reading, rules: Iterable[Rule] = DEFAULT_RULES) -> tuple[Alert, ...]:
    """What is wrong with the layers of a reading.

    Parameters
    ----------
    reading : Reading
    rules : iterable of Rule

    Returns
    -------
    tuple of Alert
        In the order of the rules, within a rule in that of the layers. Attach them with
        ``dataclasses.replace(reading, alerts=...)``.

    Raises
    ------
    TypeError
        If an argument is something else.
    ValueError
        If two rules have the same name.
    """
    if not isinstance(reading, Reading):
        raise TypeError(f"reading must be a Reading, got {type(reading).__name__}")
    if not isinstance(rules, Iterable):
        raise TypeError(f"rules must be an iterable of Rule, got {type(rules).__name__}")
    chosen = tuple(rules)
    for rule in chosen:
        if not isinstance(rule, Rule):
            raise TypeError(f"rules must hold Rule objects, got {type(rule).__name__}")
    names = [rule.name for rule in chosen]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"rules has two rules called {name!r}")
    return tuple(alert for rule in chosen for alert in rule.check(reading))
