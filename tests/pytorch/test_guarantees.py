"""What holds for every call on tensors: statistics change no bit, threads change none, nothing leaks, forks work."""

import gc
import threading
import weakref

import geoact
import numpy as np
import pytest
from geoact import _core
from support.cases import DTYPES as NUMPY_DTYPES
from support.cases import each_row

pytest.importorskip("torch.distributed")
import torch
from geoact import torch as gt
from support.torch_cases import DTYPES, arguments, each_layout, gradients, same_bits, split, tensor

each_name = pytest.mark.parametrize("name", DTYPES)
PER = [{"per": "tensor"}, {"per": "channel", "channel_axis": 1}, {"per": "row"}]


def _with(case, stats, gradient_stats):
    bind, _ = split(case, case.values)
    return bind(lambda x, *a: case.row(x, *a, stats=stats, gradient_stats=gradient_stats))


def _tensors(case, dtype):
    return arguments(case, dtype, channels=4)[: case.row.trainable]


def _same_cells(a, b):
    assert list(a.cells()) == list(b.cells())
    for field, values in a.cells().items():
        np.testing.assert_array_equal(values, b.cells()[field], err_msg=field)


@each_row
@each_name
@pytest.mark.parametrize("settings", PER, ids=lambda s: s["per"])
def test_statistics_change_no_bit_of_y_and_dx(case, name, settings):
    dtype = DTYPES[name]
    x, dy, tensors = tensor(6, 4, 9, dtype=dtype), tensor(6, 4, 9, dtype=dtype, seed=1), _tensors(case, dtype)
    pair = geoact.GeometryStats(**settings), geoact.GradientStats(**settings)
    plain = gradients(_with(case, None, None), x, *tensors, dy=dy)
    measured = gradients(_with(case, *pair), x, *tensors, dy=dy)
    for a, b in zip(plain, measured, strict=True):
        same_bits(a, b)
    assert pair[0].calls == pair[1].calls == 1
    # An unfollowed call, too.
    same_bits(_with(case, pair[0], None)(x, *tensors), plain[0])
    assert pair[0].calls == 2


@each_row
@each_name
def test_statistics_are_those_of_the_numpy_array(case, name):
    dtype = DTYPES[name]
    x, dy = tensor(6, 4, 9, dtype=dtype), tensor(6, 4, 9, dtype=dtype, seed=1)
    tensors = _tensors(case, dtype)

    def array(t):
        if t.dtype == torch.bfloat16:
            return t.view(torch.int16).numpy().view(NUMPY_DTYPES["bfloat16"])
        return t.numpy()

    for settings in PER:
        of_tensor = geoact.GeometryStats(**settings), geoact.GradientStats(**settings)
        of_array = geoact.GeometryStats(**settings), geoact.GradientStats(**settings)
        y, *found = gradients(_with(case, *of_tensor), x, *tensors, dy=dy)
        values = tuple(map(array, tensors)) or case.values
        y_array = case.row(array(x), *values, stats=of_array[0])
        saved = {"x": array(x)} if case.row.saves == "x" else {"y": y_array}
        dx_array = case.row.backward(array(dy), *values, **saved, stats=of_array[1])
        assert array(y).tobytes() == y_array.tobytes()
        for mine, other in zip(found, dx_array if case.row.trainable else (dx_array,), strict=True):
            assert array(mine).tobytes() == other.tobytes()
        for a, b in zip(of_tensor, of_array, strict=True):
            _same_cells(a, b)


@each_layout
def test_layout_of_the_tensor_does_not_change_the_groups(layout):
    x = layout(tensor(2, 4, 3, 5))
    stats, expected = (geoact.GeometryStats(per="channel", channel_axis=1) for _ in range(2))
    geoact.silu(x, stats=stats)
    geoact.silu(x.contiguous(), stats=expected)
    assert stats.n.tolist() == [30] * 4
    np.testing.assert_allclose(stats.mean_y, expected.mean_y, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(stats.x_max, expected.x_max)


@pytest.mark.parametrize("name", ["silu", "prelu"])
def test_the_number_of_threads_changes_no_bit(name):
    x, dy = tensor(1024, 513), tensor(1024, 513, seed=1)
    more = (torch.linspace(-1, 1, 513),) if name == "prelu" else ()
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            geoact.set_num_threads(threads)
            torch.set_num_threads(threads)
            pair = geoact.GeometryStats(per="channel"), geoact.GradientStats()
            row = geoact.get(name)
            function = lambda x, *a, row=row, pair=pair: row(x, *a, stats=pair[0], gradient_stats=pair[1])  # noqa: E731
            results.append((gradients(function, x, *more, dy=dy), pair))
    finally:
        torch.set_num_threads(before)
    for found, pair in results[1:]:
        for a, b in zip(found, results[0][0], strict=True):
            same_bits(a, b)
        for a, b in zip(pair, results[0][1], strict=True):
            _same_cells(a, b)


# --- graphs ---------------------------------------------------------------------------------------


@each_row
def test_a_graph_is_freed_unless_retained(case):
    stats, x = geoact.GradientStats(), tensor(3, 4, requires_grad=True)
    y = _with(case, None, stats)(x, *_tensors(case, torch.float32))
    (first,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(y.sum(), x)
    same_bits(first, second)
    assert stats.calls == 2  # every backward pass is measured
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), x)
    assert stats.calls == 2


def test_gradients_accumulate_as_for_torch():
    x = tensor(5, requires_grad=True)
    y = geoact.silu(x)
    (y.sum() + geoact.silu(y).sum()).backward()
    other = x.detach().clone().requires_grad_()
    y = torch.nn.functional.silu(other)
    (y.sum() + torch.nn.functional.silu(y).sum()).backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_backward_in_other_threads():
    stats, gradient_stats = geoact.GeometryStats(), geoact.GradientStats()
    inputs = [tensor(50, 40, seed=i, requires_grad=True) for i in range(8)]
    outputs = [geoact.gelu(x, stats=stats, gradient_stats=gradient_stats) for x in inputs]
    failures = []

    def work(x, y):
        try:
            y.sum().backward()
            geoact.gelu(x.detach(), stats=stats)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, outputs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert (stats.calls, gradient_stats.calls) == (16, 8)
    assert (stats.n, gradient_stats.n) == (32000, 16000)
    for x in inputs:
        same_bits(x.grad, gradients(geoact.gelu, x.detach())[1])


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "silu", "prelu"])
def test_nothing_is_kept_after_a_step(name):
    alive, more = [], (0.25,) if name == "prelu" else ()
    stats, gradient_stats = geoact.GeometryStats(), geoact.GradientStats()
    for _ in range(3):
        x = tensor(64, requires_grad=True)
        y = geoact.get(name)(x * 1, *more, stats=stats, gradient_stats=gradient_stats)
        y.sum().backward()
        alive += map(weakref.ref, (x, y, x.grad))
        del x, y
    gc.collect()
    assert not [r for r in alive if r() is not None]


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_thousand_calls_take_no_more_memory():
    stats, gradient_stats = geoact.GeometryStats(per="channel"), geoact.GradientStats()
    out = torch.empty(256, 256)

    def step():
        x = torch.rand(256, 256, requires_grad=True)
        geoact.silu(x, stats=stats, gradient_stats=gradient_stats).backward(out)
        with torch.no_grad():
            geoact.silu(x, out=out, stats=stats)
            geoact.prelu(x, torch.rand(256))

    for _ in range(50):
        step()
    gc.collect()
    before = _resident()
    for _ in range(300):
        step()
    gc.collect()
    assert _resident() - before < 20 * out.nbytes  # a tensor leaked per step would be 300


def test_no_operator_calls_numpy_for_a_tensor(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self: pytest.fail("converted to NumPy"))
    monkeypatch.setattr(torch.Tensor, "__array__", lambda self, *a: pytest.fail("converted to NumPy"))
    same_bits(geoact.relu(tensor(3)), tensor(3).clamp(min=0))


# --- processes ------------------------------------------------------------------------------------


class Activated(torch.utils.data.Dataset):
    """Calls geoact in the worker, whose threads a fork does not take along."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        stats = geoact.GeometryStats()
        y = geoact.silu(tensor(300, 300, seed=index), stats=stats)
        return y, stats.n


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*max number of worker:UserWarning")
def test_workers_forked_after_use():
    geoact.set_num_threads(2)
    geoact.silu(tensor(1000, 1000))  # starts the pool
    loader = torch.utils.data.DataLoader(Activated(), num_workers=2, multiprocessing_context="fork", timeout=60)
    for index, (y, n) in enumerate(loader):
        assert n.item() == 90000
        same_bits(y[0], geoact.silu(tensor(300, 300, seed=index)))


def test_instruction_sets_agree_on_exact_rows():
    results = []
    for isa in _core.supported_isas():
        geoact.set_isa(isa)
        results.append(gt.functional.leaky_relu(tensor(50)))
    for y in results:
        same_bits(y, results[0])
