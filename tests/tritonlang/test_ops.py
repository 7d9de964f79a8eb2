"""The operators of torch.ops.geoact_triton: schemas, derivatives, a compiled program."""

import geoact
import pytest
import torch
from geoact.torch import triton as backend
from geoact.torch.triton_ops import OPERATORS
from support.cases import PLAIN

each_row = pytest.mark.parametrize("case", PLAIN, ids=str)


def arguments(case, channels=1):
    trained = case.row.trainable
    weights = [torch.full((channels,), v) for v in case.values[:trained]]
    return (*weights, *case.values[trained:], *([1] if trained else []))


def data(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_row_has_its_operators():
    assert list(OPERATORS) == list(geoact.activations())


@each_row
def test_operator_and_its_derivative_are_those_of_the_functions(case):
    x, dy = data(6, 5), data(6, 5, seed=1)
    given = arguments(case, 5)
    values, leaf = given[:-1] if case.row.trainable else given, x.clone().requires_grad_()
    leaves = [leaf]
    leaves += [weight.requires_grad_() for weight in given[: case.row.trainable]]
    y = getattr(torch.ops.geoact_triton, case.name)(leaf, *given)
    found = torch.autograd.grad(y, leaves, dy)
    with torch.no_grad():
        assert torch.equal(y, backend.forward(case.row, x, values))
        expected = backend.backward(case.row, dy, x if case.row.saves == "x" else y, values)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", [case for case in PLAIN if case.name in ("tanh", "elu", "prelu")], ids=str)
def test_operators_keep_the_rules_of_custom_operators(case):
    x = data(4, 3).requires_grad_()
    torch.library.opcheck(getattr(torch.ops.geoact_triton, case.name).default, (x, *arguments(case, 3)))


def test_a_measured_operator_declares_that_it_writes_its_state():
    state, x = backend.new_state("forward", 3), data(5, 3)
    y = torch.ops.geoact_triton.silu_measured(x, state, "channel", -1, "moments", 0.05)
    assert torch.equal(y, backend.forward(geoact.silu, x, ()))
    assert int(backend.calls_of(state)) == 1
    assert (backend.cells_of(state, 3)[0] == 5).all()
    schema = torch.ops.geoact_triton.silu_measured.default._schema
    assert [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write] == ["state"]


def test_a_compiled_program_measures_once_per_call():
    state, x = backend.new_state("forward", 1), data(40)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def program(x, state):
        return torch.ops.geoact_triton.gelu_measured(x * 2, state, "tensor", -1, "moments", 0.05) + 1

    for _ in range(2):
        y = program(x, state)
    assert torch.equal(y, backend.forward(geoact.gelu, x * 2, ()) + 1)
    assert int(backend.calls_of(state)) == 2
