"""These tests need a process of their own, TRITON_INTERPRET=1 pytest tests/tritonlang: kernels are interpreted or
compiled from the moment they are defined. Elsewhere every file is skipped, with the reason.

A launch costs milliseconds per program and tile whatever the tile's size, so tests of values use huge tiles.
"""

import os
from importlib.util import find_spec

import pytest

MISSING = [name for name in ("torch", "triton") if find_spec(name) is None]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_ignore_collect(collection_path, config):
    """Files that import triton cannot be imported where it is missing: one test in their place says so."""
    if collection_path.name == "test_interpreter.py":
        return None
    return True if (MISSING or not INTERPRETED) and collection_path.name.startswith("test_") else None


@pytest.fixture(autouse=True)
def corrected(monkeypatch):
    """The interpreter rounds as a GPU does, and says nothing of overflow and NaN, as a GPU does not."""
    import numpy as np
    from support import interpreter

    interpreter.correct(monkeypatch)
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def large_tiles(monkeypatch):
    from geoact.kernels import tiles

    for name in ("_LOCAL", "_LOCAL_OF_DOUBLES", "_LOCAL_OF_COLUMNS"):
        monkeypatch.setattr(tiles, name, 1024)


@pytest.fixture
def many_programs(monkeypatch):
    """A program per tile, so that small data have several partial records to merge."""
    from geoact.kernels import tiles

    monkeypatch.setattr(tiles, "_TILES_OF_PROGRAM", 1)
