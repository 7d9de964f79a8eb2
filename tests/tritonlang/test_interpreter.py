"""Whether the rest of this folder can run here; and the interpreter's corrected roundings."""

import os
from importlib.util import find_spec

import numpy as np
import pytest

REASON = None
if find_spec("triton") is None or find_spec("torch") is None:
    REASON = "needs triton and torch"
elif os.environ.get("TRITON_INTERPRET") != "1":
    REASON = "needs a process with TRITON_INTERPRET=1: TRITON_INTERPRET=1 pytest tests/tritonlang"
if REASON:
    pytest.skip(REASON, allow_module_level=True)

import ml_dtypes
from support import interpreter


def test_bfloat16_is_rounded_to_nearest():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([1.9988, np.inf, -np.inf, 3.4e38])])
    finite = values[~np.isnan(values)]
    expected = finite.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(interpreter.to_bfloat16(finite), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_rounds_once(dtype):
    random = np.random.default_rng(1)
    x, y = random.standard_normal((2, 1000)).astype(dtype)
    exact = np.float64 if dtype == np.float32 else np.longdouble
    product = x * y
    error = interpreter.fma(x, y, -product)
    np.testing.assert_array_equal(product.astype(exact) + error, _exact_product(x, y, exact))
    assert (error != 0).mean() > 0.9


def _exact_product(x, y, wide):
    """The product in a wider type, which is exact for float32 and right to its own precision otherwise."""
    return x.astype(wide) * y.astype(wide)
