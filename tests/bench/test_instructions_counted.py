"""Counting for real, under valgrind: exact, repeatable, gated. The package that is measured is NumPy where any will do.

NumPy finds the loop of a ufunc in a hash table whose keys are addresses, so a count of it differs by a probe or two (17
instructions each) where something has moved its types. What is to be the same to the instruction is counted of geoact.
"""

import json
import platform
import shutil

import pytest
import typer
from geoact.bench.instructions import CountingError, Table, cli, compare, count_suite, find_valgrind
from typer.testing import CliRunner

COUNTABLE = (platform.system(), platform.machine()) == ("Linux", "x86_64")
needs_valgrind = [
    pytest.mark.slow,
    pytest.mark.skipif(not COUNTABLE, reason="instructions are counted on Linux x86_64 only"),
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed"),
]

SUITE = """
import os

import numpy as np
from geoact.bench import Call, Suite, Unavailable

suite = Suite("toy", package="numpy")
EXTRA = os.environ.get("TOY_EXTRA")
N = 1 << 14


def aligned(seed=None):
    raw = np.ones(4 * N + 64, np.uint8)
    out = raw[-raw.ctypes.data % 64 :][: 4 * N].view(np.float32)
    if seed is not None:
        out[:] = np.random.default_rng(seed).standard_normal(N)
    return out


def scale(n):
    x, y = aligned(1), aligned()

    def run():
        np.multiply(x, np.float32(2), out=y)
        if EXTRA:
            np.add(y, np.float32(0), out=y)

    def check():
        run()
        np.testing.assert_array_equal(y, 2 * x)

    return Call(run, x.nbytes, y.nbytes, check=check)


def add(n):
    x, y, z = aligned(1), aligned(2), aligned()
    return Call(lambda: np.add(x, y, out=z), 2 * x.nbytes, z.nbytes)


def wrong(n):
    def check():
        assert False, "one is not two"

    return Call(lambda: None, check=check)


def broken(n):
    raise ValueError("no such kernel")


def elsewhere(n):
    raise Unavailable("no GPU here")


for make in (scale, add, wrong, broken, elsewhere):
    if os.environ.get("TOY_WITHOUT") != make.__name__:
        suite.add(make, {"n": N})
"""

STEADY = """
import geoact
import numpy as np
from geoact.bench import Call, Suite

suite = Suite("steady", package="geoact", ignore=("bench/*",), setup=lambda: geoact.set_num_threads(1))


@suite.case(activation=["relu", "gelu"], statistics=["none", "tensor", "channel"])
def forward(activation, statistics):
    raw = np.zeros(2 * 4 * 4096 + 64, np.uint8)
    x, y = raw[-raw.ctypes.data % 64 :][: 2 * 4 * 4096].view(np.float32).reshape(2, 16, 256)
    x[...] = np.random.default_rng(1).standard_normal(x.shape)
    stats = None if statistics == "none" else geoact.GeometryStats(per=statistics)
    call = getattr(geoact, activation)
    return Call(lambda: call(x, out=y, stats=stats), x.nbytes, y.nbytes)
"""

EXACT = """
from geoact.bench import Call, Suite
from geoact.bench.instructions.requests import Machine

suite = Suite("exact")
LOOP = Machine(bytes.fromhex("4889f9 48ffc9 75fb c3"))  # mov rcx, rdi; dec rcx; jnz -5; ret


@suite.case(n=[1000, 101000])
def loop(n):
    return Call(lambda call=LOOP.call: call(n, 0))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "toy_suite.py"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def counted(suite):
    return count_suite(str(suite))


class Test:
    """What needs valgrind."""

    pytestmark = needs_valgrind

    def test_counts_are_those_of_the_package(self, counted):
        assert [row.name for row in counted.rows] == ["add[n=16384]", "scale[n=16384]"]
        assert (counted.suite, counted.package, counted.gated) == ("toy", "numpy", "instructions")
        for row in counted.rows:
            # At least a load, an operation and a store for 8 numbers; at most 20 for each.
            assert 3 / 8 <= row.per_element("instructions") <= 20
            assert row.instructions < row.total
        assert counted["add[n=16384]"].bytes == 3 * 4 * 16384
        assert "GCC" in counted.tools["compiler of _core/_multiarray_umath"] or "clang" in str(counted.tools)
        assert counted.tools["isa"] != "avx512"
        assert counted.environment["valgrind"] == find_valgrind()[1]

    def test_what_fails_is_told_and_the_rest_counted(self, counted):
        assert counted.skipped == {"elsewhere[n=16384]": "no GPU here"}
        assert counted.errors == {
            "wrong[n=16384]": "WRONG RESULT: one is not two",
            "broken[n=16384]": "ValueError: no such kernel",
        }

    def test_two_runs_count_the_same_whatever_surrounds_them(self, monkeypatch, tmp_path):
        path = tmp_path / "steady_suite.py"
        path.write_text(STEADY)
        once = count_suite(str(path))
        # The environment lies on the stack and is copied to the heap: its size moves everything behind it.
        for number in range(30):
            monkeypatch.setenv(f"TOY_PADDING_{number}", "x" * 137 * number)
        monkeypatch.setenv("PYTHONHASHSEED", "77")
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        monkeypatch.chdir(tmp_path)
        again = count_suite(str(path))
        assert (len(once.rows), once.errors) == (6, {})
        assert [row.spread for row in (*once.rows, *again.rows)] == [0] * 12
        assert [row.instructions for row in again.rows] == [row.instructions for row in once.rows]

    def test_a_planted_pass_over_the_data_is_caught_and_can_be_explained(self, suite, tmp_path, monkeypatch):
        app = typer.Typer()
        cli.register(app)
        app.command("other")(lambda: None)
        baseline = tmp_path / "baseline.json"

        def command(*arguments):
            sound = ["--only", "scale", "--only", "add"]  # without those that fail
            return CliRunner().invoke(app, ["instructions", str(suite), *sound, *map(str, arguments)])

        assert command("--save", baseline).exit_code == 0
        before = Table.load(baseline)
        monkeypatch.setenv("TOY_EXTRA", "1")
        done = command("--baseline", baseline, "--json")
        assert done.exit_code == 10
        verdict = json.loads(done.stdout)["verdict"]
        (finding,) = verdict["regressions"]
        assert finding["case"] == "scale[n=16384]"
        assert finding["after"] - finding["before"] >= 3 / 8 * 16384  # the pass that was planted
        assert (verdict["unchanged"] + verdict["changed"], verdict["improvements"]) == (2, [])  # add: but for a probe

        accepted = [{"case": "scale*", "metric": "instructions", "limit": finding["after"], "reason": "planted"}]
        explained = tmp_path / "explained.json"
        explained.write_text(json.dumps(accepted))
        monkeypatch.setenv("TOY_WITHOUT", "add")
        done = command("--baseline", baseline, "--explained", explained)
        assert done.exit_code == 12
        assert "vanished: add[n=16384]" in done.stdout
        assert "explained: scale[n=16384]" in done.stdout
        assert Table.load(baseline) == before

    def test_counts_are_exact(self, tmp_path):
        path = tmp_path / "exact_suite.py"
        path.write_text(EXACT)
        table = count_suite(str(path), check=False)
        assert (table.package, table.gated) == (None, "total")
        assert {"python", "numpy", "libc", "isa"} == set(table.tools)
        few, many = table["loop[n=1000]"].total, table["loop[n=101000]"].total
        # Two instructions each time round. Python's own differ by what it allocates and looks up: not by 0.5 %.
        assert many - few == pytest.approx(2 * 100_000, abs=1000)
        assert compare(table, table).ok

    def test_what_a_suite_does_wrong_is_one_line(self, suite, tmp_path):
        with pytest.raises(CountingError, match=r"no case of .*toy_suite\.py matches"):
            count_suite(str(suite), only=["nothing"])
        path = tmp_path / "odd_suite.py"
        path.write_text(SUITE.replace('"numpy")', '"numpy", setup=lambda: 1 / 0)'))
        with pytest.raises(CountingError, match="its setup fails: ZeroDivisionError"):
            count_suite(str(path))
        path.write_text(SUITE.replace('"numpy")', '"numpy", setup=lambda: os.abort())'))
        with pytest.raises(CountingError, match="ended with code -6"):
            count_suite(str(path))


@pytest.mark.skipif(not COUNTABLE, reason="instructions are counted on Linux x86_64 only")
def test_without_valgrind_it_says_so(monkeypatch, suite, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CountingError, match=r"valgrind was not found \(--valgrind, PATH\): apt install valgrind"):
        count_suite(str(suite))
    with pytest.raises(CountingError, match="/no/valgrind was not found"):
        count_suite(str(suite), valgrind="/no/valgrind")
    broken = tmp_path / "valgrind"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(CountingError, match="valgrind does not run"):
        count_suite(str(suite))
