"""HOW memory is passed over once: one forward and one backward kernel, for every activation, dtype and measurement.

Data are seen as three axes of sizes (size0, size1, size2), the last of which is dense in memory. A program owns a block
of groups, keeps their lanes in registers while it runs over its share of the tiles, and makes one record of them:

    COLUMNS = 0   the middle axis is kept, (0, 2) are reduced; a tile is (GROUPS, WIDTH, LOCAL)   flat, NCHW, rows
    COLUMNS = 1   (0, 2) are kept, the middle axis is reduced; a tile is (LOCAL, WIDTH, GROUPS)   channels last

The LOCAL elements of a lane belong to one thread. Grid: (blocks of groups, splits of the reduced axes). ``size2`` and
the strides are passed in units of UNIT elements: a multiplication by 16 is how the compiler learns that rows begin at
multiples of 16 and may be loaded 16 bytes at a time.

Two-level deterministic reduction. A program writes its record to ``partial`` and takes a ticket; the last one of a
block merges the records of the block in a fixed order and adds them to the state; the last one of the launch adds to
the state what is not per group, counts the call, and every ticket is back at 0. Nothing depends on which is last.
There is one launch, no float atomic and no word from the host, so a captured graph can be replayed.

State: 8-byte words, [0] int64 enabled, [1] int64 calls, [2:4] reserved, then float64 cells [field][group].
"""

from __future__ import annotations

import triton
import triton.language as tl

from .statistics import (
    COUNT_CELLS,
    GEOMETRY_CELLS,
    GRADIENT_CELLS,
    add_moments,
    combine_counts,
    combine_gradient,
    combine_moments,
    count_tile,
    exact_where_constant,
    finish_moments,
    gradient_tile,
    load_counts,
    load_gradient,
    load_moments,
    merge_counts,
    merge_gradient,
    merge_moments,
    no_counts,
    no_gradient,
    no_moments,
    smallest_normal,
    store_record,
)

# What is measured (LEVEL), where a parameter comes from (a digit of WEIGHTS), and how its gradient is reduced (a digit
# of PARAMETERS); digits to the base 4, that of the first parameter lowest.
NOTHING: tl.constexpr = tl.constexpr(0)
COUNTS: tl.constexpr = tl.constexpr(1)
MOMENTS: tl.constexpr = tl.constexpr(2)

NUMBER: tl.constexpr = tl.constexpr(0)
ONE_VALUE: tl.constexpr = tl.constexpr(1)
PER_GROUP: tl.constexpr = tl.constexpr(2)
PER_ELEMENT: tl.constexpr = tl.constexpr(3)

HEADER: tl.constexpr = tl.constexpr(4)  # words of the state before its cells
THREADS: tl.constexpr = tl.constexpr(128)  # of a program


# --- where things are --------------------------------------------------------------------------------------


@triton.jit
def from_bits(bits, COMPUTE: tl.constexpr):
    """A number that the host passed as the bits of its float64: as a float it would arrive rounded to float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(COMPUTE)


@triton.jit
def index(i, WIDE: tl.constexpr):
    """An index in the integer type that holds every offset of the call."""
    if WIDE:
        result = i + tl.full([], 0, tl.int64)  # a plain int under the interpreter has no .to
    else:
        result = i
    return result


@triton.jit
def tiles_of(
    size0, size1, size2, COLUMNS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, LOCAL: tl.constexpr
):
    """How many tiles a block of groups has."""
    if COLUMNS:
        tiles = tl.cdiv(size1, WIDTH * LOCAL)
    else:
        tiles = size0 * tl.cdiv(size2, WIDTH * LOCAL)
    return tiles.to(tl.int32)


@triton.jit
def groups_of(size0, size1, size2, COLUMNS: tl.constexpr, GROUPS: tl.constexpr):
    """Of this program's groups: their numbers, which of them exist, and how many there are in all; 64-bit."""
    block, lane = tl.program_id(0).to(tl.int64), tl.arange(0, GROUPS)
    if COLUMNS:
        across = tl.cdiv(size2, GROUPS)
        within = (block % across) * GROUPS + lane
        groups = (block // across) * size2 + within
        exists = within < size2
        number = size0.to(tl.int64) * size2
    else:
        groups = block * GROUPS + lane
        exists = groups < size1
        number = size1.to(tl.int64)
    return groups, exists, number


@triton.jit
def tile_at(
    tile, size0, size1, size2,
    COLUMNS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, LOCAL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The three indices of a tile's elements, each broadcastable over the tile, and which elements exist."""
    block, tile = index(tl.program_id(0), WIDE), index(tile, WIDE)
    if COLUMNS:
        across = tl.cdiv(size2, GROUPS)
        lane = tl.arange(0, LOCAL)[:, None, None] * WIDTH + tl.arange(0, WIDTH)[None, :, None]
        i0, i1 = block // across, tile * (WIDTH * LOCAL) + lane
        i2 = (block % across) * GROUPS + tl.arange(0, GROUPS)[None, None, :]
    else:
        along = tl.cdiv(size2, WIDTH * LOCAL)
        lane = tl.arange(0, WIDTH)[None, :, None] * LOCAL + tl.arange(0, LOCAL)[None, None, :]
        i0, i1 = tile // along, block * GROUPS + tl.arange(0, GROUPS)[:, None, None]
        i2 = (tile % along) * (WIDTH * LOCAL) + lane
    return i0, i1, i2, (i1 < size1) & (i2 < size2)


@triton.jit
def offset(i0, i1, i2, stride0, stride1, WIDE: tl.constexpr):
    """Elements from the base pointer."""
    return i0 * index(stride0, WIDE) + i1 * index(stride1, WIDE) + i2


@triton.jit
def parameter_at(
    w_ptr, p_bits, i0, i1, i2, keep, stride0, stride1,
    WEIGHT: tl.constexpr, COLUMNS: tl.constexpr, COMPUTE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One parameter of a tile's elements."""
    if WEIGHT == NUMBER:
        p = from_bits(p_bits, COMPUTE)
    elif WEIGHT == ONE_VALUE:
        p = tl.load(w_ptr).to(COMPUTE)
    elif WEIGHT == PER_GROUP:
        if COLUMNS:
            p = tl.load(w_ptr + i2 + 0 * i1, mask=keep, other=0.0).to(COMPUTE)
        else:
            p = tl.load(w_ptr + i1 + 0 * i2, mask=keep, other=0.0).to(COMPUTE)
    else:
        p = tl.load(w_ptr + offset(i0, i1, i2, stride0, stride1, WIDE), mask=keep, other=0.0).to(COMPUTE)
    return p


@triton.jit
def parameters_at(
    w, bits, i0, i1, i2, keep, stride0, stride1,
    WEIGHTS: tl.constexpr, COLUMNS: tl.constexpr, COMPUTE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The parameters of a tile's elements: those that an activation lacks are not used."""
    W0: tl.constexpr = WEIGHTS % 4
    W1: tl.constexpr = WEIGHTS // 4 % 4
    W2: tl.constexpr = WEIGHTS // 16 % 4
    W3: tl.constexpr = WEIGHTS // 64 % 4
    return (
        parameter_at(w[0], bits[0], i0, i1, i2, keep, stride0, stride1, W0, COLUMNS, COMPUTE, WIDE),
        parameter_at(w[1], bits[1], i0, i1, i2, keep, stride0, stride1, W1, COLUMNS, COMPUTE, WIDE),
        parameter_at(w[2], bits[2], i0, i1, i2, keep, stride0, stride1, W2, COLUMNS, COMPUTE, WIDE),
        parameter_at(w[3], bits[3], i0, i1, i2, keep, stride0, stride1, W3, COLUMNS, COMPUTE, WIDE),
    )


@triton.jit
def add_term(total, dy, slope, keep, REDUCED: tl.constexpr):
    return total + tl.sum(tl.where(keep, dy * slope, 0.0), REDUCED).to(tl.float64)


@triton.jit
def add_terms(sums, dy, slopes, keep, TRAINED: tl.constexpr, REDUCED: tl.constexpr):
    """The shares of a tile in the gradients of the trained parameters; sums that are not used stay."""
    a, b, c, d = sums
    a = add_term(a, dy, slopes[0], keep, REDUCED)
    if TRAINED > 1:
        b = add_term(b, dy, slopes[1], keep, REDUCED)
    if TRAINED > 2:
        c = add_term(c, dy, slopes[2], keep, REDUCED)
    if TRAINED > 3:
        d = add_term(d, dy, slopes[3], keep, REDUCED)
    return a, b, c, d


# --- the second level of the reduction ---------------------------------------------------------------------


@triton.jit
def is_last(ticket_ptr, count):
    """Whether this program is the last of ``count`` to come here. What the others wrote before is then visible."""
    tl.debug_barrier()  # every thread has written before the one that takes the ticket releases it
    last = tl.atomic_add(ticket_ptr, 1, sem="acq_rel", scope="gpu") == count - 1
    tl.debug_barrier()
    if last:
        tl.store(ticket_ptr, 0)
    return last


@triton.jit
def is_last_of_block(ticket_ptr, SINGLE: tl.constexpr):
    """The same among the splits of a block; SINGLE where there is one, which then needs no ticket."""
    if SINGLE:
        tl.debug_barrier()
        last = tl.program_id(1) == 0
    else:
        last = is_last(ticket_ptr + 1 + tl.program_id(0), tl.num_programs(1))
    return last


@triton.jit
def parts_at(partial_ptr, start, count, between, groups, exists, CHUNK: tl.constexpr):
    """Pointers to the first cells of CHUNK partial records of each group, and which of them exist."""
    part = start + tl.arange(0, CHUNK)[:, None]
    return partial_ptr + part.to(tl.int64) * between + groups[None, :], (part < count) & exists[None, :]


@triton.jit
def fold_geometry(
    state_ptr, partial_ptr, step, between, count, groups, exists, number, LEVEL: tl.constexpr, CHUNK: tl.constexpr
):
    """Add ``count`` partial records of each group, ``between`` apart, to the state; their cells are ``step`` apart."""
    cells = state_ptr + HEADER + groups
    counts = load_counts(cells, number, exists)
    n = counts.n
    for start in range(0, count, CHUNK):
        pointer, there = parts_at(partial_ptr, start, count, between, groups, exists, CHUNK)
        counts = combine_counts(counts, merge_counts(load_counts(pointer, step, there), 0))
    store_record(counts, cells, number, exists, 0, COUNT_CELLS)
    # In a loop of their own: a thread has not the registers for two whole records.
    if LEVEL == MOMENTS:
        moments = load_moments(cells, number, exists)
        for start in range(0, count, CHUNK):
            pointer, there = parts_at(partial_ptr, start, count, between, groups, exists, CHUNK)
            sizes = tl.load(pointer, mask=there, other=0.0, cache_modifier=".cg")
            size = tl.sum(sizes, 0)
            merged = merge_moments(load_moments(pointer, step, there), sizes, 0)
            moments, n = combine_moments(moments, merged, n, size), n + size
        moments = exact_where_constant(moments, counts)
        store_record(moments, cells, number, exists, COUNT_CELLS, GEOMETRY_CELLS - COUNT_CELLS)


@triton.jit
def fold_gradient(state_ptr, partial_ptr, step, between, count, groups, exists, number, CHUNK: tl.constexpr):
    """The same for gradients."""
    cells = state_ptr + HEADER + groups
    total = load_gradient(cells, number, exists)
    for start in range(0, count, CHUNK):
        pointer, there = parts_at(partial_ptr, start, count, between, groups, exists, CHUNK)
        total = combine_gradient(total, merge_gradient(load_gradient(pointer, step, there), 0))
    store_record(total, cells, number, exists, 0, GRADIENT_CELLS)


@triton.jit
def fold_sum(out_ptr, partial_ptr, between, count, groups, exists, CHUNK: tl.constexpr):
    """The sum of ``count`` float64 numbers of each group, in the type of ``out_ptr``."""
    total = tl.zeros_like(groups).to(tl.float64)
    for start in range(0, count, CHUNK):
        pointer, there = parts_at(partial_ptr, start, count, between, groups, exists, CHUNK)
        total += tl.sum(tl.load(pointer, mask=there, other=0.0, cache_modifier=".cg"), 0)
    if out_ptr.dtype.element_ty != tl.float64:
        total = total.to(tl.float32)  # as the CPU does; the interpreter also knows no other way to bfloat16
    tl.store(out_ptr + groups, total.to(out_ptr.dtype.element_ty), mask=exists)


@triton.jit
def count_call(state_ptr):
    calls = state_ptr.to(tl.pointer_type(tl.int64)) + 1
    tl.store(calls, tl.load(calls) + 1)


@triton.jit
def is_enabled(state_ptr):
    return tl.load(state_ptr.to(tl.pointer_type(tl.int64))) != 0


# --- forward -----------------------------------------------------------------------------------------------

_NUMBERS = [
    "size0", "size1", "size2", "x_stride0", "x_stride1", "y_stride0", "y_stride1", "w_stride0", "w_stride1",
    "dy_stride0", "dy_stride1", "saved_stride0", "saved_stride1", "dx_stride0", "dx_stride1",
    "p0_bits", "p1_bits", "p2_bits", "p3_bits", "saturation_bits", "tiles_of_program", "sums_step",
]  # fmt: skip


@triton.jit(do_not_specialize=_NUMBERS)
def forward(
    x_ptr, y_ptr, w0_ptr, w1_ptr, w2_ptr, w3_ptr, state_ptr, partial_ptr, ticket_ptr,
    size0, size1, size2, x_stride0, x_stride1, y_stride0, y_stride1, w_stride0, w_stride1,
    p0_bits, p1_bits, p2_bits, p3_bits, saturation_bits, tiles_of_program,
    VALUE: tl.constexpr, SLOPE: tl.constexpr, SAVES_Y: tl.constexpr, WEIGHTS: tl.constexpr, LEVEL: tl.constexpr,
    WHOLE: tl.constexpr, SINGLE: tl.constexpr, COLUMNS: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr,
    GROUPS: tl.constexpr, WIDTH: tl.constexpr, LOCAL: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Y = f(x), and the geometry of x and y.

    Parameters
    ----------
    x_ptr, y_ptr : pointer to float16, bfloat16, float32 or float64
        Data of shape (size0, size1, size2) and strides (stride0, stride1, 1), in elements. y may be x.
    w0_ptr, ... : pointer to any of these
        Parameters: one value, one per group or one per element, as WEIGHTS says; if NUMBER, p0_bits, ... are it.
    state_ptr : pointer to float64
        The state, unless LEVEL is NOTHING; of one group if WHOLE.
    partial_ptr : pointer to float64
        Room for a record per program and group: [split][cell][group], or [cell][program] if WHOLE.
    ticket_ptr : pointer to int32
        Zeros: one for the launch and, unless SINGLE, one per block behind it. Zeros again afterwards.
    p0_bits, ..., saturation_bits : int
        Float64 numbers by their bits: the parameters, and the |slope| below which an element counts as saturated.
    tiles_of_program : int
        Tiles of a block that go to one split.
    """
    STORAGE: tl.constexpr = x_ptr.dtype.element_ty
    COMPUTE: tl.constexpr = tl.float64 if tl.float64 == STORAGE else tl.float32
    REDUCED: tl.constexpr = 0 if COLUMNS else 2
    ALONG: tl.constexpr = 0 if COLUMNS else 1
    ROWS: tl.constexpr = WIDTH if COLUMNS else GROUPS
    LANES: tl.constexpr = GROUPS if COLUMNS else WIDTH
    size2 *= UNIT
    x_stride0, x_stride1, y_stride0, y_stride1 = x_stride0 * UNIT, x_stride1 * UNIT, y_stride0 * UNIT, y_stride1 * UNIT
    begin = tl.program_id(1) * tiles_of_program
    end = tl.minimum(begin + tiles_of_program, tiles_of(size0, size1, size2, COLUMNS, GROUPS, WIDTH, LOCAL))
    if LEVEL != NOTHING:
        enabled = is_enabled(state_ptr)
        saturation = from_bits(saturation_bits, COMPUTE)
        lanes = no_counts((ROWS, LANES), COMPUTE)
        moments = no_moments((ROWS, LANES))
    w, bits = (w0_ptr, w1_ptr, w2_ptr, w3_ptr), (p0_bits, p1_bits, p2_bits, p3_bits)
    for tile in range(begin, end):
        i0, i1, i2, keep = tile_at(tile, size0, size1, size2, COLUMNS, GROUPS, WIDTH, LOCAL, WIDE)
        p = parameters_at(w, bits, i0, i1, i2, keep, w_stride0, w_stride1, WEIGHTS, COLUMNS, COMPUTE, WIDE)
        x = tl.load(x_ptr + offset(i0, i1, i2, x_stride0, x_stride1, WIDE), mask=keep, other=0.0).to(COMPUTE)
        stored = VALUE(x, p).to(STORAGE)
        if GROUPS * WIDTH < THREADS:
            tl.debug_barrier()  # several threads load the same element: all have, before y is written over x
        tl.store(y_ptr + offset(i0, i1, i2, y_stride0, y_stride1, WIDE), stored, mask=keep)
        if LEVEL != NOTHING:
            if enabled:
                y = stored.to(COMPUTE)
                if SAVES_Y:
                    f = SLOPE(y, y, p)
                else:
                    f = SLOPE(x, y, p)
                counts = count_tile(x, y, f, keep, saturation, smallest_normal(x, STORAGE), REDUCED)
                if LEVEL == MOMENTS:
                    moments = add_moments(moments, lanes.n, x, y, f, keep, counts, REDUCED)
                lanes = combine_counts(lanes, counts)

    if LEVEL != NOTHING:
        CELLS: tl.constexpr = GEOMETRY_CELLS if LEVEL == MOMENTS else COUNT_CELLS
        groups, exists, number = groups_of(size0, size1, size2, COLUMNS, GROUPS)
        blocks, programs = tl.num_programs(0), tl.num_programs(0) * tl.num_programs(1)
        counts = merge_counts(lanes, ALONG)
        rest = finish_moments(moments, lanes.n, ALONG)
        if WHOLE:
            every = merge_counts(counts, 0)
            here = partial_ptr + tl.program_id(1) * blocks + tl.program_id(0)
            store_record(every, here, programs, True, 0, COUNT_CELLS)
            if LEVEL == MOMENTS:
                rest = merge_moments(rest, counts.n, 0)
                store_record(rest, here, programs, True, COUNT_CELLS, GEOMETRY_CELLS - COUNT_CELLS)
            if is_last(ticket_ptr, programs):
                if enabled:
                    only = tl.zeros([1], tl.int64)
                    fold_geometry(
                        state_ptr, partial_ptr, programs, 1, programs, only, only == 0, 1, LEVEL, CHUNK * GROUPS
                    )
                    count_call(state_ptr)
        else:
            here = partial_ptr + tl.program_id(1) * (number * CELLS) + groups
            store_record(counts, here, number, exists, 0, COUNT_CELLS)
            if LEVEL == MOMENTS:
                store_record(rest, here, number, exists, COUNT_CELLS, GEOMETRY_CELLS - COUNT_CELLS)
            if is_last_of_block(ticket_ptr, SINGLE):
                splits = tl.num_programs(1)
                if enabled:
                    fold_geometry(
                        state_ptr, partial_ptr, number, number * CELLS, splits, groups, exists, number, LEVEL, CHUNK
                    )
                if is_last(ticket_ptr, blocks):
                    if enabled:
                        count_call(state_ptr)


# --- backward ----------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_NUMBERS)
def backward(
    dy_ptr, saved_ptr, dx_ptr, w0_ptr, w1_ptr, w2_ptr, w3_ptr, dw0_ptr, dw1_ptr, dw2_ptr, dw3_ptr,
    state_ptr, partial_ptr, sums_ptr, ticket_ptr,
    size0, size1, size2, dy_stride0, dy_stride1, saved_stride0, saved_stride1, dx_stride0, dx_stride1,
    w_stride0, w_stride1, p0_bits, p1_bits, p2_bits, p3_bits, tiles_of_program, sums_step,
    SLOPE: tl.constexpr, GRADIENT: tl.constexpr, PARAM_SLOPE: tl.constexpr, WEIGHTS: tl.constexpr,
    STORE: tl.constexpr, MEASURE: tl.constexpr, WHOLE: tl.constexpr, PARAMETERS: tl.constexpr, TRAINED: tl.constexpr,
    SINGLE: tl.constexpr, COLUMNS: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr,
    GROUPS: tl.constexpr, WIDTH: tl.constexpr, LOCAL: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Dx = dy f'(x), the gradients of trained parameters, and the record of the gradients.

    Parameters
    ----------
    dy_ptr, saved_ptr, dx_ptr : pointer to float16, bfloat16, float32 or float64
        As x_ptr of ``forward``. saved is x or y; dx, not written unless STORE, may be either input.
    w0_ptr, ..., ticket_ptr, p0_bits, ..., tiles_of_program
        As for ``forward``.
    dw0_ptr, ... : pointer to any of these types
        Sums of dy df/dp, of the first TRAINED parameters: over everything where PARAMETERS says ONE_VALUE, over each
        group where PER_GROUP.
    state_ptr, partial_ptr
        As for ``forward``, with the cells of a gradient; used if MEASURE.
    sums_ptr : pointer to float64
        Room for partial sums of dw: [program], or [split][group], ``sums_step`` apart from parameter to parameter.
    """
    STORAGE: tl.constexpr = dy_ptr.dtype.element_ty
    COMPUTE: tl.constexpr = tl.float64 if tl.float64 == STORAGE else tl.float32
    REDUCED: tl.constexpr = 0 if COLUMNS else 2
    ALONG: tl.constexpr = 0 if COLUMNS else 1
    ROWS: tl.constexpr = WIDTH if COLUMNS else GROUPS
    LANES: tl.constexpr = GROUPS if COLUMNS else WIDTH
    size2 *= UNIT
    dy_stride0, dy_stride1, dx_stride0, dx_stride1 = (
        dy_stride0 * UNIT, dy_stride1 * UNIT, dx_stride0 * UNIT, dx_stride1 * UNIT,
    )  # fmt: skip
    saved_stride0, saved_stride1 = saved_stride0 * UNIT, saved_stride1 * UNIT
    begin = tl.program_id(1) * tiles_of_program
    end = tl.minimum(begin + tiles_of_program, tiles_of(size0, size1, size2, COLUMNS, GROUPS, WIDTH, LOCAL))
    if MEASURE:
        enabled = is_enabled(state_ptr)
        lanes = no_gradient((ROWS, LANES), COMPUTE)
    if TRAINED > 0:
        nothing = tl.zeros((ROWS, LANES), tl.float64)
        sums = (nothing, nothing, nothing, nothing)
    w, bits = (w0_ptr, w1_ptr, w2_ptr, w3_ptr), (p0_bits, p1_bits, p2_bits, p3_bits)
    for tile in range(begin, end):
        i0, i1, i2, keep = tile_at(tile, size0, size1, size2, COLUMNS, GROUPS, WIDTH, LOCAL, WIDE)
        p = parameters_at(w, bits, i0, i1, i2, keep, w_stride0, w_stride1, WEIGHTS, COLUMNS, COMPUTE, WIDE)
        dy = tl.load(dy_ptr + offset(i0, i1, i2, dy_stride0, dy_stride1, WIDE), mask=keep, other=0.0).to(COMPUTE)
        at = offset(i0, i1, i2, saved_stride0, saved_stride1, WIDE)
        saved = tl.load(saved_ptr + at, mask=keep, other=0.0).to(COMPUTE)
        f = SLOPE(saved, saved, p)
        if GRADIENT is None:
            dx = dy * f
        else:
            dx = GRADIENT(dy, saved, saved, p)
        stored = dx.to(STORAGE)
        if STORE:
            if GROUPS * WIDTH < THREADS:
                tl.debug_barrier()  # as in forward
            tl.store(dx_ptr + offset(i0, i1, i2, dx_stride0, dx_stride1, WIDE), stored, mask=keep)
        if TRAINED > 0:
            sums = add_terms(sums, dy, PARAM_SLOPE(saved, saved, p), keep, TRAINED, REDUCED)
        if MEASURE:
            if enabled:
                smallest = smallest_normal(dy, STORAGE)
                lanes = combine_gradient(lanes, gradient_tile(dy, stored.to(COMPUTE), f, keep, smallest, REDUCED))

    VARIES: tl.constexpr = (
        PARAMETERS % 4 == PER_GROUP or PARAMETERS // 4 % 4 == PER_GROUP
        or PARAMETERS // 16 % 4 == PER_GROUP or PARAMETERS // 64 % 4 == PER_GROUP
    )  # fmt: skip
    SPLIT_BY_GROUP: tl.constexpr = (MEASURE and not WHOLE) or VARIES
    LUMPED: tl.constexpr = (MEASURE and WHOLE) or TRAINED > 0
    if SPLIT_BY_GROUP or LUMPED:
        groups, exists, number = groups_of(size0, size1, size2, COLUMNS, GROUPS)
        blocks, splits = tl.num_programs(0), tl.num_programs(1)
        programs, program = blocks * splits, tl.program_id(1) * blocks + tl.program_id(0)
        dw = (dw0_ptr, dw1_ptr, dw2_ptr, dw3_ptr)
        for k in tl.static_range(TRAINED):
            here = sums_ptr + k * index(sums_step, True)
            if PARAMETERS // 4**k % 4 == PER_GROUP:
                tl.store(here + tl.program_id(1) * number + groups, tl.sum(sums[k], ALONG), mask=exists)
            else:
                tl.store(here + program, tl.sum(tl.sum(sums[k], ALONG), 0))
        if MEASURE:
            record = merge_gradient(lanes, ALONG)
            if WHOLE:
                store_record(merge_gradient(record, 0), partial_ptr + program, programs, True, 0, GRADIENT_CELLS)
            else:
                there = partial_ptr + tl.program_id(1) * (number * GRADIENT_CELLS) + groups
                store_record(record, there, number, exists, 0, GRADIENT_CELLS)
        if SPLIT_BY_GROUP:
            last = is_last_of_block(ticket_ptr, SINGLE)
            if last:
                for k in tl.static_range(TRAINED):
                    if PARAMETERS // 4**k % 4 == PER_GROUP:
                        here = sums_ptr + k * index(sums_step, True)
                        fold_sum(dw[k], here, number, splits, groups, exists, CHUNK)
                if MEASURE and not WHOLE:
                    if enabled:
                        between = number * GRADIENT_CELLS
                        fold_gradient(state_ptr, partial_ptr, number, between, splits, groups, exists, number, CHUNK)
                last = is_last(ticket_ptr, blocks)
        else:
            last = is_last(ticket_ptr, programs)
        if last:
            only = tl.zeros([1], tl.int64)
            for k in tl.static_range(TRAINED):
                if PARAMETERS // 4**k % 4 != PER_GROUP:
                    here = sums_ptr + k * index(sums_step, True)
                    fold_sum(dw[k], here, 1, programs, only, only == 0, CHUNK * GROUPS)
            if MEASURE:
                if enabled:
                    if WHOLE:
                        fold_gradient(state_ptr, partial_ptr, programs, 1, programs, only, only == 0, 1, CHUNK * GROUPS)
                    count_call(state_ptr)
