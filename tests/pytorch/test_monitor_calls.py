"""Watching functional calls (F.relu and the like) under the name of the module that makes them."""

import numpy as np
import pytest

pytest.importorskip("torch.distributed")  # of an installed torch; "torch" alone would also find a folder of that name

import geoact.torch
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

FEATURES = 8


@pytest.fixture
def data():
    return torch.randn(20, FEATURES, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    def __init__(self, act=None):
        super().__init__()
        self.linear, self.act = nn.Linear(FEATURES, FEATURES), act or nn.ReLU()

    def forward(self, x):
        x = torch.nn.functional.silu(self.linear(x))
        x = torch.sigmoid(x) + x.sigmoid() + torch.cos(x)
        return self.act(torch.nn.functional.gelu(x, approximate="tanh"))


@pytest.fixture
def functional():
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block())


NAMES = ["{}:silu", "{}:sigmoid", "{}:sigmoid#2", "{}:gelu", "{}.act"]


def test_functional_calls_are_layers_of_the_module_that_makes_them(functional, data):
    plain = functional(data)
    with geoact.torch.instrument(functional, functional=True) as monitor:
        torch.testing.assert_close(functional(data), plain)
        functional(data).square().mean().backward()
    layers = {layer.name: layer for layer in monitor.last}
    assert list(layers) == [name.format(i) for i in range(2) for name in NAMES]
    assert layers["0:gelu"].activation == "gelu_tanh"
    assert all(layer.calls == 2 and layer.backward.calls == 1 for layer in layers.values())
    assert monitor.skipped == ()
    x = functional[0].linear(data).detach().double().numpy()
    np.testing.assert_allclose(layers["0:silu"].forward.mean_x, x.mean(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(functional(data), plain)


def test_functional_calls_leave_no_hooks_and_keep_to_the_schedule(functional, data):
    with geoact.torch.instrument(functional, functional=True, every=2, include="silu|act$") as monitor:
        for step in range(4):
            assert bool(functional[0]._forward_hooks) == (step % 2 == 0)
            functional(data)
            reading = monitor.step()
            if reading is not None:
                assert [layer.name for layer in reading] == ["0:silu", "0.act", "1:silu", "1.act"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in functional.modules())
    assert torch.overrides._len_torch_function_stack() == 0


def test_functional_calls_of_a_model_that_raises(data):
    class Broken(nn.Module):
        def forward(self, x):
            torch.relu(x)
            raise KeyError("mine")

    model = nn.Sequential(Broken())
    with geoact.torch.instrument(model, functional=True) as monitor:
        with pytest.raises(KeyError, match="mine"):
            model(data)
        assert torch.overrides._len_torch_function_stack() == 0
        assert [layer.name for layer in monitor.read()] == ["0:relu"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_functional_calls_that_checkpointing_repeats(functional, data, reentrant):
    with geoact.torch.instrument(functional, functional=True) as monitor:
        x = checkpoint(functional[0], data.clone().requires_grad_(), use_reentrant=reentrant)
        checkpoint(functional[1], x, use_reentrant=reentrant).sum().backward()
    assert [layer.name for layer in monitor.last] == [name.format(i) for i in range(2) for name in NAMES]
    assert all(layer.calls == layer.backward.calls == 1 for layer in monitor.last)


def test_without_functional_they_are_named(functional):
    monitor = geoact.torch.instrument(functional)
    assert len(monitor.skipped) == 4
    assert {left.why for left in monitor.skipped} == {"use functional=True"}
    only = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="functional=True"):
        geoact.torch.instrument(only)
