"""ReLU with a bit mask: a thread makes bytes of 8 elements of a row, in the order of ``geoact.masks``.

Data are seen as (rows, columns) of any two strides. The mask is dense: ``row_bytes`` for each row, and a program takes
BLOCK of its bytes wherever their rows end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .activations import relu, relu_gradient
from .vocabulary import lit

_SIZES = ["rows", "columns", "row_bytes", "in_row", "out_row"]


@triton.jit
def bytes_at(rows, columns, row_bytes, BLOCK: tl.constexpr):
    """Of this program: bytes of the mask, which exist, and rows, columns and existence of their (BLOCK, 8) elements."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < rows.to(tl.int64) * row_bytes
    row, column = (place // row_bytes)[:, None], ((place % row_bytes) * 8)[:, None] + tl.arange(0, 8)[None, :]
    return place, there, row, column, there[:, None] & (column < columns)


@triton.jit(do_not_specialize=_SIZES)
def forward(
    x_ptr, y_ptr, mask_ptr, rows, columns, row_bytes, in_row, in_column, out_row, out_column, BLOCK: tl.constexpr
):  # fmt: skip
    """Y = max(0, x), and the bits that are set where y is positive or NaN.

    Parameters
    ----------
    x_ptr, y_ptr : pointer to float16, bfloat16, float32 or float64
        Data of shape (rows, columns) and strides (in_row, in_column), (out_row, out_column), in elements. y may be x.
    mask_ptr : pointer to uint8
        rows * row_bytes of them.
    """
    STORAGE: tl.constexpr = x_ptr.dtype.element_ty
    COMPUTE: tl.constexpr = tl.float64 if tl.float64 == STORAGE else tl.float32
    place, there, row, column, keep = bytes_at(rows, columns, row_bytes, BLOCK)
    x = tl.load(x_ptr + row * in_row + column * in_column, mask=keep, other=0.0).to(COMPUTE)
    stored = relu(x, ()).to(STORAGE)
    tl.store(y_ptr + row * out_row + column * out_column, stored, mask=keep)
    bit = tl.full([], 1, tl.int32) << tl.arange(0, 8)[None, :]
    bits = tl.where(keep & ~(stored.to(COMPUTE) <= 0), bit, 0)
    tl.store(mask_ptr + place, tl.sum(bits, 1).to(tl.uint8), mask=there)


@triton.jit(do_not_specialize=_SIZES)
def backward(
    dy_ptr, dx_ptr, mask_ptr, rows, columns, row_bytes, in_row, in_column, out_row, out_column, BLOCK: tl.constexpr
):  # fmt: skip
    """Dx: dy where its bit is set, else 0. Arguments as of ``forward``."""
    STORAGE: tl.constexpr = dy_ptr.dtype.element_ty
    COMPUTE: tl.constexpr = tl.float64 if tl.float64 == STORAGE else tl.float32
    place, there, row, column, keep = bytes_at(rows, columns, row_bytes, BLOCK)
    bits = tl.load(mask_ptr + place, mask=there, other=0).to(tl.int32)
    passes = (bits[:, None] >> tl.arange(0, 8)[None, :]) & 1
    dy = tl.load(dy_ptr + row * in_row + column * in_column, mask=keep, other=0.0).to(COMPUTE)
    y = tl.where(passes != 0, lit(dy, 1.0), lit(dy, 0.0))
    tl.store(dx_ptr + row * out_row + column * out_column, relu_gradient(dy, y, y, ()).to(STORAGE), mask=keep)
