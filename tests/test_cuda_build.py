"""What an installation says of its CUDA kernels where there is no GPU: it imports, and the reason is told."""

import importlib.util
import re

import pytest
from geoact import backends

BUILT = importlib.util.find_spec("geoact._cuda") is not None


def devices():
    from geoact import _cuda

    return _cuda.devices()


needs_build = pytest.mark.skipif(not BUILT, reason="geoact._cuda was not built: no nvcc")


@needs_build
def test_the_module_loads_without_a_driver_and_says_why_it_cannot_run():
    from geoact import _cuda

    why = _cuda.why_unavailable()
    assert isinstance(why, str)
    assert bool(why) == (not devices())
    if why:
        assert re.search(r"no NVIDIA driver is installed|no CUDA device is visible|driver is too old", why), why
    assert _cuda.architectures()


def test_info_says_why_cuda_is_off(python):
    told = python("import geoact; print(geoact.info()['cuda'])").strip()
    if BUILT and devices():
        assert "sm_" in told
    else:
        assert told.startswith("off: ")
        assert ("no CUDA kernels" in told) == (not BUILT)


@pytest.mark.skipif(BUILT and bool(devices()), reason="there is a GPU")
def test_arrays_on_a_gpu_are_refused_with_the_reason(python):
    """An object that says it lies on a CUDA device, before anything of it is read."""
    program = """
import geoact
from geoact import _core
for call in (
    lambda x: _core.forward(0, x, (), (), x, None, 1),
    lambda x: _core.forward(0, x, (), (), x, geoact.GeometryStats()._accumulator, 1),
):
    array = _core.Borrowed(None, 4096, (3,), (1,), "float32", device=(2, 0))
    try:
        call(array)
    except ValueError as error:
        print(error)
    else:
        raise SystemExit("it was accepted")
"""
    lines = python(program).strip().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("x is on the device cuda:0, where geoact cannot compute: ")
        assert "geoact.info()" in line
        assert backends.load_cuda() in line


def test_importing_does_not_touch_the_driver(python):
    """The driver is looked for when the first array on a GPU comes: asking costs time, and a fork afterwards fails."""
    program = """
import sys
import geoact, numpy
geoact.relu(numpy.ones(3, numpy.float32), stats=geoact.GeometryStats())
assert "geoact._cuda" not in sys.modules
with open("/proc/self/maps") as lines:
    assert not any("libcuda.so" in line for line in lines)
"""
    assert python(program) == ""


@pytest.mark.parametrize(
    "stub",
    [
        "sys.modules['geoact._cuda'] = types.ModuleType('geoact._cuda')",
        "sys.meta_path.insert(0, Finder(ImportError('libcudart is missing')))",
        "sys.meta_path.insert(0, Finder(OSError('bad file')))",
    ],
)
def test_a_broken_module_is_a_reason_and_nothing_else(python, stub):
    """Whatever is wrong with the CUDA part, the rest computes, and info() says what it is."""
    told = python(f"""
import sys, types
class Finder:
    def __init__(self, error): self.error = error
    def find_spec(self, name, path=None, target=None):
        if name == "geoact._cuda": raise self.error
import geoact, numpy
{stub}
assert geoact.relu(numpy.float32([-1, 2]))[1] == 2
print(geoact.info()["cuda"])
""")
    assert told.startswith("off: the CUDA kernels cannot be loaded: ")


@pytest.mark.parametrize("name", ["torch", "cupy"])
def test_stand_ins_for_frameworks_do_not_matter(python, name):
    """Builders of documentation put such things into sys.modules."""
    for stand_in in (f"types.ModuleType({name!r})", "unittest.mock.MagicMock()"):
        python(f"""
import sys, types, unittest.mock
import geoact, numpy
sys.modules[{name!r}] = {stand_in}
class Sub(numpy.ndarray): pass
assert geoact.relu(numpy.ones(3, numpy.float32).view(Sub)).sum() == 3
try:
    geoact.relu([1.0])
except TypeError as error:
    assert "x must be an array" in str(error), error
else:
    raise SystemExit("a list was accepted")
""")
