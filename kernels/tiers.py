"""WHAT the opt-in tiers measure between samples, and HOW rows are passed over for it: the record of csrc/ops/tiers.h.

Data are seen as rows x columns: a column per channel, rows numbered in C order of the other axes. A pair is rows 2i and
2i + 1; the kernels hold its two rows as two tiles of shape (HALF, BLOCK), so that nothing has to be exchanged between
threads to compare them.

``observe`` runs before ``fused.forward``, reads x and computes y = stored(f(x)) once more, so that y may be written
over x. A program owns a run of rows that begins at an even one. Where only values are counted, rows are also split.

    buckets     integers: a program counts in registers, and adds to one table of the launch. Order does not matter.
    distances   float64 per lane, then a partial record per program.
    sketches    rows are summed as differences from one of the program's rows. They are kept aside until there are
                FILLED tiles of them, then multiplied, a block of the products at a time: a thread has not the registers
                for all of them. Means, squared deviations and products are settled when the program ends.

``fold`` adds the partial records to the state by Chan's formula, in their order, a program per block of the products,
and leaves the table zero. Nothing depends on which program is last; there is no float atomic and no word from the host,
so a captured graph can be replayed.

State: the header of ``fused``, then the cells as ``layout`` places them. Table of int64: the ticket of ``fold``,
buckets of x and of y, buckets of the ratios of rows and of sketches.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .fused import HEADER, NUMBER, ONE_VALUE, count_call, from_bits, index, is_enabled, is_last

# Buckets of values: by sign, exponent and two bits of the significand.
LEAST: tl.constexpr = tl.constexpr(-32)  # exponent of the first octave
OF_SIZE: tl.constexpr = tl.constexpr(258)  # of one sign: four per octave of 64, one below, one above
BUCKETS: tl.constexpr = tl.constexpr(517)  # of both signs, and one for NaN
BINS: tl.constexpr = tl.constexpr(1024)  # the power of two that holds them; the last is for what does not count
RATIO_BINS: tl.constexpr = tl.constexpr(512)

# Of every row one run in EVERY, a run further on in the next row.
RUN: tl.constexpr = tl.constexpr(16)
EVERY: tl.constexpr = tl.constexpr(32)
NOTHING: tl.constexpr = tl.constexpr(0)
SAMPLED: tl.constexpr = tl.constexpr(1)
ALL: tl.constexpr = tl.constexpr(2)

INFINITY: tl.constexpr = tl.constexpr(float("inf"))
PAIR_SCALARS: tl.constexpr = tl.constexpr(8)  # before the buckets of ratios
PAIR_CELLS: tl.constexpr = tl.constexpr(266)
LEAST_RATIO: tl.constexpr = tl.constexpr(6)
SIDES: tl.constexpr = tl.constexpr(4)  # s_of_x, t_of_x, s_of_y, t_of_y
PRODUCTS: tl.constexpr = tl.constexpr(3)  # xx, yy, xy
BEFORE_MEANS: tl.constexpr = tl.constexpr(2)  # rows, nonfinite

# The table.
TABLE_OF_X: tl.constexpr = tl.constexpr(1)
TABLE_OF_RATIOS: tl.constexpr = tl.constexpr(1 + 2 * 517)
TABLE_WORDS: tl.constexpr = tl.constexpr(1 + 2 * 517 + 2 * 258)


# --- numbers only, for the host ----------------------------------------------------------------------------

HISTOGRAMS = {"none": NOTHING.value, "sampled": SAMPLED.value, "all": ALL.value}

# Elements of one tile of (HALF, BLOCK). Never fewer than a program has threads: ``tl.cat`` would count copies of them.
_TILE, _LEAST_TILE = 512, 128
_HALF = 8
_FILLED = 8  # tiles of a pair of tiles kept aside before they are multiplied
_DOWN = 16  # rows of a block of products
_PROGRAMS, _PROGRAMS_OF_SKETCHES = 1024, 256
_ELEMENTS = 8192  # of a program; below, its end costs more than its rows
_READ_PER_CELL = 1  # bytes of x that a program of sketches reads for each byte of its partial record


class Layout(NamedTuple):
    """First cells of the tiers in a record, -1 where one is not measured, and the number of all cells."""

    histogram: int
    pairs: int
    sketch: int
    cells: int


class Plan(NamedTuple):
    """Programs along rows and columns, what each has, and the extents that ``observe`` takes as constants."""

    programs: int
    splits: int
    rows_of_program: int
    blocks_of_program: int
    half: int
    block: int
    filled: int
    down: int
    warps: int


def layout(histogram: str, pairs: bool, sketch: int) -> Layout:
    """The record: both histograms, the pairs, the sketches; each where it is asked for."""
    cells, first = 0, {}
    sizes = {
        "histogram": 2 * BUCKETS.value if histogram != "none" else 0,
        "pairs": PAIR_CELLS.value if pairs else 0,
        "sketch": 2 + 8 * sketch + 3 * sketch**2 + PAIR_CELLS.value if sketch else 0,
    }
    for name, size in sizes.items():
        first[name] = cells if size else -1
        cells += size
    return Layout(**first, cells=cells)


def columns_looked_at(columns: int, histogram: str, of_rows: bool) -> int:
    """How many places of a row the tiles of ``observe`` run over."""
    if histogram != "sampled" or of_rows:
        return columns
    period = RUN.value * EVERY.value
    return -(-columns // period) * RUN.value


def plan(rows: int, columns: int, item_size: int, histogram: str, pairs: bool, sketch: int) -> Plan:
    """How rows are cut, a function of the shape alone; ``rows`` and ``columns`` are at least 1."""
    places = columns_looked_at(columns, histogram, pairs or sketch > 0)
    half = _HALF if sketch else min(_HALF, 1 << max(0, (rows + 1) // 2 - 1).bit_length())
    block = sketch or min(_TILE // half, max(_LEAST_TILE // half, 1 << max(0, places - 1).bit_length()))
    step, blocks = 2 * half, -(-places // block)
    wanted, least = _PROGRAMS, -(-_ELEMENTS // (blocks * block))
    if sketch:
        wanted = _PROGRAMS_OF_SKETCHES
        least = max(least, -(-_READ_PER_CELL * 24 * sketch**2 // (columns * item_size)))
    tiles = -(-rows // step)
    each = max(-(-tiles // wanted), min(-(-least // step), tiles))
    programs = -(-tiles // each)
    splits = 1
    if not pairs and not sketch:
        splits = max(1, min(_PROGRAMS // programs, blocks * block * step * each // _ELEMENTS, blocks))
    per_split = -(-blocks // splits)
    splits, warps = -(-blocks // per_split), 8 if sketch else 4
    return Plan(programs, splits, each * step, per_split, half, block, _FILLED, _DOWN, warps)


# --- buckets -----------------------------------------------------------------------------------------------


@triton.jit
def bucket_of_size(v):
    """Of |v|, which is no NaN."""
    if v.dtype == tl.float64:
        size = v.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
        at = (size >> 50) - (((1023 + LEAST) << 2) - 1)
    else:
        size = v.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        at = (size >> 21) - (((127 + LEAST) << 2) - 1)
    return tl.minimum(tl.maximum(at, 0), OF_SIZE - 1).to(tl.int32)


@triton.jit
def bucket_of(v, keep):
    """Of v, and the last bin where it is not to be kept."""
    if v.dtype == tl.float64:
        negative = v.to(tl.int64, bitcast=True) < 0
    else:
        negative = v.to(tl.int32, bitcast=True) < 0
    at = bucket_of_size(v) + tl.where(negative, OF_SIZE, 0)
    return tl.where(keep, tl.where(v == v, at, BUCKETS - 1), BINS - 1)


@triton.jit
def count_values(table, even, odd, keep_even, keep_odd):
    """The table with the values of two tiles."""
    bins = tl.cat(
        tl.ravel(bucket_of(even, keep_even), can_reorder=True),
        tl.ravel(bucket_of(odd, keep_odd), can_reorder=True),
        can_reorder=True,
    )
    return table + tl.histogram(bins, BINS)


@triton.jit
def add_to_table(table_ptr, table):
    bins = tl.arange(0, BINS)
    tl.atomic_add(table_ptr + bins, table.to(tl.int64), mask=(bins < BUCKETS) & (table > 0), sem="relaxed")


@triton.jit
def is_sampled(row, column):
    return (column // RUN + row) % EVERY == 0


# --- distances of pairs ------------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """The scalars of pairs, in the order of their cells: integers are int32 as lanes, float64 in the state."""

    count: tl.tensor
    identical: tl.tensor
    collisions: tl.tensor
    nonfinite: tl.tensor
    sum_sq_x: tl.tensor
    sum_sq_y: tl.tensor
    least_ratio: tl.tensor
    greatest_ratio: tl.tensor


@triton.jit
def no_pairs(HALF: tl.constexpr):
    none = tl.zeros([HALF], tl.int32)
    nothing = tl.zeros([HALF], tl.float64)
    return Pairs(none, none, none, none, nothing, nothing, nothing + INFINITY, nothing - INFINITY)


@triton.jit
def square_distance(a, b):
    """Of the rows of two tiles, over their columns; float64."""
    d = a - b
    total = tl.sum(d * d, 1).to(tl.float64)
    if a.dtype != tl.float64:
        # Squares of float32 that overflow, or are too small to keep their digits.
        lost = (total >= 2.0**100) | ((total <= 2.0**-90) & (tl.max(tl.abs(d), 1) > 0))
        if tl.max(lost.to(tl.int32), 0) != 0:
            wide = a.to(tl.float64) - b.to(tl.float64)
            total = tl.where(lost, tl.sum(wide * wide, 1), total)
    return total


@triton.jit
def add_pairs(pairs, sq_x, sq_y, exists, ratio_ptr):
    """Lanes with one more pair each, by its squared distances; its ratio is counted at ``ratio_ptr``."""
    finite = (sq_x - sq_x == 0) & (sq_y - sq_y == 0)
    usable = exists & finite
    moved = usable & (sq_x != 0)
    ratio = tl.sqrt(tl.where(moved, sq_y, 1.0) / tl.where(moved, sq_x, 1.0))
    one = tl.full(sq_x.shape, 1, tl.int64)
    tl.atomic_add(ratio_ptr + bucket_of_size(ratio), one, mask=moved, sem="relaxed")
    return Pairs(
        pairs.count + exists.to(tl.int32),
        pairs.identical + (usable & (sq_x == 0)).to(tl.int32),
        pairs.collisions + (moved & (sq_y == 0)).to(tl.int32),
        pairs.nonfinite + (exists & (finite == 0)).to(tl.int32),
        pairs.sum_sq_x + tl.where(usable, sq_x, 0.0),
        pairs.sum_sq_y + tl.where(usable, sq_y, 0.0),
        tl.minimum(pairs.least_ratio, tl.where(moved, ratio, INFINITY)),
        tl.maximum(pairs.greatest_ratio, tl.where(moved, ratio, -INFINITY)),
    )


@triton.jit
def merge_pairs(pairs):
    """Of lanes, or of the records of several programs."""
    return Pairs(
        tl.sum(pairs.count, 0),
        tl.sum(pairs.identical, 0),
        tl.sum(pairs.collisions, 0),
        tl.sum(pairs.nonfinite, 0),
        tl.sum(pairs.sum_sq_x, 0),
        tl.sum(pairs.sum_sq_y, 0),
        tl.min(pairs.least_ratio, 0),
        tl.max(pairs.greatest_ratio, 0),
    )


@triton.jit
def store_pairs(pointer, pairs):
    for k in tl.static_range(PAIR_SCALARS):
        tl.store(pointer + k, pairs[k].to(tl.float64))


@triton.jit
def load_pairs(pointer, exists):
    sums = tl.load(pointer, mask=exists, other=0.0)
    return Pairs(
        sums,
        tl.load(pointer + 1, mask=exists, other=0.0),
        tl.load(pointer + 2, mask=exists, other=0.0),
        tl.load(pointer + 3, mask=exists, other=0.0),
        tl.load(pointer + 4, mask=exists, other=0.0),
        tl.load(pointer + 5, mask=exists, other=0.0),
        tl.load(pointer + LEAST_RATIO, mask=exists, other=INFINITY),
        tl.load(pointer + LEAST_RATIO + 1, mask=exists, other=-INFINITY),
    )


@triton.jit
def fold_pairs(state_ptr, partial_ptr, between, count, CHUNK: tl.constexpr):
    """Add ``count`` partial records, ``between`` apart."""
    only = tl.zeros([1], tl.int64)
    total = merge_pairs(load_pairs(state_ptr + only, only == 0))
    for start in range(0, count, CHUNK):
        part = start + tl.arange(0, CHUNK)
        more = merge_pairs(load_pairs(partial_ptr + part.to(tl.int64) * between, part < count))
        total = Pairs(
            total.count + more.count,
            total.identical + more.identical,
            total.collisions + more.collisions,
            total.nonfinite + more.nonfinite,
            total.sum_sq_x + more.sum_sq_x,
            total.sum_sq_y + more.sum_sq_y,
            tl.minimum(total.least_ratio, more.least_ratio),
            tl.maximum(total.greatest_ratio, more.greatest_ratio),
        )
    store_pairs(state_ptr, total)


@triton.jit
def fold_table(cells_ptr, table_ptr, enabled, SIZE: tl.constexpr, ROOM: tl.constexpr):
    """Add counts to cells where ``enabled``, and leave zeros."""
    bins = tl.arange(0, ROOM)
    there = bins < SIZE
    counts = tl.load(table_ptr + bins, mask=there, other=0)
    adds = there & enabled
    tl.store(cells_ptr + bins, tl.load(cells_ptr + bins, mask=adds, other=0.0) + counts.to(tl.float64), mask=adds)
    tl.store(table_ptr + bins, tl.zeros_like(counts), mask=there)


# --- sketches ----------------------------------------------------------------------------------------------


class Sketch(NamedTuple):
    """What the two sets of signs, S and T, make of rows of x and of y."""

    s_of_x: tl.tensor
    t_of_x: tl.tensor
    s_of_y: tl.tensor
    t_of_y: tl.tensor


@triton.jit
def no_sketch(shape, TYPE: tl.constexpr):
    zero = tl.zeros(shape, TYPE)
    return Sketch(zero, zero, zero, zero)


@triton.jit
def add_block(z, x, y, s, t, other):
    """Sketches with one more block of columns: a product with a sign is exact.

    Lanes of x and y are in the order of S; ``other`` says where those lie that T puts into each bucket.
    """
    order = tl.broadcast_to(other, x.shape)
    t_of_x, t_of_y = tl.gather(x, order, 1), tl.gather(y, order, 1)
    return Sketch(z.s_of_x + x * s, z.t_of_x + t_of_x * t, z.s_of_y + y * s, z.t_of_y + t_of_y * t)


@triton.jit
def are_finite(z):
    yes = (tl.abs(z.s_of_x) < INFINITY) & (tl.abs(z.t_of_x) < INFINITY)
    yes = yes & (tl.abs(z.s_of_y) < INFINITY) & (tl.abs(z.t_of_y) < INFINITY)
    return tl.min(yes.to(tl.int32), 1) == 1


@triton.jit
def square_difference(a, b, both):
    d = a.to(tl.float64) - b.to(tl.float64)
    return tl.where(both, tl.sum(d * d, 1), INFINITY)


@triton.jit
def one_of(even, odd, is_even, is_odd):
    """The row of two tiles that is chosen."""
    return tl.sum(tl.where(is_even[:, None], even, 0.0), 0) + tl.sum(tl.where(is_odd[:, None], odd, 0.0), 0)


@triton.jit
def first_finite(even, odd, finite_even, finite_odd, HALF: tl.constexpr):
    """The first row of two tiles whose sketches are finite, and whether there is one."""
    at = 2 * tl.arange(0, HALF)
    none = 2 * HALF
    place_even, place_odd = tl.where(finite_even, at, none), tl.where(finite_odd, at + 1, none)
    first = tl.minimum(tl.min(place_even, 0), tl.min(place_odd, 0))
    found = first < none
    is_even, is_odd = (place_even == first) & finite_even, (place_odd == first) & finite_odd
    return Sketch(
        one_of(even.s_of_x, odd.s_of_x, is_even, is_odd),
        one_of(even.t_of_x, odd.t_of_x, is_even, is_odd),
        one_of(even.s_of_y, odd.s_of_y, is_even, is_odd),
        one_of(even.t_of_y, odd.t_of_y, is_even, is_odd),
    ), found


@triton.jit
def keep_rows(z, shift, finite, buffer_ptr, row, K: tl.constexpr):
    """Keep the rows of a tile aside, as differences from ``shift``; zeros where they are not finite."""
    at = buffer_ptr + row[:, None] * (SIDES * K) + tl.arange(0, K)[None, :]
    for side in tl.static_range(SIDES):
        tl.store(at + side * K, tl.where(finite[:, None], z[side] - shift[side][None, :], 0.0))


@triton.jit
def block_of(part, K: tl.constexpr, DOWN: tl.constexpr):
    """Of a block of the products: cells of its two means behind the first, and of its elements behind ``rows``."""
    which, row = part // (K // DOWN), part % (K // DOWN) * DOWN + tl.arange(0, DOWN)
    column = tl.arange(0, K)
    left = tl.where(which == 1, 2 * K, 0) + row  # s_of_y in yy, else s_of_x
    right = tl.where(which == 0, K, 3 * K) + column  # t_of_x in xx, else t_of_y
    cells = BEFORE_MEANS + 2 * SIDES * K + which * (K * K) + row[:, None] * K + column[None, :]
    return left, right, cells


@triton.jit
def multiply(partial_ptr, buffer_ptr, tiles, fresh, K: tl.constexpr, STEP: tl.constexpr, DOWN: tl.constexpr):
    """Add the rows kept aside to the partial record, which is ``fresh`` the first time: sums, squares, products."""
    tl.debug_barrier()  # all rows are there
    row, lane = tl.arange(0, STEP), tl.arange(0, K)
    means = partial_ptr + BEFORE_MEANS + lane
    more = (lane >= 0) & (fresh == 0)
    for side in range(0, SIDES):
        total = tl.load(means + side * K, mask=more, other=0.0)
        squares = tl.load(means + (SIDES + side) * K, mask=more, other=0.0)
        for tile in range(0, tiles):
            d = tl.load(buffer_ptr + (tile * STEP + row)[:, None] * (SIDES * K) + side * K + lane[None, :])
            total += tl.sum(d, 0).to(tl.float64)
            squares += tl.sum(d * d, 0).to(tl.float64)
        tl.debug_barrier()  # several threads load the same number
        tl.store(means + side * K, total)
        tl.store(means + (SIDES + side) * K, squares)
    for part in range(0, PRODUCTS * (K // DOWN)):
        left, right, cells = block_of(part, K, DOWN)
        total = tl.load(partial_ptr + cells, mask=(cells >= 0) & (fresh == 0), other=0.0)
        for tile in range(0, tiles):
            at = buffer_ptr + (tile * STEP + row) * (SIDES * K)
            a = tl.load(at[None, :] + left[:, None])
            b = tl.load(at[:, None] + right[None, :])
            total += tl.dot(a, b, input_precision="ieee", out_dtype=a.dtype).to(tl.float64)
        tl.store(partial_ptr + cells, total)
    tl.debug_barrier()  # all rows were read


@triton.jit
def settle(partial_ptr, n, nonfinite, shift, K: tl.constexpr, DOWN: tl.constexpr):
    """Sums of differences from the shift to means and deviations."""
    means, lane = partial_ptr + BEFORE_MEANS, tl.arange(0, K)
    one_part = 1.0 / tl.maximum(n, 1).to(tl.float64)
    for part in range(0, PRODUCTS * (K // DOWN)):
        left, right, cells = block_of(part, K, DOWN)
        a, b = tl.load(means + left), tl.load(means + right)
        product = tl.load(partial_ptr + cells) - a[:, None] * (b * one_part)[None, :]
        tl.store(partial_ptr + cells, product)
    tl.debug_barrier()  # every thread has read the sums
    for side in tl.static_range(SIDES):
        at = means + side * K + lane
        total, squares = tl.load(at), tl.load(at + SIDES * K)
        tl.debug_barrier()  # several threads load the same number
        tl.store(at, shift[side].to(tl.float64) + total * one_part)
        tl.store(at + SIDES * K, tl.maximum(squares - total * total * one_part, 0.0))
    tl.store(partial_ptr, n.to(tl.float64))
    tl.store(partial_ptr + 1, nonfinite.to(tl.float64))


@triton.jit
def shares(n, size):
    """What Chan's formula takes of ``size`` more rows after ``n``: of the difference of means, and of its square."""
    share = tl.where(size > 0, size / tl.maximum(n + size, 1.0), 0.0)
    return share, n * share


@triton.jit
def fold_products(state_ptr, partial_ptr, between, count, part, K: tl.constexpr, DOWN: tl.constexpr):
    """Add one block of the products of the partial records."""
    left, right, cells = block_of(part, K, DOWN)
    left, right = left + BEFORE_MEANS, right + BEFORE_MEANS
    n = tl.load(state_ptr)
    a, b, total = tl.load(state_ptr + left), tl.load(state_ptr + right), tl.load(state_ptr + cells)
    for _ in range(0, count):
        size = tl.load(partial_ptr)
        share, weight = shares(n, size)
        move_a, move_b = tl.load(partial_ptr + left) - a, tl.load(partial_ptr + right) - b
        total += tl.load(partial_ptr + cells) + (move_a * weight)[:, None] * move_b[None, :]
        a, b, n = a + move_a * share, b + move_b * share, n + size
        partial_ptr += between
    tl.store(state_ptr + cells, total)


@triton.jit
def fold_means(state_ptr, partial_ptr, between, count, K: tl.constexpr):
    """Add what is not a product; after every ``fold_products``, which reads the means."""
    at = BEFORE_MEANS + tl.arange(0, SIDES * K)
    n, nonfinite = tl.load(state_ptr), tl.load(state_ptr + 1)
    mean, deviation = tl.load(state_ptr + at), tl.load(state_ptr + at + SIDES * K)
    for _ in range(0, count):
        size = tl.load(partial_ptr)
        share, weight = shares(n, size)
        move = tl.load(partial_ptr + at) - mean
        deviation += tl.load(partial_ptr + at + SIDES * K) + move * move * weight
        mean, n, nonfinite = mean + move * share, n + size, nonfinite + tl.load(partial_ptr + 1)
        partial_ptr += between
    tl.debug_barrier()  # every thread has read n
    tl.store(state_ptr + at, mean)
    tl.store(state_ptr + at + SIDES * K, deviation)
    tl.store(state_ptr, n)
    tl.store(state_ptr + 1, nonfinite)


# --- the kernels -------------------------------------------------------------------------------------------


@triton.jit
def offsets(row, column, inner, stride0, stride1, stride2):
    """Elements from the base pointer, of rows seen as two axes."""
    return (row // inner) * index(stride0, True) + (row % inner) * index(stride1, True) + column * index(stride2, True)


@triton.jit
def parameter_at(w_ptr, bits, at, keep, KIND: tl.constexpr, COMPUTE: tl.constexpr):
    """One parameter: NUMBER, ONE_VALUE, or at offsets of its own."""
    if KIND == NUMBER:
        p = from_bits(bits, COMPUTE)
    elif KIND == ONE_VALUE:
        p = tl.load(w_ptr).to(COMPUTE)
    else:
        p = tl.load(w_ptr + at, mask=keep, other=0.0).to(COMPUTE)
    return p


@triton.jit
def values_at(
    x_ptr, w, bits, row, column, keep, inner, x_stride0, x_stride1, x_stride2, w_stride0, w_stride1, w_stride2,
    VALUE: tl.constexpr, WEIGHTS: tl.constexpr,
):  # fmt: skip
    """X, and y as ``fused.forward`` stores it; zero where there is no element."""
    STORAGE: tl.constexpr = x_ptr.dtype.element_ty
    COMPUTE: tl.constexpr = tl.float64 if tl.float64 == STORAGE else tl.float32
    KIND0: tl.constexpr = WEIGHTS % 4
    KIND1: tl.constexpr = WEIGHTS // 4 % 4
    KIND2: tl.constexpr = WEIGHTS // 16 % 4
    KIND3: tl.constexpr = WEIGHTS // 64 % 4
    at = offsets(row, column, inner, w_stride0, w_stride1, w_stride2)
    p = (
        parameter_at(w[0], bits[0], at, keep, KIND0, COMPUTE),
        parameter_at(w[1], bits[1], at, keep, KIND1, COMPUTE),
        parameter_at(w[2], bits[2], at, keep, KIND2, COMPUTE),
        parameter_at(w[3], bits[3], at, keep, KIND3, COMPUTE),
    )
    at = offsets(row, column, inner, x_stride0, x_stride1, x_stride2)
    x = tl.load(x_ptr + at, mask=keep, other=0.0).to(COMPUTE)
    y = VALUE(x, p).to(STORAGE).to(COMPUTE)
    return x, tl.where(keep, y, 0.0)


_NUMBERS = [
    "rows", "inner", "columns", "x_stride0", "x_stride1", "w_stride0", "w_stride1", "w_stride2", "p0_bits",
    "p1_bits", "p2_bits", "p3_bits", "rows_of_program", "blocks_of_program", "programs", "cells",
]  # fmt: skip


@triton.jit(do_not_specialize=_NUMBERS)
def observe(
    x_ptr, w0_ptr, w1_ptr, w2_ptr, w3_ptr, state_ptr, partial_ptr, buffer_ptr, table_ptr, signs_ptr, turns_ptr,
    rows, inner, columns, x_stride0, x_stride1, x_stride2, w_stride0, w_stride1, w_stride2,
    p0_bits, p1_bits, p2_bits, p3_bits, rows_of_program, blocks_of_program, cells,
    VALUE: tl.constexpr, WEIGHTS: tl.constexpr, HISTOGRAM: tl.constexpr, PAIRS: tl.constexpr, SKETCH: tl.constexpr,
    K: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, FILLED: tl.constexpr, DOWN: tl.constexpr,
):  # fmt: skip
    """The partial records of one call: of x, and of y = f(x) as it will be stored.

    Parameters
    ----------
    x_ptr : pointer to float16, bfloat16, float32 or float64
        Data of rows r and columns c at (r // inner) stride0 + (r % inner) stride1 + c stride2, in elements.
    w0_ptr, w1_ptr, w2_ptr, w3_ptr : pointer to any of these
        The parameters, by the digits of WEIGHTS, base 4, of ``fused``: NUMBER, where it is in its bits, ONE_VALUE, or
        PER_ELEMENT at strides of their own, which may be 0 and are those of all.
    state_ptr : pointer to float64
        The state, for its first word.
    partial_ptr : pointer to float64
        Room for a record of ``cells`` cells per program; no buckets are written.
    buffer_ptr : pointer to float32, or float64 for float64 data
        Room for FILLED tiles of 2 HALF rows of 4 K numbers per program.
    table_ptr : pointer to int64
        Zeros; ``fold`` leaves them so.
    signs_ptr, turns_ptr : pointer to float32 and int32
        Of lane i of block b of a row: signs [set][b K + i], of the value that comes there; it is that of lane
        i ^ turn of the set; turns [set][b].
    p0_bits, p1_bits, p2_bits, p3_bits : int
        Float64 numbers by their bits.
    rows_of_program, blocks_of_program : int
        Of the first and the second axis of the grid; a multiple of 2 HALF, and blocks of BLOCK places of a row.
    HISTOGRAM, PAIRS, SKETCH : int
        NOTHING, SAMPLED or ALL; first cells of the pairs and of the sketches, or -1.
    """
    STORAGE: tl.constexpr = x_ptr.dtype.element_ty
    COMPUTE: tl.constexpr = tl.float64 if tl.float64 == STORAGE else tl.float32
    STEP: tl.constexpr = 2 * HALF
    ONLY_SAMPLES: tl.constexpr = HISTOGRAM == SAMPLED and PAIRS < 0 and SKETCH < 0
    first = index(tl.program_id(0), True) * rows_of_program
    end = tl.minimum(first + rows_of_program, index(rows, True))
    tiles = tl.cdiv(end - first, STEP).to(tl.int32)
    enabled = is_enabled(state_ptr)
    tiles = tl.where(enabled, tiles, 0)
    begin = tl.program_id(1) * blocks_of_program
    places = tl.cdiv(columns, RUN * EVERY) * RUN if ONLY_SAMPLES else columns
    blocks = tl.minimum(begin + blocks_of_program, tl.cdiv(places, BLOCK)).to(tl.int32)
    partial_ptr += index(tl.program_id(0), True) * cells
    half, lane = tl.arange(0, HALF), tl.arange(0, BLOCK)[None, :]
    w, bits = (w0_ptr, w1_ptr, w2_ptr, w3_ptr), (p0_bits, p1_bits, p2_bits, p3_bits)
    if HISTOGRAM != NOTHING:
        table_x, table_y = tl.zeros([BINS], tl.int32), tl.zeros([BINS], tl.int32)
    if PAIRS >= 0:
        pairs = no_pairs(HALF)
    if SKETCH >= 0:
        buffer_ptr += index(tl.program_id(0), True) * (FILLED * STEP * SIDES * K)
        sketch_pairs = no_pairs(HALF)
        n, seen = tl.zeros([HALF], tl.int32), tl.zeros([HALF], tl.int32)
        shift = no_sketch((K,), COMPUTE)
        shifted, filled, fresh = tl.full([], 0, tl.int32), tl.full([], 0, tl.int32), tl.full([], 1, tl.int32)

    for tile in range(0, tiles):
        even = first + index(tile, True) * STEP + 2 * half
        row_even, row_odd = even[:, None], even[:, None] + 1
        if PAIRS >= 0:
            sq_x, sq_y = tl.zeros([HALF], tl.float64), tl.zeros([HALF], tl.float64)
        if SKETCH >= 0:
            z_even, z_odd = no_sketch((HALF, BLOCK), COMPUTE), no_sketch((HALF, BLOCK), COMPUTE)
        for block in range(begin, blocks):
            at = index(block, True) * BLOCK
            if SKETCH >= 0:
                column_even = at + (lane ^ tl.load(turns_ptr + block))
                column_odd = column_even
            elif ONLY_SAMPLES:
                place = (at + lane) // RUN * (RUN * EVERY) + lane % RUN
                column_even = place + (EVERY - row_even % EVERY) % EVERY * RUN
                column_odd = place + (EVERY - row_odd % EVERY) % EVERY * RUN
            else:
                column_even = at + lane
                column_odd = column_even
            keep_even, keep_odd = (row_even < end) & (column_even < columns), (row_odd < end) & (column_odd < columns)
            x_even, y_even = values_at(
                x_ptr, w, bits, row_even, column_even, keep_even, inner, x_stride0, x_stride1, x_stride2,
                w_stride0, w_stride1, w_stride2, VALUE, WEIGHTS,
            )  # fmt: skip
            x_odd, y_odd = values_at(
                x_ptr, w, bits, row_odd, column_odd, keep_odd, inner, x_stride0, x_stride1, x_stride2,
                w_stride0, w_stride1, w_stride2, VALUE, WEIGHTS,
            )  # fmt: skip
            if PAIRS >= 0:
                sq_x += square_distance(x_even, x_odd)
                sq_y += square_distance(y_even, y_odd)
            if SKETCH >= 0:
                sign = signs_ptr + at + lane
                s, t = tl.load(sign).to(COMPUTE), tl.load(sign + tl.cdiv(columns, K).to(tl.int64) * K).to(COMPUTE)
                turn = tl.load(turns_ptr + block) ^ tl.load(turns_ptr + tl.cdiv(columns, K) + block)
                z_even = add_block(z_even, x_even, y_even, s, t, lane ^ turn)
                z_odd = add_block(z_odd, x_odd, y_odd, s, t, lane ^ turn)
            if HISTOGRAM != NOTHING:
                if HISTOGRAM == SAMPLED:
                    keep_even = keep_even & is_sampled(row_even, column_even)
                    keep_odd = keep_odd & is_sampled(row_odd, column_odd)
                table_x = count_values(table_x, x_even, x_odd, keep_even, keep_odd)
                table_y = count_values(table_y, y_even, y_odd, keep_even, keep_odd)
        exists_even, exists_odd = even < end, even + 1 < end
        if PAIRS >= 0:
            pairs = add_pairs(pairs, sq_x, sq_y, exists_odd, table_ptr + TABLE_OF_RATIOS)
        if SKETCH >= 0:
            finite_even, finite_odd = are_finite(z_even), are_finite(z_odd)
            both = finite_even & finite_odd
            sketch_pairs = add_pairs(
                sketch_pairs,
                square_difference(z_even.s_of_x, z_odd.s_of_x, both),
                square_difference(z_even.s_of_y, z_odd.s_of_y, both),
                exists_odd,
                table_ptr + TABLE_OF_RATIOS + OF_SIZE,
            )
            finite_even, finite_odd = finite_even & exists_even, finite_odd & exists_odd
            if shifted == 0:
                shift, found = first_finite(z_even, z_odd, finite_even, finite_odd, HALF)
                shifted = found.to(tl.int32)
            kept = filled * STEP + 2 * half
            keep_rows(z_even, shift, finite_even, buffer_ptr, kept, K)
            keep_rows(z_odd, shift, finite_odd, buffer_ptr, kept + 1, K)
            n += finite_even.to(tl.int32) + finite_odd.to(tl.int32)
            seen += exists_even.to(tl.int32) + exists_odd.to(tl.int32)
            filled += 1
            if (filled == FILLED) | (tile == tiles - 1):
                multiply(partial_ptr + SKETCH, buffer_ptr, filled, fresh, K, STEP, DOWN)
                filled, fresh = filled * 0, fresh * 0

    if enabled:
        if HISTOGRAM != NOTHING:
            add_to_table(table_ptr + TABLE_OF_X, table_x)
            add_to_table(table_ptr + TABLE_OF_X + BUCKETS, table_y)
        if PAIRS >= 0:
            store_pairs(partial_ptr + PAIRS, merge_pairs(pairs))
        if SKETCH >= 0:
            PAIRS_OF_SKETCH: tl.constexpr = SKETCH + BEFORE_MEANS + 2 * SIDES * K + PRODUCTS * K * K
            store_pairs(partial_ptr + PAIRS_OF_SKETCH, merge_pairs(sketch_pairs))
            kept_rows = tl.sum(n, 0)
            settle(partial_ptr + SKETCH, kept_rows, tl.sum(seen, 0) - kept_rows, shift, K, DOWN)


@triton.jit(do_not_specialize=_NUMBERS)
def fold(
    state_ptr, partial_ptr, table_ptr, programs, cells,
    HISTOGRAM: tl.constexpr, PAIRS: tl.constexpr, SKETCH: tl.constexpr,
    K: tl.constexpr, DOWN: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Add the partial records of ``programs`` programs to the state; parameters as for ``observe``.

    The grid has one program, or one per block of the products where there are sketches.
    """
    enabled = is_enabled(state_ptr)
    record, ratios = state_ptr + HEADER, table_ptr + TABLE_OF_RATIOS
    PAIRS_OF_SKETCH: tl.constexpr = SKETCH + BEFORE_MEANS + 2 * SIDES * K + PRODUCTS * K * K
    if SKETCH >= 0:
        if enabled:
            fold_products(record + SKETCH, partial_ptr + SKETCH, cells, programs, tl.program_id(0), K, DOWN)
    if is_last(table_ptr, tl.num_programs(0)):
        # Zeros are left in any case: the table serves other launches.
        if HISTOGRAM != NOTHING:
            fold_table(record, table_ptr + TABLE_OF_X, enabled, 2 * BUCKETS, 2 * BINS)
        if PAIRS >= 0:
            fold_table(record + PAIRS + PAIR_SCALARS, ratios, enabled, OF_SIZE, RATIO_BINS)
        if SKETCH >= 0:
            fold_table(record + PAIRS_OF_SKETCH + PAIR_SCALARS, ratios + OF_SIZE, enabled, OF_SIZE, RATIO_BINS)
        if enabled:
            if PAIRS >= 0:
                fold_pairs(record + PAIRS, partial_ptr + PAIRS, cells, programs, CHUNK)
            if SKETCH >= 0:
                fold_means(record + SKETCH, partial_ptr + SKETCH, cells, programs, K)
                fold_pairs(record + PAIRS_OF_SKETCH, partial_ptr + PAIRS_OF_SKETCH, cells, programs, CHUNK)
            count_call(state_ptr)
