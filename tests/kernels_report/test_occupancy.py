"""Theoretical occupancy, against cases worked out by hand and against NVIDIA's calculator."""

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
from geoact.bench.kernels_report import LIMITS, limits, occupancy
from support.machine_code import kernel, report, tool_or_skip


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "block", "blocks", "warps"),
    [
        ("sm_90", 32, 0, 256, 8, 64),
        ("sm_90", 33, 0, 256, 6, 48),  # 33 * 32 rounds up to 1280 registers a warp: 12 warps a scheduler
        ("sm_90a", 255, 0, 256, 1, 8),
        ("sm_80", 16, 0, 32, 32, 32),  # as many blocks as an SM takes
        ("sm_80", 16, 163 * 1024, 256, 1, 8),
        ("sm_80", 16, 164 * 1024, 256, 0, 0),
        ("sm_86", 32, 0, 1024, 1, 32),
        ("sm_75", 64, 0, 256, 4, 32),
        ("sm_90", 65, 0, 1024, 0, 0),  # 2304 registers a warp, 32 warps: more than a block may have
    ],
)
def test_by_hand(arch, registers, shared, block, blocks, warps):
    found = occupancy(arch, registers, shared, block)
    assert (found.blocks, found.warps) == (blocks, warps)
    assert found.share == warps / LIMITS[limits.number(arch)].warps


def test_bad_arguments():
    with pytest.raises(ValueError, match="no limits are known of sm_999"):
        occupancy("sm_999", 32, 0, 256)
    with pytest.raises(ValueError, match="not an architecture: 'gfx90a'"):
        limits.number("gfx90a")
    with pytest.raises(ValueError, match="1 to 1024 threads, not 0"):
        occupancy("sm_90", 32, 0, 0)


def test_a_kernel_that_declares_its_block_is_launched_with_it():
    plain, bound, fixed = kernel(), kernel(max_block=128), kernel(required_block=512)
    found = report(plain, block=256)
    assert [found.block_of(one) for one in (plain, bound, fixed)] == [256, 128, 512]


def test_shared_memory_of_all_kinds_counts():
    found = report(kernel(shared=50 * 1024, dynamic_shared=50 * 1024), shared=10 * 1024)
    assert found.occupancy(found.kernels[0]).blocks == 2


def test_an_architecture_that_is_not_known_has_no_occupancy():
    found = report(kernel(arch="sm_999"))
    assert found.occupancy(found.kernels[0]) is None


CALCULATOR = r"""
#include <climits>
#include <cstdio>
#include "cuda_occupancy.h"
int main() {
  int major, minor, warps, registers, shared, block;
  long per_sm, per_block, reserved;
  while (std::scanf("%d %d %d %ld %ld %ld %d %d %d", &major, &minor, &warps, &per_sm, &per_block, &reserved, &registers,
                    &shared, &block) == 9) {
    cudaOccDeviceProp p;
    p.computeMajor = major, p.computeMinor = minor, p.maxThreadsPerBlock = 1024, p.warpSize = 32, p.numSms = 1;
    p.maxThreadsPerMultiprocessor = warps * 32, p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.sharedMemPerBlock = 49152, p.sharedMemPerMultiprocessor = per_sm, p.sharedMemPerBlockOptin = per_block;
    p.reservedSharedMemPerBlock = reserved;
    cudaOccFuncAttributes a;
    a.maxThreadsPerBlock = 1024, a.numRegs = registers, a.sharedSizeBytes = 0, a.numBlockBarriers = 1;
    a.partitionedGCConfig = PARTITIONED_GC_OFF, a.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    a.maxDynamicSharedSizeBytes = shared;
    cudaOccDeviceState s;
    s.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    cudaOccResult r;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&r, &p, &a, &s, block, shared) != CUDA_OCC_SUCCESS) return 1;
    std::printf("%d\n", r.activeBlocksPerMultiprocessor);
  }
}
"""


def toolkit_header():
    """cuda_occupancy.h, from where nvcc itself takes its headers."""
    nvcc = tool_or_skip("nvcc")
    done = subprocess.run(
        [nvcc, "--dryrun", "-c", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=False
    )
    top = next((line.partition("TOP=")[2] for line in done.stderr.splitlines() if "TOP=" in line), "")
    for header in Path(top).resolve().glob("**/cuda_occupancy.h"):
        return header
    pytest.skip("this toolkit has no cuda_occupancy.h")


def test_agrees_with_nvidias_calculator(tmp_path):
    header = toolkit_header()
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "calculator.cpp").write_text(CALCULATOR)
    program = tmp_path / "calculator"
    subprocess.run(
        [compiler, "-w", f"-I{header.parent}", tmp_path / "calculator.cpp", "-o", program], check=True, timeout=120
    )
    cases = list(
        itertools.product(
            LIMITS,
            (0, 16, 24, 32, 33, 40, 48, 64, 65, 96, 128, 200, 255),
            (0, 1, 1024, 10_000, 32 * 1024, 49_000, 65_536, 99 * 1024, 100_000, 163 * 1024, 227 * 1024),
            (1, 32, 96, 128, 256, 288, 512, 1000, 1024),
        )
    )
    rows = []
    for number, registers, shared, block in cases:
        one = LIMITS[number]
        row = (number // 10, number % 10, one.warps, one.shared, one.shared_per_block, one.reserved)
        rows.append(" ".join(map(str, (*row, registers, shared, block))))
    done = subprocess.run([program], input="\n".join(rows), capture_output=True, text=True, check=True, timeout=120)
    answers = list(map(int, done.stdout.split()))
    assert len(answers) == len(cases)
    wrong = [
        (case, theirs, ours)
        for case, theirs in zip(cases, answers, strict=True)
        if (ours := occupancy(f"sm_{case[0]}", *case[1:]).blocks) != theirs
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)} differ, first {wrong[:5]}"
