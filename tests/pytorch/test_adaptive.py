"""TAT, and what holds of every adaptive and composed module: names, compiling, copies, autocast."""

import copy
import math
import pickle

import pytest

pytest.importorskip("torch.distributed")
import torch
from geoact import torch as gt
from geoact.adaptive import Gal, tat_slope
from geoact.torch import adaptive
from geoact.torch.adaptive import GAL, TAT, GaussianTopK, MetaAconC, PolyNorm
from support.adaptive import assert_rounded, normal, reference, trained
from support.torch_cases import each_dtype

# --- TAT ------------------------------------------------------------------------------------------


@each_dtype
def test_tat_is_a_scaled_leaky_rectifier(dtype):
    module, slope = TAT(50, 0.8), tat_slope(50, 0.8)
    x = normal(999, dtype=dtype)
    y = module(x)
    assert y.dtype == dtype
    assert_rounded(y, reference(x, Gal(slope, math.sqrt(2 / (1 + slope**2)), 0.0)))
    assert list(module.state_dict()) == []
    zero = module(torch.tensor([-0.0, 0.0]))
    assert torch.signbit(zero).tolist() == [True, False]


def test_tat_keeps_the_mean_square_and_compiles():
    module = TAT(50)
    x = normal(200_000, mean=0.0)
    assert module(x).square().mean().item() == pytest.approx(x.square().mean().item(), rel=0.01)
    x = normal(50, dtype=torch.float32)
    for depth in (50, 30, 20):  # several slopes in one model
        module = TAT(depth)
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), module(x))


def test_tat_says_what_is_wrong():
    with pytest.raises(ValueError, match="depth must be at least 1"):
        TAT(0)
    for eta in (0, 1):
        with pytest.raises(ValueError, match="eta must be between 0 and 1"):
            TAT(5, eta)
    with pytest.raises(TypeError, match="input must be of float16"):
        TAT(5)(torch.ones(3, dtype=torch.complex64))


def test_what_is_shown_and_exported():
    assert repr(GAL(20, 1.0)) == "GAL(depth=20, kappa=1, momentum=0.1, max_scale=10)"
    assert repr(TAT(9)) == "TAT(depth=9, eta=0.9, negative_slope=0)"
    assert repr(PolyNorm()) == "PolyNorm(order=3, eps=1e-06)"
    assert repr(GaussianTopK(0.95)) == "GaussianTopK(p=0.95)"
    assert repr(MetaAconC(4)).startswith("MetaAconC(\n  4, r=16\n")
    assert repr(adaptive.Affine(2, 1)) == "Affine(scale=2, offset=1)"
    for name in ("GAL", "TAT", "PolyNorm", "GaussianTopK", "MetaAconC"):
        assert getattr(gt, name) is getattr(adaptive, name)
        assert name in gt.__all__


# --- all of them ----------------------------------------------------------------------------------

EACH = {
    "GAL": lambda: trained().eval(),
    "TAT": lambda: TAT(30),
    "PolyNorm": PolyNorm,
    "GaussianTopK": lambda: GaussianTopK(0.8),
    "MetaAconC": lambda: MetaAconC(6).eval(),
}
each_module = pytest.mark.parametrize("make", EACH.values(), ids=EACH)


@each_module
def test_compiled_in_one_graph(make):
    module, x = make(), normal(5, 6, dtype=torch.float32)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))


@each_module
def test_shapes_without_data(make):
    module, x = make().to("meta"), torch.empty(5, 6, device="meta")
    assert (module(x).shape, module(x).device.type) == ((5, 6), "meta")


@each_module
def test_copies_and_state(make):
    module, x = make(), normal(5, 6, dtype=torch.float32)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))
        other.load_state_dict(module.state_dict())


@each_dtype
@each_module
def test_autocast_changes_nothing(make, dtype):
    torch.manual_seed(0)
    module, x = make(), normal(5, 6, dtype=dtype)
    plain = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = module(x)
    assert cast.dtype == dtype
    assert torch.equal(cast, plain)
