"""The opt-in tiers of CUDA kernels, simulated on the host, against those of the CPU."""

import geoact
import numpy as np
import pytest
from geoact import _core
from support.cases import SIMULATED
from support.tiers import assert_alike, drawn

cusim = pytest.importorskip("geoact._cusim", reason="the simulated CUDA kernels (geoact._cusim) were not built")


@pytest.fixture
def on_device():
    """Runs what it is given on the simulation."""

    def run(function, *arguments):
        _core.register_backend(cusim._backend, [1])
        try:
            return function(*arguments)
        finally:
            _core.register_backend(cusim._backend if SIMULATED else None, [1])

    return run


@pytest.fixture(autouse=True)
def host_first():
    _core.register_backend(None, [1])
    yield
    _core.register_backend(cusim._backend if SIMULATED else None, [1])


def stats_of(axis=-1, per="tensor", histogram="all", pairs=True, sketch=32):
    return geoact.GeometryStats(per=per, channel_axis=axis, histogram=histogram, pairs=pairs, sketch=sketch)


def check(on_device, x, axis=-1, in_place=False, calls=1, **asked):
    host, device = stats_of(axis, **asked), stats_of(axis, **asked)
    for _ in range(calls):
        geoact.relu(x, stats=host)
        given = x.copy(order="K") if in_place else x
        on_device(lambda given=given: geoact.relu(given, stats=device, out=given if in_place else None))
    assert_alike(device, host)
    return device


@pytest.mark.parametrize(
    ("shape", "axis"), [((8, 40), -1), ((3, 5, 33), 1), ((1, 70), -1), ((9, 3), -1), ((2, 3, 2, 65), -1), ((34, 5), 0)]
)
@pytest.mark.parametrize("asked", [{}, {"sketch": 0}, {"histogram": True, "sketch": 64, "pairs": False}])
def test_shapes(on_device, shape, axis, asked):
    check(on_device, drawn(shape), axis, **asked)


def test_dtypes(on_device, dtype):
    check(on_device, drawn((7, 37), dtype=dtype))


def test_strides(on_device):
    wide = drawn((10, 90))
    check(on_device, wide[::-1, ::2])
    check(on_device, wide.T)


def test_in_place_reads_x_as_it_was(on_device):
    check(on_device, drawn((9, 35)), in_place=True)
    check(on_device, drawn((35, 9)).T, in_place=True)


def test_rows_that_are_not_finite_are_left_out(on_device):
    x = drawn((10, 35))
    x[2, 3], x[5, 0], x[8, 34] = np.nan, np.inf, -np.inf
    x[6] = x[7] = 0
    check(on_device, x)


def test_distances_that_float32_cannot_hold(on_device):
    check(on_device, drawn((6, 35)) * np.float32(1e-25), sketch=0)
    check(on_device, drawn((6, 35)) * np.float32(1e25), sketch=0)


def test_calls_add_up(on_device):
    check(on_device, drawn((7, 35)), calls=2)


def test_rows_append_while_the_tiers_are_one_record(on_device):
    host, device = stats_of(per="row"), stats_of(per="row")
    for seed in range(2):
        x = drawn((6, 35), seed)
        geoact.relu(x, stats=host)
        on_device(lambda x=x: geoact.relu(x, stats=device))
    assert_alike(device, host)
    x = drawn((4, 35), 5)
    for stats in (host, device):  # now on the host, which gathers what the device holds
        geoact.relu(x, stats=stats)
    assert_alike(device, host)


def test_disabled_adds_nothing(on_device):
    device, x = stats_of(), drawn((4, 35))
    on_device(lambda: geoact.relu(x, stats=device))
    before = device._accumulator.tier_cells()
    device.enabled = False
    on_device(lambda: geoact.relu(x, stats=device))
    np.testing.assert_array_equal(device._accumulator.tier_cells(), before)
