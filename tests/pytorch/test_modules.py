"""The modules: torch.nn's own in every respect but who computes."""

import copy
import inspect
import io
import pickle
import warnings

import geoact
import pytest

pytest.importorskip("torch.distributed")
import torch
from geoact import torch as gt
from geoact.torch import modules
from geoact.torch.gated import GatedActivation
from support.torch_cases import REFERENCES, same_bits, tensor
from torch import nn

CLASSES = [
    value
    for value in vars(gt).values()
    if isinstance(value, type) and issubclass(value, modules.Activation) and not issubclass(value, GatedActivation)
]  # those of one input; of the others see test_gated.py
TWINS = [cls for cls in CLASSES if issubclass(cls, getattr(nn, cls.__name__, ()))]
OWN = [cls for cls in CLASSES if cls not in TWINS]
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
each_twin = pytest.mark.parametrize("cls", TWINS, ids=lambda c: c.__name__)

# Arguments besides the defaults, by position and by name.
ARGUMENTS = {
    "ReLU": [((True,), {})],
    "LeakyReLU": [((0.2,), {}), ((), {"negative_slope": 0.3, "inplace": True})],
    "ELU": [((0.5,), {}), ((), {"alpha": 0.7, "inplace": True})],
    "SiLU": [((), {"inplace": True})],
    "GELU": [(("tanh",), {}), ((), {"approximate": "tanh"})],
    "Softplus": [((2, 10), {}), ((), {"beta": 0.5, "threshold": 5.0})],
    "Hardsigmoid": [((True,), {})],
    "Hardswish": [((), {"inplace": True})],
    "Mish": [((True,), {})],
    "PReLU": [((4,), {}), ((), {"num_parameters": 4, "init": 0.1, "dtype": torch.float64})],
    "Swish": [((4, 0.5), {}), ((), {"num_parameters": 4, "init": 2.0, "dtype": torch.float64})],
    "ScaledSiLU": [((1.1,), {})],
    "ReLUSquared": [((True,), {})],
    "FixedGAL": [((0.2, 1.5, 0.1), {}), ((), {"scale": 0.5, "inplace": True})],
    "AconC": [((4,), {}), ((), {"num_parameters": 5, "p2": -0.3, "channel_axis": -1, "dtype": torch.float64})],
    "XIELU": [((4,), {}), ((), {"a": 0.3, "b": 1.5, "beta": 0.2, "eps": -0.01, "dtype": torch.float64})],
    "DyT": [((5,), {}), ((), {"num_parameters": 4, "alpha": 0.9, "channel_axis": 1, "dtype": torch.float64})],
    "Derf": [((5,), {}), ((), {"num_parameters": 4, "alpha": 0.9, "channel_axis": 1, "dtype": torch.float64})],
}
MADE = [(cls, args, kwargs) for cls in CLASSES for args, kwargs in (((), {}), *ARGUMENTS.get(cls.__name__, ()))]
TWINS_MADE = [made for made in MADE if made[0] in TWINS]
_ID = lambda v: v.__name__ if isinstance(v, type) else None  # noqa: E731
each_made = pytest.mark.parametrize(("cls", "args", "kwargs"), MADE, ids=_ID)
each_twin_made = pytest.mark.parametrize(("cls", "args", "kwargs"), TWINS_MADE, ids=_ID)


def _data(module, **options):
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    return tensor(3, 4, 5, dtype=dtype, **options)


def test_every_row_has_a_module():
    assert {cls._row for cls in CLASSES} | {"gelu_tanh"} == set(geoact.activations())
    assert {cls.__name__ for cls in OWN} == {
        "Swish", "CenteredSigmoid", "ReLUSquared", "ScaledSiLU", "FixedGAL", "AconC", "XIELU", "DyT", "Derf",
    }  # fmt: skip
    assert {cls.__name__ for cls in CLASSES} <= set(gt.__all__)


@each_twin
def test_signature_is_that_of_torch_and_the_statistics(cls):
    twin = getattr(nn, cls.__name__)
    own_init = "__init__" in vars(twin)
    theirs = [(p.name, p.default) for p in inspect.signature(twin).parameters.values()] if own_init else []
    ours = list(inspect.signature(cls).parameters.values())
    assert [(p.name, p.default) for p in ours if p.kind is not p.KEYWORD_ONLY] == theirs
    assert [p.name for p in ours if p.kind is p.KEYWORD_ONLY] == [
        "stats",
        "gradient_stats",
        *(["save"] * (cls is gt.ReLU)),
    ]


@each_twin_made
def test_a_module_is_torchs_with_the_same_repr_attributes_and_state(cls, args, kwargs):
    twin = getattr(nn, cls.__name__)
    ours, theirs = cls(*args, **kwargs), twin(*args, **kwargs)
    assert isinstance(ours, twin)
    assert repr(ours) == repr(theirs)
    plain = {k: v for k, v in vars(theirs).items() if not k.startswith("_") and k != "training"}
    assert {k: vars(ours)[k] for k in plain} == plain
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())


@each_twin_made
def test_a_training_step_gives_the_numbers_of_torch(cls, args, kwargs):
    found = []
    for activation in (cls, getattr(nn, cls.__name__)):
        torch.manual_seed(0)
        dtype = kwargs.get("dtype", torch.float32)
        model = nn.Sequential(nn.Linear(4, 4, dtype=dtype), activation(*args, **kwargs), nn.Linear(4, 2, dtype=dtype))
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(3):
            optimiser.zero_grad()
            model(tensor(8, 4, dtype=dtype, seed=step)).square().mean().backward()
            optimiser.step()
        found.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(*found)


def _copies(module):
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    yield "deepcopy", copy.deepcopy(module)
    yield "pickle", pickle.loads(pickle.dumps(module))
    yield "torch.save", torch.load(stream, weights_only=False)
    yield "copy", copy.copy(module)


@each_made
@pytest.mark.parametrize("measured", [False, True])
def test_copies_compute_the_same_and_keep_the_record(cls, args, kwargs, measured):
    pair = {"stats": geoact.GeometryStats(), "gradient_stats": geoact.GradientStats()} if measured else {}
    module = cls(*args, **kwargs, **pair)
    x = _data(module)
    y = module(x.clone())
    for name, twin in _copies(module):
        assert repr(twin) == repr(module)
        if measured:
            assert twin.stats.n == 60, name
            assert (twin.stats is module.stats) == (name == "copy")
        same_bits(twin(x.clone()), y)
        if measured:
            assert twin.stats.n == 120
    if measured:
        assert module.stats.calls == 2  # its own, and that of the shallow copy, which shares the record


@each_made
def test_statistics_of_a_module_are_those_of_its_row(cls, args, kwargs):
    stats, gradient_stats = geoact.GeometryStats(per="channel", channel_axis=1), geoact.GradientStats()
    module = cls(*args, **kwargs, stats=stats, gradient_stats=gradient_stats)
    assert "stats=<per channel>" in repr(module)
    assert "gradient_stats=<per tensor>" in repr(module)
    x = _data(module, requires_grad=True)
    y = module(x * 1)
    y.sum().backward()
    same_bits(y, cls(*args, **kwargs)(x.detach().clone()))
    assert stats.n.tolist() == [15] * 4
    assert gradient_stats.n == 60


def _expected(module, x):
    if isinstance(module, gt.CenteredSigmoid):
        return torch.sigmoid(x) - 0.5
    if isinstance(module, gt.ReLUSquared):
        return torch.relu(x) ** 2
    if isinstance(module, gt.FixedGAL):
        return REFERENCES["gal"](x, module.negative_slope, module.scale, module.shift)
    if not isinstance(module, (gt.Swish, gt.ScaledSiLU)):  # their last argument is the axis
        *names, axis = module._arguments
        values = [getattr(module, name) for name in names]
        return REFERENCES[module._row](x.movedim(getattr(module, axis), 1), *values).movedim(1, getattr(module, axis))
    beta = module.beta
    shaped = beta.reshape(-1, *(1,) * (x.dim() - 2)) if isinstance(beta, torch.Tensor) and beta.numel() > 1 else beta
    return x * torch.sigmoid(shaped * x)


@pytest.mark.parametrize(("cls", "args", "kwargs"), [made for made in MADE if made[0] in OWN], ids=_ID)
def test_our_own_modules_compute_what_they_say(cls, args, kwargs):
    module = cls(*args, **kwargs)
    x = _data(module, requires_grad=True)
    inputs = (x, *module.parameters())
    expected = _expected(module, x)
    theirs = torch.autograd.grad(expected.sum(), inputs)
    y = module(x * 1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), inputs), theirs)
    torch.testing.assert_close(module._by_torch(x), expected)


def test_swish_trains_its_beta():
    module = gt.Swish(4, init=0.5, dtype=torch.float64)
    assert (module.beta.shape, module.beta.dtype) == ((4,), torch.float64)
    assert list(module.state_dict()) == ["beta"]
    assert repr(module) == "Swish(num_parameters=4)"
    module(tensor(8, 4, dtype=torch.float64)).sum().backward()
    assert module.beta.grad.abs().min() > 0
    with torch.no_grad():
        module.beta.fill_(3)
    module.reset_parameters()
    assert module.beta.tolist() == [0.5] * 4
    assert repr(gt.ScaledSiLU()) == "ScaledSiLU(beta=1.702)"
    assert gt.ReLUSquared(inplace=True).extra_repr() == "inplace=True"


@pytest.mark.parametrize(
    ("cls", "given", "first", "text"),
    [
        (gt.AconC, (3,), {"p1": [1.0] * 3, "p2": [0.0] * 3, "beta": [1.0] * 3}, "num_parameters=3, channel_axis=1"),
        (gt.DyT, (3,), {"alpha": [0.5], "weight": [1.0] * 3, "bias": [0.0] * 3}, "num_parameters=3, channel_axis=-1"),
        (
            gt.Derf,
            (3,),
            {"alpha": [0.5], "shift": [0.0], "weight": [1.0] * 3, "bias": [0.0] * 3},
            "num_parameters=3, channel_axis=-1",
        ),
    ],
    ids=_ID,
)
def test_several_parameters_are_trained(cls, given, first, text):
    module = cls(*given, dtype=torch.float64)
    assert {name: p.tolist() for name, p in module.named_parameters()} == first
    assert repr(module) == f"{cls.__name__}({text})"
    module(tensor(4, 3, 3, dtype=torch.float64)).square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad.abs().min() > 0
        with torch.no_grad():
            parameter.fill_(3)
    module.reset_parameters()
    assert {name: p.tolist() for name, p in module.named_parameters()} == first


def test_the_function_xielu_has_the_defaults_of_the_row():
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(geoact.torch.functional.xielu(x), geoact.xielu(x), rtol=0, atol=0)


def test_xielu_starts_at_the_curvatures_it_is_given():
    module = gt.XIELU(a=0.3, b=1.2, beta=0.4, dtype=torch.float64)
    a, b = torch.nn.functional.softplus(module.alpha_p), 0.4 + torch.nn.functional.softplus(module.alpha_n)
    torch.testing.assert_close((a.item(), b.item()), (0.3, 1.2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gt.XIELU(a=0), ValueError, "a must be above 0, got 0"),
        (lambda: gt.XIELU(b=0.5), ValueError, "b must be above beta = 0.5, got 0.5"),
        (lambda: gt.DyT(0), ValueError, "num_parameters must be at least 1, got 0"),
        (lambda: gt.Swish(0), ValueError, "num_parameters must be at least 1, got 0"),
        (lambda: gt.Swish(True), TypeError, "num_parameters must be an int, got bool"),
        (lambda: gt.ReLU(stats={}), TypeError, "stats must be a geoact.GeometryStats, got dict"),
        (lambda: gt.Swish(stats=geoact.GradientStats()), TypeError, "stats must be a geoact.GeometryStats"),
        (lambda: gt.PReLU(gradient_stats=geoact.GeometryStats()), TypeError, "gradient_stats must be a geoact.Grad"),
        (lambda: gt.ReLU(slope=1), TypeError, "slope"),
        (lambda: gt.GELU("no")(tensor(3)), ValueError, "approximate is 'no'"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- what geoact cannot compute on ----------------------------------------------------------------

LEFT = {
    "float8": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "int64": lambda: torch.tensor([-1, 0, 2]),
}


def test_integers_go_to_torch_with_one_warning(monkeypatch):
    monkeypatch.setattr(modules, "_warned", set())
    module, x = gt.ReLU(), LEFT["int64"]()
    with pytest.warns(UserWarning, match="ReLU of a int64 tensor .* is left to torch") as caught:
        assert module(x).tolist() == [0, 0, 2]
    assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(gt.ReLU()(x), torch.relu(x))
    with pytest.warns(UserWarning, match="sparse"):
        assert module(LEFT["sparse"]()).is_sparse


@pytest.mark.filterwarnings("ignore:geoact computes on:UserWarning")
@each_class
def test_what_is_left_to_torch_is_the_same_function(cls, monkeypatch):
    module = cls()
    x = tensor(3, 4)
    expected = module(x)
    monkeypatch.setattr(modules, "supported", lambda x: False)
    torch.testing.assert_close(module(x), expected)


@each_class
@pytest.mark.parametrize("left", LEFT)
def test_with_statistics_an_unsupported_tensor_is_an_error(cls, left):
    stats = geoact.GeometryStats()
    with pytest.raises(TypeError, match="input is a .* tensor"):
        cls(stats=stats)(LEFT[left]())
    with pytest.raises(TypeError, match="input is a .* tensor"):
        cls(gradient_stats=geoact.GradientStats())(LEFT[left]())
    assert stats.calls == 0
