"""The shape of a tile and of a grid: numbers only, so that ahead-of-time compilation and a launch choose the same.

A tile has 128 lanes, one per thread of a program, so that the lanes of all statistics stay in registers. Nothing here
depends on the device: results do not change between two GPUs because one has more processors.
"""

from __future__ import annotations

from typing import NamedTuple

WARPS = 4
# Per thread, by whether groups lie along the dense axis. Left alone the compiler takes over 200 to keep more in flight,
# and a multiprocessor holds half as many programs; with fewer than these it spills. compile_ahead prints what is used.
_REGISTERS = {False: 128, True: 168}
_LANES = 32 * WARPS
# Elements of a lane; more do not fit into the registers of a thread beside what is measured.
_LOCAL, _LOCAL_OF_DOUBLES, _LOCAL_OF_COLUMNS = 4, 2, 4
_PROGRAMS = 1024  # about what is resident on a large GPU at once
_TILES_OF_PROGRAM = 4  # below, the end of a program costs more than its tiles
_FOLDED_AT_ONCE = 128  # partial records: one per thread
_LARGEST_SPLIT = 65535  # of the second axis of a grid


class Tile(NamedTuple):
    """The extents that ``fused`` takes as constants, and what the compiler may use per thread."""

    groups: int
    width: int
    local: int
    chunk: int
    registers: int


class Grid(NamedTuple):
    """Blocks of groups, splits of each, tiles of one split."""

    blocks: int
    splits: int
    tiles_of_program: int


def _power_of_two(n: int, limit: int) -> int:
    """The smallest that is at least n, within 1 and ``limit``."""
    return min(1 << max(0, n - 1).bit_length(), limit)


def tile(columns: bool, item_size: int, size1: int, size2: int) -> Tile:
    """The tile for data of shape (size0, size1, size2)."""
    if columns:
        local = _LOCAL_OF_COLUMNS
        groups = _power_of_two(size2, _LANES // 2)
        width = _power_of_two(-(-size1 // local), _LANES // groups)
    else:
        local = _LOCAL if item_size < 8 else _LOCAL_OF_DOUBLES
        width = _power_of_two(-(-size2 // local), _LANES)
        groups = _power_of_two(size1, _LANES // width)
    return Tile(groups, width, local, max(1, _FOLDED_AT_ONCE // groups), _REGISTERS[columns])


def grid(columns: bool, shape: tuple[int, int, int], tile: Tile, reduces: bool) -> Grid:
    """The grid; where nothing is reduced a program has as few tiles as a grid can hold."""
    size0, size1, size2 = shape
    lanes = tile.width * tile.local
    if columns:
        blocks, tiles = size0 * -(-size2 // tile.groups), -(-size1 // lanes)
    else:
        blocks, tiles = -(-size1 // tile.groups), size0 * -(-size2 // lanes)
    blocks, tiles = max(1, blocks), max(1, tiles)
    wanted = _LARGEST_SPLIT
    if reduces:
        wanted = min(-(-_PROGRAMS // blocks), -(-tiles // _TILES_OF_PROGRAM))
    each = -(-tiles // min(wanted, _LARGEST_SPLIT))
    return Grid(blocks, -(-tiles // each), each)
