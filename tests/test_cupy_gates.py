"""Gated activations of CuPy arrays on the simulated device: the numbers of NumPy in one launch, and errors."""

import geoact
import numpy as np
import pytest
from support import inputs
from support.cases import DTYPES, assert_same_bits
from support.cupy_memory import host, put

FLOAT32 = DTYPES["float32"]
GATES = geoact.gates()
each_gate = pytest.mark.parametrize("row", GATES.values(), ids=GATES)


def triple(shape, dtype):
    return tuple(inputs.normal(shape, dtype, sd=4, seed=seed) for seed in (1, 2, 3))


def halves(both):
    """Two arrays on the device that step as the halves of one do."""
    return tuple(put(half) for half in np.split(both, 2, axis=1))


def launches():
    from geoact import _cusim

    return _cusim.launches()


@each_gate
def test_values_gradients_and_statistics_are_those_of_numpy(cupy, row, dtype):
    dy, gate, up = triple((27, 45), dtype)
    gate[0, :6] = [0, -0.0, np.inf, -np.inf, np.nan, 1e-4]
    up[1, :3] = [np.inf, np.nan, -1]
    y, gradients = row(gate, up), row.backward(dy, gate, up)
    for per in (None, "tensor", "channel", "row"):
        pairs = [(None, None) if per is None else (geoact.GeometryStats(per=per), geoact.GradientStats(per=per))] * 2
        if per:
            pairs[1] = geoact.GeometryStats(per=per), geoact.GradientStats(per=per)
        before = launches()
        ours = row(put(gate), put(up), stats=pairs[0][0])
        assert type(ours) is cupy.ndarray
        assert_same_bits(host(ours), y)
        for a, b in zip(row.backward(*map(put, (dy, gate, up)), stats=pairs[0][1]), gradients, strict=True):
            assert_same_bits(host(a), b)
        assert launches() == before + 2
        if per is None:
            continue
        row(gate, up, stats=pairs[1][0])
        row.backward(dy, gate, up, stats=pairs[1][1])
        for a, b in zip(*pairs, strict=True):
            theirs = b.cells()
            for name, value in a.cells().items():
                with np.errstate(invalid="ignore"):
                    scale = np.abs(theirs[name]) + (np.sqrt(theirs["m2_x"] * theirs["m2_y"]) if name == "c_xy" else 0)
                    good = (value == theirs[name]) | (np.abs(value - theirs[name]) <= 1e-6 * scale + 1e-30)
                    if name.startswith("mean"):
                        good |= np.abs(value - theirs[name]) <= 1e-6 * np.sqrt(theirs["m2" + name[4:]])
                assert (good | (np.isnan(value) & np.isnan(theirs[name]))).all(), name


@each_gate
def test_halves_views_and_places(cupy, row, dtype):
    both, dy = inputs.normal((33, 140), dtype, sd=4), inputs.normal((33, 70), dtype, seed=5)
    gate, up = both[:, :70], both[:, 70:]
    y, gradients = row(gate, up), row.backward(dy, gate, up)
    assert_same_bits(host(row(put(gate), put(up))), y)
    for stats in (None, geoact.GeometryStats(per="channel")):
        first, out = halves(both)
        assert row(first, out, out=out, stats=stats) is out
        assert_same_bits(host(out).copy(), y)
    for stats in (None, geoact.GradientStats(), geoact.GradientStats(per="channel")):
        places = halves(both)
        ours = row.backward(put(dy), *places, out=places[::-1], stats=stats)  # each over the other
        for a, place, b in zip(ours, places[::-1], gradients, strict=True):
            assert a is place
            assert_same_bits(host(a).copy(), b)


def test_errors(cupy):
    dy, gate, up = triple((3, 4), FLOAT32)
    ours = put(gate)
    for error, match, call in (
        (TypeError, "^up is a NumPy array, but gate is a CuPy array", lambda: geoact.swiglu(ours, up)),
        (TypeError, "^up is a CuPy array, but gate is a NumPy array", lambda: geoact.swiglu(gate, put(up))),
        (TypeError, "^out is a NumPy array", lambda: geoact.swiglu(ours, put(up), out=up)),
        (ValueError, "^up has shape", lambda: geoact.swiglu(ours, put(up[:, 1:]))),
        (TypeError, "^gradient_stats needs", lambda: geoact.swiglu(ours, ours, gradient_stats=geoact.GradientStats())),
        (TypeError, "^stats must be a geoact.Gradient", lambda: geoact.swiglu.backward(ours, ours, ours, stats=1)),
        (
            ValueError,
            r"^out\[0\] and out\[1\] share",
            lambda: geoact.swiglu.backward(ours, ours, ours, out=(ours, ours)),
        ),
    ):
        with pytest.raises(error, match=match):
            call()
    with pytest.raises(TypeError, match=r"^out\[1\] is a NumPy array, but dy is a CuPy array"):
        geoact.swiglu.backward(put(dy), ours, put(up), out=(ours, up))
