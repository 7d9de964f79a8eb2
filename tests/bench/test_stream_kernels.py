"""The kernels of stream.cu: compiled for a GPU, seen to read what they claim to, and run on the simulated device."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from geoact.bench.devices.cupy_device import OURS, SOURCE

ROOT = Path(__file__).resolve().parents[2]
TIMER = 'asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));'


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def nvcc():
    found = shutil.which("nvcc")
    if found is None:
        pytest.skip("nvcc is not installed")
    return found


def test_the_kernels_compile_without_a_warning(nvcc, tmp_path):
    run(nvcc, "-cubin", "-arch=sm_90", "-Werror", "all-warnings", "-o", tmp_path / "a", SOURCE)


def test_what_must_read_or_write_does_so_in_the_compiled_code(nvcc, tmp_path):
    """In PTX, after the compiler has left out whatever nobody needs."""
    run(nvcc, "-ptx", "-arch=sm_90", "-o", tmp_path / "a.ptx", SOURCE)
    code = (tmp_path / "a.ptx").read_text(encoding="utf-8")
    bodies = dict(re.findall(r"\.entry (\w+)\((.*?)(?=\.entry|\Z)", code, flags=re.S))

    def count(name, instruction):
        return len(re.findall(rf"\b{instruction}\.global[\w.]*\.v4\.", bodies[name]))

    for kind, (loads, stores) in {"copy": (4, 4), "merge": (8, 4), "read": (4, 0), "fill": (0, 4)}.items():
        for name in OURS[kind]:
            assert (name, count(name, "ld"), count(name, "st")) == (name, loads, stores)
    assert count("flush", "ld") >= 1


def test_the_kernels_move_what_they_say_on_the_simulated_device(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    source = SOURCE.read_text(encoding="utf-8")
    assert source.count(TIMER) == 1
    source = source.replace(TIMER, "t = host_nanoseconds();").replace('extern "C" {', "namespace kernels {", 1)
    (tmp_path / "stream_on_host.cu").write_text(source, encoding="utf-8")
    files = ROOT / "tests" / "cpp" / "stream_kernels.cpp", ROOT / "csrc" / "cuda" / "sim.cpp"
    program = tmp_path / "program"
    run(compiler, "-std=c++20", "-O1", "-pthread", "-Wno-unknown-pragmas", "-I", tmp_path, *files, "-o", program)
    assert run(program) == "all is right\n"
