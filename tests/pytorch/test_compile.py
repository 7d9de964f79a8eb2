"""Under torch.compile: the same bits, no graph break, no recompilation, and every measurement exactly once."""

import geoact
import pytest
from support.cases import PLAIN, each_row

pytest.importorskip("torch.distributed")
import torch
from support.torch_cases import arguments, gradients, same_bits, split, tensor
from torch.utils.checkpoint import checkpoint

# Warnings of torch's own, while it compiles.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
few = pytest.mark.parametrize("case", [c for c in PLAIN if c.name in ("sigmoid", "silu", "prelu")], ids=str)
AOT = "aot_eager"


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def _cells(stats):
    return {name: tuple(values) for name, values in stats.cells().items()}


@pytest.fixture
def both():
    return geoact.GeometryStats(per="channel", channel_axis=1), geoact.GradientStats()


def _measured(case, stats, gradient_stats):
    bind, _ = split(case, case.values)
    return bind(lambda x, *a: case.row(x, *a, stats=stats, gradient_stats=gradient_stats))


def _compare(case, backend, dtype, lie=(lambda x: x,)):
    bind, tensors = split(case, arguments(case, dtype, channels=4))
    x = tensor(3, 4, 5, dtype=dtype)
    for x_ in (layout(x) for layout in lie):
        dy = torch.empty_like(x_).copy_(tensor(3, 4, 5, dtype=dtype, seed=1))  # as it lies, so are its sums added up
        eager = gradients(bind(case.row), x_, *tensors, dy=dy)
        pairs = [[geoact.GeometryStats(per="channel", channel_axis=1), geoact.GradientStats()] for _ in range(2)]
        plain = torch.compile(bind(case.row), backend=backend, fullgraph=True)
        measured = torch.compile(_measured(case, *pairs[0]), backend=backend, fullgraph=True)
        for function in (plain, measured):
            for a, b in zip(gradients(function, x_, *tensors, dy=dy), eager, strict=True):
                same_bits(a, b)
            assert function(x_, *tensors).stride() == bind(case.row)(x_, *tensors).stride()
        for _ in range(2):
            _measured(case, *pairs[1])(x_.clone(memory_format=torch.preserve_format).requires_grad_(), *tensors)
        gradients(_measured(case, None, pairs[1][1]), x_, *tensors, dy=dy)
        assert _cells(pairs[0][0]) == _cells(pairs[1][0])
        assert _cells(pairs[0][1]) == _cells(pairs[1][1])
        assert (pairs[0][0].calls, pairs[0][1].calls) == (2, 1)


@each_row
def test_compiled_is_eager_bit_by_bit(case):
    _compare(case, AOT, torch.float32)


@few
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_compiled_is_eager_in_other_dtypes_and_layouts(case, dtype):
    _compare(case, AOT, dtype, [lambda x: x.transpose(0, 2).contiguous().transpose(0, 2)])


@few
def test_inductor_is_eager_bit_by_bit(case):
    _compare(case, "inductor", torch.float32)


@pytest.mark.parametrize("name", ["relu", "silu"])
def test_inplace_under_the_compiler(name):
    row, stats = geoact.get(name), geoact.GeometryStats()

    def function(x):
        h = x * 2
        row(h, out=h, stats=stats)
        return h + 1

    found = gradients(torch.compile(function, backend=AOT, fullgraph=True), tensor(3, 4))
    assert (stats.calls, stats.n) == (1, 12)
    for a, b in zip(found, gradients(function, tensor(3, 4)), strict=True):
        same_bits(a, b)


# --- shapes ---------------------------------------------------------------------------------------


def _counting():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    return compiled, backend


@few
def test_new_sizes_do_not_recompile(case, both):
    compiled, backend = _counting()
    bind, tensors = split(case, arguments(case, torch.float32, channels=4))
    function = torch.compile(_measured(case, *both), backend=backend, fullgraph=True, dynamic=True)
    total = 0
    for rows in (3, 5, 17, 64):
        x = tensor(rows, 4)
        same_bits(function(x, *tensors), bind(case.row)(x, *tensors))
        total += rows
    assert len(compiled) == 1
    assert both[0].n.tolist() == [total] * 4
    marked = torch.compile(bind(case.row), backend=backend, fullgraph=True)
    for rows in (3, 9):
        x = tensor(rows, 4)
        torch._dynamo.mark_dynamic(x, 0)
        marked(x, *tensors)
    assert len(compiled) == 2


def test_other_statistics_do_not_recompile():
    compiled, backend = _counting()
    function = torch.compile(lambda x, stats: geoact.silu(x, stats=stats), backend=backend, fullgraph=True)
    each = [geoact.GeometryStats() for _ in range(12)]
    for count, stats in enumerate(each, 1):
        for _ in range(count):
            function(tensor(3, 4), stats)
    assert [s.calls for s in each] == list(range(1, 13))
    assert len(compiled) == 1


# --- what is measured -----------------------------------------------------------------------------


def _program(name):
    """A function of (x, stats, gradient_stats), and how many calls of an activation it makes."""

    def twice(x, s, g):
        return geoact.silu(x, stats=s, gradient_stats=g) + geoact.silu(x, stats=s, gradient_stats=g)

    def loop(x, s, g):
        for _ in range(5):
            x = geoact.tanh(x, stats=s, gradient_stats=g)
        return x

    def unused(x, s, g):
        geoact.silu(x, stats=s)  # a measurement is an effect: it stays although its result is dropped
        return geoact.silu(x, gradient_stats=g) + 1

    def checkpointed(x, s, g):
        return checkpoint(lambda x: geoact.silu(x, stats=s, gradient_stats=g).sin(), x, use_reentrant=False)

    def mixed(x, s, g):
        y = geoact.gelu(x, stats=s)
        geoact.silu(y, out=y, stats=s, gradient_stats=g)
        return geoact.sigmoid(y) * geoact.sigmoid(y)

    def without_grad(x, s, g):
        with torch.no_grad():
            constant = geoact.silu(x, stats=s)
        return geoact.silu(x, gradient_stats=g) * constant

    return locals()[name], {
        "twice": (2, 2),
        "loop": (5, 5),
        "unused": (1, 1),
        "checkpointed": (1, 1),
        "mixed": (2, 1),
        "without_grad": (1, 1),
    }[name]


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, AOT) for name in ("twice", "loop", "unused", "checkpointed", "mixed", "without_grad")),
        *((name, "inductor") for name in ("unused", "mixed")),
    ],
)
def test_nothing_is_dropped_repeated_or_reordered(name, backend):
    function, (forward, backward) = _program(name)
    pairs = [(geoact.GeometryStats(), geoact.GradientStats()) for _ in range(2)]
    compiled = torch.compile(function, backend=backend, fullgraph=name != "checkpointed")
    for run, pair in zip((compiled, function), pairs, strict=True):
        for repeat in range(3):
            gradients(lambda x, run=run, pair=pair: run(x, *pair), tensor(4, 8, seed=repeat))
        assert (pair[0].calls, pair[1].calls) == (3 * forward, 3 * backward)
        assert (pair[0].n, pair[1].n) == (96 * forward, 96 * backward)
    for mine, other in zip(*pairs, strict=True):
        # Order of merging is order of measuring. Inductor rounds the operators around ours in another way.
        for (field, a), b in zip(_cells(mine).items(), _cells(other).values(), strict=True):
            assert a == (b if backend == AOT else pytest.approx(b, rel=1e-5, abs=1e-6)), field


def test_a_plain_call_whose_result_is_unused_is_dropped():
    def function(x):
        geoact.silu(x)
        return x + 1

    seen = []

    def look(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    from torch._dynamo.backends.common import aot_autograd

    torch.compile(function, backend=aot_autograd(fw_compiler=look), fullgraph=True)(tensor(3))
    assert seen
    assert not [target for target in seen if target.startswith("geoact")]


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint_in_eager_mode_measures_once(use_reentrant):
    stats, gradient_stats = geoact.GeometryStats(), geoact.GradientStats()
    x = tensor(3, 4, requires_grad=True)
    function = lambda x: geoact.silu(x, stats=stats, gradient_stats=gradient_stats)  # noqa: E731
    checkpoint(function, x, use_reentrant=use_reentrant).sum().backward()
    assert (stats.calls, gradient_stats.calls) == (1, 1)
    same_bits(x.grad, gradients(geoact.silu, x.detach())[1])


@pytest.mark.parametrize("backend", [AOT, "inductor"])
def test_gradient_statistics_alone(backend):
    gradient_stats = geoact.GradientStats()
    function = torch.compile(lambda x: geoact.silu(x, gradient_stats=gradient_stats), backend=backend, fullgraph=True)
    for a, b in zip(gradients(function, tensor(3, 4)), gradients(geoact.silu, tensor(3, 4)), strict=True):
        same_bits(a, b)
    assert (gradient_stats.calls, gradient_stats.n) == (1, 12)


def test_a_compiled_part_that_checkpoint_repeats_is_measured_once():
    stats, gradient_stats = geoact.GeometryStats(), geoact.GradientStats()
    part = torch.compile(lambda x: geoact.silu(x, stats=stats, gradient_stats=gradient_stats).sin(), backend=AOT)
    x = tensor(3, 4, requires_grad=True)
    checkpoint(part, x, use_reentrant=False).sum().backward()
    assert (stats.calls, gradient_stats.calls) == (1, 1)


def test_wrong_statistics_under_the_compiler():
    function = torch.compile(lambda x: geoact.silu(x, stats={}), backend=AOT)
    with pytest.raises(Exception, match="stats must be a geoact.GeometryStats, got dict"):
        function(tensor(3))
