"""Makes the modules beside the suite importable: pytest imports test files by path (import mode importlib)."""

import sys
from pathlib import Path

import geoact
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = geoact.num_threads()
    geoact.set_num_threads(1)
    yield
    geoact.set_num_threads(before)
