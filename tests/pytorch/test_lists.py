"""The lists of the torch front end name the rows of the registry, all of them and nothing else."""

import geoact
import pytest

pytest.importorskip("torch.distributed")  # of an installed torch; "torch" alone would also find a folder of that name

import geoact.torch
import torch
from geoact.torch import functional, known, modules, slopes

ROWS = geoact.activations()
TRAINABLE = {name for name, row in ROWS.items() if row.trainable}


def test_every_row_has_its_slope_and_the_derivative_of_that():
    assert set(slopes.SLOPES) == set(slopes.CURVATURES) == set(ROWS)
    assert set(slopes.PARAMETER_SLOPES) == set(slopes.PARAMETER_CURVATURES) == TRAINABLE


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_an_operator(name):
    for suffix in ("", "_measured", "_backward", "_backward_measured"):
        assert hasattr(torch.ops.geoact, name + suffix)


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"gelu_tanh"}))  # that is gelu(approximate="tanh")
def test_every_row_is_a_function_and_a_module(name):
    assert callable(getattr(functional, name))
    classes = [c for c in vars(modules).values() if isinstance(c, type) and issubclass(c, modules.Activation)]
    exported = {c._row for c in classes if c.__name__ in geoact.torch.__all__}
    assert name in exported


def test_modules_that_replace_others_name_a_row():
    assert {twin.module._row for twin in known._TWINS.values()} <= set(ROWS)
