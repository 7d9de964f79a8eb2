"""Any size, stride, alignment and order: values are those of the contiguous array, and y is laid out like x."""

import geoact
import numpy as np
import pytest
from geoact import _core
from support import inputs
from support.cases import DTYPES, SIMULATED, Case, assert_same_bits, each_row

# On a device a thread takes what lies within 16 bytes: alignment may move the last bits of sums, never y or a count.
BITWISE_ON_THE_CPU = pytest.mark.skipif(SIMULATED, reason="a promise of the CPU kernels")

SILU, PRELU = Case("silu"), Case("prelu", (0.25,))
SIZES = [*range(68), 95, 96, 97, 127, 128, 129, 4095, 4096, 4097, 65535, 65536, 65537]
FLOAT32 = DTYPES["float32"]


def unaligned(array, offset):
    """A copy of the elements that begins ``offset`` bytes after an allocation that is aligned to 64."""
    buffer = np.empty(array.nbytes + 128, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    view = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def check(case, x, expected=None, **options):
    """Y of x has the values of the contiguous copy."""
    y = case(x, **options)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert_same_bits(y, case(np.array(x, order="C", copy=True)) if expected is None else expected)
    return y


def records(x, per, axis=-1):
    """Cells after a forward and a backward pass over x."""
    stats, gradient = (
        geoact.GeometryStats(per=per, channel_axis=axis),
        geoact.GradientStats(per=per, channel_axis=axis),
    )
    SILU(x, stats=stats)
    SILU.backward(x, x, None, stats=gradient)
    return {**stats.cells(), **{f"gradient {k}": v for k, v in gradient.cells().items()}}


def assert_close_records(a, b, relative=2e-6):
    for name in a:
        size = np.abs(b[name]) + (b["m2_x"] if name in ("c_xy", "sum_slope") else 0)
        size = size + (np.sqrt(b["m2_x"]) if name.startswith("mean") else 0)
        assert np.all(np.abs(a[name] - b[name]) <= relative * size), name


# --- sizes ----------------------------------------------------------------------------------------


@each_row
def test_every_size_around_the_vectors_and_the_tiles(case, isa, dtype):
    x, dy = inputs.normal(SIZES[-1], dtype), inputs.normal(SIZES[-1], dtype, seed=20)
    y = case(x)
    dx = case.backward(dy, x, y)
    for n in SIZES:
        stats = geoact.GeometryStats()
        assert_same_bits(case(x[:n], stats=stats), y[:n])
        assert stats.n == n
        assert stats.cells()["positive"] == (x[:n] > 0).sum()
        if n < 4097:
            assert_same_bits(case.backward(dy[:n], x[:n], y[:n]), dx[:n])


def test_nothing_outside_the_output_is_written(isa, dtype):
    x = inputs.normal(200, dtype)
    for n in range(100):
        for offset in (0, 1, 7):
            out = np.full(200, 7).astype(dtype)
            SILU(x[:n], out=out[offset : offset + n], stats=geoact.GeometryStats())
            assert (np.delete(out, np.s_[offset : offset + n]) == 7).all()


def test_zero_dimensions(isa, dtype):
    x = np.array(-1.5).astype(dtype)
    stats = geoact.GeometryStats()
    y = check(SILU, x, stats=stats)
    assert isinstance(y, np.ndarray)
    assert stats.n == 1
    assert stats.mean_x == -1.5
    dx, gradient = geoact.prelu.backward(x, 0.25, x=x)
    assert dx.shape == ()
    assert gradient == 2.25


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4), (0, 0)], ids=str)
def test_empty(isa, dtype, shape):
    x = np.empty(shape, dtype)
    for per in ("tensor", "channel", "row"):
        stats, gradient = geoact.GeometryStats(per=per), geoact.GradientStats(per=per)
        check(SILU, x, stats=stats)
        SILU.backward(x, x, x, stats=gradient)
        groups = {"tensor": 1, "channel": shape[-1], "row": int(np.prod(shape[:-1]))}[per]
        assert stats.groups == gradient.groups == groups
        assert (np.atleast_1d(stats.n) == 0).all()
        assert (stats.cells()["x_min"] == np.inf).all()
        str(stats)
    weight = np.full(shape[1] if len(shape) > 1 else 1, 0.5).astype(dtype)
    dx, gradient = geoact.prelu.backward(x, weight, x=x)
    assert dx.shape == shape
    np.testing.assert_array_equal(gradient, np.zeros_like(weight))


# --- strides --------------------------------------------------------------------------------------


def structured(x):
    """The elements as a field of packed records: neither contiguous nor aligned."""
    records = np.zeros(x.shape, np.dtype([("tag", "u1"), ("value", x.dtype)]))
    records["value"] = x
    return records["value"]


VIEWS = {
    "reversed": lambda x: x[::-1],
    "both reversed": lambda x: x[::-1, ::-1],
    "every second": lambda x: x[:, ::2],
    "every third row": lambda x: x[::3],
    "every second backwards": lambda x: x[:, ::-2],
    "part of the columns": lambda x: x[:, 3:-5],
    "transposed": lambda x: x.T,
    "Fortran order": np.asfortranarray,
    "three axes, permuted": lambda x: x[:96, :64].reshape(8, 12, 64).transpose(2, 0, 1),
    "three axes, outer two merged": lambda x: x[:96, :64].reshape(8, 12, 64)[:, :, ::2],
    "broadcast rows": lambda x: np.broadcast_to(x[0], x.shape),
    "broadcast columns": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "broadcast scalar": lambda x: np.broadcast_to(x[0, 0], (70, 80)),
    "windows that overlap": lambda x: np.lib.stride_tricks.sliding_window_view(x[0], 17),
    "field of a record": structured,
    "every second field": lambda x: structured(x)[:, ::2],
    "off by one byte": lambda x: unaligned(x, 1),
    "off by one element": lambda x: unaligned(x, x.itemsize),
    "new axes": lambda x: x[:, None, :, None],
    "one column": lambda x: x[:, 5],
    "one row": lambda x: x[5],
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_have_the_values_and_the_statistics_of_their_copies(isa, dtype, view):
    x = VIEWS[view](inputs.normal((100, 131), dtype))
    before, copy = x.copy(), np.array(x, order="C")
    check(SILU, x)
    dx, gradient = geoact.swish.backward(x, 1.3, x=x)
    dx_copy, gradient_copy = geoact.swish.backward(copy, 1.3, x=copy)
    assert_same_bits(dx, dx_copy)
    assert gradient == pytest.approx(gradient_copy, rel=2e-6)
    for per, axis in (("tensor", -1), ("channel", -1), ("channel", 0), ("row", -1), ("row", 0)):
        assert_close_records(records(x, per, axis), records(copy, per, axis))
    assert_same_bits(x, before)


def assert_equal_records(a, b):
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@BITWISE_ON_THE_CPU
def test_statistics_of_one_axis_do_not_depend_on_strides_or_alignment(isa, dtype):
    """Tile borders are a matter of element indices: a view of one axis and its copy agree to the last bit."""
    x = inputs.normal(131_000, dtype)
    expected = records(x, "tensor")
    for view in (unaligned(x, 1), unaligned(x, 12), structured(x), np.repeat(x, 2)[::2], x[:, None, None]):
        assert_equal_records(records(view, "tensor"), expected)


@BITWISE_ON_THE_CPU
@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_statistics_do_not_depend_on_alignment_or_the_place_of_the_output(isa, dtype, per):
    x = inputs.normal((1000, 131), dtype)
    expected = geoact.GeometryStats(per=per)
    y = SILU(x, stats=expected)
    for offset in (1, 4, 12):
        stats = geoact.GeometryStats(per=per)
        SILU(unaligned(x, offset), out=unaligned(y, 2 * offset), stats=stats)
        assert_equal_records(stats.cells(), expected.cells())


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_statistics_of_a_strided_or_overwritten_array_are_those_of_a_contiguous_one(isa, dtype, per):
    x = inputs.normal((1000, 131), dtype)
    expected = geoact.GeometryStats(per=per)
    y = SILU(x, stats=expected)
    wide = np.empty((1000, 262), dtype)
    for out in (x.copy(), wide[:, ::2], wide[:, 131:], np.empty((131, 1000), dtype).T):
        stats = geoact.GeometryStats(per=per)
        assert SILU(out if out.flags.owndata else x, out=out, stats=stats) is out
        assert_same_bits(np.array(out, order="C"), y)
        assert_close_records(stats.cells(), expected.cells())


def test_parameters_follow_their_channel_through_any_layout(isa, dtype):
    x = inputs.normal((6, 13, 9), dtype)
    weight = inputs.normal(13, dtype, mean=0.3)
    expected = geoact.prelu(x, weight)
    for view in (
        np.asfortranarray(x),
        x[::-1][::-1],
        unaligned(x, 3),
        np.moveaxis(np.moveaxis(x, 1, 2).copy(), 2, 1),
    ):
        assert_same_bits(np.array(geoact.prelu(view, weight), order="C"), expected)
    doubled = np.repeat(weight, 2)[::2]
    assert_same_bits(geoact.prelu(x, doubled), expected)
    backwards = np.ascontiguousarray(weight[::-1])[::-1]
    assert_same_bits(geoact.prelu(x, backwards), expected)


def test_more_than_32_axes(isa):
    x = inputs.normal(2**14, FLOAT32)
    many = x.reshape((1, 2) * 7 + (1,) * 9 + (2,) * 7)[..., ::-1]
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        many = many.reshape((1,) * 20 + many.shape)
        assert many.ndim > 32
    check(SILU, many)
    for per, axis in (("tensor", -1), ("channel", -1), ("row", -2)):
        assert_close_records(records(many, per, axis), records(np.array(many, order="C"), per, axis))


# --- the layout of the output ---------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F", "permuted", "reversed", "sliced"])
def test_output_keeps_shape_dtype_and_memory_order(isa, dtype, order):
    base = inputs.normal((4, 5, 6), dtype)
    x = {
        "C": base,
        "F": np.asfortranarray(base),
        "permuted": base.transpose(1, 2, 0),
        "reversed": base[::-1],
        "sliced": base[:, ::2],
    }[order]
    model = np.empty_like(x)
    for y in (SILU(x), SILU.backward(x, x, x), PRELU(x), SILU(x, stats=geoact.GeometryStats())):
        assert (y.shape, y.dtype, y.strides) == (x.shape, dtype, model.strides)
        assert y.flags.owndata
        assert y.flags.writeable
        assert not np.shares_memory(x, y)


def test_output_of_a_read_only_input_is_writeable():
    x = inputs.normal(10, FLOAT32)
    x.flags.writeable = False
    assert SILU(x).flags.writeable


@each_row
def test_out_is_filled_and_returned(case, isa, dtype):
    x = inputs.normal((33, 70), dtype)
    y = case(x)
    dx = case.backward(x, x, y)
    wide = np.zeros((33, 140), dtype)
    for out in (
        np.empty_like(x),
        wide[:, ::2],
        wide[:, 70:],
        np.empty((70, 33), dtype).T,
        unaligned(x, 2),
        wide[::-1, :70],
    ):
        assert case(x, out=out) is out
        assert_same_bits(np.array(out, order="C"), y)
        assert case.backward(x, x, y, out=out) is out
        assert_same_bits(np.array(out, order="C"), dx)
    out = x.copy()
    assert case(out, out=out) is out
    assert_same_bits(out, y)


# --- outputs larger than the cache ----------------------------------------------------------------


@pytest.mark.skipif(SIMULATED, reason="the cache is the processor's")
@pytest.mark.parametrize("offset", [0, 4, 16, 3])
def test_outputs_larger_than_the_cache(isa, offset):
    """Stored past the cache, line by line: every element arrives, and none outside."""
    n = min(_core.last_level_cache_bytes(), 128 << 20) // 4 + 4099
    base = np.random.default_rng(21).standard_normal(n, dtype=np.float32)
    x, y = unaligned(base, offset), unaligned(np.zeros(n + 32, np.float32), offset)
    out = y[16:-16]
    stats = geoact.GeometryStats()
    assert geoact.relu(x, out=out, stats=stats) is out
    assert np.array_equal(out, np.maximum(base, 0))
    assert not y[:16].any()
    assert not y[-16:].any()
    assert stats.n == n
    assert stats.positive_fraction == np.count_nonzero(base > 0) / n
    assert stats.mean_y == pytest.approx(out.mean(dtype=np.float64), rel=1e-6)
    if offset == 4:
        y[...] = 0
        geoact.relu(x, out=out)
        assert np.array_equal(out, np.maximum(base, 0))
        columns = n // 1000
        matrix, place = (
            x[: 1000 * columns].reshape(1000, columns),
            out[: 1000 * columns].reshape(1000, columns),
        )
        per_channel = geoact.GeometryStats(per="channel", level="counts")
        geoact.leaky_relu(matrix, out=place, stats=per_channel)
        assert np.array_equal(place, np.where(matrix > 0, matrix, matrix * np.float32(0.01)))
        np.testing.assert_array_equal(per_channel.positive_fraction * 1000, (matrix > 0).sum(axis=0))


@pytest.mark.parametrize(
    "shape", [(5, 7, 2, 3), (40, 3, 1, 2), (3, 40, 4, 4), (2, 3, 16, 33), (2, 3, 4, 5, 6)], ids=str
)
@pytest.mark.parametrize("in_place", [False, True])
def test_channels_of_small_maps_are_those_of_the_same_data_in_another_order(shape, in_place, isa, dtype):
    """Many short runs per channel are walked together (join_short_runs); the numbers are those of long runs."""
    x = inputs.normal(int(np.prod(shape)), dtype, mean=0.5).reshape(shape)
    dy = inputs.normal(x.size, dtype, seed=3).reshape(shape)
    channels = np.ascontiguousarray(np.moveaxis(x, 1, 0).reshape(shape[1], -1))
    dy_channels = np.ascontiguousarray(np.moveaxis(dy, 1, 0).reshape(shape[1], -1))
    stats, whole = geoact.GeometryStats("channel", 1), geoact.GeometryStats("channel", 0)
    gradient, whole_gradient = geoact.GradientStats("channel", 1), geoact.GradientStats("channel", 0)
    expected = geoact.silu(channels, stats=whole)
    given = x.copy()
    y = geoact.silu(given, out=given if in_place else None, stats=stats)
    assert_same_bits(np.moveaxis(y, 1, 0).reshape(shape[1], -1), expected)
    dx = geoact.silu.backward(dy, x=x, stats=gradient)
    expected = geoact.silu.backward(dy_channels, x=channels, stats=whole_gradient)
    assert_same_bits(np.moveaxis(dx, 1, 0).reshape(shape[1], -1), expected)
    for ours, theirs in ((stats, whole), (gradient, whole_gradient)):
        kinds = dict(_core.fields(ours._direction))
        for name, value in ours.cells().items():
            if kinds[name] in ("minimum", "maximum") or name in ("n", "negative", "positive", "zero"):
                np.testing.assert_array_equal(value, theirs.cells()[name], err_msg=name)
            else:
                np.testing.assert_allclose(value, theirs.cells()[name], rtol=1e-6, atol=1e-6, err_msg=name)
