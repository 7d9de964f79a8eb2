"""Every case of geoact's suite as a test of pytest-benchmark; one thread.

    pytest benchmarks --benchmark-only

The cases are those of ``suite.py``, so a new row of the registry is measured without a line here. Each output is
checked against the float64 reference before and after it is timed. Times are absolute and belong to the machine that
printed them: to compare with other software, with a copy or with a bar, use ``geoact bench run benchmarks/suite.py``,
which interleaves the contenders. ``extra_info`` holds the bytes that a call moves and where the data are when it
begins.
"""

import cases
import pytest
from suite import suite


@pytest.mark.parametrize("case", suite.cases.values(), ids=lambda case: case.name)
def test_activation(benchmark, case):
    call = case.prepare()
    before = call.check()
    moved = call.read + call.written
    small, where = moved < 2 * cases.MIB, cases.level(moved)
    benchmark.group = f"{case.make.__name__} {case.axes['dtype']}, {where}, statistics: {case.axes['statistics']}"
    benchmark.extra_info.update(bytes_moved=moved, cache=where)
    benchmark.pedantic(call.run, rounds=100 if small else 7, iterations=10 if small else 1, warmup_rounds=2)
    assert call.check() == before, "the output changed while it was timed"
