"""Data and formulas for the tests of adaptive activations."""

import torch
from geoact.adaptive import PartialMoments
from geoact.torch.adaptive import GAL

HALF_ULP = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 4e-7, torch.float64: 1e-15}


def normal(*shape, seed=0, mean=0.4, sd=2.0, dtype=torch.float64, **options):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (mean + sd * x).to(dtype).requires_grad_(options.get("requires_grad", False))


def moments_of(x):
    x = x.detach().double()
    above, below = x.clamp_min(0), x.clamp_max(0)
    return PartialMoments(*(v.item() for v in (above.mean(), below.mean(), (above**2).mean(), (below**2).mean())))


def reference(x, numbers):
    x = x.detach().double()
    return numbers.scale * (torch.where(x > 0, x, numbers.slope * x) - numbers.shift)


def assert_rounded(y, expected):
    """Equal up to the rounding of the dtype, at the size of what was added up."""
    assert y.shape == expected.shape
    size = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        y.detach().double(), expected, rtol=2 * HALF_ULP[y.dtype], atol=2 * HALF_ULP[y.dtype] * size * 0.01 + 1e-300
    )


def trained(x=None, **settings):
    module = GAL(20, 1.0, **settings)
    module(normal(500) if x is None else x)
    return module
