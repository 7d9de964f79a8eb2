"""compute-sanitizer finds no bad access, no race and no misused barrier in a small program of every kind of call."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch.distributed")
from support.gpu import DEVICE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DEVICE != "cuda", reason="dry run: there is nothing like it on a CPU"),
]

# CuPy and not torch, whose libraries take minutes to load under the tool; sizes around vectors and blocks.
PROGRAM = """
import cupy
import geoact
import numpy

geoact.set_gpu_backend("cuda")
random = numpy.random.default_rng(0)
for name in ("relu", "gelu", "prelu"):
    row = geoact.get(name)
    for dtype in ("float32", "float16"):
        for shape in ((1,), (1027,), (65, 33), (3, 5, 7, 9)):
            x = cupy.asarray(random.standard_normal(shape).astype(dtype))
            values = (cupy.asarray(numpy.full(1, 0.25, dtype)),) if row.trainable else ()
            for per in ("tensor", "channel", "row"):
                stats, gradient = geoact.GeometryStats(per=per), geoact.GradientStats(per=per)
                y = row(x, *values, stats=stats)
                row.backward(x, *values, **{row.saves: y if row.saves == "y" else x}, stats=gradient)
                assert stats.cells()["n"].sum() == gradient.cells()["n"].sum() == x.size
print("done")
"""


def sanitizer():
    """The tool, where it is installed, on the PATH or beside nvcc."""
    beside = Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").resolve().parent / "compute-sanitizer"
    return shutil.which("compute-sanitizer") or (str(beside) if beside.exists() else None)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_a_small_program_is_clean(tool, tmp_path):
    pytest.importorskip("cupy")
    found = sanitizer()
    if found is None:
        pytest.skip("compute-sanitizer is not installed")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    command = [found, "--tool", tool, "--error-exitcode", "9", sys.executable, str(path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "CUPY_CACHE_IN_MEMORY": "1"},
    )
    output = done.stdout + done.stderr
    if "Device not supported" in output:
        pytest.skip("compute-sanitizer does not support this device")
    assert done.returncode == 0, output[-4000:]
    assert "done" in output
    assert "ERROR SUMMARY: 0 errors" in output or "0 hazards" in output, output[-4000:]
