"""Watching a model: names, schedule, windows, checkpointing, torch.compile, and leaving no trace."""

import copy
import math
import pickle
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("torch.distributed")  # of an installed torch; "torch" alone would also find a folder of that name

import geoact
import geoact.torch
import torch
from geoact.torch.reading import Reading
from torch import nn
from torch.utils.checkpoint import checkpoint

FEATURES = 8


def perceptron(*activations):
    layers = []
    for activation in activations:
        layers += [nn.Linear(FEATURES, FEATURES), activation]
    return nn.Sequential(*layers, nn.Linear(FEATURES, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return perceptron(nn.ReLU(), nn.GELU(approximate="tanh"), nn.PReLU(FEATURES))


@pytest.fixture
def data():
    return torch.randn(20, FEATURES, generator=torch.Generator().manual_seed(1))


def run(model, data):
    loss = model(data).square().mean()
    loss.backward()
    return loss.item()


class Memory:
    def __init__(self):
        self.readings = []
        self.closed = 0

    def write(self, reading):
        assert not self.closed
        self.readings.append(reading)

    def close(self):
        self.closed += 1


def test_a_reading_holds_what_the_layers_saw(model, data):
    seen = {}
    handles = [
        module.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
        for name, module in model.named_modules()
        if name in ("1", "3", "5")
    ]
    with geoact.torch.instrument(model) as monitor:
        run(model, data)
    for handle in handles:
        handle.remove()
    reading = monitor.last
    assert [layer.name for layer in reading] == ["1", "3", "5"]
    assert [layer.activation for layer in reading] == ["relu", "gelu_tanh", "prelu"]
    for layer in reading:
        x, y = (t.detach().double().numpy() for t in seen[layer.name])
        assert layer.calls == 1
        np.testing.assert_allclose(layer.forward.mean_x, x.mean(0), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(layer.forward.var_y, y.var(0), rtol=1e-5)
        np.testing.assert_array_equal(layer.forward.positive_fraction, (x > 0).mean(0))
        assert layer.backward.groups == FEATURES
        assert np.all(layer.backward.n == 20)


def test_gradients_measured_are_those_of_autograd(model, data):
    arrived, left = [], []

    def hook(_, gradient_left, gradient_arrived):
        left.extend(gradient_left)
        arrived.extend(gradient_arrived)

    model[1].register_full_backward_hook(hook)
    with geoact.torch.instrument(model, per="tensor") as monitor:
        run(model, data)
    backward = monitor.last["1"].backward
    assert backward.norm_dy == pytest.approx(arrived[0].norm().item(), rel=1e-6)
    assert backward.norm_dx == pytest.approx(left[0].norm().item(), rel=1e-6)


def test_the_model_computes_the_same_and_is_left_as_it_was(model, data):
    before, keys = {name: type(m) for name, m in model.named_modules()}, list(model.state_dict())
    slots = {name: set(vars(m)) for name, m in model.named_modules()}
    plain = model(data)
    with geoact.torch.instrument(model):
        torch.testing.assert_close(model(data), plain, rtol=1e-6, atol=1e-6)
        assert list(model.state_dict()) == keys
        assert isinstance(model[1], nn.ReLU)
    assert {name: type(m) for name, m in model.named_modules()} == before
    assert {name: set(vars(m)) for name, m in model.named_modules()} == slots
    assert torch.equal(model(data), plain)


def test_it_is_left_as_it_was_after_an_error(model, data):
    sink = Memory()

    def fail():
        with geoact.torch.instrument(model, sinks=[sink]):
            model(data)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert type(model[1]) is nn.ReLU
    assert sink.closed == 1
    assert [[layer.calls for layer in reading] for reading in sink.readings] == [[1, 1, 1]]  # what led to the error


@pytest.mark.parametrize(("every", "warmup", "window"), [(1, 0, 1), (3, 0, 1), (2, 1, 1), (1, 0, 4), (2, 3, 2)])
def test_schedule(model, data, every, warmup, window):
    sink, steps = Memory(), 12
    measured = [s for s in range(steps) if s >= warmup and (s - warmup) % every == 0]
    with geoact.torch.instrument(model, every=every, warmup=warmup, window=window, sinks=[sink]) as monitor:
        for step in range(steps):
            is_ours = type(model[1]) is not nn.ReLU
            assert is_ours == (step in measured)
            run(model, data)
            reading = monitor.step()
            ends = step in measured and (measured.index(step) + 1) % window == 0
            assert (reading is not None) == ends
            if ends:
                assert reading.step == step
                assert monitor.last is reading
                assert [layer.calls for layer in reading] == [window] * 3
        rest = len(measured) % window
    ended = [measured[i] for i in range(window - 1, len(measured), window)]
    assert [r.step for r in sink.readings[: len(ended)]] == ended
    assert len(sink.readings) == len(ended) + (rest > 0)  # what was begun is not lost
    assert sink.closed == 1


def test_micro_batches_count_together(model, data):
    with geoact.torch.instrument(model, per="tensor") as monitor:
        for part in data.split([3, 7, 10]):
            run(model, part)
        parts = monitor.step()
        run(model, data)
        whole = monitor.step()
    for a, b in zip(parts, whole, strict=True):
        assert a.calls == 3
        assert a.forward.n == b.forward.n == 20 * FEATURES
        assert a.forward.gain == pytest.approx(b.forward.gain, rel=1e-6)


def test_read_shows_the_window_so_far_then_the_last_reading(model, data):
    with geoact.torch.instrument(model, window=2) as monitor:
        assert len(monitor.read()) == 0
        model(data)
        assert [layer.calls for layer in monitor.read()] == [1, 1, 1]
        monitor.step()
        model(data)
        last = monitor.step()
        assert monitor.read() is last
        snapshot = str(last)
        model(data)
        assert [layer.calls for layer in monitor.read()] == [1, 1, 1]
        assert str(last) == snapshot
    assert "relu" in str(monitor)


def test_reset_forgets_the_window(model, data):
    with geoact.torch.instrument(model) as monitor:
        model(data)
        monitor.reset()
        model(data[:5])
        assert all(np.all(layer.forward.n == 5) for layer in monitor.read())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_does_not_count_twice(model, data, reentrant):
    with geoact.torch.instrument(model) as monitor:
        checkpoint(model, data.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()
    for layer in monitor.last:
        assert layer.forward.calls == 1
        assert np.all(layer.forward.n == 20)
        assert layer.backward.calls == 1


def test_statistics_given_by_the_user_do_not_count_twice_either(data):
    stats = geoact.GeometryStats()
    checkpoint(
        lambda x: geoact.silu(x, stats=stats), data.clone().requires_grad_(), use_reentrant=False
    ).sum().backward()
    assert stats.calls == 1


def test_a_module_used_twice_is_one_layer_for_each_kind_of_data(data):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.wide, self.back = nn.Linear(8, 8), nn.Linear(8, 12), nn.Linear(12, 8)
            self.relu = nn.ReLU()

        def forward(self, x):
            x = self.relu(self.narrow(x))
            x = self.relu(self.wide(x))
            return self.relu(self.back(x))

    model = Shared()
    with geoact.torch.instrument(model) as monitor:
        model(data).sum().backward()
    assert {layer.name: layer.calls for layer in monitor.last} == {"relu[8]": 2, "relu[12]": 1}
    with geoact.torch.instrument(model, per="tensor") as monitor:
        model(data)
        model.double()(data.double())
    assert {layer.name: layer.calls for layer in monitor.last} == {"relu[float32]": 3, "relu[float64]": 3}


def test_a_module_under_two_names_is_one_layer(data):
    shared = nn.Tanh()
    model = nn.Sequential(nn.Linear(8, 8), shared, nn.Linear(8, 8), shared)
    with geoact.torch.instrument(model) as monitor:
        model(data)
    assert [(layer.name, layer.calls) for layer in monitor.last] == [("1", 2)]


def test_layers_come_in_the_order_in_which_they_first_ran(data):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Sigmoid(), nn.Tanh()

        def forward(self, x):
            return self.second(self.first(x))

    model = Backwards()
    assert [name for name, _ in model.named_children()] == ["second", "first"]
    with geoact.torch.instrument(model) as monitor:
        model(data)
    assert [(layer.name, layer.index) for layer in monitor.last] == [("first", 0), ("second", 1)]


def test_images_have_their_channels_on_axis_1():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4), nn.Sigmoid())
    with geoact.torch.instrument(model) as monitor:
        model(torch.randn(2, 3, 8, 8))
    assert [layer.forward.groups for layer in monitor.last] == [5, 4]
    with geoact.torch.instrument(model, channel_axis=0) as monitor:
        model(torch.randn(2, 3, 8, 8))
    assert [layer.forward.groups for layer in monitor.last] == [2, 2]


def test_a_number_on_its_own_is_measured_as_a_whole():
    model = nn.Sequential(nn.Sigmoid())
    with geoact.torch.instrument(model) as monitor:
        model(torch.tensor(0.3))
    assert monitor.last["0"].forward.per == "tensor"


def test_autocast_brings_another_dtype_and_another_layer(data):
    model = perceptron(nn.ReLU())
    with geoact.torch.instrument(model, per="tensor") as monitor:
        with torch.autocast("cpu", torch.bfloat16):
            model(data).sum().backward()
        model(data)
    assert {layer.name: layer.forward.dtype for layer in monitor.last} == {
        "1[bfloat16]": "bfloat16",
        "1[float32]": "float32",
    }


@pytest.mark.parametrize(("when", "calls"), [("always", 3), ("training", 1), ("evaluation", 2)])
@pytest.mark.parametrize("compiled", [False, True])
def test_when_chooses_between_training_and_evaluation(model, data, when, calls, compiled):
    torch._dynamo.reset()
    run_it = torch.compile(model, backend="aot_eager") if compiled else model
    with geoact.torch.instrument(model, when=when) as monitor:
        run_it(data)
        model.eval()
        run_it(data)
        run_it(data)
        model.train()
    assert [layer.calls for layer in monitor.last] == [calls] * 3


def test_include_and_exclude(model, data):
    names = lambda **options: [w.name for w in geoact.torch.instrument(model, **options)._watched]  # noqa: E731
    assert names(include="[13]") == ["1", "3"]
    assert names(exclude=re.compile("^3$")) == ["1", "5"]
    assert names(include="1|5", exclude="5") == ["1"]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_under_torch_compile_nothing_is_lost_and_two_versions_are_compiled(model, data, backend):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inductor warns of its own future
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        eager = []
        with geoact.torch.instrument(model, every=2) as monitor:
            for _ in range(6):
                run(compiled, data)
                eager.append(monitor.step())
        frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert frames == 2
    assert [reading is not None for reading in eager] == [True, False] * 3
    for reading in eager[::2]:
        assert [layer.calls for layer in reading] == [1, 1, 1]
        assert [layer.backward.calls for layer in reading] == [1, 1, 1]
        assert all(np.all(layer.forward.n == 20) for layer in reading)
    with geoact.torch.instrument(model) as plain:
        run(model, data)
    for a, b in zip(eager[0], plain.last, strict=True):
        np.testing.assert_allclose(a.forward.gain, b.forward.gain, rtol=1e-4)
        assert a.name == b.name


def test_the_compiled_wrapper_may_be_instrumented_as_well(model, data):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with geoact.torch.instrument(compiled) as monitor:
        compiled(data)
    assert [layer.name for layer in monitor.last] == ["1", "3", "5"]


def test_copies_and_pickles_of_a_watched_model_are_models(model, data):
    with geoact.torch.instrument(model) as monitor:
        twin = copy.deepcopy(model)
        twin(data)
        assert len(monitor.read()) == 0
        again = pickle.loads(pickle.dumps(model))
    assert [type(m) for m in twin] == [type(m) for m in again] == [type(m) for m in model]
    assert torch.equal(twin(data), model(data))
    assert torch.equal(again(data), model(data))


def test_readings_pickle(model, data):
    with geoact.torch.instrument(model) as monitor:
        run(model, data)
    twin = pickle.loads(pickle.dumps(monitor.last))
    assert isinstance(twin, Reading)
    assert str(twin) == str(monitor.last)
    assert twin.to_dict()["layers"][0]["layer"] == "1"


def test_modules_of_ours_are_watched_unless_they_have_statistics(data):
    own = geoact.GeometryStats()
    model = nn.Sequential(geoact.torch.ReLU(), geoact.torch.Swish(), geoact.torch.Tanh(stats=own))
    with geoact.torch.instrument(model) as monitor:
        model(data).sum().backward()
    assert [layer.name for layer in monitor.last] == ["0", "1"]
    assert [(left.name, left.why) for left in monitor.skipped] == [("2", "it has statistics of its own")]
    assert own.calls == 1
    assert model[0]._probe is None


def test_what_cannot_be_watched_is_named():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.soft = nn.ReLU(), nn.Softmax(-1)

        def forward(self, x):
            return self.soft(torch.relu(self.act(x)))

    monitor = geoact.torch.instrument(Functional())
    named = {left.name: left.what for left in monitor.skipped}
    assert named["soft"] == "Softmax"
    assert any("torch.relu()" in left.what for left in monitor.skipped)


def test_alerts_name_the_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1.0)
    with geoact.torch.instrument(model) as monitor:
        model(torch.randn(50, 4))
    lines = [str(alert) for alert in monitor.last.alerts]
    assert lines
    assert all(line.startswith("1: ") for line in lines)
    assert any("100.0% of the outputs are 0" in line for line in lines)
    with geoact.torch.instrument(model, rules=()) as monitor:
        model(torch.randn(50, 4))
    assert monitor.last.alerts == ()


def test_a_tensor_that_cannot_be_measured_does_not_break_the_model():
    model = nn.Sequential(nn.ReLU())
    geoact.torch.modules._warned.clear()
    with geoact.torch.instrument(model) as monitor, pytest.warns(UserWarning, match="left to torch"):
        y = model(torch.tensor([-1, 2]))
    assert y.tolist() == [0, 2]
    assert monitor.last is None


def test_a_monitor_that_is_not_entered_says_so(model):
    monitor = geoact.torch.instrument(model)
    with pytest.raises(RuntimeError, match="not entered"):
        monitor.step()
    with monitor, pytest.raises(RuntimeError, match="entered already"), monitor:
        pass


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"per": "row"}, ValueError, "per is 'row'"),
        ({"per": "layer"}, ValueError, "per is 'layer'"),
        ({"level": "all"}, ValueError, "level is 'all'"),
        ({"channel_axis": 1.0}, TypeError, "channel_axis"),
        ({"saturation": 2.0}, ValueError, "saturation"),
        ({"every": 0}, ValueError, "every must be at least 1, got 0"),
        ({"every": 1.5}, TypeError, "every must be an int, got float"),
        ({"when": "never"}, ValueError, "when is 'never'"),
        ({"warmup": -1}, ValueError, "warmup must be at least 0"),
        ({"window": True}, TypeError, "window must be an int, got bool"),
        ({"include": "nothing"}, ValueError, r"no activation to watch with include='nothing' \(there are: 1, 3, 5\)"),
        ({"include": "("}, ValueError, "include is '\\(', which is no regular expression"),
        ({"exclude": 3}, TypeError, "exclude must be a regular expression, got int"),
        ({"sinks": [print]}, TypeError, "sinks must hold objects with write"),
        ({"rules": ["dead"]}, TypeError, "rules must hold"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_arguments(model, options, error, text):
    before = [type(m) for m in model.modules()]
    with pytest.raises(error, match=text):
        geoact.torch.instrument(model, **options)
    assert [type(m) for m in model.modules()] == before


def test_wrong_models(model):
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got function"):
        geoact.torch.instrument(run)
    with pytest.raises(ValueError, match="no activation to watch"):
        geoact.torch.instrument(nn.Linear(2, 2))


def test_a_long_run_stays_small(model, data):
    with geoact.torch.instrument(model) as monitor:
        for _ in range(50):
            model(data)
            monitor.step()
        assert all(len(w.probe.forward.members) == 0 for w in monitor._watched)
    assert math.isfinite(monitor.last["1"].scalars()["scale"])
