"""y on a GPU: every row, dtype, layout and size, within the promise of the row and bit by bit where that is exact."""

import geoact
import pytest

pytest.importorskip("torch.distributed")
import gpu_check
import torch
from support import inputs
from support.cases import each_case, each_row
from support.gpu import DEVICE, LAYOUTS, NARROW, check_values, needs_cuda, normal, parameters
from support.torch_cases import each_dtype, same_bits

SIZES = (0, 1, 2, 3, 7, 31, 33, 255, 256, 257, 1023, 1025, 4095, 4097, 65537)
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@needs_cuda
@pytest.mark.parametrize("name", ["cuda", "triton", "auto"])
def test_both_backends_can_be_forced(name):
    geoact.set_gpu_backend(name)
    try:
        same_bits(geoact.relu(normal(1000)), normal(1000).clamp_min(0))
    finally:
        geoact.set_gpu_backend("auto")


def test_a_backend_that_there_is_not_is_refused():
    if not hasattr(geoact, "set_gpu_backend"):
        pytest.skip("this geoact has no GPU backends")
    with pytest.raises(ValueError, match="opencl"):
        geoact.set_gpu_backend("opencl")


@each_case
@each_dtype
def test_values_of_every_case(backend, case, dtype):
    x = normal(6, 4, 9, 5, dtype=dtype, sd=3)
    values = parameters(case, x)
    check_values(case, x, case.row(x, *values), values)


@each_layout
@each_row
@each_dtype
def test_layout(backend, layout, case, dtype):
    x = layout(normal(3, 4, 5, 6, dtype=dtype))
    values = parameters(case, x, channels=4)
    y = case.row(x, *values)
    same_bits(y, case.row(x.contiguous(), *values))
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        assert y.stride() == x.stride()
    out = torch.full_like(y, torch.nan)
    assert case.row(x, *values, out=out) is out
    same_bits(out, y)


@each_row
def test_in_place(backend, case):
    x = normal(5, 4, 1000)
    values, expected = parameters(case, x), case.row(x, *parameters(case, x))
    assert case.row(x, *values, out=x) is x
    same_bits(x, expected)


@each_row
def test_sizes_around_vectors_blocks_and_grids(backend, case):
    whole = normal(max(SIZES) + 1)
    values = parameters(case, whole)
    for start in (0, 1):
        expected = case.row(whole[start:].clone(), *values)
        for size in SIZES:
            y = case.row(whole[start : start + size], *values)
            same_bits(y, expected[:size])


@each_row
@each_dtype
def test_no_axes_and_no_elements(backend, case, dtype):
    for shape in ((), (0,), (3, 0, 2)):
        x, stats = normal(*shape, dtype=dtype), geoact.GeometryStats()
        values = parameters(case, x)
        y = case.row(x, *values, stats=stats)
        check_values(case, x, y, values)
        assert stats.cells()["n"].sum() == x.numel()


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@each_row
def test_every_16_bit_pattern_is_the_rounded_float32_result(backend, case, dtype):
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype).to(DEVICE)
    values = parameters(case, x)
    wide = case.row(x.float(), *(v.float() if isinstance(v, torch.Tensor) else v for v in values))
    same_bits(case.row(x, *values), wide.to(dtype))


@each_case
def test_float32_over_its_whole_range(backend, case):
    x = torch.from_numpy(inputs.float32_sample().copy()).to(DEVICE)
    values = parameters(case, x)
    check_values(case, x, case.row(x, *values), values)


@each_row
@each_dtype
def test_nan_infinities_and_zeros_are_those_of_the_cpu(backend, case, dtype):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0], dtype=dtype)
    same_bits(case(x.to(DEVICE)).cpu(), case(x))


@needs_cuda
@pytest.mark.parametrize("name", ["relu", "sigmoid"])
def test_more_elements_than_32_bits_can_count(backend, name):
    n = (1 << 31) + 12345
    free, _ = torch.cuda.mem_get_info()
    if free < 2.5 * 2 * n:
        pytest.skip(f"needs {2.5 * 2 * n / 2**30:.0f} GiB of GPU memory, {free / 2**30:.0f} are free")
    row, stats = geoact.get(name), geoact.GeometryStats()
    x = torch.empty(n, dtype=torch.bfloat16, device=DEVICE)
    for start in range(0, n, 1 << 28):
        part = x[start : start + (1 << 28)]
        part.copy_(torch.randn(part.shape, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(start)))
    y = row(x, stats=stats)
    for start in (0, (1 << 31) - 4096, n - 8192):
        part = slice(start, start + 8192)
        gpu_check.check_values(row, x[part], y[part], ())
        same_bits(y[part], row(x[part].clone()))
    cells = stats.cells()
    assert cells["n"][0] == n
    positive = sum(int((part > 0).sum()) for part in x.split(1 << 28))
    assert cells["positive"][0] == positive
