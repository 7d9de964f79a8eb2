"""ReLU with its bit mask, against NumPy's packbits and the ordinary relu; and what the bits tell."""

import sys
import threading
import time

import geoact
import numpy as np
import pytest
from geoact import _core, masks
from support import inputs
from support.cases import SIMULATED, assert_same_bits
from support.cupy_memory import bytes_of, host, put
from support.errors import X, rejected, used


def packed(y):
    """The mask as the definition says it."""
    bits = ~(y.astype(np.float64) <= 0)
    return np.packbits(bits if y.ndim else bits[None], axis=-1, bitorder="little")


def special(shape, dtype, seed=0):
    """Normal data with every kind of value in it."""
    x = np.asarray(inputs.normal(shape, np.float32, mean=0.0, seed=seed)).astype(dtype)
    flat, smallest = x.reshape(-1), inputs.smallest(np.dtype(dtype))
    odd = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, smallest, -smallest]
    places = np.random.default_rng(seed).permutation(flat.size)[: len(odd)]
    flat[places] = np.array(odd, dtype=np.float64)[: len(places)].astype(dtype)
    return x


def check(x, out=None):
    """Both directions on x, as it lies in memory."""
    with np.errstate(invalid="ignore"):  # of signalling NaN
        check_quietly(x, out)


def check_quietly(x, out):
    expected = geoact.relu(x)
    given = x.copy()
    y, mask = masks.relu(x, out=out)
    assert out is None or y is out
    assert_same_bits(y, expected)
    assert (mask.dtype, mask.shape) == (np.uint8, masks.mask_shape(x.shape))
    assert mask.flags.c_contiguous
    np.testing.assert_array_equal(mask, packed(expected))
    dy = special(x.shape, x.dtype, seed=9)
    dx = masks.relu_backward(dy, mask)
    assert_same_bits(dx, geoact.relu.backward(dy, y=expected))
    # The same where dy lies as x does.
    laid = np.empty_like(given, order="K") if x.strides == given.strides else np.copy(x, order="K")
    laid[...] = dy
    assert_same_bits(masks.relu_backward(laid, mask), dx)
    assert masks.relu_backward(laid, mask, out=laid) is laid
    assert_same_bits(laid, dx)


@pytest.mark.parametrize("columns", range(131))
def test_every_tail(isa, dtype, columns):
    check(special((3, columns), dtype, seed=columns))
    check(special((columns,), dtype, seed=columns))


@pytest.mark.parametrize("dtype", [np.dtype("float16"), "bfloat16"], ids=str)
def test_every_pattern_of_the_narrow_formats(isa, dtype):
    import ml_dtypes

    check(inputs.every_pattern(np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)).reshape(256, 256))


LAYOUTS = {
    "contiguous": lambda f: f((5, 9, 33)),
    "transposed": lambda f: f((70, 300)).T,
    "channels last": lambda f: f((2, 7, 9, 37)).transpose(0, 3, 1, 2),
    "permuted": lambda f: f((4, 5, 6, 7)).transpose(2, 0, 3, 1),
    "every second": lambda f: f((6, 150))[:, ::2],
    "backwards": lambda f: f((6, 150))[::-1, ::-1],
    "rows apart": lambda f: f((20, 100))[:, 3:83],
    "bytes and rows apart": lambda f: f((20, 8, 12))[:, :, 2:10],
    "one column": lambda f: f((40, 9))[:, :1],
    "column vector": lambda f: f((300, 1)),
    "row vector": lambda f: f((1, 300)),
    "three columns": lambda f: f((300, 3)),
    "axes of one": lambda f: f((1, 5, 1, 20, 1)),
    "no axes": lambda f: f((1,))[0:1].reshape(()),
    "many axes": lambda f: f((2,) * 11),
    "broadcast": lambda f: np.broadcast_to(f((1, 40)), (6, 40)),
    "broadcast columns": lambda f: np.broadcast_to(f((6, 1)), (6, 40)),
    "no rows": lambda f: f((0, 7)),
    "no columns": lambda f: f((7, 0)),
    "nothing": lambda f: f((0,)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(isa, dtype, layout):
    check(LAYOUTS[layout](lambda shape: special(shape, dtype)))


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "channels last", "every second", "backwards"])
def test_in_place_and_into_another_layout(isa, dtype, layout):
    x = LAYOUTS[layout](lambda shape: special(shape, dtype))
    expected = geoact.relu(x)
    for out in (np.empty(x.shape, dtype), np.empty(x.shape[::-1], dtype).T, np.empty((*x.shape, 2), dtype)[..., 1]):
        check(x, out=out)
    y, mask = masks.relu(x, out=x)
    assert y is x
    assert_same_bits(x, expected)
    np.testing.assert_array_equal(mask, packed(expected))


def test_odd_addresses(isa, dtype):
    x = special((7, 77), dtype)
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    odd = buffer[1:].view(dtype).reshape(x.shape)
    odd[...] = x
    check(odd)
    columns = buffer[1:].view(dtype).reshape(x.shape[::-1]).T
    columns[...] = x
    check(columns, out=odd[...].copy())


LARGE = [(3001,), (3, 2003)] if SIMULATED else [(300001,), (3, 200003), (401, 1003), (2, 3, 90, 1111), (120000, 5)]


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_and_any_number_of_threads(dtype, shape, order):
    x = np.asarray(special(shape, dtype), order=order)
    expected, found = geoact.relu(x), []
    for threads in (1, 2, 5):
        geoact.set_num_threads(threads)
        y, mask = masks.relu(x)
        assert_same_bits(y, expected)
        found.append(mask.tobytes() + masks.relu_backward(x, mask).tobytes())
    np.testing.assert_array_equal(mask, packed(expected))
    assert len(set(found)) == 1


@pytest.mark.skipif(SIMULATED, reason="of the CPU")
def test_output_that_goes_past_the_cache(isa):
    """Larger than what is streamed on any machine, at an odd place, with a tail."""
    size = max(2 * _core.last_level_cache_bytes() if _core.last_level_cache_bytes() <= 64 << 20 else 0, 32 << 20) // 8
    x = inputs.normal(size + 77, np.float32)[3:]
    y, mask = masks.relu(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(mask, np.packbits(x > 0, bitorder="little"))
    np.testing.assert_array_equal(masks.relu_backward(x, mask), y)
    rows = x[: size // 1001 * 1001].reshape(-1, 1001)
    y, mask = masks.relu(rows)
    np.testing.assert_array_equal(y, np.maximum(rows, 0))
    np.testing.assert_array_equal(mask, np.packbits(rows > 0, axis=-1, bitorder="little"))


# --- statistics -----------------------------------------------------------------------------------

SHAPES = [(4, 6, 33), (1, 2, 7), *([] if SIMULATED else [(30, 70, 211), (3, 5, 40000)])]
MEASURED = {
    "tensor": {},
    "channel": {"per": "channel"},
    "first": {"per": "channel", "channel_axis": 0},
    "middle": {"per": "channel", "channel_axis": 1},
    "row": {"per": "row"},
    "row of the middle": {"per": "row", "channel_axis": 1},
    "counts": {"level": "counts"},
}


def assert_same_record(ours, theirs):
    a, b = ours.cells(), theirs.cells()
    assert (ours.calls, ours.groups) == (theirs.calls, theirs.groups)
    merges = dict(_core.fields("forward"))
    for name, value in a.items():
        if merges[name] in ("minimum", "maximum") or np.array_equal(b[name], np.round(b[name])):
            np.testing.assert_array_equal(value, b[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, b[name], rtol=2e-6, atol=1e-6 * np.abs(b[name]).max(), err_msg=name)


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_statistics_are_those_of_relu(dtype, kind, shape, order):
    x = np.asarray(inputs.normal(shape, dtype), order=order)
    records = []
    for threads in (1, 3):
        geoact.set_num_threads(threads)
        ours, theirs = geoact.GeometryStats(**MEASURED[kind]), geoact.GeometryStats(**MEASURED[kind])
        for z in (x, x * dtype.type(2)):
            y, mask = masks.relu(z, stats=ours)
            assert_same_bits(y, geoact.relu(z, stats=theirs))
            np.testing.assert_array_equal(mask, packed(y))
        assert_same_record(ours, theirs)
        records.append(np.concatenate([*ours.cells().values()]).tobytes())
    assert records[0] == records[1]
    in_place, again = x.copy(order="K"), geoact.GeometryStats(**MEASURED[kind])
    masks.relu(in_place, out=in_place, stats=again)
    once = geoact.GeometryStats(**MEASURED[kind])
    geoact.relu(x, stats=once)
    assert_same_record(again, once)
    assert_same_bits(in_place, geoact.relu(x))


def test_hard_data_are_measured_as_by_relu():
    for x in (special((200, 999), np.float32), 1000 + inputs.normal((200, 999), np.float32), np.zeros((0, 3), "f4")):
        ours, theirs = geoact.GeometryStats(), geoact.GeometryStats()
        masks.relu(x, stats=ours)
        geoact.relu(x, stats=theirs)
        for name, value in ours.cells().items():
            np.testing.assert_allclose(value, theirs.cells()[name], rtol=1e-5, err_msg=name)
    off = geoact.GeometryStats()
    off.enabled = False
    y, mask = masks.relu(X, stats=off)
    np.testing.assert_array_equal(mask, packed(y))
    assert off.calls == 0


# --- errors ---------------------------------------------------------------------------------------


def test_arguments_that_are_refused():
    mask = masks.relu(X)[1]
    for bad in ([1.0], None, X.astype(int), np.ma.masked_less(X, 0), X.astype(X.dtype.newbyteorder())):
        rejected(TypeError, "^x ", masks.relu, bad, stats=used())
        with pytest.raises(TypeError, match="^dy "):
            masks.relu_backward(bad, mask)
    for bad in (mask[:, :0], mask[:3], mask[None], mask.reshape(-1), np.zeros((4, 6), np.uint8)):
        out = np.ones_like(X)
        with pytest.raises(ValueError, match=r"^mask has shape .*dy of shape \(4, 6\) needs .* \(4, 1\)"):
            masks.relu_backward(X, bad, out=out)
        assert (out == 1).all()
    for bad in (mask.astype(bool), mask.astype(np.int8), X[:, :1]):
        with pytest.raises(TypeError, match="^mask has dtype .*accepted: uint8"):
            masks.relu_backward(X, bad)
    with pytest.raises(TypeError, match="^mask must be a NumPy array of uint8, got list"):
        masks.relu_backward(X, [[1]] * 4)
    rejected(
        TypeError,
        "^stats must be a geoact.GeometryStats, got GradientStats",
        masks.relu,
        X,
        stats=geoact.GradientStats(),
    )
    rejected(ValueError, "^stats was made with per='channel'", masks.relu, X, stats=geoact.GeometryStats("channel", 5))
    with pytest.raises(ValueError, match="^stats holds statistics of float32"):
        masks.relu(X.astype(float), stats=used())


def test_out_is_refused_as_by_relu():
    mask = masks.relu(X)[1]
    read_only = np.ones_like(X)
    read_only.flags.writeable = False
    buffer = inputs.normal(100, np.float32)
    cases = [
        (ValueError, "^out has shape", np.ones((6, 4), np.float32)),
        (TypeError, "^out is float64", np.ones(X.shape)),
        (TypeError, "^out must be an array", [1.0]),
        (ValueError, "^out is read-only", read_only),
        (ValueError, "^out overlaps itself", np.lib.stride_tricks.as_strided(buffer, X.shape, (8, 4))),
    ]
    for error, words, out in cases:
        rejected(error, words, masks.relu, X, out=out, stats=used())
        with pytest.raises(error, match=words):
            masks.relu_backward(X, mask, out=out)
    rejected(ValueError, "^out overlaps x", masks.relu, buffer[:50], out=buffer[1:51], stats=used())
    some = masks.relu(buffer[:50])[1]
    with pytest.raises(ValueError, match="^out overlaps dy"):
        masks.relu_backward(buffer[:50], some, out=buffer[1:51])
    shared = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="^out overlaps mask"):
        masks.relu_backward(np.ones(8, np.float32), shared.view(np.uint8)[5:6], out=shared)


def test_the_core_refuses_a_mask_of_another_size():
    mask = np.empty(3, np.uint8)
    with pytest.raises(ValueError, match="^mask has 3 bytes, but x needs 4"):
        _core.relu_mask(X, mask.__array_interface__["data"][0], 3, None, None)


def test_masks_with_strides_are_read():
    x = special((6, 77), np.float32)
    mask = masks.relu(x)[1]
    apart = np.zeros((6, 2 * mask.shape[1]), np.uint8)[:, ::2]
    apart[...] = mask
    assert_same_bits(masks.relu_backward(x, apart), masks.relu_backward(x, mask))
    mask.flags.writeable = False
    masks.relu_backward(x, mask)


@pytest.mark.skipif(SIMULATED, reason="of the CPU")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_other_threads_run_meanwhile(direction):
    """Threads change only where one lets go of the lock: others do so while a large array is computed on."""
    x, before = inputs.normal((1 << 22,), np.float32), sys.getswitchinterval()
    mask, interval, seen = masks.relu(x)[1], [], []

    def work():
        begin = time.perf_counter()
        masks.relu(x) if direction == "forward" else masks.relu_backward(x, mask)
        interval[:] = begin, time.perf_counter()

    geoact.set_num_threads(1)
    sys.setswitchinterval(60)
    try:
        for _ in range(50):  # the machine may be busy
            worker = threading.Thread(target=work)
            worker.start()
            while worker.is_alive():
                seen.append(time.perf_counter())
                time.sleep(0)
            if any(interval[0] < t < interval[1] for t in seen):
                return
    finally:
        sys.setswitchinterval(before)
    pytest.fail("no other thread ran during 50 calls")


# --- what the bits tell ---------------------------------------------------------------------------


@pytest.fixture(params=["bitwise_count", "table"])
def popcount(request, monkeypatch):
    if request.param == "table":
        monkeypatch.setattr(masks, "_popcount", masks._ONES.__getitem__)
    elif not hasattr(np, "bitwise_count"):
        pytest.skip("this NumPy has no bitwise_count")


@pytest.mark.parametrize("shape", [(5, 7, 19), (4, 16), (3,), (2, 0), (0, 9)], ids=str)
def test_firing_counts(popcount, shape):
    x = special(shape, np.float32)
    fires, mask = ~(x <= 0), masks.relu(x)[1]
    assert masks.firing_count(mask) == fires.sum()
    assert type(masks.firing_count(mask)) is int
    np.testing.assert_array_equal(masks.firing_count(mask, axis=-1), fires.sum(-1))
    np.testing.assert_array_equal(masks.firing_count(mask, axis=tuple(range(len(shape)))), fires.sum())
    if len(shape) > 1:
        per_unit = masks.firing_count(mask, axis=tuple(range(len(shape) - 1)))
        assert per_unit.shape == (8 * mask.shape[-1],)
        np.testing.assert_array_equal(per_unit[: shape[-1]], fires.sum(tuple(range(len(shape) - 1))))
        assert not per_unit[shape[-1] :].any()
        np.testing.assert_array_equal(masks.firing_count(mask, axis=0)[..., : shape[-1]], fires.sum(0))
    stats = geoact.GeometryStats()
    finite = np.nan_to_num(x)
    _, of_finite = masks.relu(finite, stats=stats)
    assert masks.firing_count(of_finite) == stats.cells()["positive"].sum()


def test_hamming_distances(popcount):
    x = special((6, 45), np.float32)
    fires, mask = ~(x <= 0), masks.relu(x)[1]
    expected = (fires[:, None] != fires[None]).sum(-1)
    np.testing.assert_array_equal(masks.pairwise_hamming(mask), expected)
    np.testing.assert_array_equal(masks.pairwise_hamming(mask, mask[:2]), expected[:, :2])
    np.testing.assert_array_equal(masks.hamming(mask, mask[0]), expected[0])
    np.testing.assert_array_equal(masks.hamming(mask[:, None], mask[None]), expected)
    assert masks.hamming(mask[0], mask[1]) == expected[0, 1]
    assert masks.pairwise_hamming(mask[:0], mask).shape == (0, 6)


def test_what_is_no_mask_has_no_bits():
    mask = masks.relu(X)[1]
    for function in (masks.firing_count, lambda m: masks.hamming(m, mask), masks.pairwise_hamming):
        for bad in (X, mask.astype(int), [1, 2]):
            with pytest.raises(TypeError, match="^(mask|a) (has dtype|must be a NumPy array)"):
                function(bad)
        with pytest.raises(ValueError, match="has no axes"):
            function(np.array(3, np.uint8))
    for axis, error in ((2, ValueError), (-3, ValueError), ((0, -2), ValueError), ("0", TypeError), (True, TypeError)):
        with pytest.raises(error, match="^axis "):
            masks.firing_count(mask, axis=axis)
    wide = np.zeros((4, 2), np.uint8)
    for function in (masks.hamming, masks.pairwise_hamming):
        with pytest.raises(ValueError, match="^a has rows of 1 bytes, but b has rows of 2"):
            function(mask, wide)
    with pytest.raises(ValueError, match="^a has rows of 1 bytes"):
        masks.pairwise_hamming(mask[:0], wide)
    with pytest.raises(ValueError, match=r"^a has shape \(4, 1\), but b has shape \(3, 1\)"):
        masks.hamming(mask, mask[:3])
    with pytest.raises(ValueError, match="^b has shape .*accepted: a matrix"):
        masks.pairwise_hamming(mask, mask[0])


# --- CuPy, on the simulated device ----------------------------------------------------------------


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "channels last", "every second", "no axes", "no rows"])
def test_cupy_arrays(cupy, dtype, layout):
    x = LAYOUTS[layout](lambda shape: special(shape, dtype))
    expected, dy = geoact.relu(x), special(x.shape, dtype, seed=4)
    there = put(x)
    y, mask = masks.relu(there)
    assert type(y) is type(mask) is cupy.ndarray
    assert_same_bits(host(y), expected)
    np.testing.assert_array_equal(host(mask), packed(expected))
    assert_same_bits(host(masks.relu_backward(put(dy), mask)), geoact.relu.backward(dy, y=expected))
    if layout != "no axes" and x.size:
        stats, ours = geoact.GeometryStats("channel"), geoact.GeometryStats("channel")
        y, mask = masks.relu(there, stats=ours, out=there)
        geoact.relu(x, stats=stats)
        assert y is there
        assert_same_bits(host(there), expected)
        np.testing.assert_array_equal(host(mask), packed(expected))
        np.testing.assert_array_equal(ours.cells()["positive"], stats.cells()["positive"])


def test_cupy_arguments_that_are_refused(cupy):
    x = put(X)
    before = bytes_of(x)
    mask = masks.relu(x)[1]
    for error, words, bad in (
        (TypeError, "^mask is a NumPy array, but dy is a CuPy array", host(mask)),
        (TypeError, "^mask has dtype float32", x),
        (ValueError, r"^mask has shape \(3, 1\)", put(host(mask)[:3])),
        (ValueError, "^mask is not in C order", put(np.zeros((4, 2), np.uint8)[:, ::2])),
        (ValueError, "^mask is on the device cuda:1", put(host(mask), 1)),
    ):
        if "cuda:1" in words and cupy.__name__ == "cupy" and hasattr(cupy, "__file__"):
            continue  # the real package sees one device
        with pytest.raises(error, match=words):
            masks.relu_backward(x, bad, out=x)
    with pytest.raises(TypeError, match="^out is a NumPy array"):
        masks.relu(x, out=X)
    with pytest.raises(TypeError, match="^stats must be"):
        masks.relu(x, stats=1)
    assert bytes_of(x) == before
