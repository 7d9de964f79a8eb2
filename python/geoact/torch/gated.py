"""Modules of the gated activations: ``forward(gate, up)``, or ``forward(both)`` of one packed tensor.

torch.nn has none of them; models write ``silu(gate) * up`` themselves. Statistics and a monitor see the gate: x is
gate, y is f(gate), as if the activation stood alone.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, fx

from geoact import _gates as _rows  # geoact.gates is the function
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch.modules import Activation


def halves(both: Tensor) -> tuple[Tensor, Tensor]:
    """(gate, up): the two halves of the last axis, views of ``both``.

    Raises
    ------
    TypeError, ValueError
        If ``both`` is no tensor, or its last axis has no two halves.
    """
    if not isinstance(both, Tensor) and not isinstance(both, fx.Proxy):  # which stands for any tensor
        raise TypeError(f"both must be a torch tensor, got {type(both).__name__}")
    if isinstance(both, Tensor) and (both.dim() == 0 or both.shape[-1] % 2):
        raise ValueError(f"both has shape {tuple(both.shape)}; its last axis must be gate and up side by side")
    gate, up = both.tensor_split(2, dim=-1)
    return gate, up


class GatedActivation(Activation):
    """What all of them share.

    Parameters
    ----------
    packed : bool
        Whether ``forward`` takes one tensor whose last axis holds gate, then up, instead of two.
    stats, gradient_stats : optional
        Accumulators that every call adds to: they see the gate.
    """

    packed = False

    def __init_subclass__(cls) -> None:
        # The arguments are those written below: no module of torch stands behind.
        super(Activation, cls).__init_subclass__()

    def __init__(
        self,
        packed: bool = False,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        if not isinstance(packed, bool):
            raise TypeError(f"packed must be a bool, got {type(packed).__name__}")
        super().__init__(stats=stats, gradient_stats=gradient_stats)
        self.packed = packed

    def forward(self, gate: Tensor, up: Tensor | None = None) -> Tensor:
        """Y = f(gate) h(up), of the shape and dtype of gate; where ``packed``, of the halves of the one argument."""
        if self.packed != (up is None):
            raise TypeError(
                f"{type(self).__name__}(packed={self.packed}) takes {'one tensor' if up is not None else 'gate and up'}"
            )
        if up is None:
            gate, up = halves(gate)
        measured = (self.stats, self.gradient_stats)
        if self._probe is not None:
            measured = self._probe.statistics(gate, self.training)
        row = _rows.get(self._row)
        given = [getattr(self, name) for name in self._arguments]
        return cast(Tensor, row(gate, up, *given, stats=measured[0], gradient_stats=measured[1]))

    def extra_repr(self) -> str:
        """The arguments, and what is measured."""
        given = [f"{name}={getattr(self, name)!r}" for name in self._arguments]
        parts = ["packed=True" if self.packed else "", *given, super().extra_repr()]
        return ", ".join(part for part in parts if part)


class SwiGLU(GatedActivation):
    """silu(gate) up.

    Notes
    -----
    Source: Shazeer (2020), GLU variants improve transformer.
    """

    _row = "swiglu"


class ReGLU(GatedActivation):
    """relu(gate) up."""

    _row = "reglu"


class GEGLU(GatedActivation):
    """gelu(gate) up.

    Parameters
    ----------
    approximate : "none" or "tanh"
        As torch.nn.GELU takes it.
    packed, stats, gradient_stats
        As :class:`GatedActivation`.
    """

    _row = "geglu"
    _arguments = ("approximate",)

    def __init__(
        self,
        approximate: str = "none",
        packed: bool = False,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        if approximate not in _rows.geglu.variants:
            accepted = ", ".join(map(repr, _rows.geglu.variants))
            raise ValueError(f"approximate is {approximate!r} (accepted: {accepted})")
        super().__init__(packed, stats=stats, gradient_stats=gradient_stats)
        self.approximate = approximate


class ClippedSwiGLU(GatedActivation):
    """The gate of gpt-oss: g sigmoid(alpha g) (u + 1) of gate and up clipped at ``limit``.

    Parameters
    ----------
    alpha, limit : float
        Sharpness of the sigmoid, and where gate (above) and up (on both sides) are clipped.
    packed, stats, gradient_stats
        As :class:`GatedActivation`. gpt-oss itself interleaves gate and up: pass ``x[..., ::2], x[..., 1::2]``.
    """

    _row = "swiglu_clipped"
    _arguments = ("alpha", "limit")

    def __init__(
        self,
        alpha: float = 1.702,
        limit: float = 7.0,
        packed: bool = False,
        *,
        stats: GeometryStats | None = None,
        gradient_stats: GradientStats | None = None,
    ) -> None:
        super().__init__(packed, stats=stats, gradient_stats=gradient_stats)
        self.alpha, self.limit = _rows.swiglu_clipped._bind((alpha, limit), {})[1]
