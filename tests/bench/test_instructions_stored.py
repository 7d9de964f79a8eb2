"""The committed table is of the suite as it is: a row of the registry that has no counts would be gated by nobody."""

from pathlib import Path

import geoact
import pytest
from geoact.bench.instructions import Table

pytest.importorskip("ml_dtypes")

from geoact.bench.suite import load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STORED = BENCHMARKS / "results" / "instructions.json"


@pytest.fixture(scope="module")
def suite():
    return load(str(BENCHMARKS / "instructions_suite.py"))


def test_the_table_holds_every_case_of_the_suite(suite):
    table = Table.load(STORED)
    missing = suite.cases.keys() - {row.name for row in table.rows}
    assert not missing, 'count anew: make instructions INSTRUCTIONS_ARGUMENTS="--save ..."'
    assert len(table.rows) == len(suite.cases)
    assert {row.axes["activation"] for row in table.rows} == set(geoact.activations())


def test_the_table_is_of_the_avx2_kernels_and_repeatable():
    table = Table.load(STORED)
    assert (table.suite, table.package, table.gated) == ("geoact-instructions", "geoact", "instructions")
    assert table.tools["isa"] == "avx2"
    assert not table.environment["sources_changed"]
    assert "compiler of _core" in table.tools
    assert [row.name for row in table.rows if row.spread] == []
    assert STORED.read_text() == table.to_json()


@pytest.mark.parametrize("name", ["forward[activation=relu,statistics=none,dtype=float32,n=32768]",
                                  "backward[activation=prelu,statistics=tensor,dtype=float32,n=32768]",
                                  "forward[activation=gelu,statistics=row,dtype=float32,n=32768]",
                                  "backward[activation=sigmoid,statistics=tensor,dtype=bfloat16,n=32768]"])  # fmt: skip
def test_a_case_checks_itself_and_its_arrays_are_aligned(suite, name):
    call = suite.cases[name].prepare()
    call.check()
    call.runs[0]()
    arrays = [cell.cell_contents for cell in call.runs[0].__closure__ if hasattr(cell.cell_contents, "ctypes")]
    assert len(arrays) >= 2
    assert all(array.ctypes.data % 64 == 0 for array in arrays)
    assert call.read + call.written == Table.load(STORED)[name].bytes
