"""Where the GPU tests run, what they run on, and how their results are compared with the CPU core.

``GEOACT_GPU_TESTS=dry-run`` puts the tensors on the CPU, to see that the tests themselves are sound; ``required`` makes
a missing device a failure. Imports torch.
"""

import os

import geoact
import ml_dtypes
import numpy as np
import pytest
import torch

from support import oracle
from support.cases import PLAIN, ulps
from support.torch_cases import arguments, same_bits

MODE = os.environ.get("GEOACT_GPU_TESTS", "")
DEVICE = "cpu" if MODE == "dry-run" else "cuda"
NARROW = (torch.float16, torch.bfloat16)
BACKENDS = ("cuda", "triton") if DEVICE == "cuda" else ("auto",)
PER = ({"per": "tensor"}, {"per": "channel", "channel_axis": 1}, {"per": "row", "channel_axis": -1})
FEW = [case for case in PLAIN if case.name in ("relu", "sigmoid", "gelu", "prelu")]

each_few = pytest.mark.parametrize("case", FEW, ids=str)
each_per = pytest.mark.parametrize("settings", PER, ids=lambda settings: settings["per"])
needs_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="dry run: there is nothing like it on a CPU")


def normal(*shape, dtype=torch.float32, seed=0, mean=0.2, sd=1.5):
    """The same numbers on every device: drawn on the CPU."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn * sd + mean).to(dtype).to(DEVICE)


def array(tensor):
    """A tensor of any device as a NumPy array of the same bits."""
    host = tensor.detach().cpu().contiguous()
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return host.numpy()


def parameters(case, x, channels=None):
    """The values of a case as the row takes them for x."""
    given = arguments(case, x.dtype, channels=channels)
    return tuple(v.to(x.device) if isinstance(v, torch.Tensor) else v for v in given)


def on_host(values):
    return tuple(v.cpu() if isinstance(v, torch.Tensor) else v for v in values)


def check_values(case, x, y, values=None):
    """Y is within the row's promise of the float64 reference, and of the same bits where that is exact."""
    values = case.values if values is None else values
    host = case.row(x.cpu(), *on_host(values))
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    if case.row.ulp["float32"] <= 0.5 or x.numel() == 0:
        same_bits(y.cpu(), host)
        return
    got, dtype = array(y), array(y).dtype
    # A parameter as the kernel gets it: a tensor of the dtype of x, or a number that becomes float32.
    narrow = np.float64 if x.dtype == torch.float64 else np.float32
    numbers = [float(v) if isinstance(v, torch.Tensor) else float(narrow(v)) for v in values]

    def sizes(expected):
        """What units are of: where the row is a sum that may cancel, its largest term."""
        if case.row.size is None:
            return np.abs(expected.astype(np.float64))
        with np.errstate(all="ignore"):
            return np.maximum(np.abs(expected.astype(np.float64)), case.row.size(array(x).astype(np.float64), *numbers))

    if x.dtype == torch.float64:  # both are that close to the truth, and no float64 reference is
        close = ulps(got, array(host).astype(np.float64), dtype, sizes(array(host))) <= 2 * case.row.ulp["float64"] + 1
        right = array(host)
    else:
        with np.errstate(all="ignore"):
            exact = case.row.value(array(x).astype(np.float64), *numbers)
        limit = case.row.ulp["float32"]
        if x.dtype in NARROW:
            limit = 0.5 + limit * 2.0 ** ((11 if x.dtype == torch.float16 else 8) - 24)
        with np.errstate(all="ignore"):
            close, right = ulps(got, exact, dtype, sizes(exact)) <= limit, exact.astype(dtype)
        # where the reference is not torch's, infinite x, the CPU core is
        right = np.where(np.isfinite(array(x).astype(np.float64)), right, array(host))
    with np.errstate(all="ignore"):
        good = close | (got == right) | (np.isnan(got) & np.isnan(right))
    assert good.all(), f"{case}: at x = {array(x)[~good][:3]} y is {got[~good][:3]}, expected {right[~good][:3]}"


def reference_cells(case, x, y, settings):
    """The expected record of x and y as stored, in float64."""
    axis, per = settings.get("channel_axis", -1), settings["per"]
    x, y = array(x), array(y)
    groups = [oracle.grouped(a, per, axis) for a in (x, y, case.measured_slope(x, y))]
    return oracle.cells(*groups, x.dtype), groups[2]


def check_record(case, stats, x, y, settings, context=""):
    """Counts and extremes exactly, sums within 1e-6."""
    expected, slope = reference_cells(case, x, y, settings)
    margin = 1e-12 if x.dtype == torch.float64 else 1e-6
    low, high = ((np.abs(slope) < 0.05 + side * margin).sum(axis=1) for side in (-1, 1))
    actual = stats.cells()
    assert ((low <= actual["saturated"]) & (actual["saturated"] <= high)).all(), context
    del expected["saturated"]
    oracle.assert_cells(actual, expected, context=f"{case} {x.dtype} {tuple(x.shape)} {settings} {context}")


def check_gradient_record(case, stats, dy, dx, x, y, settings):
    axis, per = settings.get("channel_axis", -1), settings["per"]
    slope = case.measured_slope(array(x), array(y))
    groups = [oracle.grouped(a, per, axis) for a in (array(dy), array(dx), slope)]
    expected = oracle.gradient_cells(*groups, array(dx).dtype)
    oracle.assert_cells(stats.cells(), expected, context=f"{case} {dx.dtype} {settings}")


def same_cells(a, b):
    assert list(a.cells()) == list(b.cells())
    for name, values in a.cells().items():
        np.testing.assert_array_equal(values, b.cells()[name], err_msg=name)


def pair(settings):
    """Empty accumulators of both directions."""
    return geoact.GeometryStats(**settings), geoact.GradientStats(**settings)


# The same elements, in every way that a tensor may lie in memory; of four axes.
LAYOUTS = {
    "contiguous": lambda x: x,
    "strided rows": lambda x: torch.nn.functional.pad(x, (0, 3))[..., :-3],
    "every second": lambda x: torch.repeat_interleave(x, 2, dim=-1)[..., ::2],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "off by one element": lambda x: torch.nn.functional.pad(x.reshape(-1), (1, 0))[1:].reshape(x.shape),
    "expanded": lambda x: x[:, :1].expand_as(x),
}
