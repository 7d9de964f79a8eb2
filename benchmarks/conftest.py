"""Makes the modules beside the suite importable: pytest imports test files by path (import mode importlib)."""

import sys
from pathlib import Path

import geoact
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from suite import suite


@pytest.fixture(autouse=True, scope="session")
def as_the_suite_wants_it():
    before = geoact.num_threads()
    suite.setup()
    yield
    geoact.set_num_threads(before)
