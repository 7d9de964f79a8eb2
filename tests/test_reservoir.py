"""The reservoir: a uniform sample of rows, and what is told from it."""

import copy
import os
import pickle
import signal
import threading

import geoact
import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.spatial.distance import pdist

COUNTS = (1, 7, 8, 100, 3)


def kept(seed, size, batches=COUNTS):
    """Which of the numbered rows end up in a reservoir."""
    stats = geoact.GeometryStats(reservoir=size, seed=seed)
    first = 0
    for rows in batches:
        x = np.tile(np.arange(first, first + rows, dtype=np.float64)[:, None], (1, 3))
        geoact.relu(x, stats=stats)
        first += rows
    assert stats.reservoir.seen == first
    return stats.reservoir.x[:, 0].astype(int)


def test_every_row_is_as_likely():
    size, total, runs = 5, sum(COUNTS), 4000
    counts = np.zeros(total)
    for seed in range(runs):
        rows = kept(seed, size)
        assert len(set(rows)) == size
        counts[rows] += 1
    expected = runs * size / total
    assert scipy_stats.chisquare(counts, np.full(total, expected)).pvalue > 1e-4


def test_merging_keeps_it_uniform():
    runs, size = 3000, 4
    counts = np.zeros(30)
    for seed in range(runs):
        parts = []
        for first, rows in ((0, 20), (20, 10)):
            part = geoact.GeometryStats(reservoir=size, seed=seed)
            geoact.relu(np.tile(np.arange(first, first + rows, dtype=float)[:, None], (1, 2)), stats=part)
            parts.append(part)
        merged = parts[0]._reservoir.merged(parts[1]._reservoir)
        assert merged.seen == 30
        assert merged.kept == size
        counts[merged.x[:, 0].astype(int)] += 1
    assert scipy_stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("size", "first", "second"), [(10, 4, 6), (10, 4, 3), (10, 10, 5), (3, 0, 9)])
def test_a_merged_reservoir_goes_on(size, first, second):
    parts = [geoact.GeometryStats(reservoir=size) for _ in range(2)]
    for part, rows in zip(parts, (first, second), strict=True):
        geoact.relu(np.random.default_rng(rows).standard_normal((rows, 4)), stats=part)
    merged = parts[0] + parts[1]
    assert merged.reservoir.kept == min(size, first + second)
    for _ in range(30):
        geoact.relu(np.random.default_rng(0).standard_normal((17, 4)), stats=merged)
    assert merged.reservoir.seen == first + second + 30 * 17
    assert merged.reservoir.kept == size


@pytest.mark.parametrize(("shape", "axis"), [((50, 6), -1), ((5, 6, 3, 4), 1), ((6, 10, 7), 0), ((4, 5, 6), -1)])
@pytest.mark.parametrize("in_place", [False, True])
def test_rows_are_those_of_x_and_y(shape, axis, in_place):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    rows = np.moveaxis(x, axis, -1).reshape(-1, 6)
    stats = geoact.GeometryStats(channel_axis=axis, reservoir=9)
    z = x.copy()
    geoact.silu(z, out=z if in_place else None, stats=stats)
    found = stats.reservoir
    assert found.kept == 9
    for row in found.x:
        assert (rows == row).all(axis=1).any()
    np.testing.assert_array_equal(found.y, geoact.silu(found.x))


def test_one_seed_keeps_the_same_samples_of_every_layer():
    np.testing.assert_array_equal(kept(3, 6), kept(3, 6))
    assert not np.array_equal(kept(3, 6), kept(4, 6))


def test_fewer_rows_than_asked_for_are_all_kept():
    stats = geoact.GeometryStats(reservoir=100)
    geoact.relu(np.ones((5, 3), np.float32), stats=stats)
    assert stats.reservoir.kept == 5
    geoact.relu(np.zeros((0, 3), np.float32), stats=stats)
    assert stats.reservoir.seen == 5


def test_measures_against_their_definitions():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((60, 12))
    stats = geoact.GeometryStats(reservoir=60)
    y = geoact.relu(x, stats=stats)
    found = stats.reservoir
    before, after = pdist(x), pdist(y)
    assert found.spearman() == pytest.approx(scipy_stats.spearmanr(before, after).statistic)
    scale = (before @ after) / (after @ after)
    assert found.stress() == pytest.approx(np.sqrt(((before - scale * after) ** 2).sum() / (before**2).sum()))
    manifold = pytest.importorskip("sklearn.manifold")
    assert found.trustworthiness(7) == pytest.approx(manifold.trustworthiness(x, y, n_neighbors=7))
    from sklearn.neighbors import NearestNeighbors

    near = [NearestNeighbors(n_neighbors=5).fit(z).kneighbors(return_distance=False) for z in (x, y)]
    overlap = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(*near, strict=True)])
    assert found.neighbour_overlap(5) == pytest.approx(overlap)
    s = np.linalg.svd(y, compute_uv=False)
    assert found.rankme() == pytest.approx(np.exp(scipy_stats.entropy(s / s.sum())))
    identity = geoact.GeometryStats(reservoir=60)
    geoact.leaky_relu(x, negative_slope=1.0, stats=identity)
    same = identity.reservoir
    assert (same.spearman(), same.trustworthiness(5), same.neighbour_overlap(5)) == pytest.approx((1, 1, 1))
    assert same.stress() == pytest.approx(0, abs=1e-12)


def test_pickles_copies_and_reset():
    stats = geoact.GeometryStats(reservoir=8, seed=5)
    x = np.random.default_rng(0).standard_normal((40, 3))
    geoact.relu(x, stats=stats)
    twins = [pickle.loads(pickle.dumps(stats)), stats.copy()]
    for part in (stats, *twins):
        geoact.relu(x[::-1].copy(), stats=part)
    for twin in twins:
        np.testing.assert_array_equal(twin.reservoir.x, stats.reservoir.x)
    stats.reset()
    assert stats.reservoir.kept == stats.reservoir.seen == 0
    geoact.relu(x, stats=stats)
    assert stats.reservoir.kept == 8


def test_a_failed_call_leaves_it_as_it_was():
    stats = geoact.GeometryStats(reservoir=8)
    x = np.random.default_rng(0).standard_normal((40, 3))
    geoact.relu(x, stats=stats)
    before = stats.reservoir.x.copy()
    for _ in range(20):
        with pytest.raises(ValueError, match="out"):
            geoact.relu(x, out=np.empty((3, 3)), stats=stats)
    with pytest.raises(ValueError, match="rows of 3 channels, but x has 4"):
        geoact.relu(np.ones((2, 4)), stats=stats)
    assert stats.reservoir.seen == 40
    np.testing.assert_array_equal(stats.reservoir.x, before)


def test_threads_that_share_it_lose_nothing():
    stats = geoact.GeometryStats(reservoir=16)
    x = np.random.default_rng(0).standard_normal((100, 5))

    def work():
        for _ in range(10):
            geoact.sigmoid(x, stats=stats)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats.reservoir.seen == 6000
    assert stats.reservoir.kept == 16
    assert stats.calls == 60


def test_a_copy_has_a_reservoir_of_its_own():
    stats = geoact.GeometryStats(reservoir=8)
    for twin in (copy.copy(stats), copy.deepcopy(stats), stats.copy()):
        geoact.relu(np.ones((20, 3)), stats=twin)
    assert stats.reservoir.seen == 0


def test_other_seeds_do_not_merge():
    with pytest.raises(ValueError, match="other has seed=1, this one 0"):
        geoact.GeometryStats(reservoir=8) + geoact.GeometryStats(reservoir=8, seed=1)


def test_too_few_rows_are_named():
    stats = geoact.GeometryStats(reservoir=8)
    geoact.relu(np.ones((2, 3)), stats=stats)
    with pytest.raises(ValueError, match="holds 2 finite rows"):
        stats.reservoir.spearman()
    geoact.relu(np.random.default_rng(0).standard_normal((6, 3)), stats=stats)
    with pytest.raises(ValueError, match="k is 4"):
        stats.reservoir.trustworthiness(4)
    with pytest.raises(ValueError, match="of is 'z'"):
        stats.reservoir.rankme("z")


def test_activation_checkpointing_keeps_rows_once():
    torch = pytest.importorskip("torch")
    from torch.utils.checkpoint import checkpoint

    stats = geoact.GeometryStats(reservoir=8)
    x = torch.randn(20, 5, requires_grad=True)
    checkpoint(lambda z: geoact.silu(z, stats=stats), x, use_reentrant=False).sum().backward()
    assert stats.reservoir.seen == 20
    assert stats.calls == 1


def test_torch_rows_are_kept_without_a_graph():
    torch = pytest.importorskip("torch")
    stats = geoact.GeometryStats(channel_axis=1, reservoir=8)
    x = torch.randn(4, 5, 3, 3, requires_grad=True)
    y = geoact.gelu(x, stats=stats)
    y.sum().backward()
    assert stats.reservoir.kept == 8
    np.testing.assert_array_equal(stats.reservoir.y, geoact.gelu(stats.reservoir.x))
    half = geoact.GeometryStats(reservoir=3)
    geoact.relu(torch.randn(10, 4, dtype=torch.bfloat16), stats=half)
    assert half.reservoir.x.dtype == np.float32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_may_measure_where_a_thread_of_the_parent_did():
    stats, x = geoact.GeometryStats(reservoir=4), np.ones((6, 3), np.float32)
    geoact.relu(x, stats=stats)
    held, done = threading.Event(), threading.Event()

    def hold():
        with stats.reservoir.lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a lock that nobody gives back would be waited for
        geoact.relu(x, stats=stats)
        os._exit(stats.reservoir.seen)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12


def test_reset_waits_for_the_call_of_another_thread():
    stats, x = geoact.GeometryStats(reservoir=8, pairs=True), np.ones((512, 16), np.float32)
    stop, failed = threading.Event(), []

    def measure():
        try:
            while not stop.is_set():
                geoact.relu(x, stats=stats)
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    for _ in range(300):
        stats.reset()
    stop.set()
    thread.join()
    assert not failed
    assert stats.reservoir.seen == stats.n / 16 == 2 * stats.pairs.count


def test_merging_waits_for_the_call_of_another_thread():
    """What a call measures while others merge is not lost, and nothing waits for ever."""
    one, two = geoact.GeometryStats(reservoir=8), geoact.GeometryStats(reservoir=8)
    x, calls, failed = np.ones((512, 16), np.float32), 60, []

    def measure(stats):
        try:
            for _ in range(calls):
                geoact.relu(x, stats=stats)
        except ValueError as error:
            failed.append(error)

    def merge(into, part):
        empty = geoact.GeometryStats(reservoir=8)
        for _ in range(calls):
            into.merge(empty)
            empty.merge(part)
            empty.reset()

    jobs = [(measure, one), (measure, two), (merge, one, two), (merge, two, one)]
    threads = [threading.Thread(target=work, args=arguments, daemon=True) for work, *arguments in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)
    for stats in (one, two):
        assert stats.reservoir.seen == stats.n / 16 == calls * 512


def test_merging_has_no_limit():
    stats = geoact.GeometryStats(reservoir=4)
    geoact.relu(np.random.default_rng(0).standard_normal((512, 4)), stats=stats)
    for _ in range(30):
        stats = stats + stats
    assert (stats.reservoir.seen, stats.reservoir.kept) == (512 << 30, 4)


def test_what_cannot_be_told_is_nan_and_rows_with_nan_are_left_out():
    stats = geoact.GeometryStats(reservoir=9)
    geoact.relu(np.zeros((6, 4)), stats=stats)
    assert np.isnan([stats.reservoir.stress(), stats.reservoir.rankme()]).all()
    x = np.array([[1, 2], [np.nan, 1], [3, 4], [5, 7], [9, 1.0]])
    some, clean = geoact.GeometryStats(reservoir=9), geoact.GeometryStats(reservoir=9)
    geoact.relu(x, stats=some)
    geoact.relu(np.delete(x, 1, axis=0), stats=clean)
    for measure in ("rankme", "spearman", "stress"):
        assert getattr(some.reservoir, measure)() == getattr(clean.reservoir, measure)()
    with pytest.raises(ValueError, match="no finite rows"):
        geoact.GeometryStats(reservoir=9).reservoir.rankme()


def test_tensors_without_rows_are_left_to_the_call():
    torch = pytest.importorskip("torch")
    stats = geoact.GeometryStats(reservoir=4)
    geoact.relu(torch.randn(3, 4, device="meta"), stats=stats)
    assert (stats.n, stats.reservoir.seen) == (0, 0)
    with pytest.raises((TypeError, ValueError), match=r"torch\.sparse_coo"):
        geoact.relu(torch.eye(3).to_sparse(), stats=stats)
    assert stats.reservoir.seen == 0


@pytest.mark.parametrize("name", ["sketch", "reservoir", "seed"])
def test_numbers_of_numpy_are_numbers(name):
    stats = geoact.GeometryStats(**{"reservoir": 8, name: np.int64(64)}, pairs=np.True_)
    assert repr(stats) == repr(geoact.GeometryStats(**{"reservoir": 8, name: 64}, pairs=True))
