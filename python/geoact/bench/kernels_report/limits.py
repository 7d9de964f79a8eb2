"""What a streaming multiprocessor can hold, and the theoretical occupancy that follows.

Source: CUDA C++ Programming Guide, appendix "Compute Capabilities", table "Technical Specifications per Compute
Capability". Allocation units and the order of the checks follow NVIDIA's calculator, ``cuda_occupancy.h`` of the
toolkit, against which the tests compare this module where that header is found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

WARP = 32
_KIB = 1024
_REGISTERS = 65536
_REGISTER_UNIT = 256
"""Registers are given to a warp in steps of this many."""
_PARTITIONS = 4
"""An SM is four schedulers with a quarter of the registers each."""


@dataclass(frozen=True)
class Limits:
    """The limits of one SM and of one block on it."""

    blocks: int
    warps: int
    shared: int
    """Bytes of shared memory of an SM."""
    shared_per_block: int
    """Bytes that one block may have, opted in."""
    shared_unit: int
    reserved: int
    """Bytes of shared memory that the system takes from each block."""


def _row(blocks: int, warps: int, shared: int, shared_per_block: int) -> Limits:
    return Limits(blocks, warps, shared * _KIB, shared_per_block * _KIB, 128, _KIB)


LIMITS = {
    75: Limits(16, 32, 64 * _KIB, 64 * _KIB, 256, 0),
    80: _row(32, 64, 164, 163),
    86: _row(16, 48, 100, 99),
    87: _row(16, 48, 164, 163),
    88: _row(16, 48, 100, 99),
    89: _row(24, 48, 100, 99),
    90: _row(32, 64, 228, 227),
    100: _row(32, 64, 228, 227),
    103: _row(32, 64, 228, 227),
    110: _row(24, 48, 228, 227),
    120: _row(24, 48, 100, 99),
    121: _row(24, 48, 100, 99),
}
"""Compute capability (without the dot) -> limits."""


@dataclass(frozen=True)
class Occupancy:
    """How many blocks and warps fit on one SM at a time; zeros mean that such a block cannot be launched."""

    blocks: int
    warps: int
    share: float
    """Of the warps that the SM can hold."""


def number(arch: str) -> int:
    """``sm_90a`` -> 90."""
    match = re.fullmatch(r"sm_(\d+)[a-z]?", arch)
    if not match:
        raise ValueError(f"not an architecture: {arch!r} (expected a name such as sm_90)")
    return int(match[1])


def order(arch: str) -> tuple[int, str]:
    """For sorting: by number, names that are none first."""
    try:
        return number(arch), arch
    except ValueError:
        return 0, arch


def known(arch: str) -> bool:
    """Whether the limits of an architecture are in the table."""
    try:
        return number(arch) in LIMITS
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def occupancy(arch: str, registers: int, shared: int, block: int) -> Occupancy:
    """Theoretical occupancy of a kernel launched with ``block`` threads and ``shared`` bytes (static + dynamic)."""
    if not known(arch):
        raise ValueError(f"no limits are known of {arch}: the table has {', '.join(f'sm_{one}' for one in LIMITS)}")
    if not 1 <= block <= 1024:
        raise ValueError(f"a block has 1 to 1024 threads, not {block}")
    limits = LIMITS[number(arch)]
    warps = -(-block // WARP)
    per_warp = _up(registers * WARP, _REGISTER_UNIT)
    taken = _up(shared + limits.reserved, limits.shared_unit)
    if taken > limits.shared_per_block + limits.reserved:
        return Occupancy(0, 0, 0.0)
    blocks = min(limits.blocks, limits.warps // warps)
    if per_warp:
        # A warp's registers come from one partition, so what is left over in each is lost.
        blocks = min(blocks, (_REGISTERS // _PARTITIONS // per_warp) * _PARTITIONS // warps)
    if taken:
        blocks = min(blocks, limits.shared // taken)
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
