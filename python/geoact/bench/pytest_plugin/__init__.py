"""The pytest plugin: the fixture ``gpu_benchmark`` on top of pytest-benchmark's, and a gate at the end of the session.

=============  =====================================================================================================
``fixture``    what a test calls: makes a ``Call`` of it, fails the test if its result is wrong or its speed impossible
``recorder``   keeps what was measured, repeats what looks slower, judges and saves when the session ends
``selection``  which benchmarks of the baseline this session was meant to run
``arrays``     on which device the arrays of a call lie, and which GPU there is
``section``    the table in pytest's summary
``contract``   the names of pytest-benchmark that are used and that it does not promise to keep
=============  =====================================================================================================

``pytest_geoact``, a package beside this one, is what pytest loads in every run: it has the options and imports this one
when a test asks for the fixture, or the command line for the gate.
"""

from geoact.bench.pytest_plugin.fixture import GpuBenchmark

__all__ = ["GpuBenchmark"]

pytest_plugins = ("pytest_geoact",)
"""For ``-p geoact.bench.pytest_plugin``, where the entry point is not installed."""
