"""What CuPy arrays are refused for: an error that names the argument, nothing written, statistics as they were."""

import pickle

import geoact
import numpy as np
import pytest
from geoact import _core
from support import inputs
from support.cases import DTYPES
from support.cupy_memory import bytes_of, host, put

FLOAT32 = DTYPES["float32"]
X = inputs.normal((4, 6), FLOAT32)


def rejected(error, match, call, *arguments, **named):
    """The call fails and changes none of its arguments, nor launches anything; ``match`` begins the message."""
    from geoact import _cusim

    kept = [*arguments, *named.values()]
    before, launches = [_state(thing) for thing in kept], _cusim.launches()
    with pytest.raises(error, match=match):
        call(*arguments, **named)
    assert [_state(thing) for thing in kept] == before
    assert _cusim.launches() == launches


def _state(thing):
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    if hasattr(thing, "data"):
        return bytes_of(thing)
    return pickle.dumps(thing) if isinstance(thing, geoact.GeometryStats | geoact.GradientStats) else None


@pytest.fixture
def used(cupy):
    stats = geoact.GeometryStats()
    geoact.silu(put(X), stats=stats)
    return stats


@pytest.fixture
def used_gradient(cupy):
    stats = geoact.GradientStats()
    geoact.silu.backward(put(X), x=put(X), stats=stats)
    return stats


# --- packages -------------------------------------------------------------------------------------


def test_numpy_and_cupy_are_not_mixed(used, used_gradient):
    x, ours = X.copy(), put(X)
    other = "array, but {} is a {} array; they must be of one package: pass {}"
    theirs, mine = other.format("x", "CuPy", "an array of CuPy"), other.format("x", "NumPy", "an array of NumPy")
    rejected(TypeError, f"^out is a NumPy {theirs}", geoact.relu, ours, out=x, stats=used)
    rejected(TypeError, f"^out is a CuPy {mine}", geoact.relu, x, out=ours, stats=used)
    for name in ("prelu", "swish"):
        row = geoact.get(name)
        parameter = row.parameters[0].name
        rejected(TypeError, f"^{parameter} is a NumPy array, but x is a CuPy", row, ours, x[0], stats=used)
        rejected(TypeError, f"^{parameter} is a CuPy array, but x is a NumPy", row, x, put(x[0]))
        rejected(TypeError, f"^{parameter} is a NumPy array, but dy", row.backward, ours, x[0], x=ours)
    backward, stats = geoact.silu.backward, used_gradient
    rejected(TypeError, "^x is a NumPy array, but dy is a CuPy", backward, ours, x=x, stats=stats)
    rejected(TypeError, "^x is a CuPy array, but dy is a NumPy", backward, x, x=ours)
    rejected(TypeError, "^out is a NumPy array, but dy is a CuPy", backward, ours, x=ours, out=x, stats=stats)
    rejected(TypeError, "^out is a CuPy array, but dy is a NumPy", backward, x, x=x, out=ours)
    rejected(TypeError, "^y is a NumPy array, but dy is a CuPy", geoact.relu.backward, ours, y=x, stats=stats)


def test_arrays_that_only_speak_a_protocol_are_told_how_to_convert(used):
    foreign = type("Foreign", (), {"__module__": "numba.cuda", "__cuda_array_interface__": {}})()
    ours = put(X)
    rejected(TypeError, "^out is a numba array, but x is a CuPy.*pass an array of CuPy", geoact.relu, ours, out=foreign)
    rejected(TypeError, "^weight is a numba array.*pass cupy.asarray.weight", geoact.prelu, ours, foreign, stats=used)
    rejected(TypeError, "^x is a numba Foreign.*pass cupy.asarray.x", geoact.relu, foreign, stats=used)


def test_what_is_no_array(used, used_gradient):
    ours = put(X)
    for bad in ([1.0], 1.0, "1", (0.5,)):
        rejected(TypeError, "^out must be a CuPy array as x is, got", geoact.relu, ours, out=bad, stats=used)
        rejected(TypeError, "^x must be a CuPy array as dy is", geoact.silu.backward, ours, x=bad, stats=used_gradient)
    for bad in ([0.1], "0.1", True, None, 1j):
        for name in ("prelu", "swish"):
            row = geoact.get(name)
            if bad is not None or row.parameters[0].default is None:
                rejected(TypeError, row.parameters[0].name, row, ours, bad, stats=used)
    rejected(TypeError, "^negative_slope must be a number", geoact.leaky_relu, ours, put(X[0]), stats=used)


# --- dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int32", "uint8", "bool", "complex64", "complex128", "S2"])
def test_dtypes_that_are_not_computed_on(used, used_gradient, kind):
    bad, ours = put(np.zeros(X.shape, kind)), put(X)
    dtype = rf"has dtype .*{np.dtype(kind)}.* \(accepted: CuPy arrays of float16, bfloat16"
    rejected(TypeError, f"^x {dtype}", geoact.relu, bad, stats=used)
    rejected(TypeError, f"^out {dtype}", geoact.relu, ours, out=bad, stats=used)
    rejected(TypeError, f"^dy {dtype}", geoact.relu.backward, bad, y=ours, stats=used_gradient)
    rejected(TypeError, f"^y {dtype}", geoact.relu.backward, ours, y=bad, stats=used_gradient)
    rejected(TypeError, f"^weight {dtype}", geoact.prelu, ours, put(np.zeros(6, kind)), stats=used)


@pytest.mark.parametrize("kind", DTYPES)
def test_a_foreign_byte_order_is_named(used, kind):
    swapped = put(X.astype(DTYPES[kind]).view(DTYPES[kind].newbyteorder()))
    rejected(TypeError, "^x is not in the byte order of this machine; pass x.astype", geoact.relu, swapped, stats=used)
    rejected(TypeError, "^out is not in the byte order", geoact.relu, put(X), out=swapped, stats=used)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_all_arrays_of_a_call_have_one_dtype(used, used_gradient, name):
    ours, bad = put(X), put(X.astype(DTYPES[name]))
    rejected(TypeError, f"^out is {name}, but x is float32", geoact.relu, ours, out=bad, stats=used)
    rejected(TypeError, f"^x is {name}, but dy is float32", geoact.silu.backward, ours, x=bad, stats=used_gradient)
    weight = put(X[0].astype(DTYPES[name]))
    rejected(TypeError, f"^weight is {name}, but x is float32", geoact.prelu, ours, weight, stats=used)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4), (4, 7), (24,), ()], ids=str)
def test_shapes_must_agree(used, used_gradient, shape):
    ours, bad = put(X), put(np.ones(shape, FLOAT32))
    rejected(ValueError, r"^out has shape .*but x has shape \(4, 6\)", geoact.relu, ours, out=bad, stats=used)
    rejected(ValueError, "^x has shape .*but dy has", geoact.silu.backward, ours, x=bad, stats=used_gradient)


def test_weights_must_fit_the_channels(used):
    for shape in ((5,), (4,), (0,), (6, 1), (1, 1)):
        weight = put(np.ones(shape, FLOAT32))
        rejected(ValueError, r"^weight has shape .*here \(6,\)", geoact.prelu, put(X), weight, stats=used)
    rejected(ValueError, "^channel_axis is 2", geoact.prelu, put(X), put(X[0]), channel_axis=2, stats=used)


def test_out_must_not_overlap_an_input_unless_it_is_that_view(cupy, used):
    buffer = put(inputs.normal(100, FLOAT32))

    def view(first, step, count=50):
        pointer = cupy.cuda.MemoryPointer(buffer.data.mem, 4 * first + buffer.data.ptr - buffer.data.mem.ptr)
        return cupy.ndarray((count,), FLOAT32, pointer, (4 * step,))

    for x, out in (
        (view(0, 1), view(1, 1)),
        (view(10, 1), view(0, 1)),
        (view(0, 1), view(49, -1)),
        (view(0, 1), view(0, 2)),
    ):
        rejected(ValueError, "^out overlaps x", geoact.relu, x, out=out, stats=used)
        rejected(ValueError, "^out overlaps dy", geoact.silu.backward, x, x=put(host(x)), out=out)
        rejected(ValueError, "^out overlaps y", geoact.relu.backward, put(host(x)), y=x, out=out)
    rejected(ValueError, "^out overlaps itself", geoact.relu, put(X[0]), out=view(0, 0, 6), stats=used)
    for x, out in ((view(0, 1), view(50, 1)), (view(0, 2), view(1, 2)), (view(98, -2), view(0, 2))):
        expected = np.maximum(host(x), 0)
        if host(x).strides[0] > 0:
            np.testing.assert_array_equal(host(geoact.relu(x, out=out)), expected)
    assert geoact.relu(view(0, 2), out=view(0, 2)) is not None


def test_odd_addresses_are_refused(cupy, used):
    record = np.zeros((4, 6), [("tag", "u1"), ("value", "f4")])
    for bad in (put(record["value"]), put(np.zeros(28, np.uint8)[1:25].view(FLOAT32))):
        rejected(ValueError, "^x lies at odd addresses.*pass a copy", geoact.relu, bad, stats=used)
    rejected(ValueError, "^out lies at odd", geoact.relu, put(X), out=put(record["value"]), stats=used)
    single = put(record["value"][:1, :1])  # strides that are never taken
    assert geoact.relu(cupy.ndarray((1, 1), FLOAT32, put(X).data, single.strides)).shape == (1, 1)


def test_a_mask_is_not_ignored(cupy, used):
    kind = type("Masked", (cupy.ndarray,), {"mask": False})
    masked = kind(X.shape, FLOAT32, put(X).data)
    rejected(TypeError, "^x is a masked array", geoact.relu, masked, stats=used)
    rejected(TypeError, "^out is a masked array", geoact.relu, put(X), out=masked, stats=used)
    plain = np.ma.masked_less(X, 0)
    rejected(TypeError, "^out is a NumPy array", geoact.relu, put(X), out=plain, stats=used)


# --- devices and statistics -----------------------------------------------------------------------


def test_all_arrays_of_a_call_lie_on_one_device(used, used_gradient):
    ours, other = put(X), put(X, device=1)
    where = "is on the device cuda:1, but {} is on cuda:0; they must be equal"
    rejected(ValueError, "^out " + where.format("x"), geoact.relu, ours, out=other, stats=used)
    weight = put(X[0], device=1)
    rejected(ValueError, "^weight " + where.format("x"), geoact.prelu, ours, weight, stats=used)
    rejected(ValueError, "^x " + where.format("dy"), geoact.silu.backward, ours, x=other, stats=used_gradient)


def test_statistics_must_be_of_the_right_kind_and_fit(used, used_gradient):
    ours = put(X)
    rejected(TypeError, "^stats must be a geoact.GeometryStats, got Gradient", geoact.relu, ours, stats=used_gradient)
    rejected(TypeError, "^stats must be a geoact.GradientStats, got", geoact.relu.backward, ours, y=ours, stats=used)
    rejected(TypeError, "^gradient_stats needs.*for CuPy", geoact.relu, ours, gradient_stats=used_gradient)
    wide = put(X.astype(float))
    rejected(ValueError, "^stats holds statistics of float32", geoact.relu, wide, out=put(np.ones((4, 6))), stats=used)
    stats = geoact.GeometryStats("channel")
    geoact.relu(ours, stats=stats)
    rejected(ValueError, "^stats holds 6 channels, but axis 0", geoact.relu, put(X[0, :5]), stats=stats)
    rejected(ValueError, "^stats was made with per='channel'", geoact.relu, put(X[0, 0, ...]), stats=stats)
    other = geoact.GeometryStats("channel")
    geoact.relu(put(X.T), stats=other)
    rejected(ValueError, "^other has a different number of channels", stats.merge, other)


def test_devices_of_other_kinds_are_refused(cupy):
    """A device on which nothing computes: its memory must not be taken for the host's."""
    for kind in (4, 10, 14, 99, -1):
        borrowed = _core.Borrowed(X, 64, (3,), (1,), "float32", (kind, 0))
        with pytest.raises(ValueError, match=f"^x is on a device of the type {kind}"):
            _core.forward(0, borrowed, (), (), borrowed, None, 1)
