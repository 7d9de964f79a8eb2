"""The pool: results and counts under many callers, after fork and spawn, with any number of threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import geoact
import numpy as np
import pytest
from support import inputs
from support.cases import PLAIN, assert_same_bits

X = inputs.normal((1000, 700), np.float32)

USED_THEN_FORKED = """
import os, warnings
import numpy as np, geoact
geoact.set_num_threads(4)
x = np.random.default_rng(0).standard_normal((1000, 700), dtype=np.float32)
def record():
    stats = geoact.GeometryStats(per="channel")
    return geoact.silu(x, stats=stats).tobytes() + stats.cells()["m2_y"].tobytes()
expected = record()
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tested
for generation in range(3):
    child = os.fork()
    if child == 0:
        assert record() == expected
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if record() == expected else 1)
        assert os.waitpid(grandchild, 0)[1] == 0
        os._exit(0 if record() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert record() == expected
print("done")
"""

MULTIPROCESSING = """
import multiprocessing, sys, warnings
import numpy as np, geoact
def work(seed):
    x = np.random.default_rng(seed).standard_normal((300, 700), dtype=np.float32)
    stats = geoact.GeometryStats()
    geoact.tanh(x, stats=stats)
    return stats
if __name__ == "__main__":
    geoact.set_num_threads(4)
    here = [work(seed) for seed in range(4)]
    warnings.simplefilter("ignore", DeprecationWarning)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        there = pool.map(work, range(4))
    for a, b in zip(here, there):
        assert (a._accumulator.cells() == b._accumulator.cells()).all()
    print(sum(there).n)
"""


def test_a_fork_after_use_computes_and_ends(python):
    assert python(USED_THEN_FORKED).strip() == "done"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(python, method):
    assert float(python(MULTIPROCESSING.format(method=method))) == 4 * 300 * 700


def test_the_process_ends_while_the_pool_sleeps(python):
    program = "import numpy as np, geoact; geoact.set_num_threads(5); geoact.relu(np.ones(1 << 20)); print('end')"
    assert python(program).strip() == "end"


def test_many_threads_with_accumulators_of_their_own():
    geoact.set_num_threads(3)
    expected = {}
    for case in PLAIN:
        stats = geoact.GeometryStats(per="channel")
        expected[case] = case(X, stats=stats), stats.cells()

    def work(case):
        stats = geoact.GeometryStats(per="channel")
        return case, case(X, stats=stats), stats.cells()

    with ThreadPoolExecutor(8) as pool:
        for case, y, cells in pool.map(work, PLAIN * 6):
            assert_same_bits(y, expected[case][0])
            for name, cell in cells.items():
                np.testing.assert_array_equal(cell, expected[case][1][name])


@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
def test_many_threads_with_one_accumulator(per):
    geoact.set_num_threads(2)
    shared, barrier, calls = geoact.GeometryStats(per=per), threading.Barrier(8), 10

    def work():
        barrier.wait()
        for _ in range(calls):
            geoact.relu(X, stats=shared)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert np.sum(shared.n) == 8 * calls * X.size
    assert shared.cells()["positive"].sum() == 8 * calls * (X > 0).sum()


def test_threads_that_read_while_others_add():
    shared, stop, seen = geoact.GeometryStats(), threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(shared.copy().n)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        geoact.relu(X[:50], stats=shared)
    stop.set()
    reader.join()
    whole = 50 * 700
    assert all(n % whole == 0 for n in seen)  # a call is added as a whole
    assert seen == sorted(seen)


def test_threads_of_two_dtypes_leave_a_consistent_record():
    shared, failures = geoact.GeometryStats(), []

    def work(x):
        for _ in range(50):
            try:
                geoact.relu(x, stats=shared)
            except ValueError as error:
                failures.append(error)

    workers = [threading.Thread(target=work, args=(X[:20].astype(kind),)) for kind in (np.float32, np.float64)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert shared.n == (100 - len(failures)) * 20 * 700


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1000])
def test_any_number_of_threads_is_accepted(n):
    geoact.set_num_threads(n)
    assert geoact.num_threads() == n
    assert_same_bits(geoact.relu(X), np.maximum(X, 0))


def test_threads_really_share_the_work(python):
    program = """
import os, numpy as np, geoact
threads = lambda: len(os.listdir("/proc/self/task"))
x = np.ones(1 << 22, np.float32)
before = threads()
geoact.set_num_threads(1); geoact.silu(x); alone = threads() - before
geoact.set_num_threads(4); geoact.silu(x); shared = threads() - before
geoact.relu(x[:1000]); print(alone, shared)
"""
    pytest.importorskip("resource")
    alone, shared = map(int, python(program, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1").split())
    assert (alone, shared) == (0, 3)


@pytest.mark.parametrize("shape", [(64, 48, 4, 4), (33, 300, 3, 5)], ids=str)
def test_statistics_of_small_maps_do_not_depend_on_the_number_of_threads(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = []
    for threads in (1, 2, 3, 5):
        geoact.set_num_threads(threads)
        stats, gradient = geoact.GeometryStats("channel", 1), geoact.GradientStats("channel", 1)
        geoact.sigmoid(x, stats=stats)
        geoact.silu.backward(x, x=x, stats=gradient)
        found.append(np.concatenate([*stats.cells().values(), *gradient.cells().values()]).tobytes())
    assert len(set(found)) == 1
