"""One benchmark per registry row, direction, dtype and size, with and without statistics; one thread.

    pytest benchmarks --benchmark-only

The cases come from ``cases.py``, so a new row of the registry is measured without a line here. Each output is checked
against the float64 reference before and after it is timed. Times are absolute and belong to the machine that printed
them: to compare with other software, or with a bar, use ``benchmarks/bars.py``, which interleaves the contenders.
``extra_info`` holds the bytes that a call moves and where the data are when it begins.
"""

import cases
import pytest


@pytest.mark.parametrize("case", cases.suite(), ids=lambda case: case.name)
def test_activation(benchmark, case):
    prepared = case.prepare()
    before = prepared.check()
    small = case.bytes_moved < 2 * cases.MIB
    benchmark.group = f"{case.direction} {case.dtype}, {case.cache}, {'statistics' if case.per else 'plain'}"
    benchmark.extra_info.update(bytes_moved=case.bytes_moved, cache=case.cache, elements=case.elements)
    benchmark.pedantic(prepared.run, rounds=100 if small else 7, iterations=10 if small else 1, warmup_rounds=2)
    assert prepared.check() == before, "the output changed while it was timed"
    if not small:
        cases.array.cache_clear()
