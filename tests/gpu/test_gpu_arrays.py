"""CuPy arrays and DLPack: the same kernels on the same memory, CuPy's current stream, no copy through the host."""

import geoact
import numpy as np
import pytest

pytest.importorskip("torch.distributed")
import counting
import torch
from support.cases import each_row
from support.gpu import DEVICE, PER, each_few, normal, parameters, same_cells
from support.torch_cases import same_bits

pytestmark = pytest.mark.skipif(DEVICE != "cuda", reason="dry run: there is nothing like it on a CPU")
DTYPES = ("float16", "float32", "float64")
each_name = pytest.mark.parametrize("name", DTYPES)


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def both(cupy, shape, name, seed=0):
    """The same memory as a tensor and as an array of CuPy."""
    tensor = normal(*shape, dtype=getattr(torch, name), seed=seed)
    return tensor, cupy.from_dlpack(tensor)


def as_arrays(cupy, values):
    return tuple(cupy.from_dlpack(v) if isinstance(v, torch.Tensor) else v for v in values)


def as_tensor(array):
    return torch.from_dlpack(array)


@each_row
@each_name
def test_values_and_gradients_are_those_of_the_tensor(backend, cupy, case, name):
    (x, ax), (dy, ady) = both(cupy, (50, 64), name), both(cupy, (50, 64), name, seed=1)
    values = parameters(case, x, channels=64)
    y, ay = case.row(x, *values), case.row(ax, *as_arrays(cupy, values))
    assert isinstance(ay, cupy.ndarray)
    assert (ay.shape, ay.dtype, ay.flags.c_contiguous) == (ax.shape, ax.dtype, True)
    same_bits(as_tensor(ay), y)
    dx = case.row.backward(dy, *values, **{case.row.saves: y if case.row.saves == "y" else x})
    adx = case.row.backward(ady, *as_arrays(cupy, values), **{case.row.saves: ay if case.row.saves == "y" else ax})
    for a, b in zip(*(r if case.row.trainable else (r,) for r in (adx, dx)), strict=True):
        same_bits(as_tensor(a).reshape(b.shape), b)


@each_few
@pytest.mark.parametrize("settings", PER, ids=lambda s: s["per"])
def test_records_are_those_of_the_tensor(backend, cupy, case, settings):
    x, ax = both(cupy, (50, 64), "float32")
    values, records = parameters(case, x, channels=64), [geoact.GeometryStats(**settings) for _ in range(2)]
    case.row(x, *values, stats=records[0])
    case.row(ax, *as_arrays(cupy, values), stats=records[1])
    same_cells(*records)
    case.row(ax, *as_arrays(cupy, values), stats=records[0])  # one accumulator takes both
    assert records[0].calls == 2


@each_few
def test_out_in_place_and_order(backend, cupy, case):
    x, ax = both(cupy, (50, 64), "float32")
    values = as_arrays(cupy, parameters(case, x, channels=64))
    expected = as_tensor(case.row(ax, *values)).clone()
    out = cupy.full_like(ax, cupy.nan)
    assert case.row(ax, *values, out=out) is out
    same_bits(as_tensor(out), expected)
    for layout in (cupy.asfortranarray, lambda a: cupy.repeat(a, 2, axis=1)[:, ::2]):
        same_bits(as_tensor(cupy.ascontiguousarray(case.row(layout(ax), *values))), expected)
    assert case.row(ax, *values, out=ax) is ax
    same_bits(as_tensor(ax), expected)


@each_few
def test_nothing_is_copied_through_the_host(backend, cupy, case):
    x, ax = both(cupy, (500, 64), "float32")
    values, stats = as_arrays(cupy, parameters(case, x, channels=64)), geoact.GeometryStats()
    counts = counting.count(lambda: case.row(ax, *values, stats=stats))
    assert len(counts.launched) == counts.calls, counts.launched
    assert not any("memcpy" in name.lower() for name in counts.launched)


def test_a_call_runs_on_the_current_stream_of_cupy(backend, cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    x, late = cupy.random.standard_normal((1 << 20,), dtype=cupy.float32), cupy.full((1 << 20,), cupy.nan, cupy.float32)
    expected, stats = as_tensor(geoact.silu(x)).clone(), geoact.GeometryStats()
    spin = cupy.RawKernel(
        'extern "C" __global__ void spin(long long n) { long long t = clock64(); while (clock64() - t < n); }', "spin"
    )
    cupy.cuda.Device().synchronize()
    with stream:
        spin((1,), (1,), (200_000_000,))
        cupy.copyto(late, x)
        y = geoact.silu(late, stats=stats)
    stream.synchronize()
    same_bits(as_tensor(y), expected)
    assert stats.nonfinite_x == 0


def test_cupy_and_numpy_are_not_mixed(backend, cupy):
    x = cupy.ones((3, 4), cupy.float32)
    for options in ({"out": np.empty((3, 4), np.float32)}, {"out": np.ones((3, 4), np.float32)}):
        with pytest.raises((TypeError, ValueError), match="out"):
            geoact.relu(x, **options)
    with pytest.raises((TypeError, ValueError), match="out"):
        geoact.relu(np.ones((3, 4), np.float32), out=x)


@pytest.mark.parametrize("bad", ["int32", "complex64", "bool"])
def test_other_dtypes_of_cupy_are_named(backend, cupy, bad):
    with pytest.raises(TypeError, match="dtype"):
        geoact.relu(cupy.ones((3, 4), bad))
