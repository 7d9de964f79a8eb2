"""The opt-in tiers: histograms, pairs of rows, sketches, against NumPy in float64 and against what theory expects."""

import pickle

import geoact
import numpy as np
import pytest
from geoact import _core, _tiers
from support.cases import DTYPES
from support.tiers import assert_alike, drawn

SHAPES = [
    ((300, 70), -1),
    ((5, 7, 3, 40), 1),
    ((3, 5, 9, 129), -1),
    ((4000, 3), -1),
    ((3, 70000), 1),
    ((101, 57), 0),
    ((2, 1, 64), -1),
    ((1, 33), -1),
    ((7, 5, 3), 0),
    ((40, 65, 3, 17), 2),
]


def rows_of(array, axis):
    """Rows in C order of the other axes, float64."""
    return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]).astype(np.float64)


def everything(axis=-1, per="tensor", **asked):
    asked = asked or {"histogram": "all", "pairs": True, "sketch": 64}
    return geoact.GeometryStats(per=per, channel_axis=axis, **asked)


def squared_distances(rows):
    even = len(rows) // 2 * 2
    return ((rows[0:even:2] - rows[1:even:2]) ** 2).sum(axis=1)


# --- the record against NumPy --------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_pairs_are_the_distances_of_rows_2i_and_2i_plus_1(shape, axis):
    x = drawn(shape)
    stats = everything(axis)
    y = geoact.sigmoid(x, stats=stats)
    before, after = squared_distances(rows_of(x, axis)), squared_distances(rows_of(y, axis))
    pairs = stats.pairs
    assert pairs.count == len(before)
    if not len(before):
        assert np.isnan(pairs.least_ratio)
        return
    assert pairs.mean_sq_x == pytest.approx(before.mean(), rel=1e-6)
    assert pairs.mean_sq_y == pytest.approx(after.mean(), rel=1e-6)
    ratios = np.sqrt(after / before)
    assert pairs.least_ratio == pytest.approx(ratios.min(), rel=1e-6)
    assert pairs.greatest_ratio == pytest.approx(ratios.max(), rel=1e-6)
    assert pairs.ratios.sum() == len(before)
    assert pairs.greatest_ratio <= 0.25  # the Lipschitz constant of sigmoid


def counted(values):
    """The buckets from their definition: edges of a quarter octave, by searching."""
    edges = _tiers._EDGES
    counts = np.zeros(len(_tiers.Histogram.low))
    at = np.searchsorted(edges, np.abs(values), side="right") - 1
    at = np.minimum(at, len(edges) - 2)
    np.add.at(counts, np.where(np.signbit(values), len(counts) // 2 - 1 - at, len(counts) // 2 + at), 1)
    return counts


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, ((40,), -1), ((), -1)])
def test_a_histogram_counts_every_value(shape, axis, dtype):
    x = np.asarray(drawn(shape, dtype=dtype))
    if x.size > 20:
        x.flat[:9] = [0.0, -0.0, np.inf, -np.inf, 1e-7, -1e-7, 6e4, -6e4, 2.0]
    stats = everything(axis, histogram="all")
    y = geoact.silu(x, stats=stats)
    for array, histogram in ((x, stats.histogram_x), (y, stats.histogram_y)):
        array = array.astype(np.float64)
        finite = array[~np.isnan(array)]
        np.testing.assert_array_equal(histogram.counts, counted(finite))
        assert histogram.nan == np.isnan(array).sum()


@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, ((4000,), -1)])
def test_a_sampled_histogram_counts_the_runs_it_says(shape, axis):
    x = drawn(shape)
    stats = everything(axis, histogram=True)
    geoact.relu(x, stats=stats)
    rows = rows_of(x, axis)
    r, c = np.indices(rows.shape)
    chosen = (c // 16 + r) % _tiers.SAMPLED_EVERY == 0
    np.testing.assert_array_equal(stats.histogram_x.counts, counted(rows[chosen]))


def covariances(x, y):
    joint = np.cov(np.hstack([x, y]).T, bias=True)
    c = x.shape[1]
    return joint[:c, :c], joint[c:, c:], joint[:c, c:]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [3, 17, 32])
def test_a_sketch_without_collisions_is_exact(columns, dtype):
    """Up to k channels every channel has a bucket of its own: products and traces are those of the covariances."""
    x = drawn((500, columns), dtype=dtype) + 100  # a mean that naive sums would drown in
    stats = everything(sketch=32)
    y = geoact.leaky_relu(x - 100, negative_slope=0.2, stats=stats)
    xx, yy, xy = covariances(rows_of(x - 100, -1), rows_of(y, -1))
    sketch = stats.sketch
    tolerance = 1e-5 if dtype == np.float32 else 1e-11
    for of, c in (("x", xx), ("y", yy)):
        assert sketch.participation_ratio(of) == pytest.approx(np.trace(c) ** 2 / (c**2).sum(), rel=tolerance)
    expected = (xy**2).sum() / np.sqrt((xx**2).sum() * (yy**2).sum())
    assert sketch.linear_cka == pytest.approx(expected, rel=tolerance)


def test_a_sketch_of_data_far_from_zero_loses_nothing():
    base = np.random.default_rng(3).standard_normal((2000, 32))
    near, far = everything(sketch=32), everything(sketch=32)
    geoact.relu((base + 10).astype(np.float64), stats=near)
    geoact.relu((base + 1e6).astype(np.float64), stats=far)
    assert far.sketch.participation_ratio() == pytest.approx(near.sketch.participation_ratio(), rel=1e-8)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(("shape", "axis"), [((71, 300), -1), ((5, 60, 3, 7), 1)])
def test_every_instruction_set_measures_the_same(shape, axis, dtype):
    """Counts exactly, sums to 1e-6: y is exact in every instruction set where the activation is."""
    x, found, active = drawn(shape, dtype=dtype), [], geoact.isa()
    try:
        for isa in _core.supported_isas():
            geoact.set_isa(isa)
            found.append(everything(axis))
            geoact.leaky_relu(x, negative_slope=0.25, stats=found[-1])
    finally:
        geoact.set_isa(active)
    for other in found[1:]:
        assert_alike(other, found[0])


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@pytest.mark.parametrize("histogram", [True, "all"])
@pytest.mark.parametrize("shape", [(200_001,), (3, 150_000), (2, 3, 70_001)])
def test_rows_longer_than_a_block_are_cut_for_histograms(shape, histogram, per):
    x = drawn(shape)
    stats, plain = everything(-1, per, histogram=histogram), geoact.GeometryStats(per=per)
    y, same = geoact.relu(x, stats=stats), geoact.relu(x, stats=plain)
    np.testing.assert_array_equal(y, same)
    rows = rows_of(x, -1)
    r, c = np.indices(rows.shape)
    chosen = (c // 16 + r) % _tiers.SAMPLED_EVERY == 0 if histogram is True else np.ones(rows.shape, bool)
    np.testing.assert_array_equal(stats.histogram_x.counts, counted(rows[chosen]))
    for name in ("n", "positive", "mean_x", "m2_y"):
        np.testing.assert_allclose(stats.cells()[name], plain.cells()[name], rtol=1e-5, atol=1e-5, err_msg=name)
    z = x.copy()
    again = everything(-1, per, histogram=histogram)
    geoact.relu(z, out=z, stats=again)
    np.testing.assert_array_equal(again.histogram_y.counts, stats.histogram_y.counts)


# --- what theory expects of sketches -------------------------------------------------------------------------


def structured(kind, rng, rows, columns):
    if kind == "random":
        return rng.standard_normal((rows, columns))
    if kind == "smooth":  # neighbouring channels alike
        phase = rng.uniform(0, 2 * np.pi, (rows, 1))
        waves = rng.uniform(1, 20)  # anew each time: of one kind of wave the error would be drawn once
        return np.sin(np.linspace(0, 2 * np.pi * waves, columns) + phase) * rng.uniform(0.5, 2, (rows, 1))
    if kind == "periodic":  # what a fold without turns would add up: the same every 64 channels
        return np.tile(rng.standard_normal((rows, 64)), columns // 64)
    return rng.standard_normal((rows, 1)) * np.ones(columns) + 0.3 * rng.standard_normal((rows, columns))  # "constant"


@pytest.mark.parametrize("kind", ["random", "smooth", "periodic", "constant"])
@pytest.mark.parametrize("k", [32, 64, 128])
def test_squared_distances_of_sketches_err_by_sqrt_2_over_k(kind, k):
    rng = np.random.default_rng(k)
    errors = []
    for _ in range(300):
        x = structured(kind, rng, 2, 1024)
        stats = everything(sketch=k)
        geoact.relu(x, stats=stats)
        errors.append(stats.sketch.pairs.mean_sq_x / squared_distances(x)[0] - 1)
    assert abs(np.mean(errors)) < 4 * np.sqrt(2 / k) / np.sqrt(300) + (0.6 * np.sqrt(2 / k) if kind != "random" else 0)
    # One fixed matrix of signs: of data of few directions the error is drawn once, and not anew by every pair.
    assert np.sqrt(np.mean(np.square(errors))) < 1.7 * np.sqrt(2 / k)
    if kind == "random":
        assert np.std(errors) == pytest.approx(np.sqrt(2 / k), rel=0.2)


@pytest.mark.parametrize("kind", ["random", "smooth", "constant"])
def test_a_shared_sketch_cancels_most_of_the_error_of_a_ratio(kind):
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(200):
        x = structured(kind, rng, 2, 1024)
        stats = everything(sketch=64)
        y = geoact.sigmoid(x, stats=stats)
        pairs = stats.sketch.pairs
        exact = squared_distances(y)[0] / squared_distances(x)[0]
        errors.append(np.sqrt(pairs.mean_sq_y / pairs.mean_sq_x / exact) - 1)
    assert np.sqrt(np.mean(np.square(errors))) < 0.07  # of independent sketches it would be .12


@pytest.mark.parametrize("kind", ["random", "spectrum", "few"])
def test_participation_ratio_and_cka_are_nearly_unbiased(kind):
    rng = np.random.default_rng(11)
    found = []
    for _ in range(24):
        columns = int(rng.integers(256, 513))  # of one number isotropic data would meet the same signs each time
        turn = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
        scale = {"random": np.ones(columns), "spectrum": 1 / np.sqrt(1 + np.arange(columns)), "few": np.zeros(columns)}
        scale["few"][:6] = 3
        x = rng.standard_normal((1500, columns)) * scale[kind] @ turn
        stats = everything(sketch=128)
        y = geoact.gelu(x, stats=stats)
        xx, yy, xy = covariances(x, y)
        cka = (xy**2).sum() / np.sqrt((xx**2).sum() * (yy**2).sum())
        sketch = stats.sketch
        found.append(
            [
                sketch.participation_ratio("x") / (np.trace(xx) ** 2 / (xx**2).sum()),
                sketch.participation_ratio("y") / (np.trace(yy) ** 2 / (yy**2).sum()),
                sketch.linear_cka / cka,
            ]
        )
    found = np.array(found)
    spread = found.std(axis=0)
    assert (np.abs(found.mean(axis=0) - 1) < 3 * spread / np.sqrt(len(found)) + 0.01).all()
    assert (spread[:2] < 4 * 2 / 128).all()  # about 2 / k
    assert spread[2] < 0.02  # numerator and denominator err together


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e-15, 1.0, 1e16, 1e19, 1e30])
def test_a_sketch_whose_squares_leave_the_precision_says_nothing(scale):
    """Of float64 it says the same at every scale, of float32 where squares keep their digits."""
    values = drawn((256, 64), dtype=np.float64)
    expected, wide, narrow = (everything(sketch=32) for _ in range(3))
    geoact.relu(values, stats=expected)
    geoact.relu(values * scale, stats=wide)
    geoact.relu((values * scale).astype(np.float32), stats=narrow)
    for name in ("participation_ratio_x", "participation_ratio_y", "linear_cka"):
        wanted = getattr(expected, name)
        assert getattr(wide, name) == pytest.approx(wanted, rel=1e-9)
        if 1e-16 < scale < 1e17:
            assert getattr(narrow, name) == pytest.approx(wanted, rel=1e-4)
        else:
            assert np.isnan(getattr(narrow, name))


# --- promises ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_tiers_change_neither_y_nor_the_other_statistics(shape, axis, per):
    x = drawn(shape)
    plain, asked = geoact.GeometryStats(per=per, channel_axis=axis), everything(axis, per)
    y, same = geoact.gelu(x, stats=plain), geoact.gelu(x, stats=asked)
    np.testing.assert_array_equal(y, same)
    for name, cell in plain.cells().items():
        scale = 1e-6 * np.abs(cell[np.isfinite(cell)]).max(initial=1)
        np.testing.assert_allclose(asked.cells()[name], cell, rtol=1e-6, atol=scale, err_msg=name)


@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, ((3000, 65), -1), ((1, 2, 100001, 3), -1)])
def test_the_record_does_not_depend_on_threads_or_place(shape, axis):
    x = drawn(shape)
    one, many, in_place = everything(axis), everything(axis), everything(axis)
    threads = geoact.num_threads()
    try:
        geoact.set_num_threads(1)
        y = geoact.tanh(x, stats=one)
        geoact.set_num_threads(4)
        geoact.tanh(x, stats=many)
        z = x.copy()
        geoact.tanh(z, out=z, stats=in_place)
    finally:
        geoact.set_num_threads(threads)
    np.testing.assert_array_equal(z, y)
    for other in (many, in_place):
        np.testing.assert_array_equal(one._accumulator.tier_cells(), other._accumulator.tier_cells())


@pytest.mark.parametrize("how", ["fortran", "reversed", "odd address", "every other"])
def test_strides_and_addresses_do_not_matter(how):
    x = drawn((60, 70))
    if how == "fortran":
        laid = np.asfortranarray(x)
    elif how == "reversed":
        laid = x[::-1, ::-1].copy()[::-1, ::-1]
    elif how == "odd address":
        memory = np.zeros(x.nbytes + 1, np.uint8)
        laid = np.ndarray(x.shape, np.float32, memory, 1)
        laid[...] = x
    else:
        laid = np.zeros((60, 140), np.float32)[:, ::2]
        laid[...] = x
    first, second = everything(), everything()
    geoact.elu(x, stats=first)
    geoact.elu(laid, stats=second)
    np.testing.assert_allclose(second._accumulator.tier_cells(), first._accumulator.tier_cells(), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(second.histogram_x.counts, first.histogram_x.counts)


def test_merged_parts_are_the_whole():
    x = drawn((640, 100))
    whole, first, second = everything(), everything(), everything()
    geoact.sigmoid(x, stats=whole)
    geoact.sigmoid(x[:250], stats=first)
    geoact.sigmoid(x[250:], stats=second)
    merged = first + second
    np.testing.assert_array_equal(merged.histogram_y.counts, whole.histogram_y.counts)
    assert merged.pairs.count == whole.pairs.count == 320
    assert merged.pairs.mean_sq_y == pytest.approx(whole.pairs.mean_sq_y, rel=1e-12)
    assert merged.sketch.participation_ratio() == pytest.approx(whole.sketch.participation_ratio(), rel=1e-5)
    assert merged.sketch.linear_cka == pytest.approx(whole.sketch.linear_cka, rel=1e-5)
    empty = everything()
    np.testing.assert_array_equal((whole + empty)._accumulator.tier_cells(), whole._accumulator.tier_cells())
    np.testing.assert_array_equal((empty + whole)._accumulator.tier_cells(), whole._accumulator.tier_cells())
    # and it goes on: calls accumulate
    geoact.sigmoid(x[250:], stats=first)
    np.testing.assert_allclose(first._accumulator.tier_cells(), merged._accumulator.tier_cells(), rtol=1e-12, atol=1e-9)


def test_pickles_copies_and_reset():
    stats = geoact.GeometryStats(histogram=True, pairs=True, sketch=32)
    geoact.mish(drawn((50, 40)), stats=stats)
    for twin in (pickle.loads(pickle.dumps(stats)), stats.copy()):
        np.testing.assert_array_equal(twin._accumulator.tier_cells(), stats._accumulator.tier_cells())
        assert twin._settings() == stats._settings()
        geoact.mish(drawn((50, 40)), stats=twin)
        assert twin.pairs.count == 50
    assert stats.pairs.count == 25
    stats.reset()
    assert stats.pairs.count == 0
    assert np.isnan(stats.sketch.linear_cka)
    assert np.isnan(stats.median_x)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_counted_and_left_out(bad):
    x = drawn((40, 30))
    good = np.delete(x, [4, 5, 20, 21], axis=0)
    x[4, 3] = x[21, 7] = bad
    stats, clean = everything(sketch=32, pairs=True), everything(sketch=32, pairs=True)
    geoact.sigmoid(x, stats=stats)
    geoact.sigmoid(good, stats=clean)
    assert stats.pairs.nonfinite == 2
    assert stats.pairs.mean_sq_x == pytest.approx(clean.pairs.mean_sq_x, rel=1e-12)
    assert stats.sketch.nonfinite == 2
    assert stats.sketch.rows == 38
    assert np.isfinite(stats.linear_cka)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_distances_whose_squares_leave_float32_are_measured_in_float64(scale):
    x = (drawn((20, 50)) * np.float32(scale)).astype(np.float32)
    stats = everything(pairs=True)
    geoact.leaky_relu(x, stats=stats)
    assert stats.pairs.mean_sq_x == pytest.approx(squared_distances(x.astype(np.float64)).mean(), rel=1e-6)
    assert stats.pairs.nonfinite == 0


def test_collisions_are_pairs_told_apart_before_only():
    x = np.array([[-1, -2], [-3, -1], [1, 1], [1, 1], [2, 1], [1, 2]], np.float32)
    stats = everything(pairs=True)
    geoact.relu(x, stats=stats)
    assert (stats.pairs.count, stats.pairs.identical, stats.pairs.collisions) == (3, 1, 1)
    assert stats.collision_fraction == 0.5
    assert (stats.pair_ratio_min, stats.pair_ratio_max) == (0, 1)


def test_enabled_off_adds_nothing():
    stats = everything()
    stats.enabled = False
    geoact.relu(drawn((20, 30)), stats=stats)
    assert stats.pairs.count == 0
    assert stats.histogram_x.total == 0


# --- reading -------------------------------------------------------------------------------------------------


def test_quantiles_lie_in_the_bucket_of_the_exact_one():
    x = np.random.default_rng(5).standard_t(2, (500, 200))
    stats = everything(histogram="all")
    y = geoact.silu(x, stats=stats)
    for values, histogram in ((x, stats.histogram_x), (y, stats.histogram_y)):
        for q in (0.001, 0.1, 0.25, 0.5, 0.9, 0.999):
            exact = np.quantile(values, q, method="inverted_cdf")
            low, high = histogram.bounds(q)
            assert low <= exact <= high
            # a quarter octave, linear within
            assert abs(histogram.quantile(q) - exact) <= 0.25 * abs(exact) + 1e-9
    exact = np.quantile(np.abs(x), 0.3)
    assert stats.histogram_x.margin(0.3) == pytest.approx(exact, rel=0.02)
    assert stats.margin_median == pytest.approx(np.median(np.abs(x)), rel=0.02)


def test_entropy_is_that_of_the_buckets():
    x = np.repeat(np.float32([1, 2, 4, 8]), 16).reshape(4, 16)
    stats = everything(histogram="all")
    geoact.relu(x, stats=stats)
    assert stats.entropy_x == pytest.approx(2)
    assert stats.entropy_y == pytest.approx(2)


def test_the_numbers_are_attributes_of_dict_and_print():
    stats = everything()
    geoact.relu(drawn((64, 32)), stats=stats)
    tiers = stats.to_dict()["tiers"]
    assert set(tiers) == {row.name for row in (*_tiers.HISTOGRAM, *_tiers.PAIRS, *_tiers.SKETCH)}
    for name, value in tiers.items():
        assert getattr(stats, name) == value
        assert name in dir(stats)
        assert name in str(stats)
    channels = everything(per="channel")
    geoact.relu(drawn((64, 32)), stats=channels)
    assert "linear_cka" in str(channels)
    assert "tiers" not in geoact.GeometryStats().to_dict()


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"sketch": 48}, ValueError, "sketch is 48 .accepted: 0, 32, 64, 128"),
        ({"sketch": -1}, ValueError, "sketch must be at least 0"),
        ({"sketch": True}, TypeError, "sketch must be an int, got bool"),
        ({"sketch": 64.0}, TypeError, "sketch must be an int, got float"),
        ({"histogram": "some"}, ValueError, "histogram is 'some'"),
        ({"histogram": 4}, TypeError, "histogram is 4"),
        ({"pairs": 1}, TypeError, "pairs must be a bool, got int"),
        ({"reservoir": -2}, ValueError, "reservoir must be at least 0"),
        ({"seed": "a"}, TypeError, "seed must be an int, got str"),
    ],
)
def test_wrong_settings_are_named(asked, error, text):
    with pytest.raises(error, match=text):
        geoact.GeometryStats(**asked)


@pytest.mark.parametrize("asked", [{"pairs": True}, {"sketch": 32}, {"reservoir": 4}])
@pytest.mark.parametrize("shape", [(), (8,)])
def test_rows_need_two_axes(asked, shape):
    stats = geoact.GeometryStats(**asked)
    out = np.full(shape, 7, np.float32)
    with pytest.raises(ValueError, match="two axes or more"):
        geoact.relu(np.ones(shape, np.float32), out=out, stats=stats)
    assert (out == 7).all()
    assert stats.calls == 0


def test_a_channel_axis_that_is_not_there_is_named():
    stats = geoact.GeometryStats(pairs=True, channel_axis=3)
    with pytest.raises(ValueError, match=r"channel_axis=3, but x has shape \(4, 5\)"):
        geoact.relu(np.ones((4, 5), np.float32), stats=stats)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"histogram": True}, {"histogram": "all"}, "histogram"),
        ({"pairs": True}, {}, "pairs"),
        ({"sketch": 32}, {"sketch": 64}, "sketch"),
        ({"reservoir": 4}, {}, "reservoir"),
        ({"pairs": True}, {"pairs": True, "channel_axis": 0}, "channel_axis"),
    ],
)
def test_unlike_statistics_do_not_merge(first, second, what):
    with pytest.raises(ValueError, match=f"different {what}"):
        geoact.GeometryStats(**first) + geoact.GeometryStats(**second)


def test_what_was_not_asked_for_says_how_to_ask():
    stats = geoact.GeometryStats()
    for name in ("histogram_x", "histogram_y", "pairs", "sketch", "reservoir"):
        with pytest.raises(ValueError, match="ask for"):
            getattr(stats, name)
    for name in ("median_x", "collision_fraction", "linear_cka"):
        with pytest.raises(ValueError, match=f"{name} needs"):
            getattr(stats, name)
    with pytest.raises(ValueError, match="q must lie"):
        everything().histogram_x.quantile(1.5)


@pytest.mark.parametrize("asked", [{"histogram": True}, {"pairs": True}, {"sketch": 32}, {"reservoir": 4}], ids=str)
@pytest.mark.parametrize(
    "call",
    [geoact.masks.relu, lambda x, stats: geoact.swiglu(x, x.copy(), stats=stats)],
    ids=["mask", "gate"],
)
def test_calls_that_do_not_measure_tiers_say_so(call, asked):
    stats = geoact.GeometryStats(**asked)
    with pytest.raises(ValueError, match=f"stats was made with {next(iter(asked))}=.* does not measure"):
        call(drawn((4, 8)), stats=stats)
    assert stats.calls == 0


@pytest.mark.parametrize("q", ["a", None, [0.5], np.array([0.5, 1.0]), True])
def test_what_is_no_quantile_is_named(q):
    stats = everything()
    geoact.relu(drawn((8, 8)), stats=stats)
    for ask in (stats.histogram_x.quantile, stats.histogram_x.bounds, stats.histogram_x.margin, stats.pairs.ratio):
        with pytest.raises(TypeError, match=f"q must be a number in .0, 1., got {type(q).__name__}"):
            ask(q)
