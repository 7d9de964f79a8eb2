"""Published activations that depend on statistics of their input, composed of existing operators.

PolyNorm, the Gaussian top-k gate and Meta-ACON have no kernel of their own here: they are torch's operators, with a
kernel of geoact where one fits (relu, gelu, swish), so several passes over memory. Gradients flow through the
statistics, as they do in the published models. All take float16, bfloat16, float32 and float64, compute in float32 or
float64, inside autocast too, and round once, to the dtype of the input.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from geoact import _registry as _rows
from geoact._arguments import whole
from geoact.adaptive import _number
from geoact.torch.modules import supported

__all__ = ["GaussianTopK", "MetaAconC", "PolyNorm", "gaussian_topk", "gaussian_topk_geglu"]

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_input(x: object, name: str = "input", axes: int = 0) -> None:
    """Raise TypeError unless x is a tensor of floating point, ValueError unless it has so many axes."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATING:
        kind = str(x.dtype).removeprefix("torch.")
        raise TypeError(f"{name} must be of float16, bfloat16, float32 or float64, got {kind}")
    if x.dim() < axes:
        raise ValueError(f"{name} must have at least {axes} {'axis' if axes == 1 else 'axes'}, got {x.dim()}")


def wide(x: Tensor) -> Tensor:
    """Give x the dtype in which it is computed with: at least float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class PolyNorm(nn.Module):
    """Sum over k of w_k x^k / rms(x^k) + b, with rms(u) = sqrt(mean of u^2 over the last axis + eps).

    Parameters
    ----------
    order : int
        Highest power; at least 1.
    eps : float
        Positive.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    weight : Parameter of shape (order,)
        w_1, w_2, ...; at first 1 / order. (The authors' code has the highest power first.)
    bias : Parameter of shape (1,)
        At first 0.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; in forward, if input is no floating tensor of at least one axis.

    Notes
    -----
    Made of torch's operators. Powers are taken of x / max(1, max |x|), row by row, which changes nothing but that they
    do not overflow. Source: Zhuo et al. (2024), Polynomial composition activations: unleashing the dynamics of large
    language models.
    """

    def __init__(
        self,
        order: int = 3,
        eps: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.order, self.eps = whole("order", order, 1), _number("eps", eps)
        if self.eps <= 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.weight = nn.Parameter(torch.full((order,), 1 / order, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """Of shape (..., n) and any floating dtype, to the same."""
        check_input(input, axes=1)
        if input.numel() == 0:
            return input.clone()
        x = wide(input)
        bound = x.detach().abs().amax(-1, keepdim=True).clamp_min(1)
        x = x / bound
        y, power = self.bias.to(x.dtype), x
        for k, weight in enumerate(self.weight.to(x.dtype), start=1):
            square = power.square().mean(-1, keepdim=True) + self.eps * bound ** (-2 * k)
            y = y + weight * power * square.rsqrt()
            power = power * x
        return y.to(input.dtype)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"order={self.order}, eps={self.eps:g}"


def _cut(gate: Tensor, p: float) -> Tensor:
    """gaussian_topk in the dtype of the computation."""
    x = wide(gate)
    spread, mean = torch.std_mean(x, -1, correction=0, keepdim=True)
    quantile = torch.special.ndtri(torch.tensor(p, dtype=torch.float64))  # of no axes: does not widen x
    above = x - (mean + spread * quantile)
    y: Tensor = _rows.relu(above) if supported(above) else torch.relu(above)
    return y


def _share(p: object) -> float:
    value = _number("p", p)
    if not 0 < value < 1:
        raise ValueError(f"p must be between 0 and 1, got {value}")
    return value


def gaussian_topk(gate: Tensor, p: float) -> Tensor:
    """relu(gate - (mean + sd q)) with mean and sd of each row and the p-quantile q of N(0, 1).

    Of a row that is normally distributed the share p becomes 0, and what is left is the largest, without sorting.

    Parameters
    ----------
    gate : Tensor of shape (..., n)
    p : float
        Between 0 and 1.

    Returns
    -------
    Tensor
        Of the shape and dtype of gate. Gradients flow through mean and sd.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Notes
    -----
    The sd divides by n. Made of torch's operators and geoact's relu. Source: Gemma 3n (2025), its activation sparsity.
    """
    check_input(gate, "gate", axes=1)
    return _cut(gate, _share(p)).to(gate.dtype)


def gaussian_topk_geglu(gate: Tensor, up: Tensor, p: float, approximate: str = "tanh") -> Tensor:
    """gelu(gaussian_topk(gate, p)) up, the feed-forward gate of Gemma 3n.

    Parameters
    ----------
    gate, up : Tensor of shape (..., n)
        Of one shape and dtype.
    p : float
        Between 0 and 1.
    approximate : {"tanh", "none"}
        As for torch.nn.functional.gelu; the model has "tanh".

    Returns
    -------
    Tensor
        Of the shape and dtype of gate. Gradients flow through mean and sd.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Notes
    -----
    Made of torch's operators and geoact's relu and gelu.
    """
    check_input(gate, "gate", axes=1)
    check_input(up, "up", axes=1)
    if up.shape != gate.shape or up.dtype != gate.dtype:
        raise ValueError(
            f"up must have the shape and dtype of gate, {tuple(gate.shape)} and {gate.dtype}, "
            f"got {tuple(up.shape)} and {up.dtype}"
        )
    if approximate not in ("tanh", "none"):
        raise ValueError(f"approximate is {approximate!r} (accepted: 'tanh', 'none')")
    kept = _cut(gate, _share(p))
    y = _rows.gelu(kept, approximate=approximate) if supported(kept) else nn.functional.gelu(kept, approximate)
    return (y * wide(up)).to(gate.dtype)


class GaussianTopK(nn.Module):
    """:func:`gaussian_topk` as a module.

    Parameters
    ----------
    p : float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = _share(p)

    def forward(self, input: Tensor) -> Tensor:
        """Of shape (..., n) and any floating dtype, to the same."""
        return gaussian_topk(input, self.p)

    def extra_repr(self) -> str:
        """The argument."""
        return f"p={self.p:g}"


class MetaAconC(nn.Module):
    """(p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, with beta made from the means of the channels, sample by sample.

    With (N, C) means m, beta = sigmoid(norm2(fc2(norm1(fc1(m))))), of shape (N, C).

    Parameters
    ----------
    channels : int
        C; at least 1.
    r : int
        The hidden layer has max(r, channels // r) units; at least 1.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    p1, p2 : Parameter of shape (channels,)
        At first standard normal.
    fc1, fc2 : torch.nn.Linear
    norm1, norm2 : torch.nn.BatchNorm1d
        In training mode they need more than one sample.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; in forward, if input is no floating tensor of shape (N, channels, ...).

    Notes
    -----
    Made of torch's operators and geoact's swish: with u = p1 - p2 the formula is u swish(x; beta u) + p2 x. Source: Ma,
    Zhang, Liu, Sun (2021), Activate or not: learning customized activation.
    """

    def __init__(
        self,
        channels: int,
        r: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.r = whole("channels", channels, 1), whole("r", r, 1)
        hidden = max(r, channels // r)
        self.p1 = nn.Parameter(torch.randn(channels, device=device, dtype=dtype))
        self.p2 = nn.Parameter(torch.randn(channels, device=device, dtype=dtype))
        self.fc1 = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.norm1 = nn.BatchNorm1d(hidden, device=device, dtype=dtype)
        self.fc2 = nn.Linear(hidden, channels, device=device, dtype=dtype)
        self.norm2 = nn.BatchNorm1d(channels, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Of shape (N, C, ...) and any floating dtype, to the same."""
        check_input(input, axes=2)
        if input.shape[1] != self.channels:
            raise ValueError(f"input must have {self.channels} channels (axis 1), got {input.shape[1]}")
        if input.numel() == 0:
            return input.clone()
        x = wide(input)
        kind = x.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            means = x.flatten(2).mean(2) if x.dim() > 2 else x
            hidden = self.norm1(self.fc1(means.to(self.fc1.weight.dtype)))
            beta = torch.sigmoid(self.norm2(self.fc2(hidden))).to(x.dtype)
        p1, p2 = self.p1.to(x.dtype), self.p2.to(x.dtype)
        along = (-1, *(1,) * (x.dim() - 2))
        u = p1 - p2
        y = u.view(along) * self._swish(x, beta * u) + p2.view(along) * x
        return y.to(input.dtype)

    @staticmethod
    def _swish(x: Tensor, beta: Tensor) -> Tensor:
        """X sigmoid(beta x) with beta of shape (N, C): every channel of every sample is a channel of the kernel."""
        if not supported(x):
            return x * torch.sigmoid(beta.view(*beta.shape, *(1,) * (x.dim() - 2)) * x)
        y: Tensor = _rows.swish(x.reshape(1, -1, *x.shape[2:]), beta.reshape(-1))
        return y.view(x.shape)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.channels}, r={self.r}"
