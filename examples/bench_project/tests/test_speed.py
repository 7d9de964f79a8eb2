import numpy as np
import pytest
import toy_kernels
import toy_triton


def measured(benchmark, kernel, x, out):
    benchmark.measure(kernel, (x, 2, 1, out), read=x.nbytes, written=x.nbytes, check=lambda y: (y == 2 * x + 1).all())


@pytest.mark.parametrize("n", [1 << 14, 1 << 20])
def test_numpy(gpu_benchmark, n):
    x = np.random.default_rng(0).standard_normal(n)
    measured(gpu_benchmark, toy_kernels.scale_shift, x, np.empty_like(x))


@pytest.mark.skipif(bool(toy_triton.MISSING), reason=toy_triton.MISSING)
def test_triton(gpu_benchmark):
    x = toy_triton.torch.randn(1 << 26, device="cuda")
    measured(gpu_benchmark, toy_triton.scale_shift, x, toy_triton.torch.empty_like(x))
