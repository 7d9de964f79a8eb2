"""The promises of the design, one named test each. The other test files go deeper; these say where a promise stands.

Promise 1 is about speed as well: `make bench` measures an activation with statistics against the copy kernel.
"""

import itertools
from importlib.util import find_spec

import geoact
import numpy as np
import pytest
from geoact import _core
from support import inputs, oracle
from support.cases import DTYPES, NARROW, PLAIN, SIMULATED, Case, assert_same_bits, each_case, each_row, ulps

SETTINGS = [
    {"per": per, "level": level}
    for per, level in itertools.product(("tensor", "channel", "row"), ("counts", "moments"))
]
# Flat runs of a few tiles; panels with a rest in both directions.
SHAPES = [(9001,), (300, 71)]

IN_PLACE = """
import resource
import numpy as np, geoact
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
geoact.set_num_threads(2)
size = 64 << 20
x = np.random.default_rng(0).standard_normal(size // 4, dtype=np.float32).reshape(-1, 1024)
for name, per in (("relu", "tensor"), ("silu", "channel"), ("sigmoid", "row")):
    row = geoact.get(name)
    row(x[:64].copy(), stats=geoact.GeometryStats(per=per))
    y, stats = x.copy(), geoact.GeometryStats(per=per)
    before = peak()
    assert row(y, out=y, stats=stats) is y
    assert peak() - before < size // 4, (name, peak() - before)
    extremes = x.max(axis={"tensor": None, "channel": 0, "row": 1}[per])
    assert np.array_equal(stats.x_max, extremes)
    assert np.all(np.abs(stats.mean_x) < 1)
    del y
print("done")
"""


def test_promise_1_one_pass_over_memory(python):
    """In place, the first pass destroys x: statistics of x and y must come from it, and no copy of x is kept.

    The peak of resident memory shows that there is none. That the pass costs one read and one write is a matter of
    time and measured by `make bench`, against the best copy of the same bytes.
    """
    assert python(IN_PLACE).strip() == "done"


@each_case
def test_promise_2_asking_for_statistics_never_changes_the_result(case, isa, dtype):
    for shape in SHAPES:
        x, dy = inputs.normal(shape, dtype, sd=3), inputs.normal(shape, dtype, seed=30)
        y = case(x)
        dx = case.backward(dy, x, y)
        for settings in SETTINGS:
            assert_same_bits(case(x, stats=geoact.GeometryStats(**settings)), y)
        for per in ("tensor", "channel", "row"):
            assert_same_bits(case.backward(dy, x, y, stats=geoact.GradientStats(per=per)), dx)


@pytest.mark.skipif(SIMULATED, reason="the cache is the processor's")
@pytest.mark.parametrize("name", ["relu", "sigmoid"])
def test_promise_2_holds_where_only_one_of_the_two_is_written_past_the_cache(name, isa):
    """Beside a large last-level cache: 40 MiB of two arrays, 60 MiB of three."""
    row = geoact.get(name)
    x, dy = (np.random.default_rng(seed).standard_normal((20 << 18) + 3, dtype=np.float32) for seed in (1, 2))
    y = row(x)
    assert_same_bits(row(x, stats=geoact.GeometryStats()), y)
    saved = {row.saves: x if row.saves == "x" else y}
    dx = row.backward(dy, **saved)
    assert_same_bits(row.backward(dy, **saved, stats=geoact.GradientStats()), dx)


@pytest.mark.skipif(SIMULATED, reason="instruction sets are the processor's")
def test_promise_3_the_same_numbers_on_every_instruction_set(dtype):
    """Counts and extremes agree exactly where y does, sums to 1e-6; one schema for all."""
    x = inputs.normal((700, 71), dtype, sd=3)
    exact = [
        "n",
        "negative",
        "positive",
        "zero",
        "subnormal",
        "nonfinite_x",
        "nonfinite_y",
        "x_min",
        "x_max",
        "y_min",
        "y_max",
    ]
    for case, per in itertools.product(PLAIN, ("tensor", "channel", "row")):
        found = {}
        for name in _core.supported_isas():
            geoact.set_isa(name)
            stats = geoact.GeometryStats(per=per)
            found[name] = case(x, stats=stats), stats.cells()
        (first, reference), *others = found.values()
        for y, cells in others:
            assert cells.keys() == reference.keys()
            if np.array_equal(y, first):
                for name in exact:
                    np.testing.assert_array_equal(cells[name], reference[name], err_msg=name)
            sizes = oracle.cells(*(oracle.grouped(a, per) for a in (x, first, case.measured_slope(x, first))), dtype)
            moments = {name: (reference[name], sizes[name][1]) for name in sizes if name not in (*exact, "saturated")}
            oracle.assert_cells(cells, moments, 2e-6, context=f"{case} per {per}")


@each_row
def test_promise_4_bitwise_equal_run_to_run_whatever_the_number_of_threads(case, isa):
    x = inputs.normal((96 if SIMULATED else 640, 701), DTYPES["float32"])
    dy = inputs.normal(x.shape, x.dtype, seed=31)
    for per in ("tensor", "channel", "row"):
        found = []
        for threads in (1, 2) if SIMULATED else (1, 2, 5, 2):
            geoact.set_num_threads(threads)
            stats, gradient = geoact.GeometryStats(per=per), geoact.GradientStats(per=per)
            y = case(x, stats=stats)
            dx = case.backward(dy, x, y, stats=gradient)
            found.append([y, dx, *stats.cells().values(), *gradient.cells().values()])
            if case.row.trainable:
                count = case.row.trainable
                weights = [np.full(701, 0.3, np.float32)] * count
                found[-1].extend(case.row.backward(dy, *weights, *case.values[count:], x=x)[1:])
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                assert_same_bits(a, b)


@each_row
def test_promise_5_statistics_of_two_parts_add_up_to_those_of_the_whole(case):
    x = inputs.normal((900, 33), DTYPES["float32"])
    for settings in SETTINGS[:4]:
        parts = [geoact.GeometryStats(**settings) for _ in range(3)]
        y = np.concatenate(
            [case(part, stats=stats) for part, stats in zip(np.split(x, [100, 517]), parts, strict=True)]
        )
        groups = [oracle.grouped(a, settings["per"]) for a in (x, y, case.measured_slope(x, y))]
        expected = oracle.cells(*groups, x.dtype)
        del expected["saturated"]
        oracle.assert_cells(sum(parts).cells(), expected, 2e-6, context=f"{case} {settings}")


@pytest.mark.skipif(find_spec("geoact._cusim") is None, reason="the simulated CUDA kernels were not built")
@each_row
@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_promise_6_one_kernel_per_call_and_records_that_stay_on_the_device(case, per):
    """On the simulated device; tests/gpu asks a real one, also for synchronisation and graphs."""
    from geoact import _cusim

    x = inputs.normal((37, 130), DTYPES["float32"])
    stats, gradient = geoact.GeometryStats(per=per), geoact.GradientStats(per=per)
    _core.register_backend(_cusim._backend, [1])
    try:
        y = case(x, stats=stats)
        before = _cusim.launches()
        case(x, stats=stats)
        assert _cusim.launches() == before + 1
        case.backward(x, x, y, stats=gradient)
        assert _cusim.launches() == before + 2
        assert (stats.calls, gradient.calls) == (2, 1)
    finally:
        if not SIMULATED:
            _core.register_backend(None, [1])
    # What the calls left is read from the device, and merges with what the CPU measures.
    assert stats.cells()["n"].sum() == 2 * x.size
    case(x, stats=stats)
    assert stats.cells()["n"].sum() == 3 * x.size


@each_row
def test_promise_7_semantics_of_torch(case, isa, dtype):
    special = np.array([np.nan, -0.0, 0.0, 1.0]).astype(dtype)
    y = case(special)
    assert np.isnan(y[0])
    assert not np.isnan(y[1:]).any()
    assert float(geoact.relu.backward(np.ones(1, dtype), y=np.zeros(1, dtype))[0]) == 0
    for x in (special[3], special[:0], special[::-2], np.asfortranarray(np.tile(special, (3, 1)))):
        array = np.asarray(x)
        y = case(array)
        assert (y.shape, y.dtype, y.strides) == (array.shape, dtype, np.empty_like(array).strides)


@each_case
def test_promise_8_accuracy(case, isa):
    x = inputs.float32_sample()[::16]
    expected = case.value(x, DTYPES["float32"])
    inside = np.abs(expected) < 3e38
    size = case.size(x, DTYPES["float32"])[inside]
    assert ulps(case(x)[inside], expected[inside], DTYPES["float32"], size).max() <= case.row.ulp["float32"] <= 4
    for narrow in NARROW:
        values = inputs.normal(4000, narrow, sd=4)
        assert_same_bits(case(values), case(values.astype(np.float32)).astype(narrow))
    for kind in ("narrow about 0.5", "narrow about 1000"):
        hard, stats = inputs.hard(kind, 100_000, DTYPES["float32"]), geoact.GeometryStats()
        case(hard, stats=stats)
        assert stats.var_x == pytest.approx(hard.astype(np.float64).var(), rel=1e-6)
        assert stats.mean_x == pytest.approx(hard.astype(np.float64).mean(), rel=1e-6)


def test_promise_9_a_failed_call_writes_nothing_and_leaves_the_accumulator():
    case, x = Case("silu"), inputs.normal((8, 5), np.float32)
    stats, out = geoact.GeometryStats(per="channel"), np.full((8, 5), 7, np.float32)
    case(x, stats=stats)
    before = stats.cells()
    with pytest.raises(ValueError, match=r"^out has shape"):
        case(x, out=out[:, :4], stats=stats)
    with pytest.raises(ValueError, match=r"^stats holds 5 channels"):
        case(x[:, :4].copy(), out=out[:, :4], stats=stats)
    with pytest.raises(TypeError, match=r"^x has dtype int"):
        case(x.astype(int), out=out, stats=stats)
    assert (out == 7).all()
    assert stats.groups == 5
    for name, cell in stats.cells().items():
        np.testing.assert_array_equal(cell, before[name])
