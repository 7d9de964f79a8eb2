"""The activations composed of torch's operators: PolyNorm, the Gaussian top-k gate, Meta-ACON."""

import copy
from statistics import NormalDist

import pytest

pytest.importorskip("torch.distributed")
import torch
from geoact.torch.adaptive import GaussianTopK, MetaAconC, PolyNorm, gaussian_topk, gaussian_topk_geglu
from support.adaptive import HALF_ULP, normal
from support.torch_cases import each_dtype
from torch import nn

# --- PolyNorm -------------------------------------------------------------------------------------


def poly_norm(x, weight, bias, eps):
    terms = [x**k / torch.sqrt((x ** (2 * k)).mean(-1, keepdim=True) + eps) for k in range(1, len(weight) + 1)]
    return sum(w * term for w, term in zip(weight, terms, strict=True)) + bias


@each_dtype
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("sd", [1e-3, 1.0, 30.0])
def test_poly_norm_is_its_formula(order, dtype, sd):
    module = PolyNorm(order, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(normal(order, seed=1))
        module.bias.copy_(normal(1, seed=2))
    x = normal(3, 4, 40, sd=sd, mean=0.1 * sd, dtype=dtype)
    expected = poly_norm(x.double(), module.weight, module.bias, 1e-6).detach()
    y = module(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=20 * HALF_ULP[dtype], atol=20 * HALF_ULP[dtype])


def test_poly_norm_starts_with_equal_weights():
    module = PolyNorm()
    assert torch.equal(module.weight, torch.full((3,), 1 / 3))
    assert torch.equal(module.bias, torch.zeros(1))
    assert module(torch.zeros(2, 5)).abs().max() == 0


def test_gradients_of_poly_norm():
    module = PolyNorm(3, dtype=torch.float64)
    for sd in (0.3, 5.0):
        x = normal(3, 7, sd=sd, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, module.weight, module.bias))
        dx = torch.autograd.grad(module(x).square().sum(), x)[0]
        expected = torch.autograd.grad(poly_norm(x, module.weight, module.bias, 1e-6).square().sum(), x)[0]
        torch.testing.assert_close(dx, expected)


def test_powers_of_large_and_small_values_do_not_overflow():
    module = PolyNorm()
    large, small = 1e12 * normal(2, 9, dtype=torch.float32), 1e-20 * normal(2, 9, dtype=torch.float32)
    weights = module.weight.detach().double()
    torch.testing.assert_close(
        module(large).double(), poly_norm(large.double(), weights, 0.0, 1e-6), rtol=1e-5, atol=1e-5
    )
    assert torch.isfinite(module(small)).all()
    for x in (torch.empty(3, 0), torch.empty(0, 3)):
        assert module(x).shape == x.shape


def test_poly_norm_says_what_is_wrong():
    with pytest.raises(ValueError, match="order must be at least 1"):
        PolyNorm(0)
    with pytest.raises(TypeError, match="order must be an int"):
        PolyNorm(2.0)
    with pytest.raises(ValueError, match="eps must be positive"):
        PolyNorm(eps=0)
    with pytest.raises(ValueError, match="input must have at least 1 axis, got 0"):
        PolyNorm()(torch.tensor(1.0))
    with pytest.raises(TypeError, match="input must be of float16"):
        PolyNorm()(torch.ones(3, dtype=torch.int32))


# --- the Gaussian top-k gate ----------------------------------------------------------------------


def topk_formula(gate, p):
    cut = gate.mean(-1, keepdim=True) + gate.std(-1, correction=0, keepdim=True) * NormalDist().inv_cdf(p)
    return torch.relu(gate - cut)


@each_dtype
@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_gaussian_topk_is_its_formula(dtype, p, mean):
    gate, up = normal(3, 4, 50, mean=mean, dtype=dtype), normal(3, 4, 50, seed=1, dtype=dtype)
    size = 1 + abs(mean)
    kept = topk_formula(gate.double(), p)
    for y, expected in (
        (gaussian_topk(gate, p), kept),
        (GaussianTopK(p)(gate), kept),
        (gaussian_topk_geglu(gate, up, p), nn.functional.gelu(kept, approximate="tanh") * up.double()),
        (gaussian_topk_geglu(gate, up, p, "none"), nn.functional.gelu(kept) * up.double()),
    ):
        assert y.dtype == dtype
        tolerance = 2 * HALF_ULP[dtype]
        # Only the result is rounded to 16 bits; the difference from the cut is taken in float32.
        torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=size * min(2 * tolerance, 3e-5))


def test_the_share_that_is_cut_off():
    zero = (gaussian_topk(normal(20, 10_000), 0.9) == 0).double().mean().item()
    assert zero == pytest.approx(0.9, abs=0.01)


def test_gradients_flow_through_mean_and_sd():
    gate, up = normal(3, 20, requires_grad=True), normal(3, 20, seed=1, requires_grad=True)
    ours = torch.autograd.grad(gaussian_topk_geglu(gate, up, 0.8).square().sum(), (gate, up))
    plain = (nn.functional.gelu(topk_formula(gate, 0.8), approximate="tanh") * up).square().sum()
    for got, expected in zip(ours, torch.autograd.grad(plain, (gate, up)), strict=True):
        torch.testing.assert_close(got, expected)
    (through,) = torch.autograd.grad(gaussian_topk(gate, 0.8).sum(), gate)
    assert (through[gaussian_topk(gate, 0.8) == 0] != 0).any()  # elements that were cut off moved the cut
    assert torch.autograd.gradcheck(lambda g, u: gaussian_topk_geglu(g, u, 0.8), (gate, up))
    constant = torch.ones(2, 5, requires_grad=True)
    gaussian_topk(constant, 0.3).sum().backward()
    assert torch.isfinite(constant.grad).all()


def test_it_is_the_gate_of_gemma_3n():
    modeling = pytest.importorskip("transformers.models.gemma3n.modeling_gemma3n")
    configuration = pytest.importorskip("transformers.models.gemma3n.configuration_gemma3n")
    config = configuration.Gemma3nTextConfig(
        hidden_size=8, intermediate_size=40, num_hidden_layers=1, activation_sparsity_pattern=[0.95]
    )
    torch.manual_seed(0)
    theirs = modeling.Gemma3nTextMLP(config)
    x = normal(2, 3, 8, dtype=torch.float32)
    gate, up = theirs.gate_proj(x), theirs.up_proj(x)
    ours = theirs.down_proj(gaussian_topk_geglu(gate, up, 0.95))
    torch.testing.assert_close(ours, theirs(x), rtol=1e-4, atol=1e-6)
    parameters = list(theirs.parameters())
    for got, expected in zip(
        torch.autograd.grad(ours.sum(), parameters), torch.autograd.grad(theirs(x).sum(), parameters), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_the_gate_says_what_is_wrong():
    gate = torch.ones(2, 3)
    for p in (0, 1, -1, 2):
        with pytest.raises(ValueError, match="p must be between 0 and 1"):
            GaussianTopK(p)
        with pytest.raises(ValueError, match="p must be between 0 and 1"):
            gaussian_topk(gate, p)
    with pytest.raises(TypeError, match="p must be a number"):
        GaussianTopK("a")
    with pytest.raises(ValueError, match="gate must have at least 1 axis"):
        gaussian_topk(torch.tensor(1.0), 0.5)
    with pytest.raises(ValueError, match="up must have the shape and dtype of gate"):
        gaussian_topk_geglu(gate, torch.ones(3), 0.5)
    with pytest.raises(ValueError, match="up must have the shape and dtype of gate"):
        gaussian_topk_geglu(gate, gate.double(), 0.5)
    with pytest.raises(TypeError, match="up must be a tensor"):
        gaussian_topk_geglu(gate, None, 0.5)
    with pytest.raises(ValueError, match="approximate is 'erf'"):
        gaussian_topk_geglu(gate, gate, 0.5, "erf")


# --- Meta-ACON ------------------------------------------------------------------------------------


def meta_acon(module, x):
    """As published: 1 x 1 convolutions of the channel means."""
    spread = (1, -1, *(1,) * (x.dim() - 2))
    means = x.flatten(2).mean(2) if x.dim() > 2 else x
    hidden = nn.functional.linear(means, module.fc1.weight, module.fc1.bias)
    hidden = nn.functional.linear(module.norm1(hidden), module.fc2.weight, module.fc2.bias)
    beta = torch.sigmoid(module.norm2(hidden)).reshape(*x.shape[:2], *spread[2:])
    p1, p2 = module.p1.view(spread), module.p2.view(spread)
    return (p1 - p2) * x * torch.sigmoid(beta * (p1 - p2) * x) + p2 * x


@each_dtype
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 7), (3, 5, 4, 2), (2, 5, 2, 3, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_meta_acon_is_its_formula(shape, training, dtype):
    torch.manual_seed(1)
    module = MetaAconC(5, r=4, dtype=torch.float64).train(training)
    x = normal(*shape, dtype=dtype)
    if len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    twin = copy.deepcopy(module)
    y = module(x)
    assert y.dtype == dtype
    tolerance = 8 * HALF_ULP[dtype] if dtype != torch.float32 else 1e-5
    torch.testing.assert_close(y.double(), meta_acon(twin, x.double()), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(module.norm1.running_mean, twin.norm1.running_mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_meta_acon(training):
    torch.manual_seed(1)
    module = MetaAconC(3, dtype=torch.float64).train(training)
    twin = copy.deepcopy(module)
    x = normal(4, 3, 5, requires_grad=True)
    ours = torch.autograd.grad(module(x).square().sum(), (x, *module.parameters()))
    plain = torch.autograd.grad(meta_acon(twin, x).square().sum(), (x, *twin.parameters()))
    for got, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, expected)


def test_meta_acon_says_what_is_wrong():
    for arguments, error, text in (
        ((0,), ValueError, "channels must be at least 1"),
        ((2.0,), TypeError, "channels must be an int"),
        ((3, 0), ValueError, "r must be at least 1"),
    ):
        with pytest.raises(error, match=text):
            MetaAconC(*arguments)
    module = MetaAconC(3)
    with pytest.raises(ValueError, match=r"input must have 3 channels \(axis 1\), got 4"):
        module(torch.ones(2, 4))
    with pytest.raises(ValueError, match="input must have at least 2 axes, got 1"):
        module(torch.ones(3))
    assert module(torch.empty(0, 3, 4)).shape == (0, 3, 4)
    assert MetaAconC(64).fc1.out_features == 16
    assert MetaAconC(64, r=2).fc1.out_features == 32
