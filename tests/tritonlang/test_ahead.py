"""Ahead-of-time compilation for GPUs that are not here: it succeeds, and no thread spills to memory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import triton

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
SCRIPT = Path(__file__).with_name("compile_ahead.py")


def resources(path):
    done = subprocess.run([TOOL, "--dump-resource-usage", path], capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout)}


needs_tool = pytest.mark.skipif(not TOOL.is_file(), reason="this triton comes without cuobjdump")


def compiled(folder, name, dtype, arch, kernels, *options):
    """What each kernel uses, by its name."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    chosen = ["--only", name, "--dtypes", dtype, "--archs", str(arch), *options]
    command = [sys.executable, SCRIPT, folder, *chosen]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    found = {path.name: resources(path) for path in folder.glob("*.cubin")}
    assert set(found) == {f"{kernel}-{name}-{dtype}-sm_{arch}.cubin" for kernel in kernels}
    return found


@needs_tool
@pytest.mark.parametrize("options", [[], ["--columns"]], ids=["one group", "columns"])
@pytest.mark.parametrize(("name", "dtype", "arch"), [("gelu", "bfloat16", 90), ("swish", "float32", 80)])
def test_kernels_compile_without_spills(tmp_path, options, name, dtype, arch):
    for kernel, used in compiled(tmp_path, name, dtype, arch, ("forward", "backward"), *options).items():
        assert used["STACK"] == 0, kernel
        assert used["LOCAL"] == 0, kernel
        assert 0 < used["REG"] <= 168, kernel


@needs_tool
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_kernels_of_tiers_compile_without_spills(tmp_path, dtype):
    for kernel, used in compiled(tmp_path, "gelu", dtype, 90, ("observe", "fold"), "--tiers").items():
        assert used["STACK"] == 0, kernel
        assert used["LOCAL"] == 0, kernel
