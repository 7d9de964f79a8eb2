"""Bad arrays and parameters: an error that names the argument, nothing written, the accumulator as it was."""

import geoact
import numpy as np
import pytest
from support import inputs
from support.cases import DTYPES
from support.errors import X, rejected, used

# --- x, dy and what backward saves ----------------------------------------------------------------

NOT_ARRAYS = {
    "list": [1.0, 2.0],
    "number": 1.0,
    "None": None,
    "scalar": np.float32(1),
    "memoryview": memoryview(b"1234"),
}
NOT_FLOATS = {
    "int": X.astype(int),
    "bool": X > 0,
    "complex": X.astype(np.complex64),
    "object": X.astype(object),
    "string": X.astype(str),
    "longdouble": X.astype(np.longdouble),
    "datetime": np.zeros(3, "M8[s]"),
    "record": np.zeros(3, [("a", "f4")]),
}


@pytest.mark.parametrize("kind", [*NOT_ARRAYS, *NOT_FLOATS])
def test_x_must_be_an_array_of_floats(kind):
    bad = NOT_ARRAYS.get(kind, NOT_FLOATS.get(kind))
    word = "has dtype .*accepted: .*float16, bfloat16" if kind in NOT_FLOATS else "must be an array, got"
    stats, gradient = used(), used(geoact.GradientStats)
    rejected(TypeError, f"^x {word}", geoact.relu, bad, stats=stats)
    rejected(TypeError, f"^dy {word}", geoact.silu.backward, bad, x=X, stats=gradient)
    if bad is not None:
        rejected(TypeError, f"^x {word}", geoact.silu.backward, X, x=bad, stats=gradient)
        rejected(TypeError, f"^y {word}", geoact.relu.backward, X, y=bad, stats=gradient)
        rejected(TypeError, f"^out {word}", geoact.relu, X, out=bad, stats=stats)
        rejected(TypeError, f"^out {word}", geoact.silu.backward, X, x=X, out=bad, stats=gradient)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_foreign_byte_order_is_named(name):
    swapped = X.astype(DTYPES[name].newbyteorder())
    rejected(TypeError, "^x is not in the byte order", geoact.relu, swapped, stats=used())
    rejected(TypeError, "^dy is not in the byte order", geoact.relu.backward, swapped, y=X)


def test_masked_arrays_are_refused_because_their_mask_would_be_lost():
    rejected(TypeError, "^x is a masked array", geoact.relu, np.ma.masked_less(X, 0), stats=used())


def speaking(module, **attributes):
    """An array of another package, as far as it can be seen that it is one."""
    return type("Array", (), {"__module__": module, **attributes})()


def test_arrays_of_another_library_get_a_hint():
    device = speaking("numba.cuda.devicearray", __cuda_array_interface__={})
    tensor = speaking("paddle.base", __dlpack__=lambda: None)
    for array, word in (
        (device, "numba Array; .*: pass cupy.asarray"),
        (tensor, "paddle Array; .*: pass numpy.asarray.* or cupy.from_dlpack"),
        (speaking("jaxlib._jax"), "jaxlib Array; .*: pass numpy.asarray"),
    ):
        rejected(TypeError, f"^x is a {word}.x.", geoact.relu, array, stats=used())
        rejected(TypeError, f"^dy is a {word}.dy.", geoact.relu.backward, array, y=X)
    mixed = "array, but {} is a NumPy array; they must be of one package: pass "
    rejected(TypeError, f"^out is a numba {mixed.format('x')}an array of", geoact.relu, X, out=device, stats=used())
    rejected(TypeError, f"^out is a paddle {mixed.format('dy')}an array of", geoact.silu.backward, X, x=X, out=tensor)
    rejected(TypeError, f"^x is a numba {mixed.format('dy')}", geoact.silu.backward, X, x=device)
    rejected(TypeError, f"^weight is a numba {mixed.format('x')}", geoact.prelu, X, device, stats=used())


def test_an_array_whose_attributes_cannot_be_asked_is_refused_all_the_same():
    def fails(self):
        raise RuntimeError("no driver")

    array = speaking("strange", __cuda_array_interface__=property(fails))
    rejected(TypeError, "^x must be an array, got Array", geoact.relu, array, stats=used())


@pytest.mark.parametrize(("name", "saved", "other"), [("relu", "y", "x"), ("silu", "x", "y")])
def test_backward_needs_what_forward_saved(name, saved, other):
    row = geoact.get(name)
    stats = used(geoact.GradientStats)
    rejected(TypeError, f"{name}.backward needs {saved}=", row.backward, X, stats=stats)
    rejected(TypeError, f"needs {saved}=.*{other} was given", row.backward, X, stats=stats, **{other: X})


def test_backward_arguments_must_agree_in_shape_and_dtype():
    stats = used(geoact.GradientStats)
    rejected(
        ValueError,
        r"^x has shape \(6, 4\), but dy has shape \(4, 6\)",
        geoact.silu.backward,
        X,
        x=X.T,
        stats=stats,
    )
    rejected(ValueError, r"^y has shape \(6,\)", geoact.relu.backward, X, y=X[0], stats=stats)
    rejected(TypeError, "^x is float64, but dy is float32", geoact.silu.backward, X, x=X.astype(float), stats=stats)


# --- out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4), (4, 7), (24,), (4, 6, 1), ()], ids=str)
def test_out_must_have_the_shape_of_x(shape):
    rejected(
        ValueError,
        r"^out has shape .*but x has shape \(4, 6\)",
        geoact.relu,
        X,
        out=np.ones(shape, np.float32),
        stats=used(),
    )


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_out_must_have_the_dtype_of_x(name):
    rejected(
        TypeError,
        f"^out is {name}, but x is float32",
        geoact.relu,
        X,
        out=np.ones(X.shape, DTYPES[name]),
        stats=used(),
    )


def test_out_must_be_writeable():
    out = np.ones_like(X)
    out.flags.writeable = False
    rejected(ValueError, "^out is read-only", geoact.relu, X, out=out, stats=used())
    rejected(
        ValueError,
        "^out is read-only",
        geoact.silu.backward,
        X,
        x=X,
        out=out,
        stats=used(geoact.GradientStats),
    )


def test_out_must_not_overlap_an_input_unless_it_is_that_view():
    buffer = inputs.normal(100, np.float32)
    overlapping = [
        (buffer[:50], buffer[1:51]),
        (buffer[10:60], buffer[0:50]),
        (buffer[:50], buffer[49::-1]),
        (buffer[:50], buffer[::2]),
        (buffer[:100:2], buffer[:50]),
        (buffer.reshape(10, 10), buffer.reshape(10, 10).T),
    ]
    for x, out in overlapping:
        rejected(ValueError, "^out overlaps x", geoact.relu, x, out=out, stats=used())
        dy = np.ones_like(x)
        rejected(ValueError, "^out overlaps x", geoact.silu.backward, dy, x=x, out=out)
        rejected(ValueError, "^out overlaps dy", geoact.silu.backward, x, x=dy, out=out)
        rejected(ValueError, "^out overlaps y", geoact.relu.backward, dy, y=x, out=out)


def test_out_beside_x_in_the_same_memory_is_accepted():
    buffer = inputs.normal(100, np.float32)
    for x, out in ((buffer[:50], buffer[50:]), (buffer[::2], buffer[1::2]), (buffer[::-2], buffer[::2])):
        expected = np.maximum(x, 0)
        np.testing.assert_array_equal(geoact.relu(x, out=out), expected)


def test_out_must_not_overlap_itself():
    for out in (
        np.lib.stride_tricks.as_strided(np.ones(40, np.float32), X.shape, (8, 4)),
        np.lib.stride_tricks.as_strided(np.ones(40, np.float32), X.shape, (0, 4)),
        np.lib.stride_tricks.as_strided(np.ones(40, np.float32), X.shape, (4, 4)),
    ):
        rejected(ValueError, "^out overlaps itself", geoact.relu, X, out=out, stats=used())


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["1", None, [0.1], 1j, True, (0.1,)], ids=repr)
@pytest.mark.parametrize("name", ["prelu", "swish", "elu", "leaky_relu", "softplus"])
def test_parameters_must_be_numbers(name, bad):
    row = geoact.get(name)
    parameter = row.parameters[0].name
    if bad is None and row.parameters[0].default is not None:
        return
    rejected(TypeError, parameter, row, X, bad, stats=used())
    saved = {row.saves: X}
    rejected(TypeError, parameter, row.backward, X, bad, stats=used(geoact.GradientStats), **saved)


@pytest.mark.parametrize("name", ["elu", "leaky_relu", "softplus"])
def test_parameters_that_are_not_trained_must_not_be_arrays(name):
    row = geoact.get(name)
    rejected(TypeError, row.parameters[0].name, row, X, np.ones(6, np.float32), stats=used())


@pytest.mark.parametrize("name", ["prelu", "swish"])
def test_parameter_arrays_must_match_x(name):
    row, parameter = geoact.get(name), geoact.get(name).parameters[0].name
    stats, gradient = used(), used(geoact.GradientStats)
    for shape in ((5,), (4,), (0,), (6, 1), (1, 6), (1, 1)):
        weight = np.ones(shape, np.float32)
        rejected(ValueError, rf"^{parameter} has shape .*per channel, here \(6,\)", row, X, weight, stats=stats)
        rejected(ValueError, f"^{parameter} has shape", row.backward, X, weight, x=X, stats=gradient)
    rejected(
        ValueError,
        rf"^{parameter} has shape .*here \(4,\)",
        row,
        X,
        np.ones(6, np.float32),
        channel_axis=0,
        stats=stats,
    )
    for kind in ("float16", "bfloat16", "float64"):
        rejected(
            TypeError,
            f"^{parameter} is {kind}, but x is float32",
            row,
            X,
            np.ones(6, DTYPES[kind]),
            stats=stats,
        )
    rejected(TypeError, f"^{parameter} has dtype int", row, X, np.ones(6, int), stats=stats)


def test_a_number_no_float_can_hold_is_refused():
    with pytest.raises((TypeError, ValueError), match="weight"):
        geoact.prelu(X, 10**400)


@pytest.mark.parametrize("axis", [2, -3])
def test_channel_axis_must_exist(axis):
    rejected(
        ValueError,
        f"^channel_axis is {axis}, but x has 2 axes",
        geoact.prelu,
        X,
        0.1,
        channel_axis=axis,
        stats=used(),
    )
    with pytest.raises(TypeError, match="channel_axis must be an int"):
        geoact.prelu(X, 0.1, channel_axis="1")


def test_unknown_surplus_and_repeated_arguments():
    stats = used()
    rejected(
        TypeError,
        "relu got an unknown argument 'beta'.*accepted: out, stats",
        geoact.relu,
        X,
        beta=1,
        stats=stats,
    )
    rejected(
        TypeError,
        "elu got an unknown argument 'beta'.*accepted: alpha, out, stats",
        geoact.elu,
        X,
        beta=1,
        stats=stats,
    )
    rejected(TypeError, "elu got an unknown argument 'channel_axis'", geoact.elu, X, channel_axis=1, stats=stats)
    rejected(TypeError, "relu takes 1 positional arguments, got 2", geoact.relu, X, 1, stats=stats)
    rejected(TypeError, "elu got alpha twice", geoact.elu, X, 1.0, alpha=1.0, stats=stats)
    rejected(TypeError, "prelu needs weight", geoact.prelu, X, stats=stats)
    rejected(TypeError, "prelu needs weight", geoact.prelu.backward, X, x=X, stats=used(geoact.GradientStats))


@pytest.mark.parametrize("bad", ["erf", "TANH", None, 1, True], ids=repr)
def test_approximate_names_what_is_accepted(bad):
    rejected(
        ValueError,
        "^approximate is .*accepted: 'none', 'tanh'",
        geoact.gelu,
        X,
        approximate=bad,
        stats=used(),
    )


def test_gelu_takes_nothing_but_approximate():
    for arguments, named in ((("none", 5), {}), (("none",), {"approximate": "tanh"}), ((), {"beta": 1})):
        rejected(TypeError, "^gelu takes approximate=", geoact.gelu, X, *arguments, stats=used(), **named)


def test_an_axis_that_no_array_has_is_named():
    with pytest.raises(ValueError, match="channel_axis is 1000, but arrays have at most 64 axes"):
        geoact.GeometryStats(channel_axis=1000)
