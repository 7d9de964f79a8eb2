"""Compile the Triton kernels ahead of time, without a GPU, and write the cubins.

    python compile_ahead.py FOLDER [--only relu,gelu] [--archs 80,90,100,120] [--dtypes float32,bfloat16]

For every activation, dtype and architecture one forward and one backward kernel that measure everything, as
``forward-relu-float32-sm_90.cubin``. Not in a process with TRITON_INTERPRET=1, where kernels cannot be compiled.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import triton
from geoact.kernels import fused, tiles
from geoact.kernels.activations import ACTIVATIONS
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {"float16": ("fp16", 2), "bfloat16": ("bf16", 2), "float32": ("fp32", 4), "float64": ("fp64", 8)}
ARCHS = (80, 90, 100, 120)
WARP = 32
# Pointers that come from an allocator are aligned.
ALIGNED = [["tt.divisibility", 16]]


def constants(kind, dtype, columns):
    """The constant arguments of a kernel, as a launch would choose them for a large tensor."""
    row, size = ACTIVATIONS[kind[1]], TYPES[dtype][1]
    tile = tiles.tile(columns, size, 4096 if columns else 1, 64 if columns else 1 << 24)
    common = {
        "WEIGHTS": sum(fused.ONE_VALUE.value * 4**k for k in range(row.trainable)),
        "WHOLE": not columns,
        "SINGLE": False,
        "COLUMNS": columns,
        "UNIT": 1 if columns else 16,
        "WIDE": False,
        "GROUPS": tile.groups,
        "WIDTH": tile.width,
        "LOCAL": tile.local,
        "CHUNK": tile.chunk,
    }
    if kind[0] == "forward":
        return common | {"VALUE": row.value, "SLOPE": row.slope, "SAVES_Y": row.saves == "y", "LEVEL": 2}
    return common | {
        "SLOPE": row.slope,
        "GRADIENT": row.gradient,
        "PARAM_SLOPE": row.param_slope,
        "STORE": True,
        "MEASURE": True,
        "PARAMETERS": common["WEIGHTS"],
        "TRAINED": row.trainable,
    }


def compiled(direction, name, dtype, arch, columns=False):
    """The kernel of one activation, with its assembly."""
    kernel = {"forward": fused.forward, "backward": fused.backward}[direction]
    chosen = constants((direction, name), dtype, columns)
    data, types = f"*{TYPES[dtype][0]}", {}
    for argument in kernel.arg_names:
        if argument in chosen:
            types[argument] = "constexpr"
        elif argument in ("state_ptr", "partial_ptr", "sums_ptr"):
            types[argument] = "*fp64"
        elif argument == "ticket_ptr":
            types[argument] = "*i32"
        else:
            types[argument] = data if argument.endswith("_ptr") else "i64" if argument.endswith("bits") else "i32"
    pointers = {(i,): ALIGNED for i, argument in enumerate(kernel.arg_names) if argument.endswith("_ptr")}
    source = ASTSource(fn=kernel, signature=types, constexprs=chosen, attrs=pointers)
    registers = tiles.tile(columns, TYPES[dtype][1], 1, 1).registers
    options = {"num_warps": tiles.WARPS, "maxnreg": registers, "enable_fp_fusion": False}
    return triton.compile(source, target=GPUTarget("cuda", arch, WARP), options=options)


def main(arguments=None):
    """Compile and write; returns how many files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(ACTIVATIONS))
    parser.add_argument("--archs", default=",".join(map(str, ARCHS)))
    parser.add_argument("--dtypes", default=",".join(TYPES))
    parser.add_argument("--columns", action="store_true", help="groups along the dense axis instead of one group")
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for name in chosen.only.split(","):
        for dtype in chosen.dtypes.split(","):
            for arch in map(int, chosen.archs.split(",")):
                for direction in ("forward", "backward"):
                    kernel = compiled(direction, name, dtype, arch, chosen.columns)
                    path = chosen.folder / f"{direction}-{name}-{dtype}-sm_{arch}.cubin"
                    path.write_bytes(kernel.asm["cubin"])
                    written += 1
    return written


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("compile_ahead needs a process without TRITON_INTERPRET")
    print(f"{main()} kernels compiled")
