"""Monitors, and what else may happen to a model and its sinks meanwhile."""

import pytest

pytest.importorskip("torch.distributed")  # of an installed torch; "torch" alone would also find a folder of that name

import geoact.torch
import torch
from geoact.torch.sinks import Memory
from torch import nn

WIDTH = 8


def make(*activations):
    return nn.Sequential(*(layer for a in activations for layer in (nn.Linear(WIDTH, WIDTH), a)))


@pytest.fixture
def data():
    return torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("part", ["whole", "one layer"])
def test_a_second_monitor_is_refused_and_changes_nothing(data, part):
    model = make(nn.ReLU(), nn.Tanh())
    with geoact.torch.instrument(model) as monitor:
        second = geoact.torch.instrument(model if part == "whole" else model[1])
        with pytest.raises(RuntimeError, match="is watched by another monitor already"):
            second.__enter__()
        model(data)
    assert [layer.calls for layer in monitor.last] == [1, 1]
    assert type(model[1]) is nn.ReLU
    with second:
        model(data)
    assert second.last is not None


def test_two_monitors_of_different_layers_do_not_disturb_each_other(data):
    model = make(nn.ReLU(), nn.Tanh())
    with (
        geoact.torch.instrument(model, include="1") as one,
        geoact.torch.instrument(model, include="3", every=2) as two,
    ):
        for _ in range(2):
            model(data)
            one.step()
            two.step()
    assert (one.last.step, two.last.step) == (1, 0)
    assert [type(m) for m in model][1::2] == [nn.ReLU, nn.Tanh]


def test_functional_calls_are_watched_by_one_monitor_at_a_time(data):
    class Calling(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    model = nn.Sequential(Calling())
    with geoact.torch.instrument(model, functional=True) as monitor:
        with pytest.raises(RuntimeError, match="calls of model are watched by another monitor"):
            geoact.torch.instrument(model[0], functional=True).__enter__()
        with pytest.raises(RuntimeError, match="being watched"):
            geoact.torch.convert(model)
        model(data)
    assert [layer.calls for layer in monitor.last] == [1]
    geoact.torch.convert(model)
    with geoact.torch.instrument(model, functional=True) as monitor:
        model(data)
    assert monitor.last is not None


def test_a_monitor_that_could_not_be_entered_holds_nothing(data):
    model, other = make(nn.ReLU()), make(nn.Tanh())
    late = geoact.torch.instrument(model)
    with geoact.torch.instrument(other):
        model.append(other[1])  # held by the other monitor
        with pytest.raises(RuntimeError, match="2 is watched by another monitor already"):
            late.__enter__()
        assert type(model[1]) is nn.ReLU
    with late:
        model(data)
    assert [layer.name for layer in late.last] == ["1", "2"]


@pytest.mark.parametrize("change", [geoact.torch.convert, geoact.torch.revert])
def test_converting_a_watched_model_is_refused(data, change):
    model = make(nn.ReLU())
    with geoact.torch.instrument(model, every=2) as monitor:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="1 is being watched"):
                change(model)
            model(data)
            monitor.step()
    change(model)


def test_layers_replaced_or_added_are_watched_from_the_next_step(data):
    model = make(nn.ReLU())
    with geoact.torch.instrument(model) as monitor:
        model(data)
        monitor.step()
        relu = model[1]
        model[1] = nn.Tanh()
        model.append(nn.SiLU())
        model(data)
        monitor.step()
        assert type(relu) is nn.ReLU
        model(data)
        reading = monitor.step()
    assert [(layer.name, layer.activation) for layer in reading] == [("1", "tanh"), ("2", "silu")]
    assert [type(m) for m in model][1:] == [nn.Tanh, nn.SiLU]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_was_measured_before_an_error_is_kept(data, kind):
    model, memory = make(nn.ReLU()), Memory()

    def train():
        with geoact.torch.instrument(model, window=10, sinks=[memory]) as monitor:
            for _ in range(5):
                model(data)
                monitor.step()
            raise kind("mine")

    with pytest.raises(kind, match="mine"):
        train()
    assert [[layer.calls for layer in reading] for reading in memory.readings] == [[5]]


class Failing:
    def __init__(self, at):
        self.at = at

    def write(self, reading):
        if self.at == "write":
            raise OSError("disk full")

    def close(self):
        if self.at == "close":
            raise OSError("disk full")


@pytest.mark.parametrize("at", ["write", "close"])
def test_a_sink_that_fails_is_told_and_keeps_nothing_from_the_others(data, at):
    model, memory = make(nn.ReLU()), Memory()

    def train():
        with geoact.torch.instrument(model, sinks=[Failing(at), memory]) as monitor:
            model(data)
            monitor.step()

    with pytest.raises(OSError, match="disk full"):
        train()
    assert len(memory.readings) == 1
    assert type(model[1]) is nn.ReLU


def test_a_sink_that_fails_does_not_hide_the_error_of_the_block():
    model = make(nn.ReLU())

    def train():
        with geoact.torch.instrument(model, sinks=[Failing("close")]):
            raise KeyError("mine")

    with pytest.warns(RuntimeWarning, match="a sink failed as well: OSError: disk full"), pytest.raises(KeyError):
        train()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own use of it, in hessian
def test_transforms_run_on_a_watched_model_and_are_not_measured(data):
    model = make(nn.ReLU())
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(p, x):
        return torch.func.functional_call(model, p, (x,)).square().mean()

    def everything():
        per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))
        return per_sample(parameters, data), torch.func.jacrev(model)(data[0]), torch.func.hessian(model)(data[0])

    expected = everything()
    with geoact.torch.instrument(model) as monitor:
        found = everything()
        assert len(monitor.read()) == 0
    torch.testing.assert_close(found, expected)


def test_a_gradient_under_vmap_is_right_and_not_measured(data):
    gradient = geoact.GradientStats()
    found = torch.func.vmap(torch.func.grad(lambda v: geoact.silu(v, gradient_stats=gradient).sum()))(data)
    x = data.clone().requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(torch.nn.functional.silu(x).sum(), x)[0])
    assert gradient.calls == 0


def test_batched_gradients_of_a_watched_model_are_right_and_not_measured(data):
    model = make(nn.Sigmoid())
    expected = torch.autograd.functional.jacobian(model, data[0], vectorize=True)
    with geoact.torch.instrument(model) as monitor:
        found = torch.autograd.functional.jacobian(model, data[0], vectorize=True)
    torch.testing.assert_close(found, expected)
    assert monitor.last["1"].forward.calls == 1
    assert monitor.last["1"].backward.calls == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_tracing_a_watched_model_is_not_measured(data):
    model = make(nn.ReLU())
    with geoact.torch.instrument(model) as monitor:
        traced = torch.jit.trace(model, data)
        graph = torch.fx.symbolic_trace(model)
    # jit.trace runs the model once more, on its own, to check what it traced: that run is an ordinary one.
    assert {layer.name for layer in (monitor.last or ())} <= {"1"}
    torch.testing.assert_close(traced(data), model(data))
    torch.testing.assert_close(graph(data), model(data))


def test_a_channel_axis_that_is_not_there_is_an_error(data):
    model = make(nn.ReLU())
    with geoact.torch.instrument(model, channel_axis=3), pytest.raises(ValueError, match="channel_axis=3"):
        model(data)
    assert type(model[1]) is nn.ReLU


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_script_module_is_refused_as_convert_does():
    model = torch.jit.script(nn.Sequential(nn.ReLU()))
    with pytest.raises(TypeError, match="model is a ScriptModule"):
        geoact.torch.instrument(model)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sinks": Memory()}, "sinks must be a list or another iterable, got Memory"),
        ({"sinks": None}, "sinks must be a list"),
        ({"sinks": [Memory]}, "sinks must hold sinks, got the class Memory"),
        ({"rules": 3}, "rules must be a list or another iterable, got int"),
        ({"functional": 1}, "functional must be a bool, got int"),
        ({"backward": None}, "backward must be a bool, got NoneType"),
    ],
)
def test_wrong_arguments(options, text):
    with pytest.raises(TypeError, match=text):
        geoact.torch.instrument(make(nn.ReLU()), **options)
