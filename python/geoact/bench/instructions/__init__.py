"""The deterministic tier: instructions that a call executes, counted under callgrind, and a gate over them.

A time is noisy, a count is not: the same code on the same data executes the same instructions on a busy machine, in a
container, today and tomorrow. So the gate needs one run, no statistics and no quiet machine, and sees a rise of 2 % of
a call that lasts a microsecond. What it cannot see is what an instruction costs.

    table = instructions.count_suite("benchmarks/suite.py")
    verdict = instructions.compare("instructions.json", table)
    assert verdict.ok, verdict

=============  =================================================================================
``requests``   asks valgrind, from Python, to count one call: machine code in an executable page
``child``      what runs under valgrind: loads the suite, warms up, has every case counted
``counting``   starts it, and makes a table of what callgrind wrote
``callgrind``  reads callgrind's files: instructions by object file
``measured``   which object files are the measured package, and their compiler
``table``      rows and their stored form
``compare``    the gate; what it has in common with ``kernels_report`` is in ``bench.explained``
``show``       for people
``cli``        the command
=============  =================================================================================

docs/instructions.md says how to read the figures and what they cannot tell. Standard library only; rich and typer in
``show`` and ``cli`` alone.
"""

from geoact.bench.instructions.compare import (
    METRICS,
    TOLERANCE,
    Explanation,
    Finding,
    Verdict,
    compare,
    load_explanations,
)
from geoact.bench.instructions.counting import count_suite, find_valgrind
from geoact.bench.instructions.errors import BaselineMissingError, CountingError
from geoact.bench.instructions.table import Row, Table

__all__ = [
    "METRICS",
    "TOLERANCE",
    "BaselineMissingError",
    "CountingError",
    "Explanation",
    "Finding",
    "Row",
    "Table",
    "Verdict",
    "compare",
    "count_suite",
    "find_valgrind",
    "load_explanations",
]
