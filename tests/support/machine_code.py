"""Kernels made up for the gate, recorded cuobjdump texts, and compiling real ones where nvcc is."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from geoact.bench.kernels_report import Kernel, Report, ReportError
from geoact.bench.kernels_report.tools import Cuobjdump, find

BASE = Kernel(
    name="scale<float>",
    arch="sm_90",
    compiler="ptxas 13.0.88",
    registers=32,
    stack=0,
    local=0,
    shared=0,
    dynamic_shared=0,
    constant=552,
    required_block=0,
    max_block=0,
    code_hash="0123456789abcdef",
    code_bytes=1024,
    instructions=100,
    loads={32: 1, 128: 2},
    stores={128: 2},
    generic=0,
    bulk=0,
    shared_loads=0,
    shared_stores=0,
    local_loads=0,
    local_stores=0,
    barriers=0,
    shuffles=0,
    atomics=0,
    calls=0,
    branches=2,
    mix={"fp32": 40, "integer": 30, "memory": 20, "control": 10},
    other_opcodes="",
    loops=1,
    loop_instructions=40,
    loop_loaded=32,
    loop_stored=32,
    loop_load_width=128,
    loop_store_width=128,
)
TOOLS = {"cuobjdump": "13.1.80", "demangler": "c++filt", "rules": "1"}


def kernel(**changes):
    """The base kernel, changed, with other machine code."""
    return replace(BASE, **({"code_hash": "fedcba9876543210"} | changes))


def report(*kernels, **changes):
    return Report(**({"kernels": kernels, "tools": TOOLS} | changes))


# Printed by cuobjdump 13.1 of a kernel that scales float4 in a grid-stride loop; addresses and encodings as they came,
# the tail of padding cut.
LOOP = """
	code for sm_90
	.target	sm_90

		Function : _Z5scaleIfLi4EEvPK6float4PS0_T_i
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                    /* 0x00000a00ff017b82 */
                    /* 0x000fe20000000800 */
        /*0050*/                   IMAD R0, R0, UR4, R3 ;                    /* 0x0000000400007c24 */
                    /* 0x000fca000f8e0203 */
        /*0060*/                   ISETP.GE.AND P0, PT, R0, UR8, PT ;
        /*0070*/               @P0 EXIT ;
        /*00e0*/                   IMAD.WIDE R4, R0, 0x10, R2 ;
        /*00f0*/                   LDG.E.128 R4, desc[UR6][R4.64] ;
        /*0100*/                   HFMA2.MMA R11, -RZ, RZ, 0.96630859375, -0.0022525787353515625 ;
        /*0110*/                   MOV R13, 0x437c0000 ;
        /*0120*/                   FFMA.SAT R10, R6, R11, 0.5 ;
        /*01b0*/                   IMAD.WIDE R10, R0.reuse, 0x10, R8 ;
        /*01c0*/                   IADD3 R0, R0, UR4, RZ ;
        /*01d0*/                   MUFU.EX2 R13, R12 ;
        /*01e0*/                   ISETP.GE.AND P0, PT, R0, UR8, PT ;
        /*0200*/                   STG.E.128 desc[UR6][R10.64], R4 ;
        /*0210*/              @!P0 BRA 0xe0 ;
        /*0220*/                   EXIT ;
        /*0230*/                   BRA 0x230;
        /*0240*/                   NOP;
		..........
"""

RESOURCES = """
Resource usage:
 Common:
  GLOBAL:0 CONSTANT[3]:256
 Function _Z5spillPKfPfi:
  REG:32 STACK:776 SHARED:0 LOCAL:8 CONSTANT[0]:548 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Z6narrowPKfPffi:
  REG:12 STACK:0 SHARED:2048 LOCAL:0 CONSTANT[2]:108 CONSTANT[0]:552 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


def listing(*lines, arch="sm_90", name="k"):
    """A disassembly of instructions at addresses 0, 0x10, 0x20, ..."""
    body = "\n".join(f"        /*{16 * i:04x}*/ {line} ;" for i, line in enumerate(lines))
    return f"\tcode for {arch}\n\t\tFunction : {name}\n{body}\n".splitlines()


def tool_or_skip(name):
    try:
        return find(name)
    except ReportError as error:
        pytest.skip(str(error))


def cuobjdump_or_skip():
    path = tool_or_skip("cuobjdump")
    try:
        assert Cuobjdump(path).version
    except ReportError as error:
        pytest.skip(str(error))
    return path


def compiled(folder, name, source, *flags, arch="sm_90", suffix="cubin"):
    """Compile CUDA source with nvcc; skips without it."""
    nvcc = tool_or_skip("nvcc")
    cuobjdump_or_skip()
    text, output = folder / f"{name}.cu", folder / f"{name}.{suffix}"
    text.write_text(source)
    form = {"cubin": ["-cubin"], "o": ["-c"], "ptx": ["-ptx"], "so": ["-shared", "-Xcompiler", "-fPIC"]}[suffix]
    target = [] if any(flag.startswith("-gencode") for flag in flags) else [f"-arch={arch}"]
    done = subprocess.run(
        [nvcc, *form, *target, "-O3", *flags, text, "-o", output], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return output
