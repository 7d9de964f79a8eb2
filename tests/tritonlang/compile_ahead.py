"""Compile the Triton kernels ahead of time, without a GPU, and write the cubins.

    python compile_ahead.py FOLDER [--only relu,gelu] [--archs 80,90,100,120] [--dtypes float32,bfloat16] [--tiers]

For every activation, dtype and architecture one forward and one backward kernel that measure everything, as
``forward-relu-float32-sm_90.cubin``; or ``observe`` and ``fold``, with all of the opt-in tiers. Not in a process with
TRITON_INTERPRET=1, where kernels cannot be compiled.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import triton
from geoact.kernels import fused, tiers, tiles
from geoact.kernels.activations import ACTIVATIONS
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {"float16": ("fp16", 2), "bfloat16": ("bf16", 2), "float32": ("fp32", 4), "float64": ("fp64", 8)}
ARCHS = (80, 90, 100, 120)
WARP = 32
TIERS = ("all", True, 64)
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
    registers = tiles.tile(columns, TYPES[dtype][1], 1, 1).registers
    options = {"num_warps": tiles.WARPS, "maxnreg": registers}
    return assembled(kernel, constants((direction, name), dtype, columns), dtype, arch, options)


def compiled_tiers(kernel, name, dtype, arch, asked=TIERS):
    """The same of a kernel of the opt-in tiers, for rows that are dense in memory."""
    layout, plan = tiers.layout(*asked), tiers.plan(1 << 17, 4096, TYPES[dtype][1], *asked)
    chosen = {
        "x_stride2": 1,
        "VALUE": ACTIVATIONS[name].value,
        "WEIGHTS": 0,
        "HISTOGRAM": tiers.HISTOGRAMS[asked[0]],
        "PAIRS": layout.pairs,
        "SKETCH": layout.sketch,
        "K": asked[2],
        "HALF": plan.half,
        "BLOCK": plan.block,
        "FILLED": plan.filled,
        "DOWN": plan.down,
        "CHUNK": 128,
    }
    chosen = {argument: value for argument, value in chosen.items() if argument in kernel.arg_names}
    return assembled(kernel, chosen, dtype, arch, {"num_warps": plan.warps})


def assembled(kernel, chosen, dtype, arch, options):
    """A kernel with these constants, for data of a dtype."""
    data, types = f"*{TYPES[dtype][0]}", {}
    others = {"ticket_ptr": "*i32", "turns_ptr": "*i32", "table_ptr": "*i64", "signs_ptr": "*fp32"}
    others |= dict.fromkeys(("state_ptr", "partial_ptr", "sums_ptr"), "*fp64")
    others["buffer_ptr"] = "*fp64" if dtype == "float64" else "*fp32"
    for argument in kernel.arg_names:
        if argument in chosen:
            types[argument] = "constexpr"
        elif argument in others:
            types[argument] = others[argument]
        else:
            types[argument] = data if argument.endswith("_ptr") else "i64" if argument.endswith("bits") else "i32"
    pointers = {(i,): ALIGNED for i, argument in enumerate(kernel.arg_names) if argument.endswith("_ptr")}
    source = ASTSource(fn=kernel, signature=types, constexprs=chosen, attrs=pointers)
    return triton.compile(source, target=GPUTarget("cuda", arch, WARP), options={**options, "enable_fp_fusion": False})


def main(arguments=None):
    """Compile and write; returns how many files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(ACTIVATIONS))
    parser.add_argument("--archs", default=",".join(map(str, ARCHS)))
    parser.add_argument("--dtypes", default=",".join(TYPES))
    parser.add_argument("--columns", action="store_true", help="groups along the dense axis instead of one group")
    parser.add_argument("--tiers", action="store_true", help="the kernels of the opt-in tiers instead")
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for name in chosen.only.split(","):
        for dtype in chosen.dtypes.split(","):
            for arch in map(int, chosen.archs.split(",")):
                for which in ("observe", "fold") if chosen.tiers else ("forward", "backward"):
                    if chosen.tiers:
                        kernel = compiled_tiers(getattr(tiers, which), name, dtype, arch)
                    else:
                        kernel = compiled(which, name, dtype, arch, chosen.columns)
                    path = chosen.folder / f"{which}-{name}-{dtype}-sm_{arch}.cubin"
                    path.write_bytes(kernel.asm["cubin"])
                    written += 1
    return written


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("compile_ahead needs a process without TRITON_INTERPRET")
    print(f"{main()} kernels compiled")
