"""What geoact is compared with computes the same; what is not installed says so."""

import sys
from importlib.util import find_spec
from pathlib import Path

import geoact
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import cases
import peers
from geoact.bench import Unavailable

NEEDS = {
    "torch eager": "torch", "torch.compile": "torch", "torch": "torch", "numexpr": "numexpr", "NumPy": "numpy",
    "onnxruntime": "onnxruntime",
}  # fmt: skip
FAST = [kind for kind in peers.PEERS if kind != "torch.compile"]  # compiling takes a minute and warns of itself
N = 5003

each_function = pytest.mark.parametrize("function", ["relu", "sigmoid"])


@pytest.fixture
def x():
    return cases.array((N,), "float32")


def needs(kind):
    if find_spec(NEEDS[kind]) is None:
        pytest.skip(f"needs {NEEDS[kind]}")


def recorded(function, x):
    stats = geoact.GeometryStats()
    return geoact.get(function)(x, stats=stats), stats.cells()


@each_function
@pytest.mark.parametrize("kind", FAST)
def test_a_peer_measures_the_same_record(kind, function, x):
    needs(kind)
    y = cases.empty((N,), "float32")
    run = peers.PEERS[kind](function, x, y)
    expected, cells = recorded(function, x)
    for _ in range(2):  # the second call finds what the first one left
        y.fill(-1)
        record = run()
        assert len(record) == len(peers.FIELDS)
        peers.compare(record, cells, f"{kind} {function}")
        peers.same_values(y, expected, f"{kind} {function}")


@each_function
@pytest.mark.parametrize("kind", peers.PLAIN)
def test_a_plain_peer_writes_the_same_values(kind, function, x):
    needs(kind)
    y = cases.empty((N,), "float32")
    run = peers.PLAIN[kind](function, x, y)
    y.fill(-1)
    run()
    peers.same_values(y, geoact.get(function)(x), kind)


@each_function
def test_onnxruntime_counts_what_is_not_a_number(function):
    needs("onnxruntime")
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -3.0], np.float32)
    run = peers.onnxruntime_peer(function, x, np.empty_like(x))
    record = dict(zip(peers.FIELDS, run(), strict=True))
    _, cells = recorded(function, x)
    for field in ("n", "negative", "positive", "nonfinite_x"):
        assert int(record[field]) == int(cells[field][0]), field


@each_function
def test_every_field_of_a_record_that_is_wrong_is_found(function, x):
    _, cells = recorded(function, x)
    right = [float(cells[field][0]) for field in peers.FIELDS]
    peers.compare(right, cells, "NumPy")
    for place, field in enumerate(peers.FIELDS):
        wrong = list(right)
        wrong[place] = 1.1 * wrong[place] + 1
        with pytest.raises(AssertionError, match=f"NumPy: {field} is"):
            peers.compare(wrong, cells, "NumPy")


def test_values_that_are_wrong_are_found_even_of_a_rough_peer(x):
    y = geoact.sigmoid(x)
    for kind in ("torch", "onnxruntime"):
        with pytest.raises(AssertionError):
            peers.same_values(y + np.float32(1e-5), y, kind)
    with pytest.raises(AssertionError):
        peers.same_values(y + np.float32(1.5e-7), y, "torch")


@pytest.mark.parametrize(("kind", "absent", "reason"), [
    ("torch eager", "torch", "torch: "),
    ("torch.compile", "torch", "torch: "),
    ("numexpr", "numexpr", "numexpr: "),
    ("onnxruntime", "onnxruntime", "onnxruntime: "),
    ("onnxruntime", "onnx", "onnxruntime: "),
])  # fmt: skip
def test_a_peer_that_is_not_installed_says_so(kind, absent, reason, x, monkeypatch):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(Unavailable, match=f"^{reason}.*{absent}"):
        peers.PEERS[kind]("relu", x, cases.empty((N,), "float32"))


def test_a_compiler_that_is_missing_is_named(x, monkeypatch):
    needs("torch.compile")
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match=r"torch\.compile: no C\+\+ compiler"):
        peers.PEERS["torch.compile"]("relu", x, cases.empty((N,), "float32"))
