"""The static kernel report: performance regression testing without a GPU.

A compiled GPU kernel tells much of its speed before it ever runs: registers and the occupancy they allow, spills, the
width of its global accesses, the instructions of its hottest loop. This package reads them from anybody's machine code
(a ``.cubin``, an object or library with device code, PTX, what Triton compiled), shows them, stores them in a form
whose diffs can be read, and compares two reports. It needs cuobjdump, and neither a GPU nor a driver.

    report = kernels_report.read("build/kernels.o")
    report["scale<float>", "sm_90"].registers
    report.save("kernels.json")
    verdict = kernels_report.compare("kernels.json", kernels_report.read("build/kernels.o"))
    assert verdict.ok, verdict

Counts of instructions are no speed: see docs/kernels_report.md for what each figure means and what it cannot tell.
What may be imported: the standard library and ``geoact._files``; rich and typer in ``show`` and ``cli`` alone.
"""

from geoact.bench.kernels_report.compare import (
    METRICS,
    Explanation,
    Finding,
    Tolerances,
    Verdict,
    compare,
    load_explanations,
)
from geoact.bench.kernels_report.compiled import of_triton
from geoact.bench.kernels_report.errors import BaselineMissingError, ReportError
from geoact.bench.kernels_report.limits import LIMITS, Limits, Occupancy, occupancy
from geoact.bench.kernels_report.reading import read
from geoact.bench.kernels_report.report import COLUMNS, Kernel, Report, joined

__all__ = [
    "COLUMNS",
    "LIMITS",
    "METRICS",
    "BaselineMissingError",
    "Explanation",
    "Finding",
    "Kernel",
    "Limits",
    "Occupancy",
    "Report",
    "ReportError",
    "Tolerances",
    "Verdict",
    "compare",
    "joined",
    "load_explanations",
    "occupancy",
    "of_triton",
    "read",
]
