"""GAL: values, gradients, state, ranks, folding."""

import copy
import importlib.util
import io
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import geoact
import numpy as np
import pytest

pytest.importorskip("torch.distributed")
import torch
from geoact.adaptive import Gal, PartialMoments, gal, gaussian_gal, tat_scale, tat_slope
from geoact.torch import adaptive
from geoact.torch.adaptive import GAL, TAT
from support.adaptive import HALF_ULP, assert_rounded, moments_of, normal, reference, trained
from support.torch_cases import DTYPES, each_dtype
from torch import nn
from torch.utils.checkpoint import checkpoint

# --- GAL: what it computes ------------------------------------------------------------------------


def test_before_any_statistics_the_input_is_taken_for_standard_normal():
    x = normal(300)
    for training in (False, True):
        module = GAL(30, 0.7).train(training)
        assert module.numbers == pytest.approx(gaussian_gal(30, 0.7))
        assert module.running == PartialMoments.gaussian()
        assert module.steps == 0
        assert_rounded(module(x), reference(x, gaussian_gal(30, 0.7)))


def test_a_call_is_measured_and_the_next_one_uses_it():
    module = GAL(20, 1.0)
    before = module.numbers
    for seed in range(3):
        x = normal(400, seed=seed, mean=seed - 1)
        assert_rounded(module(x), reference(x, before))
        before = module.numbers
        assert module.steps == seed + 1
    assert module.numbers == gal(module.running, 0.95, 10.0)


def test_data_like_those_measured_keep_their_variance_and_have_the_share():
    x = normal(5000)
    module = trained(x)
    y = module(x)
    assert module.running.mean_pos == pytest.approx(moments_of(x).mean_pos, rel=1e-12)
    assert y.var().item() == pytest.approx(x.var().item(), rel=1e-6)
    assert y.mean().item() == pytest.approx(0, abs=1e-6)
    assert np.corrcoef(x, y)[0, 1] ** 2 == pytest.approx(0.95, abs=1e-9)
    distances = [(v[:, None] - v).square().mean().item() for v in (x, y)]
    assert distances[1] == pytest.approx(distances[0], rel=1e-6)


def test_the_running_moments():
    parts = [normal(100, seed=seed, mean=seed) for seed in range(4)]
    every = GAL(20, 1.0, momentum=None)
    for part in parts:
        every(part)
    whole = moments_of(torch.cat(parts))
    for name in ("mean_pos", "mean_neg", "sq_pos", "sq_neg"):
        assert getattr(every.running, name) == pytest.approx(getattr(whole, name), rel=1e-9)
    newest = GAL(20, 1.0, momentum=1.0)
    for part in parts:
        newest(part)
    assert newest.running.sq_pos == pytest.approx(moments_of(parts[-1]).sq_pos)
    # 1, 1/2, then .4 where 1/3 would be less
    some, expected = GAL(20, 1.0, momentum=0.4), 0.0
    for part, weight in zip(parts, (1, 0.5, 0.4, 0.4), strict=True):
        some(part)
        expected = (1 - weight) * expected + weight * moments_of(part).mean_pos
    assert some.running.mean_pos == pytest.approx(expected)


@each_dtype
@pytest.mark.parametrize("training", [True, False])
def test_dtype_and_rounding(dtype, training):
    module = trained().train(training)
    numbers, x = module.numbers, normal(999, dtype=dtype)
    y = module(x)
    assert y.dtype == dtype
    assert_rounded(y, reference(x, numbers))


@pytest.mark.parametrize("training", [True, False])
def test_any_shape_and_layout(training):
    module = trained().train(training)
    frozen = module.numbers
    flat = normal(2, 3, 4, 5, dtype=torch.float32)
    for x in (flat.to(memory_format=torch.channels_last), flat[:, ::2], flat.permute(3, 1, 0, 2), flat[0, 0, 0, 0]):
        module.scalars.copy_(torch.tensor(frozen))
        y = module(x)
        assert_rounded(y, reference(x, frozen))
        if x.is_contiguous(memory_format=torch.channels_last):
            assert y.is_contiguous(memory_format=torch.channels_last)
    assert module(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_passes_through_and_is_not_learnt(bad):
    module = trained()
    before = copy.deepcopy(module.state_dict())
    x = normal(100)
    x[7] = bad
    y = module(x)
    assert torch.equal(y.isnan(), reference(x, module.numbers).isnan())
    assert torch.equal(y.isinf(), reference(x, module.numbers).isinf())
    module(torch.empty(0))
    module(torch.full((3,), 1e300, dtype=torch.float64))  # finite, but its squares are not
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    module(normal(100))
    assert module.steps == 2


def test_eval_mode_is_frozen():
    module = trained().eval()
    before = copy.deepcopy(module.state_dict())
    first, second = (module(normal(50, seed=3)) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    with torch.no_grad():
        assert torch.equal(module(normal(50, seed=3)), first)


def test_signs_and_constants_give_the_documented_fallback():
    for x in (normal(100).abs() + 0.1, -normal(100).abs() - 0.1, torch.full((9,), 2.0), torch.zeros(4)):
        numbers = trained(x).numbers
        assert numbers == (1.0, 1.0, pytest.approx(x.mean().item()))


def test_a_layer_that_is_rarely_positive_does_not_explode():
    x = normal(100_000, mean=-4.0, sd=1.0)
    assert trained(x).numbers.scale == pytest.approx(10)
    assert trained(x, max_scale=math.inf).numbers.scale > 50
    assert trained(x, max_scale=2.0).numbers.scale == pytest.approx(2)


def test_reset_forgets():
    module = trained()
    module.reset_running_stats()
    fresh = GAL(20, 1.0)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in module.state_dict().items())


# --- GAL: gradients -------------------------------------------------------------------------------


def test_the_numbers_are_constants_to_autograd():
    module = trained()
    for _ in range(2):
        numbers = module.numbers
        x = normal(200, requires_grad=True)
        dy = normal(200, seed=9)
        (dx,) = torch.autograd.grad(module(x), x, dy)
        expected = numbers.scale * torch.where(x > 0, torch.ones_like(x), numbers.slope) * dy
        torch.testing.assert_close(dx, expected.detach())
    assert not any(value.requires_grad for value in module.state_dict().values())
    assert list(module.parameters()) == []


@pytest.mark.parametrize("make", [lambda: trained().eval(), lambda: TAT(30)])
def test_gradcheck(make):
    x = normal(4, 5, requires_grad=True)
    assert torch.autograd.gradcheck(make(), (x,))
    assert torch.autograd.gradgradcheck(make(), (x,))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_call_that_checkpointing_repeats_is_the_same_call(reentrant):
    plain = trained()
    saved = copy.deepcopy(plain)
    for step in range(3):
        grads = []
        for module, run in ((plain, plain), (saved, lambda x: checkpoint(saved, x, use_reentrant=reentrant))):
            x = normal(300, seed=step, mean=step, requires_grad=True)
            run(x).square().sum().backward()
            grads.append(x.grad)
            assert module.steps == step + 2
        assert torch.equal(*grads)
        assert plain.numbers == saved.numbers


# --- GAL: state -----------------------------------------------------------------------------------


def test_state_dict_names_and_shapes():
    state = GAL(20).state_dict()
    assert {name: (value.dtype, tuple(value.shape)) for name, value in state.items()} == {
        "moments": (torch.float64, (4,)),
        "scalars": (torch.float64, (3,)),
        "steps": (torch.int64, ()),
    }


def _by_file(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _by_state(module):
    other = GAL(20, 1.0)
    _ = other.numbers  # has been read before
    other.load_state_dict(module.state_dict())
    return other


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": _by_file,
    "state_dict": _by_state,
}


@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_alike_and_on_its_own(way):
    module = trained()
    before = module.numbers
    other = way(module)
    assert (other.numbers, other.running, other.steps) == (module.numbers, module.running, module.steps)
    for _ in range(2):
        module(normal(50, seed=4, mean=3))
    assert other.numbers == before != module.numbers
    for _ in range(2):
        other(normal(50, seed=4, mean=3))
    assert other.numbers == module.numbers


def test_numbers_follow_every_change_of_the_buffer():
    module = trained()
    _ = module.numbers
    module.scalars.copy_(torch.tensor([0.5, 2.0, 1.0]))
    assert module.numbers == Gal(0.5, 2.0, 1.0)
    module.scalars = torch.tensor([0.25, 3.0, 0.0], dtype=torch.float64)
    assert module.numbers == Gal(0.25, 3.0, 0.0)
    with torch.inference_mode():
        made = GAL(20)
        assert made.numbers == pytest.approx(gaussian_gal(20))
        made(normal(40))
        assert made.steps == 1
        trained()(normal(40))


@pytest.mark.parametrize("way", [copy.deepcopy, COPIES["pickle"], COPIES["torch.save"]])
def test_a_copy_does_not_remember_what_was_read(way):
    module = GAL(20)
    for _ in range(4):
        module.scalars.copy_(torch.tensor([0.5, 2.0, 1.0]))
    _ = module.numbers
    for writes in range(1, 6):  # after one of these the version of the copy's buffer is that of the original's
        other = way(module)
        for _ in range(writes):
            other.scalars.copy_(torch.tensor([0.25, 3.0, 0.0]))
        assert other.numbers == Gal(0.25, 3.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_cast_of_the_model_leaves_the_numbers_their_precision(dtype):
    module = trained()
    before = module.numbers
    model = nn.Sequential(nn.Linear(3, 3), module).to(dtype)
    assert model[0].weight.dtype == dtype
    assert module.moments.dtype == module.scalars.dtype == torch.float64
    assert module.numbers == before
    assert model(torch.ones(2, 3, dtype=dtype)).dtype == dtype


def test_meta_and_back():
    module = GAL(20).to("meta")
    assert module.scalars.is_meta
    assert module.moments.dtype == torch.float64
    back = module.to_empty(device="cpu")
    back.load_state_dict(trained().state_dict())
    assert back.numbers == trained().numbers
    assert GAL(20).eval()(torch.empty(3, 4, device="meta")).shape == (3, 4)


# --- GAL: ranks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    program = Path(__file__).with_name("support_gal_ranks.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), str(rank), "2", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("gal_ranks", Path(__file__).with_name("support_gal_ranks.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same_state(state, other, tolerance):
    assert state.keys() == other.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance, msg=name)


def test_ranks_agree_with_one_process_that_has_all_data(ranks, program):
    single = GAL(20, 1.0)
    for step, (first, second) in enumerate(zip(*(rank["steps"] for rank in ranks), strict=True)):
        assert_same_state(first, second, 0)
        # A shard with a NaN counts as empty: what is left is the first rank's.
        single(program.shards(step)[0] if step == 3 else torch.cat(program.shards(step)))
        assert_same_state(first, single.state_dict(), 1e-6)  # sums within a tile are float32
    assert first["steps"] == 4


def test_a_group_keeps_to_itself(ranks, program):
    for rank, result in enumerate(ranks):
        single = GAL(20, 1.0)
        single(program.shards(0)[rank])
        assert_same_state(result["own group"], single.state_dict(), 1e-12)


def test_data_parallel_training_is_that_of_one_process(ranks, program):
    model = program.network()
    program.train(model, lambda x: x)
    assert_same_state(ranks[0]["trained"], ranks[1]["trained"], 0)
    assert_same_state(ranks[0]["trained"], model.state_dict(), 1e-10)


# --- GAL: folding, compiling, transforms ----------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("make", [lambda: trained().eval(), lambda: TAT(30)])
def test_fold_is_the_same_function_without_geoact(make, dtype):
    module = make()
    folded = module.fold()
    x = normal(400, dtype=dtype)
    assert [type(part) for part in folded] == [nn.LeakyReLU, adaptive.Affine]
    assert not list(folded.state_dict())
    y = folded(x)
    assert y.dtype == dtype
    tolerance = 4 * HALF_ULP[dtype]
    torch.testing.assert_close(y, module(x), rtol=tolerance, atol=tolerance)
    if isinstance(module, GAL):
        module.train()(normal(50, mean=-3))
        assert torch.equal(folded(x), y)  # as it was


@pytest.mark.parametrize("bias", [True, False])
def test_fold_into_the_next_linear_layer(bias):
    module = trained().eval()
    linear = nn.Linear(6, 3, bias=bias)
    before = copy.deepcopy(linear.state_dict())
    folded = module.fold_into(linear)
    assert [type(part) for part in folded] == [nn.LeakyReLU, nn.Linear]
    x = normal(40, 6, dtype=torch.float32)
    torch.testing.assert_close(folded(x), linear(module(x)), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in linear.state_dict().items())
    with pytest.raises(TypeError, match=r"linear must be a torch\.nn\.Linear, got Conv2d"):
        module.fold_into(nn.Conv2d(1, 1, 3))


def test_compiled_in_eval_mode_it_is_part_of_the_graph():
    module = trained().eval()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for dtype in DTYPES.values():
        x = normal(64, dtype=dtype)
        torch.testing.assert_close(compiled(x), module(x))
    module.scalars.copy_(torch.tensor([0.5, 2.0, 1.0]))  # no constant of the graph
    x = normal(64)
    assert_rounded(compiled(x), reference(x, Gal(0.5, 2.0, 1.0)))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo asks for it itself
def test_compiled_in_training_mode_it_learns_as_it_does_without():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), GAL(20, 1.0), nn.Linear(8, 2))
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    for step in range(3):
        x = normal(40, 5, seed=step, dtype=torch.float32)
        for each in (compiled, twin):
            each(x).square().mean().backward()
        assert model[1].steps == step + 1
        assert model[1].numbers == twin[1].numbers
    torch.testing.assert_close(model[0].weight.grad, twin[0].weight.grad)


def test_training_does_not_load_the_compiler(python):
    program = (
        "import sys, torch, geoact.torch\ngeoact.torch.GAL(9)(torch.ones(4))\nprint('torch._dynamo' in sys.modules)"
    )
    assert python(program).strip() == "False"


def test_transforms_of_torch_func():
    module = trained().eval()
    x = normal(6, 5)
    torch.testing.assert_close(torch.func.vmap(module)(x), module(x))
    slopes = torch.func.vmap(torch.func.grad(module))(x.flatten())
    expected = module.numbers.scale * torch.where(x.flatten() > 0, torch.ones((), dtype=x.dtype), module.numbers.slope)
    torch.testing.assert_close(slopes, expected)
    states = {name: torch.stack([value, value]) for name, value in module.state_dict().items()}
    both = torch.func.vmap(lambda state: torch.func.functional_call(module, state, (x,)))(states)
    torch.testing.assert_close(both[1], module(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_it_is_the_row_gal_with_the_numbers_of_now(dtype):
    x, module = normal(100, dtype=dtype), trained()
    now = module.numbers
    assert torch.equal(module(x), geoact.gal(x, *now))
    assert module.numbers != now  # measured, for the next call
    module.eval()
    assert torch.equal(module(x), geoact.gal(x, *module.numbers))
    assert torch.equal(TAT(30)(x), geoact.gal(x, tat_slope(30), tat_scale(tat_slope(30)), 0.0))


# --- errors, repr ---------------------------------------------------------------------------------


def test_gal_says_what_is_wrong():
    for settings, error, text in (
        ({"depth": 0}, ValueError, "depth must be at least 1"),
        ({"depth": 2.5}, TypeError, "depth must be an int"),
        ({"depth": 4, "kappa": 0}, ValueError, "kappa must be above 0 and below depth"),
        ({"depth": 4, "kappa": 4}, ValueError, "kappa must be above 0 and below depth"),
        ({"depth": 4, "momentum": 0}, ValueError, "momentum must be above 0 and at most 1, or None"),
        ({"depth": 4, "momentum": 1.5}, ValueError, "momentum must be above 0"),
        ({"depth": 4, "momentum": "a"}, TypeError, "momentum must be a number"),
        ({"depth": 4, "max_scale": 0.5}, ValueError, "max_scale must be at least 1"),
    ):
        with pytest.raises(error, match=text):
            GAL(**settings)
    for training in (True, False):
        module = GAL(4).train(training)
        with pytest.raises(TypeError, match="input must be a tensor, got list"):
            module([1.0])
        with pytest.raises(TypeError, match="input must be of float16, bfloat16, float32 or float64, got int64"):
            module(torch.ones(3, dtype=torch.int64))
    assert module.steps == 0
