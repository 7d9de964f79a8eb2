"""On a GPU, or nowhere: every test below is marked gpu, and skipped with the reason where there is no CUDA device."""

import sys
from importlib.util import find_spec
from pathlib import Path

import geoact
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # counting is shared with the benchmark

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


def _missing():
    """Why nothing here can run, or an empty string."""
    import torch
    from support.gpu import DEVICE

    if DEVICE == "cpu" or torch.cuda.is_available():
        return ""
    return "no CUDA device" if torch.backends.cuda.is_built() else "this torch is built without CUDA"


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            # A new warning of torch, triton or cupy must not hide what a rare run on a GPU has to say; ours are errors.
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)
            item.add_marker(pytest.mark.filterwarnings("error:::geoact.*"))


@pytest.fixture(autouse=True)
def device():
    from support.gpu import DEVICE, MODE

    reason = _missing()
    if reason and MODE == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    return DEVICE


def _choose(name):
    if name != "auto":
        geoact.set_gpu_backend(name)


@pytest.fixture
def backend(request, device):
    """One of geoact's GPU backends, forced; "auto" again afterwards."""
    if request.param == "triton" and find_spec("triton") is None:
        pytest.skip("triton is not installed")
    _choose(request.param)
    yield request.param
    if request.param != "auto":
        geoact.set_gpu_backend("auto")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        from support.gpu import BACKENDS

        metafunc.parametrize("backend", BACKENDS, indirect=True)
