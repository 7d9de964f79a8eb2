"""Swapping the activations of a model, and back; functional calls, found and intercepted."""

import copy
import functools
import pickle

import pytest

pytest.importorskip("torch.distributed")  # of an installed torch; "torch" alone would also find a folder of that name

import geoact.torch
import torch
import torch.nn.functional as F
from geoact.torch import known
from torch import nn

TWINS = ["Sigmoid", "Tanh", "ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Softplus", "Hardsigmoid", "Hardswish", "Mish",
         "PReLU"]  # fmt: skip


def classes(model):
    return [type(m) for m in model.modules()]


@pytest.mark.parametrize("name", TWINS)
def test_every_twin_is_swapped_and_back(name):
    x = torch.randn(5, 7)
    model = nn.Sequential(nn.Linear(7, 7), getattr(nn, name)())
    before, plain, keys = classes(model), model(x), list(model.state_dict())
    assert geoact.torch.convert(model) is model
    assert type(model[1]) is getattr(geoact.torch, name)
    assert isinstance(model[1], getattr(nn, name))
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(model(x), plain, rtol=2e-6, atol=1e-6)
    assert [(s.name, s.before) for s in geoact.torch.conversion(model).swapped] == [("1", name)]
    assert geoact.torch.revert(model) is model
    assert classes(model) == before
    assert torch.equal(model(x), plain)


def test_identity_hooks_parameters_and_sharing_stay():
    shared = nn.PReLU()
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(nn.Linear(3, 3), shared)})
    weight, calls = shared.weight, []
    shared.register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    geoact.torch.convert(model)
    assert model["a"] is model["b"][1] is shared
    assert shared.weight is weight is optimizer.param_groups[0]["params"][0]
    model["b"](torch.randn(2, 3)).sum().backward()
    assert calls == [1]
    assert weight.grad is not None
    assert len(geoact.torch.conversion(model).swapped) == 1


def test_a_model_may_be_an_activation():
    model = geoact.torch.convert(nn.ReLU())
    assert type(model) is geoact.torch.ReLU
    assert geoact.torch.conversion(model).swapped[0].name == "(the model itself)"


def test_converting_twice_swaps_what_is_new():
    model = nn.Sequential(nn.ReLU())
    geoact.torch.convert(model)
    model.append(nn.Tanh())
    geoact.torch.convert(model)
    assert [s.name for s in geoact.torch.conversion(model).swapped] == ["0", "1"]
    geoact.torch.revert(model)
    assert classes(model) == [nn.Sequential, nn.ReLU, nn.Tanh]


def test_a_copy_of_a_converted_model_is_converted():
    model = geoact.torch.convert(nn.Sequential(nn.ReLU()))
    twin = copy.deepcopy(model)
    assert type(twin[0]) is geoact.torch.ReLU
    geoact.torch.revert(model)
    assert type(model[0]) is nn.ReLU
    assert type(twin[0]) is geoact.torch.ReLU
    again = pickle.loads(pickle.dumps(twin))
    for copied in (twin, again):
        assert [s.before for s in geoact.torch.conversion(copied).swapped] == ["ReLU"]
        assert vars(geoact.torch.revert(copied)[0]).keys() == vars(nn.ReLU()).keys()
        assert type(copied[0]) is nn.ReLU


def test_modules_that_were_ours_from_the_start_stay_ours():
    model = nn.Sequential(geoact.torch.ReLU(), nn.ReLU())
    geoact.torch.revert(geoact.torch.convert(model))
    assert classes(model)[1:] == [geoact.torch.ReLU, nn.ReLU]


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.tanh_gelu = torch.relu, functools.partial(F.gelu, approximate="tanh")

    def forward(self, x):
        return self.act(x)


def test_reverting_leaves_what_was_replaced_meanwhile():
    model = Holder()
    geoact.torch.convert(model)
    model.act = torch.tanh
    geoact.torch.revert(model)
    assert model.act is torch.tanh


def test_a_module_whose_forward_was_replaced_is_left_and_named():
    model = nn.Sequential(nn.ReLU())
    original = model[0].forward
    model[0].forward = lambda x: original(x) + 1
    geoact.torch.convert(model)
    assert [left.why for left in geoact.torch.conversion(model).left] == ["its forward was replaced"]
    assert type(model[0]) is nn.ReLU
    with pytest.raises(ValueError, match="no activation to watch"):
        geoact.torch.instrument(model)


def test_swapped_functions_do_all_that_the_originals_do():
    model, x = Holder(), torch.randn(7)
    expected = model.tanh_gelu(x)
    geoact.torch.convert(model)
    assert len(geoact.torch.conversion(model).swapped) == 2
    torch.testing.assert_close(model.tanh_gelu(x), expected)
    assert model(torch.tensor([1, -1])).tolist() == [1, 0]  # integers go to torch
    model.act = geoact.torch.catching.SwappedFunction(torch.sigmoid)
    out = torch.empty(3)
    assert model.act(torch.zeros(3), out=out) is out
    with pytest.raises(TypeError):
        model.act(x, nonsense=1)
    with geoact.torch.instrument(model, functional=True) as monitor:
        model(x)
    assert [layer.name for layer in monitor.last] == [":sigmoid"]
    followed = x.clone().requires_grad_()
    with torch.device("cpu"):  # a mode of torch's own, which catches no activations
        assert "geoact" in model(followed).grad_fn.name().lower() or "Forward" in model(followed).grad_fn.name()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), torch.sigmoid(x))


def test_subclasses_and_strangers_are_left_and_named():
    class Mine(nn.ReLU):
        pass

    model = nn.Sequential(Mine(), nn.Softmax(-1), nn.ReLU6(), nn.Linear(2, 2))
    geoact.torch.convert(model)
    assert [left.what for left in geoact.torch.conversion(model).left] == ["Mine", "Softmax", "ReLU6"]
    assert classes(model)[1:4] == [Mine, nn.Softmax, nn.ReLU6]


def test_functions_kept_in_attributes():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=F.gelu, batch_first=True)
    x = torch.randn(2, 5, 8)
    plain = layer(x)
    geoact.torch.convert(layer)
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-6)
    assert "geoact" in repr(layer.activation)
    assert [(s.name, s.before) for s in geoact.torch.conversion(layer).swapped] == [("activation", "gelu")]
    geoact.torch.revert(layer)
    assert layer.activation is F.gelu


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def tanh(self):
        return 0.0

    def forward(self, x):
        x = F.relu(self.linear(x)) + self.tanh()
        x = torch.sigmoid(x)
        return nn.functional.softplus(x).relu() + torch.cos(x)


def test_calls_in_forward_are_reported():
    model = Functional()
    geoact.torch.convert(model)
    conversion = geoact.torch.conversion(model)
    assert conversion.swapped == ()
    found = [left.what.partition(" ")[0] for left in conversion.left]
    assert sorted(found) == [".relu()", "F.relu()", "nn.functional.softplus()", "torch.sigmoid()"]
    assert all("intercept" in left.why for left in conversion.left)
    assert "4 left as they are" in str(conversion)


def test_code_without_source_is_passed_over():
    scope = {"nn": nn, "F": F}
    exec("class Built(nn.Module):\n    def forward(self, x):\n        return F.relu(x)", scope)
    assert geoact.torch.swap.functional_calls(scope["Built"]()) == []


@pytest.mark.parametrize("model", [torch.relu, "model", None], ids=["function", "str", "None"])
def test_wrong_models(model):
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        geoact.torch.convert(model)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        geoact.torch.revert(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_script_module_is_refused():
    with pytest.raises(TypeError, match="ScriptModule"):
        geoact.torch.convert(torch.jit.script(nn.Sequential(nn.ReLU())))


# --- interception ---

CALLS = {
    "torch.relu": lambda x: torch.relu(x),
    "F.relu": lambda x: F.relu(x),
    "F.relu in place": lambda x: F.relu(x.clone(), inplace=True),
    "torch.relu_": lambda x: torch.relu_(x.clone()),
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.clone().relu_(),
    "torch.sigmoid": lambda x: torch.sigmoid(x),
    "Tensor.sigmoid_": lambda x: x.clone().sigmoid_(),
    "torch.special.expit": lambda x: torch.special.expit(x),
    "Tensor.tanh": lambda x: x.tanh(),
    "F.leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "F.leaky_relu_": lambda x: F.leaky_relu_(x.clone(), 0.3),
    "F.elu": lambda x: F.elu(x, alpha=0.7),
    "F.silu": lambda x: F.silu(x),
    "F.gelu": lambda x: F.gelu(x),
    "F.gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "F.softplus": lambda x: F.softplus(x, 2.0, 3.0),
    "F.hardsigmoid": lambda x: F.hardsigmoid(x),
    "F.hardswish": lambda x: F.hardswish(x),
    "F.mish": lambda x: F.mish(x),
    "F.prelu": lambda x: F.prelu(x, torch.tensor([0.2])),
    "Tensor.prelu": lambda x: x.prelu(torch.tensor([0.2])),
    "keyword": lambda x: F.silu(input=x),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_caught_and_gives_what_torch_gives(call):
    x = torch.randn(40, requires_grad=True)
    plain = CALLS[call](x)
    (expected,) = torch.autograd.grad(plain.sum(), x)
    with geoact.torch.intercept() as caught:
        y = CALLS[call](x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert sum(caught.calls.values()) == 1
    assert next(iter(caught.calls)) in call.lower() or "expit" in call or call == "keyword"
    assert "Forward" in y.grad_fn.name() or "geoact" in y.grad_fn.name().lower()
    torch.testing.assert_close(y, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_in_place_calls_write_over_their_input():
    x = torch.randn(9)
    y = x.clone()
    with geoact.torch.intercept():
        assert y.relu_() is y
        assert F.silu(x, inplace=True) is x


def test_what_geoact_cannot_do_goes_to_torch():
    out = torch.empty(3)
    with geoact.torch.intercept() as caught:
        assert torch.relu(torch.tensor([-1, 2])).tolist() == [0, 2]
        torch.sigmoid(torch.zeros(3), out=out)
        torch.tanh(torch.zeros(3, dtype=torch.complex64))
    assert caught.calls == {}
    assert caught.passed == {"relu": 1, "sigmoid": 1, "tanh": 1}
    assert out.tolist() == [0.5] * 3


def test_other_functions_and_code_outside_are_untouched():
    with geoact.torch.intercept() as caught:
        torch.cos(torch.zeros(3)).exp()
    torch.relu(torch.zeros(3))
    assert caught.calls == caught.passed == {}


def test_a_whole_model_is_caught():
    torch.manual_seed(0)
    model, x = Functional(), torch.randn(4, 3)
    plain = model(x)
    with geoact.torch.intercept() as caught:
        torch.testing.assert_close(model(x), plain)
    assert caught.calls == {"relu": 2, "sigmoid": 1, "softplus": 1}


def test_every_activation_of_torch_that_we_have_is_known():
    covered = {name for name, _ in known.FUNCTIONS.values()}
    rows = set(geoact.activations())
    ours_alone = {"centered_sigmoid", "relu_squared", "gelu_tanh", "swish", "gal", "acon_c", "xielu", "dyt", "derf"}
    assert covered == rows - ours_alone
    assert known.function_for(functools.partial(F.relu)) is None


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.ELU(-1.0), torch.randn(5)),
        (nn.LeakyReLU(torch.tensor(0.2)), torch.randn(5)),
        (nn.LeakyReLU(True), torch.randn(5)),
        (nn.Softplus(beta=0.0), torch.randn(5)),
        (nn.ReLU(), None),
    ],
    ids=["negative alpha", "tensor slope", "bool slope", "beta 0", "nested"],
)
@pytest.mark.filterwarnings(
    "ignore:geoact computes on dense:UserWarning", "ignore:The PyTorch API of nested:UserWarning"
)
def test_what_torch_takes_works_converted_and_watched(module, x):
    if x is None:
        x = torch.nested.nested_tensor([torch.randn(2), torch.randn(3)])
    model = nn.Sequential(module)
    expected = model(x)
    geoact.torch.convert(model)
    with geoact.torch.instrument(model):
        found = model(x)
    if x.is_nested:
        found, expected = found.to_padded_tensor(0.0), expected.to_padded_tensor(0.0)
    torch.testing.assert_close(found, expected, equal_nan=True)
