"""WHAT is measured: the records of ``csrc/ops/statistics.h``, as states with pure functions.

A record has the cells of docs/statistics.md in their order, float64, one value per group. Geometry is two parts,
``Counts`` (12 cells, all that level="counts" fills) and ``Moments`` (10 cells); ``Gradient`` has 11. Each comes as

    lanes     what one thread of a program accumulates; ``add_*`` adds a tile, whose axis LOCAL belongs to one thread
    record    ``finish_*`` makes it of the lanes along an axis
    merge_*   any number of records along an axis, by the formula of Chan, Golub and LeVeque (1979) for all at once
    combine_* two records, the same formula

Numerics. What is done per element is done in float32 (float64 for float64 data): a thread sums the few elements of a
tile it holds, as differences from their own mean. Those short sums are added up in float64, which costs a few
operations per thread and tile instead of per element, needs no shift that fits the whole array, and never has more
than a few dozen float32 roundings in a row. Where float32 squares may have left their range, or a value is NaN or
infinite, the tile is summed once more in float64 from registers.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

GEOMETRY_CELLS: tl.constexpr = tl.constexpr(22)
COUNT_CELLS: tl.constexpr = tl.constexpr(12)
GRADIENT_CELLS: tl.constexpr = tl.constexpr(11)

INFINITY: tl.constexpr = tl.constexpr(float("inf"))
# Deviations whose squares come near the end of float32's normal range.
FLOOR: tl.constexpr = tl.constexpr(2.0**-50)


class Counts(NamedTuple):
    """Integers and extremes: as lanes int32 and the type of the data, as a record float64."""

    n: tl.tensor
    negative: tl.tensor
    positive: tl.tensor
    zero: tl.tensor
    saturated: tl.tensor
    subnormal: tl.tensor
    nonfinite_x: tl.tensor
    nonfinite_y: tl.tensor
    x_min: tl.tensor
    x_max: tl.tensor
    y_min: tl.tensor
    y_max: tl.tensor


class MomentLanes(NamedTuple):
    """Float64 sums of x - shift_x and y - shift_y, and others; n is that of the counts."""

    shift_x: tl.tensor
    shift_y: tl.tensor
    x1: tl.tensor
    y1: tl.tensor
    x2: tl.tensor
    y2: tl.tensor
    xy: tl.tensor
    abs_y: tl.tensor
    pos1: tl.tensor
    pos2: tl.tensor
    slope1: tl.tensor
    slope2: tl.tensor


class Moments(NamedTuple):
    """The cells that follow the counts."""

    mean_x: tl.tensor
    mean_y: tl.tensor
    m2_x: tl.tensor
    m2_y: tl.tensor
    c_xy: tl.tensor
    sum_abs_y: tl.tensor
    sum_pos_x: tl.tensor
    sum_sq_pos_x: tl.tensor
    sum_slope: tl.tensor
    sum_sq_slope: tl.tensor


class Gradient(NamedTuple):
    """The cells of the backward record: as lanes integers int32, sizes the type of the data, sums float64."""

    n: tl.tensor
    zero: tl.tensor
    underflow: tl.tensor
    nonfinite_dy: tl.tensor
    nonfinite_dx: tl.tensor
    absmax_dy: tl.tensor
    absmax_dx: tl.tensor
    sum_sq_dy: tl.tensor
    sum_sq_dx: tl.tensor
    sum_slope: tl.tensor
    sum_sq_slope: tl.tensor


# --- parts -------------------------------------------------------------------------------------------------


@triton.jit
def smallest_normal(x, STORAGE: tl.constexpr):
    """Smallest normal number of the storage type, in the type of x."""
    if tl.float64 == STORAGE:
        result = tl.full([], 2.0**-1022, tl.float64)
    elif tl.float16 == STORAGE:
        result = tl.full([], 2.0**-14, x.dtype)
    else:
        result = tl.full([], 2.0**-126, x.dtype)
    return result


@triton.jit
def tally(yes, LOCAL: tl.constexpr):
    return tl.sum(yes.to(tl.int32), LOCAL)


@triton.jit
def lowest(v, keep, LOCAL: tl.constexpr):
    """NaN ignored."""
    return tl.min(tl.where(keep & (v == v), v, INFINITY), LOCAL)


@triton.jit
def highest(v, keep, LOCAL: tl.constexpr):
    """NaN ignored."""
    return tl.max(tl.where(keep & (v == v), v, -INFINITY), LOCAL)


@triton.jit
def not_finite(v):
    return (v - v) != 0


# --- counts ------------------------------------------------------------------------------------------------


@triton.jit
def no_counts(SHAPE: tl.constexpr, COMPUTE: tl.constexpr):
    """Lanes that have seen nothing."""
    none = tl.zeros(SHAPE, tl.int32)
    low, high = tl.full(SHAPE, INFINITY, COMPUTE), tl.full(SHAPE, -INFINITY, COMPUTE)
    return Counts(none, none, none, none, none, none, none, none, low, high, low, high)


@triton.jit
def count_tile(x, y, f, keep, saturation, smallest, LOCAL: tl.constexpr):
    """Counts and extremes of one tile; elements where ``keep`` is false are no data."""
    return Counts(
        tally(keep, LOCAL),
        tally(keep & (x < 0), LOCAL),
        tally(keep & (x > 0), LOCAL),
        tally(keep & (y == 0), LOCAL),
        tally(keep & (tl.abs(f) < saturation), LOCAL),
        tally(keep & (tl.abs(y) < smallest) & (y != 0), LOCAL),
        tally(keep & not_finite(x), LOCAL),
        tally(keep & not_finite(y), LOCAL),
        lowest(x, keep, LOCAL),
        highest(x, keep, LOCAL),
        lowest(y, keep, LOCAL),
        highest(y, keep, LOCAL),
    )


@triton.jit
def combine_counts(a, b):
    return Counts(
        a.n + b.n,
        a.negative + b.negative,
        a.positive + b.positive,
        a.zero + b.zero,
        a.saturated + b.saturated,
        a.subnormal + b.subnormal,
        a.nonfinite_x + b.nonfinite_x,
        a.nonfinite_y + b.nonfinite_y,
        tl.where(b.x_min < a.x_min, b.x_min, a.x_min),
        tl.where(b.x_max > a.x_max, b.x_max, a.x_max),
        tl.where(b.y_min < a.y_min, b.y_min, a.y_min),
        tl.where(b.y_max > a.y_max, b.y_max, a.y_max),
    )


@triton.jit
def merge_counts(a, AXIS: tl.constexpr):
    """Lanes or records along an axis to one float64 record."""
    return Counts(
        tl.sum(a.n.to(tl.float64), AXIS),
        tl.sum(a.negative.to(tl.float64), AXIS),
        tl.sum(a.positive.to(tl.float64), AXIS),
        tl.sum(a.zero.to(tl.float64), AXIS),
        tl.sum(a.saturated.to(tl.float64), AXIS),
        tl.sum(a.subnormal.to(tl.float64), AXIS),
        tl.sum(a.nonfinite_x.to(tl.float64), AXIS),
        tl.sum(a.nonfinite_y.to(tl.float64), AXIS),
        tl.min(a.x_min, AXIS).to(tl.float64),
        tl.max(a.x_max, AXIS).to(tl.float64),
        tl.min(a.y_min, AXIS).to(tl.float64),
        tl.max(a.y_max, AXIS).to(tl.float64),
    )


# --- moments -----------------------------------------------------------------------------------------------


@triton.jit
def no_moments(SHAPE: tl.constexpr):
    """Lanes that have seen nothing."""
    o = tl.zeros(SHAPE, tl.float64)
    return MomentLanes(o, o, o, o, o, o, o, o, o, o, o, o)


@triton.jit
def mean_near(v, keep, n, LOCAL: tl.constexpr):
    """About the mean of each lane's few values: any finite number would be right, one near them is accurate."""
    mean = tl.sum(tl.where(keep, v, 0.0), LOCAL) / tl.maximum(n, 1).to(v.dtype)
    return tl.where(not_finite(mean), 0.0, mean)


@triton.jit
def sum_tile(x, y, f, keep, n, LOCAL: tl.constexpr):
    """Short sums of one tile, in the precision of x, each lane's about its own mean."""
    shift_x, shift_y = mean_near(x, keep, n, LOCAL), mean_near(y, keep, n, LOCAL)
    dx = tl.where(keep, x - tl.expand_dims(shift_x, LOCAL), 0.0)
    dy = tl.where(keep, y - tl.expand_dims(shift_y, LOCAL), 0.0)
    pos = tl.where(keep & ((x > 0) | (x != x)), x, 0.0)  # NaN stays NaN
    slope = tl.where(keep, f, 0.0)
    return MomentLanes(
        shift_x,
        shift_y,
        tl.sum(dx, LOCAL),
        tl.sum(dy, LOCAL),
        tl.sum(dx * dx, LOCAL),
        tl.sum(dy * dy, LOCAL),
        tl.sum(dx * dy, LOCAL),
        tl.sum(tl.where(keep, tl.abs(y), 0.0), LOCAL),
        tl.sum(pos, LOCAL),
        tl.sum(pos * pos, LOCAL),
        tl.sum(slope, LOCAL),
        tl.sum(slope * slope, LOCAL),
    )


@triton.jit
def near_zero(size, floor):
    return (size > 0) & (size < floor)


@triton.jit
def suspicious(short, counts):
    """Whether, in any lane, float32 sums may have overflowed, underflowed or met a NaN."""
    total = short.x1 + short.y1 + short.x2 + short.y2 + short.pos2 + short.slope2
    few = counts.n * FLOOR
    doubtful = not_finite(total) | not_finite(short.xy) | not_finite(short.abs_y)
    doubtful |= near_zero(counts.x_max - counts.x_min, FLOOR) | near_zero(counts.y_max - counts.y_min, FLOOR)
    doubtful |= near_zero(short.pos1, few) | near_zero(tl.abs(short.slope1), few)
    flags = doubtful.to(tl.int32)
    return tl.max(tl.max(flags, 1), 0) > 0


@triton.jit
def absorb(m, short, before, tile_n):
    """The lanes and short sums: from the shift of the tile to that of the lane, the mean of the first values it saw."""
    short_x, short_y = short.shift_x.to(tl.float64), short.shift_y.to(tl.float64)
    x1, y1 = short.x1.to(tl.float64), short.y1.to(tl.float64)
    shift_x, shift_y = tl.where(before == 0, short_x, m.shift_x), tl.where(before == 0, short_y, m.shift_y)
    n, ex, ey = tile_n.to(tl.float64), short_x - shift_x, short_y - shift_y
    return MomentLanes(
        shift_x,
        shift_y,
        m.x1 + (x1 + n * ex),
        m.y1 + (y1 + n * ey),
        m.x2 + (short.x2 + ex * (2.0 * x1 + n * ex)),
        m.y2 + (short.y2 + ey * (2.0 * y1 + n * ey)),
        m.xy + (short.xy + ex * y1 + ey * (x1 + n * ex)),
        m.abs_y + short.abs_y,
        m.pos1 + short.pos1,
        m.pos2 + short.pos2,
        m.slope1 + short.slope1,
        m.slope2 + short.slope2,
    )


@triton.jit
def add_moments(m, before, x, y, f, keep, counts, LOCAL: tl.constexpr):
    """The lanes and a tile; ``before`` is how many values each lane has seen, ``counts`` those of the tile."""
    short = sum_tile(x, y, f, keep, counts.n, LOCAL)
    if x.dtype == tl.float64:
        m = absorb(m, short, before, counts.n)
    elif suspicious(short, counts):
        exact = sum_tile(x.to(tl.float64), y.to(tl.float64), f.to(tl.float64), keep, counts.n, LOCAL)
        m = absorb(m, exact, before, counts.n)
    else:
        m = absorb(m, short, before, counts.n)
    return m


@triton.jit
def average(values, n, AXIS: tl.constexpr):
    """The mean of means, weighted by n; 0 where there is nothing."""
    total = tl.sum(n, AXIS)
    return tl.sum(tl.where(n > 0, values * n, 0.0), AXIS) / tl.where(total > 0, total, 1.0)


@triton.jit
def exact_where_constant(m, counts):
    """One value throughout has no spread, whatever the rounding of its mean says."""
    still_x = (counts.x_min == counts.x_max) & (counts.nonfinite_x == 0)
    still_y = (counts.y_min == counts.y_max) & (counts.nonfinite_y == 0)
    finite = (counts.nonfinite_x == 0) & (counts.nonfinite_y == 0)
    return Moments(
        tl.where(still_x, counts.x_min, m.mean_x),
        tl.where(still_y, counts.y_min, m.mean_y),
        tl.where(still_x, 0.0, m.m2_x),
        tl.where(still_y, 0.0, m.m2_y),
        tl.where(finite & (still_x | still_y), 0.0, m.c_xy),
        m.sum_abs_y,
        m.sum_pos_x,
        m.sum_sq_pos_x,
        m.sum_slope,
        m.sum_sq_slope,
    )


@triton.jit
def not_below_zero(v):
    """NaN stays NaN."""
    return tl.where(v < 0, 0.0, v)


@triton.jit
def finish_moments(m, count, AXIS: tl.constexpr):
    """The record of lanes of ``count`` values each along an axis."""
    n = count.to(tl.float64)
    shift_x, shift_y = average(m.shift_x, n, AXIS), average(m.shift_y, n, AXIS)
    ex = tl.where(n > 0, m.shift_x - tl.expand_dims(shift_x, AXIS), 0.0)
    ey = tl.where(n > 0, m.shift_y - tl.expand_dims(shift_y, AXIS), 0.0)
    x1, y1 = tl.sum(m.x1 + n * ex, AXIS), tl.sum(m.y1 + n * ey, AXIS)
    x2 = tl.sum(m.x2 + ex * (2.0 * m.x1 + n * ex), AXIS)
    y2 = tl.sum(m.y2 + ey * (2.0 * m.y1 + n * ey), AXIS)
    xy = tl.sum(m.xy + ex * m.y1 + ey * (m.x1 + n * ex), AXIS)
    total = tl.sum(n, AXIS)
    total = tl.where(total > 0, total, 1.0)
    mx, my = x1 / total, y1 / total
    return Moments(
        shift_x + mx,
        shift_y + my,
        not_below_zero(x2 - x1 * mx),
        not_below_zero(y2 - y1 * my),
        xy - x1 * my,
        tl.sum(m.abs_y, AXIS),
        tl.sum(m.pos1, AXIS),
        tl.sum(m.pos2, AXIS),
        tl.sum(m.slope1, AXIS),
        tl.sum(m.slope2, AXIS),
    )


@triton.jit
def merge_moments(a, n, AXIS: tl.constexpr):
    """Records of n values each along an axis to one."""
    near_x, near_y = average(a.mean_x, n, AXIS), average(a.mean_y, n, AXIS)
    ex = tl.where(n > 0, a.mean_x - tl.expand_dims(near_x, AXIS), 0.0)
    ey = tl.where(n > 0, a.mean_y - tl.expand_dims(near_y, AXIS), 0.0)
    off_x, off_y = average(ex, n, AXIS), average(ey, n, AXIS)  # what the first average was off by
    dx, dy = ex - tl.expand_dims(off_x, AXIS), ey - tl.expand_dims(off_y, AXIS)
    return Moments(
        near_x + off_x,
        near_y + off_y,
        tl.sum(tl.where(n > 0, a.m2_x + n * (dx * dx), 0.0), AXIS),
        tl.sum(tl.where(n > 0, a.m2_y + n * (dy * dy), 0.0), AXIS),
        tl.sum(tl.where(n > 0, a.c_xy + n * (dx * dy), 0.0), AXIS),
        tl.sum(a.sum_abs_y, AXIS),
        tl.sum(a.sum_pos_x, AXIS),
        tl.sum(a.sum_sq_pos_x, AXIS),
        tl.sum(a.sum_slope, AXIS),
        tl.sum(a.sum_sq_slope, AXIS),
    )


@triton.jit
def either(a_n, b_n, a, b, merged):
    """With one side empty the formula would turn a huge mean into 0 times infinity."""
    return tl.where(b_n == 0, a, tl.where(a_n == 0, b, merged))


@triton.jit
def combine_moments(a, b, na, nb):
    total = na + nb
    share = nb / tl.where(total > 0, total, 1.0)
    weight = na * share
    dx, dy = b.mean_x - a.mean_x, b.mean_y - a.mean_y
    return Moments(
        either(na, nb, a.mean_x, b.mean_x, a.mean_x + dx * share),
        either(na, nb, a.mean_y, b.mean_y, a.mean_y + dy * share),
        either(na, nb, a.m2_x, b.m2_x, a.m2_x + b.m2_x + dx * (dx * weight)),
        either(na, nb, a.m2_y, b.m2_y, a.m2_y + b.m2_y + dy * (dy * weight)),
        either(na, nb, a.c_xy, b.c_xy, a.c_xy + b.c_xy + dx * (dy * weight)),
        a.sum_abs_y + b.sum_abs_y,
        a.sum_pos_x + b.sum_pos_x,
        a.sum_sq_pos_x + b.sum_sq_pos_x,
        a.sum_slope + b.sum_slope,
        a.sum_sq_slope + b.sum_sq_slope,
    )


# --- gradient ----------------------------------------------------------------------------------------------


@triton.jit
def no_gradient(SHAPE: tl.constexpr, COMPUTE: tl.constexpr):
    """Lanes that have seen nothing."""
    none, size, total = tl.zeros(SHAPE, tl.int32), tl.zeros(SHAPE, COMPUTE), tl.zeros(SHAPE, tl.float64)
    return Gradient(none, none, none, none, none, size, size, total, total, total, total)


@triton.jit
def sum_squares(v, LOCAL: tl.constexpr):
    return tl.sum(v * v, LOCAL).to(tl.float64)


@triton.jit
def gradient_tile(dy, dx, f, keep, smallest, LOCAL: tl.constexpr):
    """The lanes of one tile."""
    size_dy, size_dx = tl.abs(dy), tl.abs(dx)
    lost = tl.where(dx == 0, (size_dy > 0) & (f != 0), size_dx < smallest)
    dy, dx, f = tl.where(keep, dy, 0.0), tl.where(keep, dx, 0.0), tl.where(keep, f, 0.0)
    n, most_dy, most_dx = tally(keep, LOCAL), highest(size_dy, keep, LOCAL), highest(size_dx, keep, LOCAL)
    most_dy, most_dx = tl.where(most_dy < 0, 0.0, most_dy), tl.where(most_dx < 0, 0.0, most_dx)
    dy2, dx2 = sum_squares(dy, LOCAL), sum_squares(dx, LOCAL)
    f1, f2 = tl.sum(f, LOCAL).to(tl.float64), sum_squares(f, LOCAL)
    if dy.dtype != tl.float64:
        doubtful = not_finite(dy2 + dx2 + f2) | near_zero(most_dy, FLOOR) | near_zero(most_dx, FLOOR)
        doubtful |= near_zero(tl.abs(f1), n * FLOOR)
        flags = doubtful.to(tl.int32)
        if tl.max(tl.max(flags, 1), 0) > 0:
            dy2, dx2 = sum_squares(dy.to(tl.float64), LOCAL), sum_squares(dx.to(tl.float64), LOCAL)
            f1, f2 = tl.sum(f.to(tl.float64), LOCAL), sum_squares(f.to(tl.float64), LOCAL)
    return Gradient(
        n,
        tally(keep & (dx == 0), LOCAL),
        tally(keep & lost, LOCAL),
        tally(keep & not_finite(dy), LOCAL),
        tally(keep & not_finite(dx), LOCAL),
        most_dy,
        most_dx,
        dy2,
        dx2,
        f1,
        f2,
    )


@triton.jit
def combine_gradient(a, b):
    return Gradient(
        a.n + b.n,
        a.zero + b.zero,
        a.underflow + b.underflow,
        a.nonfinite_dy + b.nonfinite_dy,
        a.nonfinite_dx + b.nonfinite_dx,
        tl.where(b.absmax_dy > a.absmax_dy, b.absmax_dy, a.absmax_dy),
        tl.where(b.absmax_dx > a.absmax_dx, b.absmax_dx, a.absmax_dx),
        a.sum_sq_dy + b.sum_sq_dy,
        a.sum_sq_dx + b.sum_sq_dx,
        a.sum_slope + b.sum_slope,
        a.sum_sq_slope + b.sum_sq_slope,
    )


@triton.jit
def merge_gradient(a, AXIS: tl.constexpr):
    """Lanes or records along an axis to one float64 record."""
    return Gradient(
        tl.sum(a.n.to(tl.float64), AXIS),
        tl.sum(a.zero.to(tl.float64), AXIS),
        tl.sum(a.underflow.to(tl.float64), AXIS),
        tl.sum(a.nonfinite_dy.to(tl.float64), AXIS),
        tl.sum(a.nonfinite_dx.to(tl.float64), AXIS),
        tl.max(a.absmax_dy, AXIS).to(tl.float64),
        tl.max(a.absmax_dx, AXIS).to(tl.float64),
        tl.sum(a.sum_sq_dy, AXIS),
        tl.sum(a.sum_sq_dx, AXIS),
        tl.sum(a.sum_slope, AXIS),
        tl.sum(a.sum_sq_slope, AXIS),
    )


# --- records in memory: cell k of group g lies at pointer + k * step + g -----------------------------------


@triton.jit
def load_counts(pointer, step, keep):
    """An empty record where ``keep`` is false. Past the L1 cache: another program may just have written."""
    return Counts(
        tl.load(pointer, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 2 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 3 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 4 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 5 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 6 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 7 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 8 * step, mask=keep, other=INFINITY, cache_modifier=".cg"),
        tl.load(pointer + 9 * step, mask=keep, other=-INFINITY, cache_modifier=".cg"),
        tl.load(pointer + 10 * step, mask=keep, other=INFINITY, cache_modifier=".cg"),
        tl.load(pointer + 11 * step, mask=keep, other=-INFINITY, cache_modifier=".cg"),
    )


@triton.jit
def load_moments(pointer, step, keep):
    """The cells after the counts."""
    return Moments(
        tl.load(pointer + 12 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 13 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 14 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 15 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 16 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 17 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 18 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 19 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 20 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 21 * step, mask=keep, other=0.0, cache_modifier=".cg"),
    )


@triton.jit
def load_gradient(pointer, step, keep):
    """An empty record where ``keep`` is false."""
    return Gradient(
        tl.load(pointer, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 2 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 3 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 4 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 5 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 6 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 7 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 8 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 9 * step, mask=keep, other=0.0, cache_modifier=".cg"),
        tl.load(pointer + 10 * step, mask=keep, other=0.0, cache_modifier=".cg"),
    )


@triton.jit
def store_record(record, pointer, step, keep, FIRST: tl.constexpr, CELLS: tl.constexpr):
    """The CELLS cells of a record, the first of which is cell FIRST."""
    for k in tl.static_range(CELLS):
        tl.store(pointer + (FIRST + k) * step, record[k], mask=keep)
