"""One launch per call, no wait, no allocation beyond y; CUDA graphs, streams, and the on/off word."""

import geoact
import pytest

pytest.importorskip("torch.distributed")
import counting
import torch
from support.gpu import DEVICE, check_record, each_few, normal, pair, parameters, same_cells
from support.torch_cases import same_bits

pytestmark = pytest.mark.skipif(DEVICE != "cuda", reason="dry run: there is nothing like it on a CPU")
SIZES = [(64, 64), (4096, 1024)]
each_size = pytest.mark.parametrize("shape", SIZES, ids=str)


def calls_of(case, shape):
    """Every kind of call of a case: name -> (function, tensors that it returns)."""
    x, dy = normal(*shape), normal(*shape, seed=1)
    values, out = parameters(case, x, channels=shape[1]), torch.empty_like(x)
    records = [geoact.GeometryStats(per=per, channel_axis=1) for per in ("tensor", "channel")]
    gradient = geoact.GradientStats()
    saved = {case.row.saves: case.row(x, *values) if case.row.saves == "y" else x}
    return {
        "plain": (lambda: case.row(x, *values), 1),
        "per tensor": (lambda: case.row(x, *values, stats=records[0]), 1),
        "per channel": (lambda: case.row(x, *values, stats=records[1]), 1),
        "out": (lambda: case.row(x, *values, out=out, stats=records[0]), 0),
        "backward": (lambda: case.row.backward(dy, *values, **saved, stats=gradient), 2 if case.row.trainable else 1),
    }


@each_few
@each_size
def test_a_call_is_one_launch_and_does_not_wait(backend, case, shape):
    for name, (call, _) in calls_of(case, shape).items():
        counts = counting.count(call)
        assert len(counts.launched) == counts.calls, f"{name}: {counts.launched}"
        assert not counts.waits, f"{name}: {counts.waits}"


@each_few
@each_size
def test_a_call_allocates_what_it_returns_and_nothing_else(backend, case, shape):
    size = counting.rounded(shape[0] * shape[1] * 4)
    for name, (call, returned) in calls_of(case, shape).items():
        taken = counting.allocated(call)
        weight = counting.rounded(shape[1] * 4) if returned == 2 else 0
        assert (taken.blocks, taken.size) == (returned, (size if returned else 0) + weight), name


@each_few
def test_a_call_returns_while_its_stream_is_held_back(backend, case):
    """Stronger than any list of waiting functions: a call that waited would meet the end of the sleep."""
    calls = calls_of(case, (512, 64))
    for call, _ in calls.values():
        call()
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(), torch.cuda.Event()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(400_000_000)  # about 0.2 s, and a call takes microseconds
        begin.record()
        results = [call() for call, _ in calls.values()]
        end.record()
        still_held = not begin.query()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    torch.cuda.synchronize()
    assert still_held
    assert end.query()
    assert len(results) == len(calls)


# --- CUDA graphs ----------------------------------------------------------------------------------


def captured(work, warm_ups=3):
    """The work as a CUDA graph, warmed up on a side stream as torch asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_ups):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


@each_few
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_a_graph_of_forward_and_backward_counts_each_replay(backend, case, per):
    settings = {"per": per, "channel_axis": 1}
    x, dy, y, dx = (normal(1000, 64, seed=seed) for seed in range(4))
    values = parameters(case, x, channels=64)
    stats, gradient = pair(settings)

    def work():
        case.row(x, *values, out=y, stats=stats)
        case.row.backward(dy, *values, **{case.row.saves: y if case.row.saves == "y" else x}, out=dx, stats=gradient)

    graph = captured(work)
    stats.reset()
    gradient.reset()
    expected = case.row(x, *values)
    y.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    same_bits(y, expected)
    once = stats.cells()["n"].copy(), gradient.cells()["n"].copy()
    assert once[0].sum() == once[1].sum() == x.numel()
    x.copy_(normal(1000, 64, seed=9))
    graph.replay()
    torch.cuda.synchronize()
    assert (stats.cells()["n"] == 2 * once[0]).all()
    assert (gradient.cells()["n"] == 2 * once[1]).all()
    same_bits(y, case.row(x, *values))
    if not case.row.trainable:
        check_record(case, stats, torch.cat([normal(1000, 64), x]), torch.cat([expected, y]), settings)


@each_few
def test_the_switch_is_read_at_every_replay(backend, case):
    x, y, stats = normal(1000, 64), normal(1000, 64, seed=1), geoact.GeometryStats()
    values = parameters(case, x, channels=64)
    graph = captured(lambda: case.row(x, *values, out=y, stats=stats))
    stats.reset()
    expected, counts = case.row(x, *values), []
    for enabled in (True, False, False, True):
        stats.enabled = enabled
        assert stats.enabled is enabled
        y.fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize()
        same_bits(y, expected)
        counts.append(int(stats.cells()["n"][0]) // x.numel())
    assert counts == [1, 1, 1, 2]


@each_few
def test_the_switch_works_without_a_graph(backend, case):
    x, stats, gradient = normal(100, 64), geoact.GeometryStats(), geoact.GradientStats()
    values = parameters(case, x, channels=64)
    y = case.row(x, *values, stats=stats)
    stats.enabled = gradient.enabled = False
    same_bits(case.row(x, *values, stats=stats), y)
    case.row.backward(x, *values, **{case.row.saves: y if case.row.saves == "y" else x}, stats=gradient)
    assert (stats.cells()["n"].sum(), gradient.cells()["n"].sum()) == (x.numel(), 0)
    stats.enabled = True
    case.row(x, *values, stats=stats)
    assert stats.cells()["n"].sum() == 2 * x.numel()


# --- streams --------------------------------------------------------------------------------------


@each_few
def test_a_call_runs_on_the_current_stream(backend, case):
    stream, x = torch.cuda.Stream(), normal(4096, 256)
    values, stats = parameters(case, x, channels=256), geoact.GeometryStats()
    expected = case.row(x, *values)
    late = torch.full_like(x, torch.nan)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(x)  # a call on another stream would read the NaN
        y = case.row(late, *values, stats=stats)
    stream.synchronize()
    same_bits(y, expected)
    assert stats.nonfinite_x == 0


@each_few
def test_two_streams_with_an_accumulator_each(backend, case):
    streams, xs = [torch.cuda.Stream() for _ in range(2)], [normal(2048, 512, seed=seed) for seed in range(2)]
    values = parameters(case, xs[0], channels=512)
    together, alone = ([geoact.GeometryStats() for _ in range(2)] for _ in range(2))
    torch.cuda.synchronize()
    for _ in range(20):
        for stream, x, stats in zip(streams, xs, together, strict=True):
            with torch.cuda.stream(stream):
                case.row(x, *values, stats=stats)
    torch.cuda.synchronize()
    for x, stats in zip(xs, alone, strict=True):
        for _ in range(20):
            case.row(x, *values, stats=stats)
    for a, b in zip(together, alone, strict=True):
        same_cells(a, b)


@each_few
def test_one_accumulator_used_on_two_streams_in_turn(backend, case):
    x, stats = normal(2048, 512), geoact.GeometryStats()
    values, first, second = parameters(case, x, channels=512), torch.cuda.Stream(), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(first):
        case.row(x, *values, stats=stats)
    second.wait_stream(first)
    with torch.cuda.stream(second):
        case.row(x, *values, stats=stats)
    second.synchronize()
    assert stats.cells()["n"].sum() == 2 * x.numel()


def test_reading_waits_for_the_work_it_reads(backend):
    x, stats = normal(4096, 1024), geoact.GeometryStats()
    geoact.relu(x, stats=stats)
    stats.reset()
    torch.cuda._sleep(200_000_000)
    geoact.relu(x, stats=stats)
    assert stats.n == x.numel()


def test_memory_does_not_grow_with_calls(backend):
    x, stats = normal(512, 512), geoact.GeometryStats(per="channel")

    def many():
        for _ in range(200):
            geoact.silu(x, stats=stats)
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    assert many() == many()
