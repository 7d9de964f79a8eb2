"""What all tests share: every instruction set, every dtype, and settings put back afterwards.

Helpers live in ``support/``: the cases generated from the registry, inputs, and float64 oracles. pytest imports test
files by path (import mode importlib), so that folder is made importable here.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import geoact
import hypothesis
import pytest
from geoact import _core, backends, frontends

sys.path.insert(0, str(Path(__file__).parent))

from support import cupy_memory, fake_cupy
from support.browser import browser, show  # noqa: F401  fixtures of the tests of pages
from support.cases import DTYPES, SIMULATED

if SIMULATED:
    from geoact import _cusim

    _core.register_backend(_cusim._backend, [1])

for _name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
    # A pytest that a test starts is not one of xdist's workers, though the test runs in one.
    del os.environ[_name]

hypothesis.settings.register_profile("suite", database=None, deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def settings_put_back():
    isa, threads = geoact.isa(), geoact.num_threads()
    yield
    geoact.set_isa(isa)
    geoact.set_num_threads(threads)


@pytest.fixture(params=_core.supported_isas()[: 1 if SIMULATED else None])
def isa(request):
    geoact.set_isa(request.param)
    assert geoact.isa() == request.param
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return DTYPES[request.param]


@pytest.fixture
def python(tmp_path):
    """Runs a program in a fresh interpreter and returns what it printed; it must end well, and in time."""

    def run(program, *, status=0, **environment):
        path = tmp_path / "program.py"
        path.write_text(program)
        done = subprocess.run(
            [sys.executable, "-W", "error", str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
            check=False,
        )
        assert (done.returncode == 0) == (status == 0), done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


CUDA = 2  # as DLPack counts types of devices


@pytest.fixture(params=["stand-in", "real"])
def cupy(request, monkeypatch):
    """CuPy over the host's memory, which the simulated CUDA kernels take for a device's."""
    cusim = pytest.importorskip("geoact._cusim", reason="the simulated CUDA kernels (geoact._cusim) were not built")
    known = dict(frontends.BY_TYPE)
    if request.param == "stand-in":
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    elif importlib.util.find_spec("cupy"):
        cupy_memory.install_real(monkeypatch)
    else:
        pytest.skip("CuPy is not installed")
    _core.register_backend(cusim._backend, [CUDA])
    yield sys.modules["cupy"]
    _core.register_backend(None, [CUDA])
    backends._cuda_state = None  # asked again by the next array
    frontends.BY_TYPE.clear()
    frontends.BY_TYPE.update(known)
    if request.param == "real":
        sys.modules["cupy"].cuda.set_allocator()
