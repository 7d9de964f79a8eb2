"""CuPy arrays in the host's memory, of the real package or of the stand-in: put there, looked at by address."""

from __future__ import annotations

import sys

import numpy as np

from support import fake_cupy

# What geoact.frontends.cupy uses, by where it is found.
USED = {
    "cupy": ("ndarray", "empty", "empty_like", "zeros"),
    "cupy.ndarray": ("data", "dtype", "itemsize", "shape", "size", "strides"),
    "cupy.cuda": ("Device", "alloc", "get_current_stream"),
    "cupy.cuda.Device": ("__enter__", "__exit__"),
    "cupy.cuda.MemoryPointer": ("device_id", "ptr"),
    "cupy.cuda.runtime": ("getDevice", "is_hip"),
    "cupy.cuda.Stream.null": ("ptr",),
}


def found(path):
    """What is found under a dotted name of the loaded package."""
    thing = sys.modules["cupy"]
    for name in path.split(".")[1:]:
        thing = getattr(thing, name)
    return thing


def install_real(monkeypatch):
    """The real package with its memory on the host; what asks a driver is answered here."""
    import cupy

    def allocate(size):
        return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(*fake_cupy.host_memory(size, 0)), 0)

    def zeros(shape, dtype=float):
        array = cupy.empty(shape, dtype)
        host(array)[...] = 0
        return array

    cupy.cuda.set_allocator(allocate)
    monkeypatch.setattr(cupy, "zeros", zeros)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda device_id=-1: cupy.cuda.Stream.null)
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 0)
    return cupy


def put(array, device=0):
    """The NumPy array with its strides and its place within 64 bytes, in memory that passes for a device's."""
    cupy = sys.modules["cupy"]
    low = high = address = array.__array_interface__["data"][0]
    if array.size:
        for size, stride in zip(array.shape, array.strides, strict=True):
            low, high = low + min(stride, 0) * (size - 1), high + max(stride, 0) * (size - 1)
        high += array.itemsize
    before = low % 64
    ptr, size, image, device = fake_cupy.host_memory(before + high - low, device)
    if high > low:
        image[before : before + high - low] = bytes_at(low, high - low)
    memory = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(ptr, size, image, device), before + address - low)
    return cupy.ndarray(array.shape, array.dtype, memory, array.strides)


class _Address:
    def __init__(self, ptr, shape, strides, typestr, owner=None):
        self.owner = owner
        self.__array_interface__ = {
            "data": (ptr, False),
            "shape": shape,
            "strides": strides,
            "typestr": typestr,
            "version": 3,
        }


def bytes_at(ptr, size):
    return np.asarray(_Address(ptr, (size,), (1,), "|u1"))


def _raw(array):
    return np.asarray(_Address(array.data.ptr, array.shape, array.strides, f"|V{array.itemsize}", array))


def host(array):
    """The elements, as a NumPy view of the same memory."""
    return _raw(array).view(array.dtype) if array.size else np.empty(array.shape, array.dtype)


def bytes_of(array):
    """The same as bytes, whatever the dtype."""
    return _raw(array).tobytes() if array.size else b""
