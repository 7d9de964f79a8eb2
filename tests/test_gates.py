"""Gated activations: what the pieces give one after the other, in one pass, bit by bit; and the gate's statistics."""

import copy
import inspect
import pickle
import re
from itertools import permutations, product
from pathlib import Path

import geoact
import numpy as np
import pytest
from geoact import _core, _gates
from support import inputs, oracle
from support.cases import DTYPES, FORMATS, NARROW, SIMULATED, assert_same_bits
from support.errors import Untouched, rejected, used

FLOAT32 = DTYPES["float32"]
GATES = geoact.gates()
LIMIT = 7.0
INNER = {
    "swiglu": geoact.silu,
    "geglu": geoact.gelu,
    "geglu_tanh": geoact.gelu_tanh,
    "reglu": geoact.relu,
}

each_gate = pytest.mark.parametrize("row", GATES.values(), ids=GATES)


def compute(array):
    """The same values in the type that kernels compute in."""
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)


def parameters(row, dtype):
    """The defaults as the kernels compute with them."""
    kind = np.float64 if dtype == np.float64 else np.float32
    return tuple(float(kind(p.default)) for p in row.parameters)


def inner(row, gate, **options):
    """F of the gate by the activation that stands alone."""
    if row.name in INNER:
        return INNER[row.name](gate, **options)
    return geoact.swish(np.minimum(gate, gate.dtype.type(LIMIT)), 1.702, **options)


def inner_backward(row, arriving, gate, **options):
    """What f makes of a gradient, by the activation that stands alone."""
    if row.name == "reglu":
        return geoact.relu.backward(arriving, y=geoact.relu(gate), **options)
    if row.name in INNER:
        return INNER[row.name].backward(arriving, x=gate, **options)
    dx, _ = geoact.swish.backward(arriving, 1.702, x=np.minimum(gate, gate.dtype.type(LIMIT)), **options)
    return np.where(gate <= LIMIT, dx, gate.dtype.type(0))


def factor(row, up):
    return up if row.name in INNER else np.clip(up, up.dtype.type(-LIMIT), up.dtype.type(LIMIT)) + up.dtype.type(1)


def factor_gradient(row, d, up):
    return d if row.name in INNER else np.where(np.abs(up) <= LIMIT, d, d.dtype.type(0))


def in_pieces(row, dy, gate, up):
    """(y, dgate, dup) of separate passes in the compute type, each rounded once."""
    wide_dy, wide_gate, wide_up = map(compute, (dy, gate, up))
    with np.errstate(all="ignore"):
        f, h = inner(row, wide_gate), factor(row, wide_up)
        dgate, dup = inner_backward(row, wide_dy * h, wide_gate), factor_gradient(row, wide_dy * f, wide_up)
        return tuple(a.astype(gate.dtype) for a in (f * h, dgate, dup))


def largest(dtype):
    precision, smallest = FORMATS[dtype.name]
    return (2 - 2.0 ** (1 - precision)) * 2.0 ** (1 - smallest)


def hard_triple(dtype):
    """(dy, gate, up) that meet every edge: adversarial gates, against factors of every size and kind."""
    gate = inputs.every_pattern(dtype) if dtype in NARROW else inputs.adversarial(dtype.name, 8)
    special = np.array(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 7.0, -7.0, 7.5, -300.0, 1e-3, largest(dtype),
         2.0 ** FORMATS[dtype.name][1], -inputs.smallest(dtype)]
    ).astype(dtype)  # fmt: skip
    gate = np.concatenate([gate, np.tile(special, len(special)), np.array([LIMIT, LIMIT * (1 + 1e-3)]).astype(dtype)])
    random = np.random.default_rng(4)
    up, dy = (
        np.where(random.random(gate.size) < 0.3, random.choice(special, gate.size), random.normal(size=gate.size) * 4)
        for _ in range(2)
    )
    up, dy = up.astype(dtype), dy.astype(dtype)
    up[-2 - special.size**2 : -2] = np.repeat(special, len(special))
    return dy, gate, up


def normal_triple(shape, dtype):
    return tuple(inputs.normal(shape, dtype, sd=3, seed=seed) for seed in (31, 32, 33))


def assert_cells_alike(a, b, relative=1e-6):
    """Counts and extremes exactly, sums to ``relative`` of their size."""
    for name, expected in b.items():
        exact = name in ("n", "negative", "positive", "zero", "saturated", "subnormal", "underflow")
        exact = exact or name.startswith(("nonfinite", "x_m", "y_m", "absmax"))
        tolerance = 0 if exact else relative
        size = np.abs(expected) + (b["m2_x"] + b["m2_y"] if name == "c_xy" else 0)
        size = size + (np.sqrt(b["m2_" + name[-1]]) if name.startswith("mean") else 0)
        with np.errstate(invalid="ignore"):
            good = (a[name] == expected) | (np.abs(a[name] - expected) <= tolerance * size)
        assert (good | (np.isnan(a[name]) & np.isnan(expected))).all(), (name, a[name], expected)


# --- values ---------------------------------------------------------------------------------------


@each_gate
def test_everything_is_that_of_the_pieces_to_the_last_bit(row, isa, dtype):
    dy, gate, up = hard_triple(dtype)
    y, dgate, dup = in_pieces(row, dy, gate, up)
    assert_same_bits(row(gate, up), y)
    ours = row.backward(dy, gate, up)
    assert_same_bits(ours[0], dgate)
    assert_same_bits(ours[1], dup)


# The float64 reference of gelu loses digits in its tail, which the kernels do not (tests/test_values.py).
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-21, "float64": 2.0**-41}


def assert_close(actual, expected, relative_to, absolute, dtype):
    """Within a few roundings of the one, and some of the other; near the largest number either may be infinite."""
    actual = actual.astype(np.float64)
    with np.errstate(all="ignore"):
        allowed = EPS[dtype.name] * relative_to + 4 * (absolute + inputs.smallest(dtype))
        good = (np.abs(actual - expected) <= allowed) | (actual == expected)
        top = 0.99 * largest(dtype)
        good |= (np.abs(expected) > top) & (np.abs(actual) > top) & (np.sign(actual) == np.sign(expected))
    assert good.all(), (actual[~good][:3], expected[~good][:3])


@each_gate
def test_values_and_gradients_are_those_of_the_float64_reference(row, isa, dtype):
    _, gate, up = hard_triple(dtype)
    dy = inputs.normal(gate.shape, dtype)
    with np.errstate(invalid="ignore"):
        d, g, u = (a.astype(np.float64) for a in (dy, gate, up))
    finite = np.isfinite(g) & np.isfinite(u)
    dy, gate, up, d, g, u = (a[finite] for a in (dy, gate, up, d, g, u))
    values = parameters(row, dtype)
    with np.errstate(all="ignore"):
        y, (dgate, dup) = row.value(g, u, *values), row.gradients(d, g, u, *values)
        h, arriving = np.abs(row.factor(u, *values)), np.abs(d * row.factor(u, *values))
        scale = np.abs(dgate) + arriving
    # What f and f' are lost below, and with them what they multiply; in the reference of gelu a probability times g.
    smallest = inputs.smallest(compute(gate).dtype) * np.clip(np.abs(g), 1, 50)
    assert_close(row(gate, up), y, np.abs(y), smallest * h, dtype)
    ours = row.backward(dy, gate, up)
    # f' crosses 0, about which it is right to its own size elsewhere; what arrives may be too large for the arithmetic
    fits = arriving < largest(compute(gate).dtype)
    assert_close(ours[0][fits], dgate[fits], scale[fits], (smallest * arriving)[fits], dtype)
    assert_close(ours[1], dup, np.abs(dup), smallest * np.abs(d), dtype)


@each_gate
def test_the_references_are_derivatives_of_each_other(row):
    values = tuple(p.default for p in row.parameters)
    gate = np.linspace(-9, 9, 1001)
    gate = gate[np.all([np.abs(gate - kink) > 1e-3 for kink in row.kinks] or [gate < 99], axis=0)]
    up = np.linspace(-6.9, 6.9, gate.size)
    h = 1e-6
    dgate, dup = row.gradients(np.ones_like(gate), gate, up, *values)
    by_gate = (row.value(gate + h, up, *values) - row.value(gate - h, up, *values)) / (2 * h)
    by_up = (row.value(gate, up + h, *values) - row.value(gate, up - h, *values)) / (2 * h)
    np.testing.assert_allclose(dgate, by_gate, atol=1e-7)
    np.testing.assert_allclose(dup, by_up, atol=1e-7)


@each_gate
def test_nan_in_either_input_reaches_y(row, isa, dtype):
    gate = np.array([np.nan, 1.0, np.nan]).astype(dtype)
    up = np.array([1.0, np.nan, np.nan]).astype(dtype)
    assert np.isnan(row(gate, up).astype(np.float64)).all()


def test_the_clipped_gate_stops_its_gradients_as_torch_does(isa, dtype):
    inf, nan = np.inf, np.nan
    gate = np.array([7.0, 7.5, inf, nan, 1.0, 1.0, 1.0, 1.0, 1.0]).astype(dtype)
    up = np.array([1.0, 1.0, 1.0, 1.0, 7.0, 7.5, -7.5, inf, nan]).astype(dtype)
    dgate, dup = geoact.swiglu_clipped.backward(np.ones_like(gate), gate, up)
    assert (dgate.astype(np.float64)[:4] != 0).tolist() == [True, False, False, False]
    assert (dup.astype(np.float64)[4:] != 0).tolist() == [True, False, False, False, False]


def test_parameters_of_the_clipped_gate(isa):
    gate, up = inputs.normal(500, FLOAT32, sd=4), inputs.normal(500, FLOAT32, sd=4, seed=8)
    expected = geoact.swish(np.minimum(gate, np.float32(2)), 0.5) * (np.clip(up, -2, 2) + np.float32(1))
    for call in (
        lambda *a: geoact.swiglu_clipped(*a, 0.5, 2.0),
        lambda *a: geoact.swiglu_clipped(*a, limit=2, alpha=np.float32(0.5)),
    ):
        assert_same_bits(call(gate, up), expected)
    with np.errstate(all="ignore"):
        unlimited = geoact.swish(gate, 1.702) * (up + np.float32(1))
    assert_same_bits(geoact.swiglu_clipped(gate, up, limit=np.inf), unlimited)
    assert_same_bits(geoact.geglu(gate, up, approximate="tanh"), geoact.geglu_tanh(gate, up))
    assert_same_bits(geoact.geglu(gate, up, "none"), geoact.geglu(gate, up))
    dgate, dup = geoact.geglu.backward(up, gate, up, approximate="tanh")
    assert_same_bits(dgate, geoact.geglu_tanh.backward(up, gate, up)[0])
    assert_same_bits(dup, geoact.geglu_tanh.backward(up, gate, up)[1])


# --- statistics -----------------------------------------------------------------------------------

GROUPS = [("tensor", -1), ("channel", -1), ("channel", 0), ("row", -1)]


def measured_alone(row, dy, gate, up, per, axis):
    """The records of the activation itself, on the gate and on what arrives there."""
    stats, gradient = geoact.GeometryStats(per=per, channel_axis=axis), geoact.GradientStats(per=per, channel_axis=axis)
    inner(row, gate, stats=stats)
    inner_backward(row, dy * factor(row, up), gate, stats=gradient)
    return stats.cells(), gradient.cells()


def measured(row, dy, gate, up, per, axis, level="moments"):
    stats = geoact.GeometryStats(per=per, channel_axis=axis, level=level)
    gradient = geoact.GradientStats(per=per, channel_axis=axis)
    assert_same_bits(row(gate, up, stats=stats), row(gate, up))
    for ours, plain in zip(row.backward(dy, gate, up, stats=gradient), row.backward(dy, gate, up), strict=True):
        assert_same_bits(ours, plain)
    return stats.cells(), gradient.cells()


@pytest.mark.parametrize(("per", "axis"), GROUPS)
@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("dtype", [DTYPES["float32"], DTYPES["float64"]], ids=str)
def test_statistics_are_those_of_the_activation_alone(name, isa, dtype, per, axis):
    row = GATES[name]
    dy, gate, up = normal_triple((300, 131), dtype)
    alone = measured_alone(row, dy, gate, up, per, axis)
    ours = measured(row, dy, gate, up, per, axis)
    assert_cells_alike(ours[0], alone[0])
    assert_cells_alike(ours[1], alone[1])
    counts, _ = measured(row, dy, gate, up, per, axis, level="counts")
    for cell, value in counts.items():
        np.testing.assert_array_equal(value, alone[0][cell], err_msg=cell)


def reference_cells(row, dy, gate, up):
    """Both records from their definitions, of y and dgate as they were stored."""
    dtype = gate.dtype
    alone = inner(row, compute(gate)).astype(dtype)  # rounded as f is
    dgate, _ = row.backward(dy, gate, up)
    wide = compute(dy) * factor(row, compute(up))
    x, y, d, dx = (a.reshape(1, -1).astype(np.float64) for a in (gate, alone, wide, dgate))
    ones = np.ones_like(compute(gate))  # f' as it is computed: it may be 0 where that of the reference is not
    slope = inner_backward(row, ones, compute(gate)).reshape(1, -1).astype(np.float64)
    return oracle.cells(x, y, slope, dtype), oracle.gradient_cells(d, dx, slope, dtype)


@each_gate
@pytest.mark.parametrize("kind", inputs.HARD)
def test_statistics_of_hard_data_are_those_of_the_definitions(row, isa, dtype, kind):
    gate = inputs.hard(kind, 6000, dtype)
    if gate is None:
        pytest.skip("the format cannot hold these values")
    dy, up = inputs.normal(gate.shape, dtype, seed=5), inputs.normal(gate.shape, dtype, seed=6)
    ours = measured(row, dy, gate, up, "tensor", -1)
    for cells, expected in zip(ours, reference_cells(row, dy, gate, up), strict=True):
        oracle.assert_cells({k: np.atleast_1d(v) for k, v in cells.items()}, expected, context=row.name)


@each_gate
def test_what_is_not_finite_is_counted(row, isa, dtype):
    dy, gate, up = normal_triple(1000, dtype)
    gate[[3, 500]] = np.nan
    gate[7] = np.inf
    up[11] = np.inf
    dy[13] = np.nan
    stats, gradient = measured(row, dy, gate, up, "tensor", -1)
    assert stats["nonfinite_x"] == 3
    assert stats["nonfinite_y"] == (2 if row.name == "swiglu_clipped" else 3)
    arriving = compute(dy) * factor(row, compute(up))
    assert gradient["nonfinite_dy"] == (~np.isfinite(arriving)).sum()
    assert gradient["nonfinite_dx"] == (~np.isfinite(row.backward(dy, gate, up)[0].astype(np.float64))).sum()


@each_gate
def test_calls_add_up_and_switched_off_statistics_stay(row):
    _, gate, up = normal_triple((64, 70), FLOAT32)
    stats, whole = geoact.GeometryStats(), geoact.GeometryStats()
    row(gate[:40], up[:40], stats=stats)
    row(gate[40:], up[40:], stats=stats)
    row(gate, up, stats=whole)
    assert stats.n == gate.size
    assert stats.calls == 2
    assert_cells_alike(stats.cells(), whole.cells(), 2e-6)
    stats.enabled = False
    with Untouched(stats):
        row(gate, up, stats=stats)


# --- layouts --------------------------------------------------------------------------------------


def unaligned(array, offset):
    buffer = np.empty(array.nbytes + 128, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    view = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def as_field(array):
    records = np.zeros(array.shape, np.dtype([("tag", "u1"), ("value", array.dtype)]))
    records["value"] = array
    return records["value"]


# Two arrays that lie differently in memory, of one shape.
PAIRS = {
    "packed halves": lambda x: np.split(x[:, :130], 2, axis=1),
    "interleaved": lambda x: (x[:, :130:2], x[:, 1:130:2]),
    "halves of rows": lambda x: (x[:50], x[50:]),
    "the same array": lambda x: (x, x),
    "windows that overlap": lambda x: (x[:, :-1], x[:, 1:]),
    "transposed and not": lambda x: (x[:, :100].T, x[:, 31:]),
    "reversed": lambda x: (x[::-1], x[:, ::-1]),
    "Fortran order": lambda x: (np.asfortranarray(x), x),
    "broadcast rows": lambda x: (x, np.broadcast_to(x[3], x.shape)),
    "broadcast gate": lambda x: (np.broadcast_to(x[:, :1], x.shape), x),
    "off by one byte": lambda x: (unaligned(x, 1), x),
    "differently aligned": lambda x: (unaligned(x, 3 * x.itemsize), unaligned(x, x.itemsize)),
    "field of a record": lambda x: (x, as_field(x)),
    "three axes": lambda x: (x[:96, :64].reshape(8, 12, 64).transpose(2, 0, 1), x[:64, :96].reshape(64, 8, 12)),
    "no axes": lambda x: (x[0, 0, ...], x[1, 1, ...]),
    "one element": lambda x: (x[:1, :1], x[1:2, :1]),
}


def copies(*arrays):
    return tuple(np.array(a, order="C", copy=True) for a in arrays)


@each_gate
@pytest.mark.parametrize("pair", PAIRS)
def test_any_layout_gives_the_values_and_statistics_of_copies(row, isa, dtype, pair):
    x = inputs.normal((100, 131), dtype, sd=3)
    before = x.copy()
    gate, up = (np.asarray(a) for a in PAIRS[pair](x))
    dy = np.asarray(inputs.normal(gate.shape[::-1], dtype, seed=9), dtype).T
    plain = copies(dy, gate, up)
    y, backward = row(*plain[1:]), row.backward(*plain)
    assert_same_bits(row(gate, up), y)
    for ours, expected in zip(row.backward(dy, gate, up), backward, strict=True):
        assert_same_bits(ours, expected)
    for per, axis in GROUPS if gate.ndim == 2 else GROUPS[:1]:
        ours, expected = (measured(row, *arrays, per, axis) for arrays in ((dy, gate, up), plain))
        assert_cells_alike(ours[0], expected[0], 2e-6)
        assert_cells_alike(ours[1], expected[1], 2e-6)
    assert_same_bits(x, before)


@each_gate
def test_every_size_around_the_vectors_and_the_tiles(row, isa, dtype):
    sizes = [*range(36), 63, 64, 65, 127, 129, 4095, 4096, 4097, 65535, 65537]
    dy, gate, up = normal_triple(sizes[-1], dtype)
    y, dgate, dup = in_pieces(row, dy, gate, up)
    for n in sizes:
        stats, gradient = geoact.GeometryStats(), geoact.GradientStats()
        assert_same_bits(row(gate[:n], up[:n], stats=stats), y[:n])
        ours = row.backward(dy[:n], gate[:n], up[:n], stats=gradient)
        assert_same_bits(ours[0], dgate[:n])
        assert_same_bits(ours[1], dup[:n])
        assert stats.n == gradient.n == n
        assert stats.cells()["positive"] == (gate[:n] > 0).sum()


@each_gate
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
def test_empty(row, isa, dtype, shape):
    x = np.empty(shape, dtype)
    for per in ("tensor", "channel", "row"):
        stats, gradient = geoact.GeometryStats(per=per), geoact.GradientStats(per=per)
        assert row(x, x, stats=stats).shape == shape
        assert [d.shape for d in row.backward(x, x, x, stats=gradient)] == [shape, shape]
        assert (np.atleast_1d(stats.n) == 0).all()


@each_gate
def test_nothing_outside_the_outputs_is_written(row, isa, dtype):
    dy, gate, up = normal_triple(100, dtype)
    for n, offset in product(range(0, 100, 7), (0, 1, 5)):
        room = [np.full(120, 9).astype(dtype) for _ in range(3)]
        inside = np.s_[offset : offset + n]
        row(gate[:n], up[:n], out=room[0][inside], stats=geoact.GeometryStats())
        row.backward(dy[:n], gate[:n], up[:n], out=(room[1][inside], room[2][inside]))
        assert all((np.delete(r, inside) == 9).all() for r in room)


def test_an_output_past_the_cache_is_the_same(isa):
    dy, gate, up = normal_triple(4_500_000, FLOAT32)  # 54 MB in all
    y, dgate, dup = in_pieces(geoact.reglu, dy, gate, up)
    stats = geoact.GeometryStats()
    for out in (None, unaligned(np.empty_like(gate), 12)):
        assert_same_bits(geoact.reglu(gate, up, out=out), y)
        assert_same_bits(geoact.reglu(gate, up, out=out, stats=stats), y)
    ours = geoact.reglu.backward(dy, gate, up)
    assert_same_bits(ours[0], dgate)
    assert_same_bits(ours[1], dup)


@pytest.mark.skipif(SIMULATED, reason="a promise of the CPU kernels")
@each_gate
def test_the_number_of_threads_changes_nothing(row, dtype):
    dy, gate, up = normal_triple((700, 500), dtype)
    found = []
    for threads in (1, 3):
        geoact.set_num_threads(threads)
        for per, axis in GROUPS:
            found.append((row(gate, up), *row.backward(dy, gate, up), *measured(row, dy, gate, up, per, axis)))
    half = len(GROUPS)
    for one, other in zip(found[:half], found[half:], strict=True):
        for a, b in zip(one[:3], other[:3], strict=True):
            assert_same_bits(a, b)
        for a, b in zip(one[3:], other[3:], strict=True):
            assert all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


# --- in place -------------------------------------------------------------------------------------


@each_gate
@pytest.mark.parametrize("which", ["gate", "up"])
@pytest.mark.parametrize("pair", ["packed halves", "halves of rows", "the same array", "transposed and not"])
def test_in_place(row, isa, dtype, which, pair):
    x = inputs.normal((100, 131), dtype, sd=3)
    expected = row(*copies(*PAIRS[pair](x)))
    for stats in (None, geoact.GeometryStats(), geoact.GeometryStats(per="channel")):
        gate, up = PAIRS[pair](x.copy())
        if pair == "transposed and not":  # whose parts overlap
            gate, up = copies(gate)[0].T.copy().T, up.copy()
        out = gate if which == "gate" else up
        assert row(gate, up, out=out, stats=stats) is out
        assert_same_bits(np.array(out, order="C"), expected)
    alone, in_place = geoact.GeometryStats(), geoact.GeometryStats()
    gate, up = copies(*PAIRS["packed halves"](x))
    row(gate, up, stats=alone)
    row(gate, up, out=gate if which == "gate" else up, stats=in_place)
    assert_cells_alike(in_place.cells(), alone.cells(), 2e-6)


@each_gate
@pytest.mark.parametrize("places", list(permutations(range(3), 2)), ids=str)
def test_gradients_in_place(row, isa, dtype, places):
    arrays = normal_triple((90, 77), dtype)
    expected, alone = row.backward(*arrays), geoact.GradientStats()
    row.backward(*arrays, stats=alone)
    for per in (None, "tensor", "channel"):
        given = [np.asfortranarray(a) if per is None else a.copy() for a in arrays]
        stats = None if per is None else geoact.GradientStats(per=per)
        out = given[places[0]], given[places[1]]
        ours = row.backward(*given, out=out, stats=stats)
        assert ours[0] is out[0]
        assert ours[1] is out[1]
        for a, b in zip(ours, expected, strict=True):
            assert_same_bits(np.array(a, order="C"), b)
        if per == "tensor":
            assert_cells_alike(stats.cells(), alone.cells(), 2e-6)


@each_gate
def test_nothing_that_came_in_is_overwritten_unasked(row, isa, dtype):
    arrays = normal_triple((40, 50), dtype)
    with Untouched(*arrays):
        row(*arrays[1:], stats=geoact.GeometryStats())
        row.backward(*arrays, stats=geoact.GradientStats())


def test_one_gradient_may_have_a_place_and_the_other_not():
    dy, gate, up = normal_triple(50, FLOAT32)
    expected = geoact.swiglu.backward(dy, gate, up)
    place = np.empty_like(gate)
    dgate, dup = geoact.swiglu.backward(dy, gate, up, out=(None, place))
    assert dup is place
    assert_same_bits(dgate, expected[0])
    assert_same_bits(dup, expected[1])


def test_outputs_are_laid_out_like_the_input():
    dy, gate, up = (np.asfortranarray(a) for a in normal_triple((5, 6), FLOAT32))
    assert geoact.swiglu(gate, up).flags.f_contiguous
    assert all(d.flags.f_contiguous for d in geoact.swiglu.backward(dy, gate, up))


# --- errors ---------------------------------------------------------------------------------------

X, Y = inputs.normal((4, 6), FLOAT32), inputs.normal((4, 6), FLOAT32, seed=7)

BAD_CALLS = {
    "list": (TypeError, "^gate must be an array, got list", ([1.0], Y), {}),
    "list as up": (TypeError, "^up must be an array, got list", (X, [1.0]), {}),
    "shape": (ValueError, r"^up has shape \(4, 5\), but gate has shape \(4, 6\)", (X, Y[:, 1:]), {}),
    "no broadcasting": (ValueError, r"^up has shape \(6,\), but gate", (X, Y[0]), {}),
    "dtype": (TypeError, "^up is float64, but gate is float32", (X, Y.astype(np.float64)), {}),
    "integers": (TypeError, "^gate has dtype int64", (X.astype(np.int64), Y), {}),
    "too many": (TypeError, "^swiglu takes 2 positional arguments, got 3", (X, Y, 1.0), {}),
    "unknown": (TypeError, "^swiglu got an unknown argument 'beta'", (X, Y), {"beta": 1.0}),
    "gradient_stats": (TypeError, "^gradient_stats needs a tensor", (X, Y), {"gradient_stats": geoact.GradientStats()}),
}


@pytest.mark.parametrize("bad", BAD_CALLS)
def test_wrong_arguments(bad):
    error, match, arguments, named = BAD_CALLS[bad]
    out = np.zeros_like(X)
    rejected(error, match, geoact.swiglu, *arguments, out=out, stats=used(), **named)


@pytest.mark.parametrize(
    ("named", "error", "match"),
    [
        ({"alpha": "1"}, TypeError, "^alpha must be a number, got str"),
        ({"alpha": True}, TypeError, "^alpha must be a number, got bool"),
        ({"limit": np.ones(3)}, TypeError, "^limit must be a number, got ndarray"),
        ({"alpha": np.nan}, ValueError, "^alpha is nan"),
        ({"limit": -1.0}, ValueError, r"^limit is -1.0 \(accepted: a number of at least 0\)"),
    ],
)
def test_wrong_parameters(named, error, match):
    rejected(error, match, geoact.swiglu_clipped, X, Y, out=np.zeros_like(X), stats=used(), **named)


def test_wrong_variant_and_a_parameter_twice():
    rejected(ValueError, r"^approximate is 'erf' \(accepted: 'none', 'tanh'\)", geoact.geglu, X, Y, approximate="erf")
    with pytest.raises(TypeError, match="^swiglu_clipped got alpha twice"):
        geoact.swiglu_clipped(X, Y, 1.0, alpha=2.0)


def test_statistics_of_the_wrong_kind_or_shape():
    rejected(TypeError, "^stats must be a geoact.GeometryStats", geoact.swiglu, X, Y, stats=used(geoact.GradientStats))
    rejected(TypeError, "^stats must be a geoact.GradientStats", geoact.swiglu.backward, X, X, Y, stats=used())
    channels = used(per="channel")
    rejected(ValueError, "^stats ", geoact.swiglu, X[:, 1:], Y[:, 1:], out=np.zeros((4, 5), "f4"), stats=channels)


def test_outputs_that_overlap_are_refused():
    memory = np.zeros(64, np.float32)
    gate, up = memory[:24], memory[24:48]
    with Untouched(memory):
        for out in (memory[1:25], memory[30:54]):
            with pytest.raises(ValueError, match="^out overlaps (gate|up) in memory"):
                geoact.swiglu(gate, up, out=out)
        dy = np.ones(24, np.float32)
        for pair, match in (
            ((memory[1:25], np.empty(24, np.float32)), r"^out\[0\] overlaps gate in memory"),
            ((np.empty(24, np.float32), memory[25:49]), r"^out\[1\] overlaps up in memory"),
            ((gate, gate), r"^out\[0\] and out\[1\] share memory"),
            ((dy, dy[:]), r"^out\[0\] and out\[1\] share memory"),
        ):
            with pytest.raises(ValueError, match=match):
                geoact.swiglu.backward(dy, gate, up, out=pair)
        room = np.empty(30, np.float32)
        with pytest.raises(ValueError, match=r"^out\[0\] and out\[1\] share memory"):
            geoact.swiglu.backward(dy, gate, up, out=(room[:24], room[6:]))


def test_outputs_that_cannot_be_written_are_refused():
    frozen = np.zeros_like(X)
    frozen.flags.writeable = False
    rejected(ValueError, "^out is read-only", geoact.swiglu, X, Y, out=frozen, stats=used())
    narrow = np.zeros((4, 6), np.float16)
    rejected(TypeError, "^out is float16, but gate is float32", geoact.swiglu, X, Y, out=narrow, stats=used())
    backward, stats = geoact.swiglu.backward, used(geoact.GradientStats)
    for pair, error, match in (
        (np.zeros_like(X), TypeError, r"^out must be a pair \(dgate, dup\), got ndarray"),
        ((X,), TypeError, r"^out must be a pair"),
        ((None, frozen), ValueError, r"^out\[1\] is read-only"),
        ((narrow, None), TypeError, r"^out\[0\] is float16, but dy is float32"),
        ((None, np.zeros((4, 5), np.float32)), ValueError, r"^out\[1\] has shape \(4, 5\), but dy has"),
    ):
        rejected(error, match, backward, X, X, Y, out=pair, stats=stats)
    rejected(ValueError, r"^gate has shape \(4, 5\), but dy has", backward, X, X[:, 1:], Y, stats=stats)
    rejected(TypeError, "^up is float64, but dy is float32", backward, X, X, Y.astype(np.float64), stats=stats)


# --- the registry ---------------------------------------------------------------------------------


def test_rows_are_those_of_the_core_and_of_the_package():
    assert [name for name, *_ in _core.gates()] == list(GATES)
    for (name, parameters, *_), row in zip(_core.gates(), GATES.values(), strict=True):
        assert getattr(geoact, name) is row
        assert len(row.parameters) == parameters
        assert name in geoact.__all__
    assert not set(GATES) & set(geoact.activations())


GUIDE = Path(__file__).parents[1] / "docs" / "activations.md"


@pytest.mark.skipif(not GUIDE.exists(), reason="needs the source tree")
def test_the_example_of_the_documentation_runs():
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S)
    scope = {}
    exec(compile(block, str(GUIDE), "exec"), scope)
    assert scope["stats"].groups == scope["gradient"].groups == 64


@each_gate
def test_a_row_is_unique_and_says_what_it_takes(row):
    assert pickle.loads(pickle.dumps(row)) is row
    assert copy.deepcopy(row) is row
    assert _gates.get(row.name) is row
    names = list(inspect.signature(row).parameters)
    assert names[:2] == ["gate", "up"]
    assert names[-3:] == ["out", "stats", "gradient_stats"]
    for name in names:
        assert name in row.__doc__
    with pytest.raises(ValueError, match="^name is 'glu', which is no gate"):
        _gates.get("glu")
