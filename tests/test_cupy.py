"""CuPy arrays on the simulated device: the numbers of NumPy, the memory of CuPy, one launch, nothing on the host.

Every test runs on a stand-in for CuPy, and on the real package where it is installed, its memory put on the host.
"""

import copy
import gc
import pickle
import sys

import geoact
import numpy as np
import pytest
from geoact import _core, frontends
from support import fake_cupy, inputs
from support.cases import DTYPES, assert_same_bits, each_case, each_row, each_trainable
from support.cupy_memory import USED, found, host, put

FLOAT32 = DTYPES["float32"]


def launches():
    from geoact import _cusim

    return _cusim.launches()


def assert_same_record(ours, theirs):
    """Counts and extremes are equal, sums nearly."""
    merges = dict(_core.fields(ours._direction))
    a, b = ours.cells(), theirs.cells()
    assert ours.groups == theirs.groups
    for name, value in a.items():
        whole = np.array_equal(b[name], np.round(b[name])) and merges[name] == "sum"
        if whole or merges[name] in ("minimum", "maximum"):
            np.testing.assert_array_equal(value, b[name], err_msg=name)
        else:
            scale = np.sqrt(b["m2_x"] * b["m2_y"]) if name == "c_xy" else np.abs(b[name])
            if name.startswith("mean"):
                scale = scale + np.sqrt(b["m2" + name[4:]])
            assert np.all(np.abs(value - b[name]) <= 1e-6 * scale + 1e-30), (name, value, b[name])


# --- the package ----------------------------------------------------------------------------------


def test_what_is_used_of_the_package_exists(cupy):
    array = put(np.zeros((2, 3), FLOAT32)[:, ::2])
    instances = {"cupy.ndarray": array, "cupy.cuda.MemoryPointer": array.data}
    for path, names in USED.items():
        for name in names:
            assert hasattr(instances.get(path, found(path)), name), (path, name)
    assert type(array) is cupy.ndarray
    assert cupy.ndarray.__module__ == "cupy"
    assert array.shape == (2, 2)
    assert array.strides == (12, 8)
    assert isinstance(array.dtype, np.dtype)
    for value in (array.data.ptr, array.data.device_id, cupy.cuda.get_current_stream(0).ptr, array.size):
        assert type(value) is int
    bfloat16 = put(np.zeros(2, DTYPES["bfloat16"])).dtype
    assert (bfloat16, bfloat16.name) == (DTYPES["bfloat16"], "bfloat16")
    assert cupy.cuda.runtime.is_hip is False


@pytest.mark.parametrize("name", ["asarray", "asnumpy", "from_dlpack"])
def test_what_messages_recommend_exists(name):
    cupy = pytest.importorskip("cupy")
    assert callable(getattr(cupy, name))


def test_real_streams_are_asked_for_by_device():
    cupy = pytest.importorskip("cupy")
    assert "device_id" in cupy.cuda.get_current_stream.__doc__
    assert cupy.cuda.Stream.null.ptr == 0


def test_the_stand_in_has_no_name_that_the_package_lacks():
    real = pytest.importorskip("cupy")
    fake = fake_cupy.module()
    for ours, theirs in ((fake, real), (fake.cuda, real.cuda), (fake.ndarray, real.ndarray)):
        names = {name for name in vars(ours) if not name.startswith("_")}
        assert names <= set(dir(theirs))


def test_beside_the_real_package_geoact_imports_cleanly(python):
    cupy = pytest.importorskip("cupy")
    program = "import {}, {}, numpy\nassert geoact.relu(numpy.ones(1))[0] == 1\nprint(geoact.info()['cupy'])"
    for order in (("geoact", "cupy"), ("cupy", "geoact")):
        assert python(program.format(*order)).strip() == cupy.__version__


def test_the_second_call_finds_the_front_end_by_its_type(cupy, monkeypatch):
    x = put(np.ones(3, FLOAT32))
    assert cupy.ndarray not in frontends.BY_TYPE
    geoact.relu(x)
    assert frontends.BY_TYPE[cupy.ndarray].__name__ == "geoact.frontends.cupy"
    monkeypatch.setattr(frontends, "find", None)
    geoact.relu(x)


def test_subclasses_are_computed_on_as_arrays(cupy):
    kind = type("Kind", (cupy.ndarray,), {})
    plain = put(np.array([-1, 2], FLOAT32))
    y = geoact.relu(kind((2,), FLOAT32, plain.data))
    assert type(y) is cupy.ndarray
    np.testing.assert_array_equal(host(y), [0, 2])


# --- values ---------------------------------------------------------------------------------------


@each_case
def test_values_and_gradients_are_those_of_numpy(cupy, case, dtype):
    x, dy = inputs.normal((7, 45), dtype, sd=4), inputs.normal((7, 45), dtype, seed=4)
    x[0, :6] = [0, -0.0, np.inf, -np.inf, np.nan, 1e-4]
    y, dx = case(x), case.backward(dy, x, case(x))
    before = launches()
    ours = case(put(x))
    assert launches() == before + 1
    assert type(ours) is cupy.ndarray
    assert_same_bits(host(ours), y)
    stats, gradient = geoact.GeometryStats(), geoact.GradientStats()
    assert_same_bits(host(case(put(x), stats=stats)), y)
    assert_same_bits(host(case.backward(put(dy), put(x), ours)), dx)
    assert_same_bits(host(case.backward(put(dy), put(x), ours, stats=gradient)), dx)
    assert launches() == before + 4


@each_row
def test_out_is_filled_and_returned(cupy, case, dtype):
    x, dy = inputs.normal((33, 70), dtype), inputs.normal((33, 70), dtype, seed=4)
    y = case(x)
    dx = case.backward(dy, x, y)
    for model in (np.empty_like(x), np.empty((33, 140), dtype)[:, ::2], np.empty((70, 33), dtype).T):
        out = put(model)
        assert case(put(x), out=out) is out
        assert_same_bits(host(out).copy(), y)
        assert case.backward(put(dy), put(x), put(y), out=out) is out
        assert_same_bits(host(out).copy(), dx)
    for given, call in (
        (put(x), lambda a: case(a, out=a)),
        (put(dy), lambda a: case.backward(a, put(x), put(y), out=a)),
    ):
        assert call(given) is given
    saved = put(y if case.row.saves == "y" else x)
    assert case.backward(put(dy), saved, saved, out=saved) is saved
    assert_same_bits(host(saved), dx)


def test_in_place_is_as_elsewhere(cupy, dtype):
    x = inputs.normal(1000, dtype)
    given = put(x)
    geoact.silu(given, out=given, stats=geoact.GeometryStats())
    assert_same_bits(host(given), geoact.silu(x))


VIEWS = {
    "contiguous": lambda x: x,
    "reversed": lambda x: x[::-1, ::-1],
    "every second": lambda x: x[:, ::2],
    "part of the columns": lambda x: x[:, 3:-5],
    "transposed": lambda x: x.T,
    "permuted": lambda x: x[:96, :64].reshape(8, 12, 64).transpose(2, 0, 1),
    "broadcast": lambda x: np.broadcast_to(x[0], x.shape),
    "windows that overlap": lambda x: np.lib.stride_tricks.sliding_window_view(x[0], 17),
    "new axes": lambda x: x[:, None, :, None],
    "one column": lambda x: x[:, 5],
    "one element": lambda x: x[5:6, 7:8],
    "no axes": lambda x: x[3, 4, ...],
}


@pytest.mark.parametrize("view", VIEWS)
def test_any_strides(cupy, view, dtype):
    x = VIEWS[view](inputs.normal((100, 131), dtype))
    ours = geoact.swish(put(x), 1.3)
    assert_same_bits(host(ours).copy(), geoact.swish(x, 1.3).copy())
    assert ours.shape == x.shape
    assert ours.strides == cupy.empty_like(put(x)).strides
    if 0 not in x.strides:  # there NumPy and CuPy choose differently
        assert ours.strides == np.empty_like(x).strides
    dx, gradient = geoact.swish.backward(put(x), 1.3, x=put(x))
    expected, number = geoact.swish.backward(x, 1.3, x=x)
    assert_same_bits(host(dx).copy(), expected.copy())
    assert float(host(gradient)) == pytest.approx(number, rel=1e-6)
    if x.ndim >= 2:
        for per, axis in (("tensor", -1), ("channel", -1), ("channel", 0), ("row", -1)):
            a, b = geoact.GeometryStats(per, axis), geoact.GeometryStats(per, axis)
            geoact.silu(put(x), stats=a)
            geoact.silu(x, stats=b)
            assert_same_record(a, b)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
def test_empty(cupy, shape, dtype):
    x = put(np.empty(shape, dtype))
    for per in ("tensor", "channel", "row"):
        stats, gradient = geoact.GeometryStats(per), geoact.GradientStats(per)
        assert geoact.silu(x, stats=stats).shape == shape
        assert geoact.silu.backward(x, x=x, stats=gradient).shape == shape
        assert stats.groups == {"tensor": 1, "channel": shape[-1], "row": int(np.prod(shape[:-1]))}[per]
        assert stats.calls == 1
    weight = put(np.full(shape[1] if len(shape) > 1 else 1, 0.5).astype(dtype))
    dx, gradient = geoact.prelu.backward(x, weight, x=x)
    assert (dx.shape, gradient.shape, gradient.dtype) == (shape, weight.shape, dtype)
    assert not host(gradient).any()
    dx, gradient = geoact.prelu.backward(x, 0.5, x=x)
    assert (host(gradient) == 0).all()
    assert (gradient.shape, gradient.dtype) == ((), np.float64)


# --- parameters -----------------------------------------------------------------------------------


@each_trainable
def test_parameter_gradients(cupy, case, dtype):
    x, dy = inputs.normal((5, 6, 7), dtype), inputs.normal((5, 6, 7), dtype, seed=4)
    y = geoact.get(case.name)(x, *case.values)
    row, wanted = case.row, {"x": x, "y": y}[case.row.saves]
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2}.get(dtype.name, 2e-6)
    assert_same_bits(host(row(put(x), *case.values)), y)
    _, number, *_ = row.backward(dy, *case.values, **{row.saves: wanted})
    dx, ours, *_ = row.backward(put(dy), *case.values, **{row.saves: put(wanted)})
    assert type(ours) is cupy.ndarray
    assert (ours.shape, ours.dtype) == ((), np.float64)
    assert float(host(ours)) == pytest.approx(number, rel=2e-6, abs=2e-6 * x.size)  # terms of about 1 that may cancel
    for shape, axis in (((), 1), ((1,), 1), ((6,), 1), ((7,), -1), ((5,), 0)):
        weight = np.broadcast_to(inputs.normal(shape, dtype, mean=case.values[0], sd=0.1), shape).copy()
        y = row(x, weight, channel_axis=axis)
        assert_same_bits(host(row(put(x), put(weight), channel_axis=axis)), y)
        saved = {"x": x, "y": y}[row.saves]
        dx, expected, *_ = row.backward(dy, weight, channel_axis=axis, **{row.saves: saved})
        for stats in (None, geoact.GradientStats("channel", axis), geoact.GradientStats("channel", axis - 1)):
            options = {"channel_axis": axis, row.saves: put(saved), "stats": stats}
            mine, ours, *_ = row.backward(put(dy), put(weight), **options)
            assert_same_bits(host(mine), dx)
            assert type(ours) is cupy.ndarray
            assert (ours.shape, ours.dtype) == (weight.shape, dtype)
            size = np.abs(expected.astype(float)) + 1  # the terms that are summed are about 1, and may cancel
            assert np.all(np.abs(host(ours).astype(float) - expected.astype(float)) <= tolerance * size)


def test_weights_of_any_stride(cupy, dtype):
    x, weight = inputs.normal((4, 9), dtype), inputs.normal(18, dtype)
    for w in (weight[::2], weight[8::-1], np.broadcast_to(weight[0], 9)):
        assert_same_bits(host(geoact.prelu(put(x), put(w))), geoact.prelu(x, w))
        _, ours = geoact.prelu.backward(put(x), put(w), x=put(x))
        _, expected = geoact.prelu.backward(x, w, x=x)
        np.testing.assert_allclose(host(ours).astype(float), expected.astype(float), rtol=2e-2)


# --- statistics -----------------------------------------------------------------------------------


def both(per, axis=-1, level="moments"):
    return geoact.GeometryStats(per, axis, level), geoact.GradientStats(per, axis)


def feed(arrays, stats, gradient, place):
    for x, dy in arrays:
        geoact.silu(place(x), stats=stats)
        geoact.silu.backward(place(dy), x=place(x), stats=gradient)


def batches(dtype=FLOAT32, count=3, shape=(20, 3, 37)):
    return [(inputs.normal(shape, dtype, seed=k), inputs.normal(shape, dtype, seed=10 + k)) for k in range(count)]


@pytest.mark.parametrize("level", ["counts", "moments"])
@pytest.mark.parametrize(("per", "axis"), [("tensor", -1), ("channel", -1), ("channel", 1), ("row", -1), ("row", 0)])
def test_statistics_are_those_of_numpy(cupy, per, axis, level, dtype):
    ours, theirs = both(per, axis, level), both(per, axis, level)
    feed(batches(dtype), *ours, put)
    feed(batches(dtype), *theirs, np.asarray)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.calls, a.groups) == (b.dtype, b.calls, b.groups)
        assert a.calls == 3
        assert_same_record(a, b)


def test_one_accumulator_for_the_device_and_the_host(cupy):
    for per in ("tensor", "channel", "row"):
        parts = batches(count=4)
        ours, theirs = both(per), both(per)
        feed(parts[:2], *ours, put)
        feed(parts[2:3], *ours, np.asarray)
        feed(parts[3:], *ours, put)
        feed(parts, *theirs, np.asarray)
        for a, b in zip(ours, theirs, strict=True):
            assert a.calls == b.calls == 4
            assert_same_record(a, b)


def test_statistics_of_a_device_merge_with_those_of_the_host(cupy):
    for per in ("tensor", "channel", "row"):
        parts = batches(count=2)
        ours, theirs, whole = both(per), both(per), both(per)
        feed(parts[:1], *ours, put)
        feed(parts[1:], *theirs, np.asarray)
        feed(parts, *whole, np.asarray)
        for a, b, expected in zip(ours, theirs, whole, strict=True):
            assert_same_record(a + b, expected)
            assert (a + b).calls == 2
            before = a.cells()
            assert_same_record(copy.copy(a).merge(b), expected)
            assert a.cells().keys() == before.keys()
            assert a.merge(b) is a
            assert_same_record(a, expected)


def test_copies_pickles_and_reset(cupy):
    x, dy = batches()[0]
    for per in ("tensor", "channel", "row"):
        for stats in both(per):
            arguments = [(x, dy)], *((stats, None) if isinstance(stats, geoact.GeometryStats) else (None, stats))
            feed(*arguments, put)
            cells = stats.cells()
            twins = [stats.copy(), copy.copy(stats), copy.deepcopy(stats), pickle.loads(pickle.dumps(stats))]
            feed(*arguments, put)
            assert stats.calls == 2
            for twin in twins:
                assert (twin.calls, twin.dtype) == (1, "float32")
                for name, value in twin.cells().items():
                    np.testing.assert_array_equal(value, cells[name], err_msg=name)
            feed(arguments[0], *arguments[1:], put)
            stats.reset()
            assert (stats.calls, stats.dtype) == (0, "")
            assert stats.groups == (per == "tensor")
            feed(*arguments, put)
            assert_same_record(stats, twins[0])


def test_another_number_of_channels_after_a_reset(cupy):
    stats = geoact.GeometryStats("channel")
    geoact.relu(put(np.ones((4, 3), FLOAT32)), stats=stats)
    stats.reset()
    geoact.relu(put(np.ones((4, 5), FLOAT32)), stats=stats)
    assert stats.n.tolist() == [4] * 5
    stats.reset()
    geoact.relu(put(np.ones((4, 3), DTYPES["float64"])), stats=stats)
    assert stats.n.tolist() == [4] * 3


def test_statistics_change_no_value_and_repeat_to_the_bit(cupy, dtype):
    x = inputs.normal((50, 67), dtype)
    y, records = geoact.gelu(put(x)), []
    for _ in range(2):
        for per in ("tensor", "channel", "row"):
            stats = geoact.GeometryStats(per)
            assert_same_bits(host(geoact.gelu(put(x), stats=stats)), host(y))
            records.append(stats.cells())
    for a, b in zip(records[:3], records[3:], strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --- enabled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [put, np.asarray], ids=["cupy", "numpy"])
@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_switched_off_nothing_is_added(cupy, per, place):
    first, second, third = batches(count=3)
    ours, theirs = both(per), both(per)
    feed([first], *ours, place)
    for stats in ours:
        assert stats.enabled is True
        stats.enabled = False
        assert stats.enabled is False
        assert "enabled=False" in repr(stats)
    feed([second], *ours, place)
    assert [stats.calls for stats in ours] == [1, 1]
    expected = host(geoact.silu(put(second[0])))
    assert_same_bits(host(geoact.silu(put(second[0]), stats=ours[0])), expected)
    for stats in ours:
        stats.enabled = True
    feed([third], *ours, place)
    feed([first, third], *theirs, np.asarray)
    for a, b in zip(ours, theirs, strict=True):
        assert a.calls == 2
        assert_same_record(a, b)


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_switched_off_from_the_start(cupy, per):
    x, dy = batches()[0]
    for stats in both(per):
        stats.enabled = False
        arguments = [(x, dy)], *((stats, None) if isinstance(stats, geoact.GeometryStats) else (None, stats))
        feed(*arguments, put)
        assert stats.calls == 0
        assert not stats.cells()["n"].any()
        stats.reset()
        assert stats.enabled is False
        feed(*arguments, put)
        assert stats.calls == 0
        stats.enabled = True
        feed(*arguments, put)
        assert stats.calls == 1


def test_copies_and_pickles_carry_whether_calls_are_measured(cupy):
    x = put(np.ones(5, FLOAT32))
    for on in (True, False):
        stats = geoact.GeometryStats()
        geoact.relu(x, stats=stats)
        stats.enabled = on
        for twin in (stats.copy(), copy.deepcopy(stats), pickle.loads(pickle.dumps(stats)), stats + stats):
            assert twin.enabled is on
            calls = twin.calls
            geoact.relu(x, stats=twin)
            assert twin.calls == calls + on
    state = geoact.GeometryStats().__getstate__()
    del state["enabled"]  # as pickles of version 0.1 were
    old = geoact.GeometryStats.__new__(geoact.GeometryStats)
    old.__setstate__(state)
    assert old.enabled is True


@pytest.mark.parametrize("bad", [None, 1, 0.0, "off", []], ids=repr)
def test_enabled_must_be_a_bool(bad):
    for stats in (geoact.GeometryStats(), geoact.GradientStats()):
        with pytest.raises(TypeError, match="^enabled must be a bool, got"):
            stats.enabled = bad
        assert stats.enabled is True


# --- devices and streams --------------------------------------------------------------------------


@pytest.fixture
def stand_in(cupy):
    if cupy.ndarray is not fake_cupy.ndarray:
        pytest.skip("the real package has one device here, and no streams")
    fake_cupy.allocations.clear()
    return cupy


def test_memory_is_allocated_on_the_device_of_the_array_and_its_current_stream(stand_in):
    x = put(inputs.normal((400, 300), FLOAT32), device=1)
    with stand_in.cuda.Device(1):
        stream = stand_in.cuda.Stream()
        stream.__enter__()
    try:
        assert stand_in.cuda.runtime.getDevice() == 0
        assert stand_in.cuda.get_current_stream().ptr == 0
        stats = geoact.GeometryStats("channel")
        y = geoact.swish(x, 0.7, stats=stats)
        dx, gradient = geoact.swish.backward(x, 0.7, x=x, stats=geoact.GradientStats())
    finally:
        stream.__exit__()
    assert [a.data.device_id for a in (y, dx, gradient)] == [1, 1, 1]
    assert len(fake_cupy.allocations) > 5
    assert {place[1:] for place in fake_cupy.allocations} == {(1, stream.ptr)}
    assert stand_in.cuda.runtime.getDevice() == 0


def test_every_array_of_a_call_is_described_with_the_stream(stand_in, monkeypatch):
    described = []

    def borrowed(owner, *rest):
        described.append(rest[4:6])
        return _core.Borrowed(owner, *rest)

    core = type(sys)("core")
    core.__dict__.update(vars(_core) | {"Borrowed": borrowed})
    geoact.relu(put(np.ones(3, FLOAT32)))
    monkeypatch.setattr(sys.modules["geoact.frontends.cupy"], "_core", core)
    for device in (0, 1):
        x, weight = put(np.ones((2, 3), FLOAT32), device), put(np.ones(3, FLOAT32), device)
        with stand_in.cuda.Device(device):
            stream = stand_in.cuda.Stream()
            stream.__enter__()
        geoact.prelu.backward(x, weight, x=x)  # called while device 0 is the current one
        stream.__exit__()
        assert described == [((2, device), stream.ptr)] * 5
        described.clear()


def test_a_stream_lives_while_statistics_may_be_written_on_it(stand_in):
    """CuPy destroys a stream with its last reference; reset() and enabled write on that of the last call."""
    x, stats = put(np.ones(3, FLOAT32)), geoact.GeometryStats()
    gc.collect()
    first, second = stand_in.cuda.Stream(), stand_in.cuda.Stream()
    alive = stand_in.cuda.Stream.alive
    with first:
        geoact.relu(x, stats=stats)
    del first
    gc.collect()
    assert stand_in.cuda.Stream.alive == alive
    with second:
        geoact.relu(x, stats=stats)
    del second
    gc.collect()
    assert stand_in.cuda.Stream.alive == alive - 1
    stats.enabled = False
    stats.reset()
    del stats
    gc.collect()
    assert stand_in.cuda.Stream.alive == alive - 2


def test_statistics_follow_data_over_devices(stand_in):
    parts = batches(count=4)
    ours, theirs = both("channel"), both("channel")
    for k, part in enumerate(parts):
        feed([part], *ours, lambda a, device=k % 2: put(a, device))
    feed(parts, *theirs, np.asarray)
    for a, b in zip(ours, theirs, strict=True):
        assert a.calls == 4
        assert_same_record(a, b)


def test_rocm_is_named(stand_in):
    stand_in.cuda.runtime.is_hip = True
    with pytest.raises(TypeError, match="CuPy for ROCm"):
        geoact.relu(put(np.ones(3, FLOAT32)))
