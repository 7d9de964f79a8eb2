"""The compiled fast path: used for plain tensors, and in everything the same as the Python path it stands in for."""

import gc
import subprocess
import sys
import threading

import pytest

torch = pytest.importorskip("torch")

import geoact
from geoact import backends, frontends
from geoact.frontends import torch as by_python
from geoact.torch import fast

if not fast.available:
    pytest.skip(f"the fast path of torch is {fast.state}", allow_module_level=True)

ROWS = {
    # Several trained parameters are left to Python.
    **dict.fromkeys((name for name, row in geoact.activations().items() if row.trainable < 2), ()),
    "gal": (0.1, 1.3, 0.2),
    "leaky_relu": (0.3,),
    "elu": (1.7,),
    "softplus": (2, 5.0),
    "prelu": (0.2,),
    "swish": (1.3,),
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_row = pytest.mark.parametrize("name", ROWS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(autouse=True)
def one_front_end():
    geoact.relu(torch.zeros(1))
    assert frontends.BY_TYPE[torch.Tensor] is fast
    torch.manual_seed(0)


def normal(*shape, dtype=torch.float32, follow=False):
    return (3 * torch.randn(shape)).to(dtype).requires_grad_(follow)


@pytest.fixture
def python_program(tmp_path):
    """As the fixture ``python``, without turning warnings of torch into errors."""

    def run(program):
        path = tmp_path / "program.py"
        path.write_text(program)
        subprocess.run([sys.executable, str(path)], check=True, timeout=120)

    return run


LAYOUTS = {
    "contiguous": lambda: normal(2, 3, 4, 5),
    "channels_last": lambda: normal(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "transposed": lambda: normal(4, 5).t(),
    "sliced": lambda: normal(6, 20)[::2, 3:17:3],
    "expanded": lambda: normal(1, 5).expand(4, 5),
    "odd stride": lambda: normal(7).as_strided((1, 3), (100, 1)),
    "long": lambda: normal(3, 10001),
    "scalar": lambda: normal(),
    "empty": lambda: normal(0, 3),
}


def python(name, x, values=None, out=None, stats=None, gradient_stats=None, axis=1):
    row = geoact.get(name)
    values = ROWS[name] if values is None else values
    return by_python.forward(row, x, values, out, stats, gradient_stats, axis)


def compiled(name, x, values=None, **options):
    return geoact.get(name)(x, *(ROWS[name] if values is None else values), **options)


def assert_same(a, b):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    assert a.stride() == b.stride()
    assert (
        a.detach().numpy(force=True).tobytes() == b.detach().numpy(force=True).tobytes()
        if (a.dtype != torch.bfloat16)
        else torch.equal(a.detach().view(torch.int16), b.detach().view(torch.int16))
    )


def is_compiled(y):
    return y.grad_fn is not None and y.grad_fn.name().startswith("geoact::")


def leaf(x):
    return x.detach().clone(memory_format=torch.preserve_format).requires_grad_()


# --- it is used ---------------------------------------------------------------------------------------------


@each_row
def test_the_graph_holds_a_compiled_node(name):
    x = normal(5, follow=True)
    y = compiled(name, x)
    assert y.grad_fn.name() == f"geoact::{name}_backward"
    assert f"grad_fn=<{name}_backward>" in repr(y)
    assert len(y.grad_fn.next_functions) == 1
    assert type(y) is torch.Tensor
    assert not compiled(name, x.detach()).requires_grad


def test_from_the_first_call_on(python_program):
    python_program(
        "import torch, geoact\n"
        "y = geoact.relu(torch.ones(3, requires_grad=True))\n"
        "assert y.grad_fn.name() == 'geoact::relu_backward', y.grad_fn\n"
    )


def test_parameters_are_plain_tensors_too():
    assert is_compiled(geoact.relu(torch.nn.Parameter(normal(3))))
    y = geoact.prelu(normal(2, 3), torch.nn.Parameter(torch.rand(3)))
    assert is_compiled(y)
    assert [f[0] is None for f in y.grad_fn.next_functions] == [True, False]


# --- the same values, layouts and gradients -----------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@each_dtype
@each_row
def test_same_bits_as_the_python_path(name, dtype, layout):
    source = LAYOUTS[layout]().to(dtype)
    a, b = source.requires_grad_(), source.detach().requires_grad_()
    if layout in ("sliced", "expanded", "odd stride"):  # the copy would lose the layout
        a, b = a.detach().requires_grad_(), b
    y, z = compiled(name, a), python(name, b)
    assert is_compiled(y)
    assert_same(y, z)
    assert y.stride() == torch.empty_like(a).stride()
    with torch.no_grad():
        assert_same(compiled(name, a), z)
    dy = torch.randn_like(y)
    dx, expected = torch.autograd.grad(y, a, dy, retain_graph=True)[0], torch.autograd.grad(z, b, dy)[0]
    assert_same(dx, expected)
    if y.numel():  # the gradient of a sum has strides of zero
        assert_same(torch.autograd.grad(y.sum(), a)[0], torch.autograd.grad(python(name, b).sum(), b)[0])


@each_dtype
@pytest.mark.parametrize("name", ["prelu", "swish"])
@pytest.mark.parametrize("axis", [1, -1, 0])
@pytest.mark.parametrize("single", [False, True])
def test_weights(name, dtype, axis, single):
    x = normal(4, 5, 6, dtype=dtype, follow=True)
    weight = torch.rand(1 if single else x.shape[axis]).to(dtype).requires_grad_()
    dy = normal(4, 5, 6, dtype=dtype)
    got = compiled(name, x, (weight,), channel_axis=axis)
    expected = python(name, x, (weight,), axis=axis)
    assert is_compiled(got)
    assert not is_compiled(expected)
    assert_same(got, expected)
    gradients = torch.autograd.grad(got, (x, weight), dy), torch.autograd.grad(expected, (x, weight), dy)
    for pair in zip(*gradients, strict=True):
        assert_same(*pair)


@each_row
def test_derivatives_of_first_and_second_order(name):
    x = (normal(3, 4, dtype=torch.float64) + 0.01).requires_grad_()
    values = [torch.rand(4, dtype=torch.float64, requires_grad=True)] if geoact.get(name).trainable else []
    if values:
        assert is_compiled(compiled(name, x, values))

    def call(x, *w):
        return compiled(name, x, w or None)

    assert torch.autograd.gradcheck(call, (x, *values))
    assert torch.autograd.gradgradcheck(call, (x, *values))


def test_no_gradient_arrives():
    x = normal(4, follow=True)
    y = geoact.silu(x)
    y.register_hook(lambda g: None)
    z = torch._C._functions.UndefinedGrad()(y)
    assert torch.autograd.grad(z.sum(), x, allow_unused=True) == (None,)


def test_a_number_as_trainable_parameter():
    x = normal(4, follow=True)
    geoact.swish(x, 2).sum().backward()
    expected = leaf(x)
    torch.nn.functional.silu(2 * expected).div(2).sum().backward()
    torch.testing.assert_close(x.grad, expected.grad)


# --- in place, modes ----------------------------------------------------------------------------------------


@each_row
def test_in_place(name):
    x, w = normal(5, follow=True), normal(5)
    with torch.no_grad():
        plain = x.clone()
        version = plain._version
        assert compiled(name, plain, out=plain) is plain
        assert plain._version == version + 1
    h = x * 2
    y = compiled(name, h, out=h)
    assert y is h
    assert is_compiled(h)
    assert h._version == 1
    (h * w).sum().backward()
    expected = leaf(x)
    (python(name, expected * 2) * w).sum().backward()
    assert_same(x.grad, expected.grad)


def test_in_place_where_torch_says_no():
    x = normal(4, follow=True)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        geoact.relu(x, out=x)
    view = x[:2]
    with pytest.raises(RuntimeError, match="view of a leaf|leaf Variable"):
        geoact.relu(view, out=view)
    h = x * 1
    part = h[:2]
    geoact.relu(part, out=part)
    h.sum().backward()
    assert x.grad.tolist() == [float(v > 0) for v in x[:2]] + [1, 1]
    with pytest.raises(ValueError, match="automatic differentiation"):
        geoact.relu(x, out=torch.empty(4))


@pytest.mark.parametrize("name", ["sigmoid", "silu"])
def test_what_was_saved_must_not_change(name):
    x = normal(4, follow=True)
    h = x * 1
    y = compiled(name, h)
    (y if geoact.get(name).saves == "y" else h).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_graph_is_freed_unless_retained():
    x = normal(4, follow=True)
    y = geoact.silu(x)
    y.sum().backward(retain_graph=True)
    first = x.grad.clone()
    y.sum().backward()
    assert torch.equal(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_modes():
    x = normal(4, follow=True)
    with torch.inference_mode():
        y = geoact.relu(x)
        assert y.is_inference()
        assert geoact.relu(y, out=y) is y
        with torch.enable_grad():
            assert not geoact.relu(x.detach()).requires_grad
    z = y * 1
    assert not geoact.relu(z).is_inference()
    assert torch.equal(geoact.relu(y, out=y), z.relu())  # as the Python path: memory is memory
    with torch.no_grad():
        assert not geoact.silu(x).requires_grad
    assert not geoact.silu(x.detach()).requires_grad


def test_hooks_and_checkpoints():
    x, seen, packed = normal(4, follow=True), [], []
    y = geoact.silu(x)
    y.register_hook(seen.append)
    y.retain_grad()
    y.grad_fn.register_hook(lambda gx, gy: seen.append(gx[0]))
    y.sum().backward()
    assert torch.equal(seen[0], torch.ones(4))
    assert torch.equal(y.grad, seen[0])
    assert torch.equal(seen[1], x.grad)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (packed.append(t), t)[1], lambda t: t):
        y = geoact.silu(x)
        z = geoact.sigmoid(x)
    assert packed[0] is x
    assert_same(torch.autograd.grad(y.sum(), x)[0], x.grad)
    assert_same(torch.autograd.grad(z.sum(), x)[0], torch.autograd.grad(python("sigmoid", x).sum(), x)[0])
    y = torch.utils.checkpoint.checkpoint(geoact.silu, x, use_reentrant=False)
    assert_same(torch.autograd.grad(y.sum(), x)[0], x.grad)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own forward mode uses it too
def test_others_take_the_python_path():
    x = normal(3, 4)
    expected = geoact.silu(x)
    assert torch.equal(torch.jit.trace(lambda x: geoact.silu(x), x)(-x), geoact.silu(-x))

    class Sub(torch.Tensor):
        pass

    assert type(geoact.silu(x.as_subclass(Sub))) is Sub
    assert torch.equal(torch.vmap(geoact.silu)(x), expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(geoact.silu(dual)).tangent
        assert tangent is not None
        assert torch.equal(geoact.silu(x), expected)
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        assert geoact.silu(mode.from_tensor(x)).shape == x.shape
    assert geoact.silu(x.to("meta")).is_meta
    negated = torch._neg_view(x)
    assert torch.equal(geoact.silu(negated), geoact.silu(-x))
    with torch.autocast("cpu", torch.bfloat16):
        assert geoact.prelu(x, torch.full((1,), 0.25)).dtype == torch.bfloat16
        assert geoact.relu(x).dtype == torch.float32


@pytest.mark.filterwarnings("ignore")  # those of the compiler are not ours
def test_a_compiler_is_shown_the_python_path():
    x, stats, gradient = normal(3, 4, follow=True), geoact.GeometryStats(), geoact.GradientStats()

    def f(x):
        return geoact.leaky_relu(geoact.gelu(x, approximate="tanh", stats=stats, gradient_stats=gradient), 0.2)

    torch._dynamo.reset()
    y = torch.compile(f, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    assert stats.n == gradient.n == 12
    got, expected = x.grad, leaf(x)
    z = f(expected)
    assert is_compiled(z)
    z.sum().backward()
    assert_same(y, z)
    assert_same(got, expected.grad)


def test_modes_see_the_operator():
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    x = normal(4)
    with Log():
        geoact.silu(x)
    assert "geoact.silu.default" in seen
    assert "geoact.silu" in make_fx(lambda x: geoact.silu(x))(x).code
    program = torch.export.export(Silu(), (x,))
    assert "geoact.silu" in program.graph_module.code


class Silu(torch.nn.Module):
    def forward(self, x):
        return geoact.silu(x)


def test_a_profiler_sees_both_passes():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        geoact.relu(normal(4, follow=True)).sum().backward()
    assert {"geoact::relu", "geoact::relu_backward"} <= {event.name for event in profile.events()}


def test_a_program_may_end_with_a_graph_alive(python_program):
    python_program(
        "import torch, geoact\n"
        "x = torch.ones(3, requires_grad=True)\n"
        "y = geoact.relu(x, gradient_stats=geoact.GradientStats())\n"
        "torch.kept = y\n"
    )


# --- errors -------------------------------------------------------------------------------------------------

BAD = {
    "dtype": lambda: (torch.zeros(3, dtype=torch.int32), (), {}),
    "sparse": lambda: (torch.zeros(3, 3).to_sparse(), (), {}),
    "out shape": lambda: (torch.zeros(3), (), {"out": torch.zeros(4)}),
    "out numpy": lambda: (torch.zeros(3), (), {"out": torch.zeros(3).numpy()}),
    "out overlaps itself": lambda: ((x := torch.zeros(1).expand(3)), (), {"out": x}),
    "stats": lambda: (torch.zeros(3), (), {"stats": 3}),
    "wrong stats": lambda: (torch.zeros(3), (), {"stats": geoact.GradientStats()}),
    "gradient stats": lambda: (torch.zeros(3, requires_grad=True), (), {"gradient_stats": geoact.GeometryStats()}),
    "channel of stats": lambda: (torch.zeros(3), (), {"stats": geoact.GeometryStats(per="channel", channel_axis=4)}),
}


@pytest.mark.parametrize("what", BAD)
def test_errors_are_those_of_the_python_path(what):
    x, values, options = BAD[what]()
    texts = []
    for call in (compiled, python):
        with pytest.raises((TypeError, ValueError)) as caught:
            call("relu", x, values, **options)
        texts.append((caught.type, str(caught.value)))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "weight", [torch.zeros(2, 2), torch.zeros(3), torch.zeros(5).double(), "a", True, None, 10**400]
)
def test_errors_of_weights_are_those_of_the_python_path(weight):
    texts = []
    for call in (compiled, python):
        with pytest.raises((TypeError, ValueError)) as caught:
            call("prelu", torch.zeros(4, 5), (weight,))
        texts.append((caught.type, str(caught.value)))
    assert texts[0] == texts[1] or weight is None


# --- statistics ---------------------------------------------------------------------------------------------


def record(stats):
    return {name: cells.tobytes() for name, cells in stats.cells().items()}


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@each_dtype
def test_statistics_are_those_of_the_python_path(dtype, per):
    records = []
    for call in (compiled, python):
        torch.manual_seed(1)
        stats, gradient = geoact.GeometryStats(per=per), geoact.GradientStats(per=per)
        for _ in range(2):
            x = normal(4, 3, 1500, dtype=dtype, follow=True)
            y = call("silu", x, stats=stats, gradient_stats=gradient)
            y.backward(normal(4, 3, 1500, dtype=dtype))
        assert is_compiled(y) == (call is compiled)
        records.append((record(stats), record(gradient), x.grad))
    assert records[0][:2] == records[1][:2]
    assert_same(records[0][2], records[1][2])


def test_a_failed_call_leaves_statistics_alone():
    stats, gradient = geoact.GeometryStats(per="channel"), geoact.GradientStats(per="channel")
    x = normal(2, 3, follow=True)
    geoact.relu(x, stats=stats, gradient_stats=gradient).sum().backward()
    before = record(stats), record(gradient)
    with pytest.raises(ValueError, match="3 channels"):
        geoact.relu(normal(2, 4), stats=stats)
    y = geoact.relu(normal(2, 4, follow=True), gradient_stats=gradient)
    with pytest.raises(ValueError, match="3 channels"):
        y.sum().backward()
    z = normal(2, 4)
    kept = z.clone()
    with pytest.raises(ValueError, match="3 channels"):
        geoact.relu(z, out=z, stats=stats)
    assert torch.equal(z, kept)
    assert (record(stats), record(gradient)) == before


def test_statistics_live_as_long_as_the_node():
    gradient = geoact.GradientStats()
    held = gradient._accumulator
    count = sys.getrefcount(held)
    x = normal(4, follow=True)
    y = geoact.relu(x, gradient_stats=gradient)
    assert sys.getrefcount(held) == count + 1
    y.sum().backward()
    del y
    assert sys.getrefcount(held) == count


def test_threads_share_statistics():
    stats, gradient = geoact.GeometryStats(), geoact.GradientStats()
    sizes, repeats, failures = (64, 20000), 50, []

    def work():
        try:
            for _ in range(repeats):
                for size in sizes:
                    x = torch.ones(size, requires_grad=True)
                    geoact.relu(x, stats=stats, gradient_stats=gradient).sum().backward()
                    assert x.grad.sum() == size
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert stats.n == gradient.n == 4 * repeats * sum(sizes)


def test_one_graph_in_several_threads():
    x = normal(20000, follow=True)
    gradient = geoact.GradientStats()
    y = geoact.silu(x, gradient_stats=gradient)
    expected = torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)[0]
    results = []

    def work():
        for _ in range(10):
            results.append(torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert all(torch.equal(r, expected) for r in results)
    assert gradient.n == 41 * 20000


def test_nothing_leaks():
    stats, gradient, weight = geoact.GeometryStats(), geoact.GradientStats(), torch.rand(4, requires_grad=True)
    x = normal(3, 4, follow=True)

    def calls(n):
        for _ in range(n):
            geoact.relu(x, stats=stats, gradient_stats=gradient).sum().backward()
            geoact.softplus(x, 2.0, 3.0)
            geoact.prelu(x, weight).sum().backward()
            h = x * 1
            geoact.silu(h, out=h)
            with pytest.raises(TypeError):
                geoact.relu(x, stats=3)

    calls(50)
    gc.collect()
    objects = (x, weight, stats, gradient, stats._accumulator, gradient._accumulator, geoact.relu, None, 1, 3, (), 2.0)
    before = [sys.getrefcount(o) for o in objects], sys.getallocatedblocks()
    calls(2000)
    gc.collect()
    after = [sys.getrefcount(o) for o in objects], sys.getallocatedblocks()
    # Fewer are no leak: what earlier tests left behind may be freed meanwhile.
    assert all(b - a < 20 for a, b in zip(before[0], after[0], strict=True))
    assert after[1] - before[1] < 200


# --- which torch it is for ----------------------------------------------------------------------------------


def test_another_torch_is_served_by_python(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    function, state = fast._load()
    assert function is None
    assert state.startswith("not used (compiled for torch ")
    assert "this is 9.9.9" in state
    monkeypatch.setattr(fast, "state", state)
    monkeypatch.setattr(fast, "_forward", None)
    assert geoact.info()["torch_fast_path"] == state
    x = normal(4, follow=True)
    y = geoact.relu(x)
    assert not is_compiled(y)
    assert_same(y, torch.relu(x))


def test_a_library_that_does_not_load_is_reported(monkeypatch):
    monkeypatch.delattr(geoact, "_torch")
    monkeypatch.setitem(sys.modules, "geoact._torch", None)
    function, state = fast._load()
    assert function is None
    assert "cannot be loaded" in state


def test_the_state_is_told(monkeypatch, tmp_path):
    assert geoact.info()["torch_fast_path"] == f"compiled for torch {torch.__version__}"
    public = torch.__version__.partition("+")[0]
    assert backends.torch_fast_path(public)[1] == f"compiled for torch {torch.__version__}"
    monkeypatch.setattr(backends._core, "__file__", str(tmp_path / "_core.so"))
    assert backends.torch_fast_path(torch.__version__)[1].startswith("not built")
