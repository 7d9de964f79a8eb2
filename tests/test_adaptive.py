"""The formulas of GAL and TAT: closed forms against quadrature, solutions against the equations they solve."""

import math
import pickle

import geoact
import numpy as np
import pytest
from geoact import adaptive
from geoact.adaptive import (
    KAPPA,
    Gal,
    PartialMoments,
    gal,
    gaussian_gal,
    linear_share,
    share_for_depth,
    tat_scale,
    tat_slope,
)
from hypothesis import given
from hypothesis import strategies as st

SHARES = [0.3, 0.75, 0.9, 0.97, 0.999, 1 - 1e-6]
SLOPES = [0.0, 0.01, 0.25, 0.7, 0.999, 1.0]

GAUSSIANS = [(0, 1), (0.5, 1), (-2, 1), (3, 2.5), (-3, 0.7), (0, 1e-3), (40, 1), (-4, 0.5)]  # mean, sd


def moments_of(x):
    """By definition, in float64."""
    x = np.asarray(x, np.float64)
    above, below = np.maximum(x, 0), np.minimum(x, 0)
    return PartialMoments(above.mean(), below.mean(), (above**2).mean(), (below**2).mean())


def expectation(f, low, high, mean=0.0, sd=1.0):
    """E f(x) of N(mean, sd^2) over an interval on which f is smooth."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = (high - low) / 2 * nodes + (high + low) / 2
    density = np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))
    return (high - low) / 2 * float(np.sum(weights * f(x) * density))


def applied(x, numbers):
    return numbers.scale * (np.maximum(x, 0) + numbers.slope * np.minimum(x, 0) - numbers.shift)


def share_by_definition(m, a):
    """The formula of the design, as it stands there."""
    mean_f, square_f = m.mean_pos + a * m.mean_neg, m.sq_pos + a * a * m.sq_neg
    mean_x = m.mean_pos + m.mean_neg
    covariance = m.sq_pos + a * m.sq_neg - mean_x * mean_f
    return covariance**2 / ((m.sq_pos + m.sq_neg - mean_x**2) * (square_f - mean_f**2))


def samples():
    r = np.random.default_rng(5)
    z = r.standard_normal(20_001)
    return {
        "normal": z,
        "shifted up": 2 * z + 3,
        "shifted down": 0.1 * z - 0.2,
        "skewed": np.expm1(z),
        "heavy tails": r.standard_t(3, 20_001),
        "rarely positive": np.where(z > 3, z, -np.abs(z) - 1),
        "large": 1e120 * z,
        "small": 1e-120 * z,
        "two samples": np.array([-2.0, 2.5]),
        "three values": np.array([-1.0, 0.0, 4.0]),
    }


DATA = samples()
each_data = pytest.mark.parametrize("x", DATA.values(), ids=DATA)
each_share = pytest.mark.parametrize("share", SHARES)


# --- moments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "sd"), GAUSSIANS)
def test_gaussian_moments_are_those_of_quadrature(mean, sd):
    def integral(low, high, power):
        return expectation(lambda x: x**power, low, high, mean, sd)

    far = abs(mean) + 12 * sd
    expected = [integral(0, far, 1), integral(-far, 0, 1), integral(0, far, 2), integral(-far, 0, 2)]
    got = PartialMoments.gaussian(mean, sd)
    found = [got.mean_pos, got.mean_neg, got.sq_pos, got.sq_neg]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-14 * (mean**2 + sd**2))
    assert got.mean == pytest.approx(mean, abs=1e-12)
    assert got.variance == pytest.approx(sd**2, rel=1e-9)


@pytest.mark.parametrize("mean", [-400.0, -38.5, -37.0, -20.0, 20.0, 38.5, 400.0])
def test_gaussian_moments_of_a_far_tail_keep_their_signs(mean):
    m = PartialMoments.gaussian(mean)  # its constructor refuses wrong signs
    assert m.mean == pytest.approx(mean)
    assert m.sq_pos + m.sq_neg == pytest.approx(mean**2 + 1)


def test_standard_gaussian_has_the_values_of_the_oracles():
    m = PartialMoments.gaussian()
    assert m == PartialMoments.gaussian(0.0, 1.0)
    assert (m.mean_pos, m.sq_pos) == (pytest.approx(1 / math.sqrt(2 * math.pi)), 0.5)
    assert linear_share(m, 0.0) == pytest.approx(math.pi / (2 * (math.pi - 1)), rel=1e-14)


@each_data
def test_moments_of_statistics_are_those_of_the_data(x):
    stats = geoact.GeometryStats()
    for part in np.array_split(x, 3):
        geoact.relu(part, stats=stats)
    got, expected = PartialMoments.of(stats), moments_of(x)
    size = expected.sq_pos + expected.sq_neg
    for name, power in (("mean_pos", 1), ("mean_neg", 1), ("sq_pos", 2), ("sq_neg", 2)):
        tolerance = 1e-13 * (size if power == 2 else math.sqrt(size))
        assert getattr(got, name) == pytest.approx(getattr(expected, name), rel=1e-12, abs=tolerance)
    assert got.mean == pytest.approx(x.mean(), rel=1e-12, abs=1e-13 * math.sqrt(size))
    assert got.variance == pytest.approx(x.var(), rel=1e-11)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_of_narrow_data(dtype):
    x = DATA["shifted up"].astype(dtype)
    stats = geoact.GeometryStats()
    geoact.tanh(x, stats=stats)  # of any activation: they are moments of x
    got, expected = PartialMoments.of(stats), moments_of(x)
    for name in ("mean_pos", "mean_neg", "sq_pos", "sq_neg"):
        # What is negative is told from the whole by a subtraction.
        assert getattr(got, name) == pytest.approx(getattr(expected, name), abs=2e-7 * (x.astype(float) ** 2).mean())


@pytest.mark.parametrize("sign", [1, -1])
def test_moments_of_one_sign_are_exactly_zero_on_the_other(sign):
    stats = geoact.GeometryStats()
    geoact.relu(sign * np.abs(np.random.default_rng(2).standard_normal(9001).astype(np.float32) + 3), stats=stats)
    m = PartialMoments.of(stats)
    assert (m.mean_neg, m.sq_neg) == (0, 0) if sign > 0 else (m.mean_pos, m.sq_pos) == (0, 0)


def test_moments_need_data_of_the_right_kind():
    with pytest.raises(TypeError, match=r"stats must be a geoact\.GeometryStats, got GradientStats"):
        PartialMoments.of(geoact.GradientStats())
    with pytest.raises(ValueError, match="nothing yet"):
        PartialMoments.of(geoact.GeometryStats())
    empty = geoact.GeometryStats()
    geoact.relu(np.empty(0), stats=empty)
    with pytest.raises(ValueError, match="nothing yet"):
        PartialMoments.of(empty)
    for settings in ({"per": "channel"}, {"per": "row"}, {"level": "counts"}):
        stats = geoact.GeometryStats(**settings)
        geoact.relu(np.ones((2, 2)), stats=stats)
        with pytest.raises(ValueError, match="per='tensor' and level='moments'"):
            PartialMoments.of(stats)
    for bad in (np.nan, np.inf, -np.inf):
        stats = geoact.GeometryStats()
        geoact.relu(np.array([1.0, bad, 2.0]), stats=stats)
        with pytest.raises(ValueError, match="1 inputs that are NaN or infinite"):
            PartialMoments.of(stats)


def test_moments_are_checked_frozen_and_pickle():
    for wrong in ((-1, 0, 1, 1), (1, 1, 1, 1), (1, 0, -1, 1), (1, 0, 1, -1), (math.nan, 0, 1, 1), (1, 0, math.inf, 1)):
        with pytest.raises(ValueError, match="must"):
            PartialMoments(*wrong)
    for wrong in (("1", 0, 1, 1), (None, 0, 1, 1), (True, 0, 1, 1)):
        with pytest.raises(TypeError, match="mean_pos must be a number"):
            PartialMoments(*wrong)
    m = PartialMoments(np.float32(0.5), -1, 1, 2)
    assert type(m.mean_pos) is float
    assert pickle.loads(pickle.dumps(m)) == m
    with pytest.raises(AttributeError):
        m.mean_pos = 3
    for sd in (0, -1):
        with pytest.raises(ValueError, match="sd must be positive"):
            PartialMoments.gaussian(0, sd)
    with pytest.raises(ValueError, match="mean must be finite"):
        PartialMoments.gaussian(math.inf, 1)


# --- the linear share -----------------------------------------------------------------------------


@each_data
@pytest.mark.parametrize("slope", [*SLOPES, -0.5, 3.0])
def test_linear_share_is_the_squared_correlation(x, slope):
    x = x / np.sqrt(np.mean(x * x))  # NumPy's own squares would overflow
    y = np.maximum(x, 0) + slope * np.minimum(x, 0)
    expected = np.corrcoef(x, y)[0, 1] ** 2
    assert linear_share(moments_of(x), slope) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@each_data
def test_linear_share_does_not_depend_on_the_unit_of_x(x):
    m = moments_of(x)
    for unit in (1e-30, 7.0, 1e30):
        scaled = PartialMoments(unit * m.mean_pos, unit * m.mean_neg, unit**2 * m.sq_pos, unit**2 * m.sq_neg)
        assert linear_share(scaled, 0.25) == pytest.approx(linear_share(m, 0.25), rel=1e-12)


@each_data
def test_linear_share_rises_to_one(x):
    shares = [linear_share(moments_of(x), a) for a in np.linspace(0, 1, 201)]
    assert np.all(np.diff(shares) >= -1e-14)
    assert shares[-1] == 1.0
    assert min(shares) >= 0.0


def test_linear_share_of_what_does_not_vary_is_unknown():
    assert math.isnan(linear_share(moments_of([0.0, 0.0]), 0.5))
    assert math.isnan(linear_share(moments_of([-1.0, -2.0]), 0.0))  # y = 0
    assert linear_share(moments_of([1.0, 2.0]), 0.0) == 1.0


# --- GAL ------------------------------------------------------------------------------------------


@each_data
@each_share
def test_gal_has_the_share_the_variance_and_mean_zero(x, share):
    m = moments_of(x)
    numbers = gal(m, share)
    assert 0 <= numbers.slope <= 1
    assert numbers.scale >= 1 - 1e-12
    if share >= linear_share(m, 0.0):
        assert linear_share(m, numbers.slope) == pytest.approx(share, abs=1e-9)
    else:
        assert numbers.slope == 0
    y, unit = applied(x, numbers), np.abs(x).max()
    assert (y / unit).var() == pytest.approx((x / unit).var(), rel=1e-6)
    assert (y / unit).mean() == pytest.approx(0, abs=1e-9)


@each_data
@each_share
def test_gal_solves_the_equation_of_the_design(x, share):
    x = x / np.sqrt(np.mean(x * x))
    m = moments_of(x)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if share_by_definition(m, middle) < share else (low, middle)
    # Near 1 the formula as it stands has lost digits: 1 - R2 is (1 - a)^2 times a constant.
    assert gal(m, share).slope == pytest.approx(low, abs=1e-14 / (1 - share) ** 0.5 + 1e-12 / max(1 - low, 1e-6))


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=30).filter(lambda v: min(v) < -1e-3 and max(v) > 1e-3),
    st.floats(0.01, 1),
)
def test_gal_of_any_data(values, share):
    x = np.array(values)
    m = moments_of(x)
    numbers = gal(m, share)
    if numbers.slope > 0:
        assert linear_share(m, numbers.slope) == pytest.approx(share, abs=1e-9)
    else:
        assert linear_share(m, 0.0) >= share - 1e-9
    y = applied(x, numbers)
    assert y.var() == pytest.approx(x.var(), rel=1e-6)
    assert np.mean((y[:, None] - y) ** 2) == pytest.approx(np.mean((x[:, None] - x) ** 2), rel=1e-6)


def test_gal_of_measured_data_keeps_its_variance():
    x = DATA["skewed"]
    stats, after = geoact.GeometryStats(), geoact.GeometryStats()
    geoact.relu(x, stats=stats)
    numbers = gal(PartialMoments.of(stats), 0.995)
    geoact.leaky_relu(x, numbers.slope, stats=after)
    assert after.linear_share == pytest.approx(0.995, abs=1e-9)
    assert after.gain * numbers.scale**2 == pytest.approx(1, abs=1e-9)
    assert after.mean_y == pytest.approx(numbers.shift, rel=1e-9)


def test_gal_with_a_share_of_one_is_affine():
    for x in DATA.values():
        m = moments_of(x)
        slope, scale, shift = gal(m, 1.0)
        assert (slope, scale) == (pytest.approx(1), pytest.approx(1))
        assert shift == pytest.approx(m.mean)


@pytest.mark.parametrize(
    "x",
    [[1.0, 2.0, 5.0], [0.0, 3.0], [-1.0, -4.0], [-1.0, 0.0], [2.0, 2.0], [-3.0, -3.0], [0.0, 0.0], [1e-200, -1e-200]],
)
def test_gal_of_one_sign_or_of_a_constant_only_centres(x):
    assert gal(moments_of(x), 0.9) == Gal(1.0, 1.0, np.mean(x))


def test_gal_never_divides_by_nothing():
    """Moments that no data have, and those of tails whose squares vanish."""
    for m in (PartialMoments(1, -1, 1, 1), PartialMoments(1, -1, 0, 0), PartialMoments(1e-200, -5, 1e-300, 26)):
        assert all(map(math.isfinite, gal(m, 0.9)))
    for mean in np.linspace(-45, 45, 181):
        for share in (0.01, 0.9, 1 - 1e-12):
            assert all(map(math.isfinite, gal(PartialMoments.gaussian(mean), share)))


def test_gal_of_two_opposite_values_has_every_share():
    numbers = gal(moments_of([-2.0, 2.0]), 0.9)
    assert numbers.slope == 0
    assert applied(np.array([-2.0, 2.0]), numbers) == pytest.approx([-2, 2])


@pytest.mark.parametrize("limit", [1.0, 1.5, 4.0, 10.0])
@each_data
def test_a_limit_of_the_scale_raises_slope_and_share(x, limit):
    m = moments_of(x)
    free, held = gal(m, 0.9), gal(m, 0.9, limit)
    assert held.scale <= limit * (1 + 1e-12)
    if free.scale <= limit:
        assert held == free
    else:
        assert held.scale == pytest.approx(limit)
        assert held.slope > free.slope
        assert linear_share(m, held.slope) >= 0.9
    assert (applied(x, held) / np.abs(x).max()).var() == pytest.approx((x / np.abs(x).max()).var(), rel=1e-6)


def test_the_limit_is_what_keeps_a_layer_that_is_rarely_positive_from_exploding():
    rare = PartialMoments.gaussian(-5)
    assert gal(rare, 0.97).scale > 1000
    assert gal(rare, 0.97, 10.0).scale == pytest.approx(10)


def test_gal_says_what_is_wrong():
    m = PartialMoments.gaussian()
    for share in (0, -0.1, 1.0001):
        with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
            gal(m, share)
    with pytest.raises(ValueError, match="share must be finite"):
        gal(m, math.nan)
    with pytest.raises(TypeError, match="share must be a number, got str"):
        gal(m, "0.9")
    with pytest.raises(TypeError, match="moments must be PartialMoments, got tuple"):
        gal((1, 2, 3, 4), 0.9)
    with pytest.raises(TypeError, match="moments must be PartialMoments"):
        linear_share(None, 0.9)
    with pytest.raises(ValueError, match="slope must be finite"):
        linear_share(m, math.inf)
    with pytest.raises(ValueError, match="max_scale must be at least 1"):
        gal(m, 0.9, 0.5)
    with pytest.raises(TypeError, match="max_scale must be a number"):
        gal(m, 0.9, None)


def test_gaussian_gal_is_gal_of_the_closed_form():
    for depth, kappa, sd in ((2, 0.5, 1.0), (50, 1.0, 3.0), (80, 2.6, 0.01)):
        assert gaussian_gal(depth, kappa, sd) == gal(PartialMoments.gaussian(0, sd), 1 - kappa / depth)
    one, three = gaussian_gal(50, 1.0), gaussian_gal(50, 1.0, sd=3.0)
    assert (three.slope, three.scale) == (pytest.approx(one.slope), pytest.approx(one.scale))
    assert three.shift == pytest.approx(3 * one.shift)
    assert gaussian_gal(7) == gaussian_gal(7, KAPPA)


def test_small_correlations_shrink_by_the_share_at_every_layer():
    """What share_for_depth is chosen by: Cov(f(u), f(v)) / Var x = share rho + O(rho^2) for a Gaussian pair."""
    numbers = gaussian_gal(10, 1.0)
    first = sum(expectation(lambda x: x * applied(x, numbers), *half) for half in ((-12, 0), (0, 12)))
    assert first**2 == pytest.approx(0.9, abs=1e-12)  # the first Hermite coefficient


# --- depth ----------------------------------------------------------------------------------------


def test_share_for_depth():
    assert share_for_depth(50, 1.0) == 0.98
    assert share_for_depth(1) == 1 - KAPPA
    assert share_for_depth(np.int64(4), 1) == 0.75
    assert 0 < KAPPA < 1  # so that the default suits every depth
    for depth in (0, -3):
        with pytest.raises(ValueError, match="depth must be at least 1"):
            share_for_depth(depth, 0.5)
    for depth in (2.0, "2", None, True):
        with pytest.raises(TypeError, match="depth must be an int"):
            share_for_depth(depth, 0.5)
    for kappa in (0, -1, 4, 5):
        with pytest.raises(ValueError, match="kappa must be above 0 and below depth, which is 4"):
            share_for_depth(4, kappa)
    with pytest.raises(ValueError, match="kappa must be finite"):
        share_for_depth(4, math.nan)
    with pytest.raises(TypeError, match="kappa must be a number"):
        share_for_depth(4, None)


# --- TAT ------------------------------------------------------------------------------------------


def cosine_map(c, a):
    return c + (1 - a) ** 2 / (math.pi * (1 + a * a)) * (math.sqrt(1 - c * c) - c * math.acos(c))


@pytest.mark.parametrize("eta", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("depth", [1, 2, 5, 10, 20, 50, 200, 1000])
def test_tat_takes_orthogonal_inputs_to_eta(depth, eta):
    def after(slope):
        c = 0.0
        for _ in range(depth):
            c = cosine_map(c, slope)
        return c

    slope = tat_slope(depth, eta)
    if slope == 0:
        assert after(0.0) <= eta
    else:
        assert after(slope) == pytest.approx(eta, abs=1e-9)
    assert 0 <= slope < 1


@pytest.mark.parametrize("a", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("c", [0.0, 0.3, 0.9])
def test_the_cosine_map_is_that_of_a_gaussian_pair(a, c):
    """In polar coordinates: u = r cos t, v = r cos(t - angle), and the square of r factors out."""
    t = (np.arange(100_000) + 0.5) / 100_000 * 2 * math.pi
    f = lambda x: np.where(x > 0, x, a * x)  # noqa: E731
    product = 2 * np.mean(f(np.cos(t)) * f(np.cos(t - math.acos(c))))
    assert cosine_map(c, a) == pytest.approx(tat_scale(a) ** 2 * product, abs=1e-8)


def test_tat_scale_keeps_the_mean_square_of_gaussian_input():
    for slope in (0.0, 0.3, 1.0):
        m = PartialMoments.gaussian(0, 2.0)
        assert tat_scale(slope) ** 2 * (m.sq_pos + slope**2 * m.sq_neg) == pytest.approx(4.0)
    with pytest.raises(TypeError, match="slope must be a number"):
        tat_scale("a")
    with pytest.raises(ValueError, match="slope must be finite"):
        tat_scale(math.nan)


def test_tat_slope_follows_depth_and_eta():
    slopes = [tat_slope(depth) for depth in (9, 10, 50, 100, 1000)]
    assert slopes[0] == 0
    assert slopes == sorted(slopes)
    assert tat_slope(50, 0.5) > tat_slope(50, 0.9)
    for eta in (0, 1, -0.2, 1.5):
        with pytest.raises(ValueError, match="eta must be between 0 and 1"):
            tat_slope(10, eta)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        tat_slope(0)
    with pytest.raises(TypeError, match="depth must be an int"):
        tat_slope(3.5)
    with pytest.raises(TypeError, match="eta must be a number"):
        tat_slope(3, "0.9")


def test_tat_with_eta_9_corresponds_to_kappa_of_about_2_6():
    for depth in (50, 200, 1000):
        lost = depth * (1 - linear_share(PartialMoments.gaussian(), tat_slope(depth)))
        assert 2.5 < lost < 2.8


def test_what_is_public():
    defined = {name for name, value in vars(adaptive).items() if getattr(value, "__module__", "") == adaptive.__name__}
    assert set(adaptive.__all__) == {name for name in defined if not name.startswith("_")} | {"KAPPA"}
