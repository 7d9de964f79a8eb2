"""A stand-in for CuPy where there is no GPU: arrays that have a shape, a dtype, strides and an address, and no more.

The memory is the host's, filled with a pattern when it is allocated. Anything that would copy to the host raises
HostCopy. There are two devices, each with a current stream. Names and behaviour are those of CuPy 14; tests hold the
names against the real package.
"""

from __future__ import annotations

import types

import numpy as np

PATTERN = 0xA5  # of memory that nothing was written to


class HostCopy(AssertionError):
    """Something was about to be copied from the device to the host."""


class _Devices:
    """Current device, and streams of all of them."""

    def __init__(self):
        self.current = 0
        self.streams = {}


_devices = _Devices()


class Device:
    def __init__(self, device=None):
        self.id = _devices.current if device is None else int(device)
        self._before = []

    def __enter__(self):
        self._before.append(_devices.current)
        _devices.current = self.id
        return self

    def __exit__(self, *error):
        _devices.current = self._before.pop()

    def __repr__(self):
        return f"<CUDA Device {self.id}>"


class Stream:
    alive = 0

    def __init__(self, ptr=None):
        Stream.alive += 1
        self.ptr = 0x1000 + 16 * Stream.alive if ptr is None else ptr
        self.device_id = _devices.current
        self._before = []

    def __del__(self):
        Stream.alive -= 1

    def __enter__(self):
        assert self.device_id == _devices.current
        self._before.append(_devices.streams.get(self.device_id))
        _devices.streams[self.device_id] = self
        return self

    def __exit__(self, *error):
        _devices.streams[self.device_id] = self._before.pop()


Stream.null = Stream(0)


def get_current_stream(device_id=-1):
    device = _devices.current if device_id < 0 else device_id
    return _devices.streams.get(device) or Stream.null


class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self._owner = ptr, size, owner
        self.device_id = _devices.current if device_id < 0 else device_id


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id

    @property
    def device(self):
        return Device(self.device_id)


def host_memory(size, device_id):
    """Memory of the host for a device, on 64 bytes."""
    image = np.full(size + 64, PATTERN, np.uint8)
    image = image[-image.ctypes.data % 64 :][: max(size, 1)]
    return image.ctypes.data, size, image, device_id


def alloc(size):
    memory = MemoryPointer(UnownedMemory(*host_memory(size, _devices.current)), 0)
    allocations.append((size, memory.device_id, get_current_stream().ptr))
    return memory


allocations = []  # bytes, device, stream


def _contiguous(shape, item, axes):
    strides, step = [0] * len(shape), item
    for axis in axes:
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def _host(*_, **__):
    raise HostCopy("the array would be copied to the host")


class ndarray:
    """Its elements cannot be looked at."""

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dtype = np.dtype(dtype)
        axes = range(self.ndim) if order == "F" else range(self.ndim - 1, -1, -1)
        self.strides = _contiguous(self.shape, self.itemsize, axes) if strides is None else tuple(strides)
        self.data = alloc(self.nbytes) if memptr is None else memptr

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: int(np.prod(self.shape, dtype=np.int64)))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.itemsize)
    device = property(lambda self: self.data.device)

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": get_current_stream().ptr or 1,
            "version": 3,
            "strides": self.strides,
            "data": (self.data.ptr if self.size else 0, False),
        }

    def __dlpack_device__(self):
        return 2, self.data.device_id

    get = item = tolist = tobytes = __array__ = __dlpack__ = _host
    __float__ = __int__ = __index__ = __bool__ = __len__ = __iter__ = __getitem__ = _host


def empty(shape, dtype=float, order="C"):
    return ndarray(shape, dtype, order=order)


def empty_like(prototype):
    """In the memory order of the prototype, as NumPy's order="K"."""
    base = np.broadcast_to(np.empty((), prototype.dtype), prototype.shape)
    model = np.empty_like(np.lib.stride_tricks.as_strided(base, prototype.shape, prototype.strides))  # never read
    return ndarray(prototype.shape, prototype.dtype, alloc(prototype.nbytes), model.strides)


def zeros(shape, dtype=float, order="C"):
    array = ndarray(shape, dtype, order=order)
    array.data.mem._owner[: array.nbytes] = 0
    return array


ndarray.__module__ = "cupy"


def module():
    """The package, to be put among the loaded modules."""
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.ModuleType("cupy.cuda")
    cupy.cuda.runtime = types.ModuleType("cupy.cuda.runtime")
    for each in (ndarray, empty, empty_like, zeros):
        setattr(cupy, each.__name__, each)
    for each in (Device, Stream, UnownedMemory, MemoryPointer, alloc, get_current_stream):
        setattr(cupy.cuda, each.__name__, each)
    cupy.cuda.runtime.getDevice = lambda: _devices.current
    cupy.cuda.runtime.is_hip = False
    return cupy
