"""Records of the opt-in tiers, and when two of them say the same."""

import numpy as np
from geoact import _tiers

EXACT = ("count", "identical", "collisions", "rows", "nonfinite")


def drawn(shape, seed=0, dtype=np.float32):
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + 0.3).astype(dtype)


def record(stats):
    """The record by field, each an array."""
    return _tiers.unpack(stats._accumulator.tier_cells(), stats._accumulator.tier_fields())


def assert_alike(found, expected):
    """Of one call measured in two ways: counts exactly, sums to 1e-6, what is about means to 1e-5 of its size."""
    found, expected = record(found), record(expected)
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        got = found[name]
        if name.startswith("histogram") or name.endswith(EXACT):
            np.testing.assert_array_equal(got, want, err_msg=name)
        elif name.endswith("pairs_ratio"):  # a ratio at the edge of its bucket may fall on either side
            assert np.abs(np.cumsum(got - want)).max() <= 2, name
        elif name.startswith(("sketch_mean", "sketch_deviation")) or name in ("sketch_xx", "sketch_yy", "sketch_xy"):
            size = float(np.sqrt(np.mean(np.square(want))))
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * size, err_msg=name)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=name)
