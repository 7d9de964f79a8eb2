"""geoact for PyTorch: drop-in modules, autograd, torch.compile, and a monitor for a whole model.

- ``functional``: the activations with the arguments of ``torch.nn.functional`` (``geoact.relu(tensor)`` works as well);
- ``ReLU``, ``Sigmoid``, ...: modules with the arguments of ``torch.nn``;
- ``SwiGLU``, ``GEGLU``, ``ReGLU``, ``ClippedSwiGLU``: modules of a gate and what it gates;
- ``convert`` swaps the activations of a model, ``revert`` undoes it, ``intercept`` catches functional calls;
- ``instrument`` watches a model; ``sinks`` show and store what it reads; ``callbacks`` join it to trainers.

What lives here may import torch and the rest of geoact; nothing outside this folder imports it at load time, so that
NumPy users never pay for torch. Optional packages (rich, plotly, TensorBoard, Lightning, transformers, ...) are
imported by the sink or callback that needs them, when it is made.
"""

from geoact.torch import functional, sinks
from geoact.torch import gated_ops as _gated_ops  # noqa: F401  registers torch.ops.geoact
from geoact.torch import ops as _ops  # noqa: F401  registers torch.ops.geoact
from geoact.torch.adaptive import GAL, TAT, GaussianTopK, MetaAconC, PolyNorm
from geoact.torch.alerts import DEFAULT_RULES, Rule
from geoact.torch.gated import GEGLU, ClippedSwiGLU, ReGLU, SwiGLU
from geoact.torch.interception import intercept
from geoact.torch.modules import (
    ELU,
    GELU,
    XIELU,
    AconC,
    CenteredSigmoid,
    Derf,
    DyT,
    FixedGAL,
    Hardsigmoid,
    Hardswish,
    LeakyReLU,
    Mish,
    PReLU,
    ReLU,
    ReLUSquared,
    ScaledSiLU,
    Sigmoid,
    SiLU,
    Softplus,
    Swish,
    Tanh,
)
from geoact.torch.monitor import Monitor, instrument
from geoact.torch.reading import Alert, Layer, Reading
from geoact.torch.swap import Conversion, conversion, convert, revert

__all__ = [
    "DEFAULT_RULES",
    "ELU",
    "GAL",
    "GEGLU",
    "GELU",
    "TAT",
    "XIELU",
    "AconC",
    "Alert",
    "CenteredSigmoid",
    "ClippedSwiGLU",
    "Conversion",
    "Derf",
    "DyT",
    "FixedGAL",
    "GaussianTopK",
    "Hardsigmoid",
    "Hardswish",
    "Layer",
    "LeakyReLU",
    "MetaAconC",
    "Mish",
    "Monitor",
    "PReLU",
    "PolyNorm",
    "ReGLU",
    "ReLU",
    "ReLUSquared",
    "Reading",
    "Rule",
    "ScaledSiLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "SwiGLU",
    "Swish",
    "Tanh",
    "conversion",
    "convert",
    "functional",
    "instrument",
    "intercept",
    "revert",
    "sinks",
]
