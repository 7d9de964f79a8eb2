"""Triton's interpreter, which runs kernels on the CPU, and the activations run by it on NumPy arrays.

Imports triton and torch: only for tests/tritonlang, which is skipped where they are missing. The interpreter
differs from a GPU in two roundings, which ``correct`` mends: its conversion of float32 to bfloat16 cuts off instead of
rounding to nearest, and its fma rounds the product. Both were seen in triton 3.7.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import torch
import triton.language as tl
import triton.runtime.interpreter as interpreter
from geoact.torch import triton as backend

from support.cases import Case

TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


# --- roundings of a GPU --------------------------------------------------------------------------


def to_bfloat16(a):
    """Bits of float32 values rounded to nearest, ties to even; NaN is the quiet one."""
    bits = np.ascontiguousarray(a, dtype=np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where((bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000), np.uint16(0x7FC0), rounded).reshape(a.shape)


def from_bfloat16(a):
    return (a.astype(np.uint32) << np.uint32(16)).reshape(a.shape)


def _halves(a):
    """Veltkamp's split: two numbers of half the bits whose sum is a."""
    big = a * (2.0**27 + 1)
    high = big - (big - a)
    return high, a - high


def fma64(x, y, z):
    """X y + z in float64, right to less than 1e-16 of an ulp more than half of one: Dekker's product, Knuth's sum."""
    product = x * y
    (x1, x0), (y1, y0) = _halves(x), _halves(y)
    lost = x0 * y0 - (((product - x1 * y1) - x0 * y1) - x1 * y0)
    total = product + z
    back = total - product
    error = (product - (total - back)) + (z - back)
    exact = total + (error + lost)
    # The product's error must not underflow; and only the plain sum knows the sign of a zero.
    usable = np.isfinite(exact) & (exact != 0) & (np.abs(product) > 2.0**-960)
    return np.where(usable, exact, total)


def fma(x, y, z):
    """X y + z, rounded once. In float32 the product is exact in float64."""
    if np.asarray(x).dtype == np.float32:
        return (np.asarray(x, np.float64) * y + z).astype(np.float32)
    return fma64(x, y, z)


def correct(monkeypatch):
    """Give the interpreter the roundings of a GPU."""
    original = interpreter._convert_float

    def convert(values, source, target, rounding):
        nearest = rounding is None or rounding == interpreter._ir.ROUNDING_MODE.RTNE
        if source == tl.float32 and target == tl.bfloat16 and nearest:
            return to_bfloat16(values)
        if source == tl.bfloat16 and target == tl.float32:
            return from_bfloat16(values)
        return original(values, source, target, rounding)

    def create_fma(self, x, y, z):
        return interpreter.TensorHandle(fma(x.data, y.data, z.data), z.dtype.scalar)

    monkeypatch.setattr(interpreter, "_convert_float", convert)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", create_fma)


# --- activations on NumPy arrays -----------------------------------------------------------------


def tensor(array):
    """A torch tensor over the elements of a NumPy array, strides included."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def array(t):
    """A NumPy array over the elements of a torch tensor."""
    if t.dtype == torch.bfloat16:
        return t.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return t.detach().numpy()


@dataclass(frozen=True)
class TritonCase(Case):
    """A case of the registry whose kernels are those of Triton."""

    __str__ = Case.__str__

    def __call__(self, x, **options):
        return array(backend.forward(self.row, tensor(x), self.values, **options))

    def backward(self, dy, x, y, **options):
        saved = x if self.row.saves == "x" else y
        result = backend.backward(self.row, tensor(dy), tensor(saved), self.values, **options)
        return array(result[0] if self.row.trainable else result)


class Measured:
    """A state and what it is asked for, read as geoact's accumulators are."""

    def __init__(self, direction, groups, per="tensor", axis=-1, level="moments"):
        self.state = backend.new_state(direction, groups, level=level)
        self.options = {"state": self.state, "per": per, "channel_axis": axis}
        if direction == "forward":
            self.options["level"] = level
        self.groups, self.names = groups, [name for name, _ in backend._core.fields(direction)]

    def cells(self):
        return dict(zip(self.names, backend.cells_of(self.state, self.groups).numpy().copy(), strict=False))

    @property
    def calls(self):
        return int(backend.calls_of(self.state))


def groups_of(shape, per, axis=-1):
    others = [size for place, size in enumerate(shape) if place != axis % len(shape)]
    return {"tensor": 1, "channel": shape[axis], "row": int(np.prod(others, dtype=int))}[per]
