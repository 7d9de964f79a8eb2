"""GPU microbenchmarking and the performance gate, for anybody's kernels.

One page of the design, from what is declared to what is decided:

=====================  ==============================================================================================
``suite``              what a user declares: ``Suite``, ``Case``, ``Call``
``contenders``         what takes turns: ``Contender``, ``Group``, ``Bar``
``clocks``             how time is read: the host's clock; ``device_clock`` that of a CUDA device
``ceilings``           the copy of the same bytes that every case is held against
``engine``             interleaved rounds, when they end, raw samples
``bars``, ``summary``  ratios and whether a limit is met; order statistics
``timing``             settings, the clock of each device, the ceiling of a case
``runner``             a whole suite to a document; ``results`` stores it, ``environment`` says where it was made
``gate``               A against B: workers kept warm, paired log-ratios, verdicts, exit codes
``pytest_plugin``      the fixture ``gpu_benchmark`` and ``pytest --geoact-gate``
``instructions``       the deterministic tier: instructions counted under callgrind
``kernels_report``     its twin for GPU kernels: registers, spills and instructions read from machine code
``explained``          what both have in common: accepted rises, verdicts, exit codes
``history``            results over time, and where they changed
``report``             tables, plots and pages
``cli``                ``geoact bench`` and ``geoact compare``
=====================  ==============================================================================================

What measures (everything above ``pytest_plugin``, and ``gate/worker``) depends on the standard library and NumPy only,
and not on the rest of geoact: a worker loads it beside any version of geoact, or none. The rest may use the ``bench``
extra. Nothing here needs torch, Triton, CuPy or a GPU to be imported, and nothing else in geoact imports from here.
"""

from geoact.bench.ceilings import Traffic
from geoact.bench.contenders import Bar, Contender, Group, Unavailable
from geoact.bench.suite import Call, Case, Suite, SuiteError

__all__ = ["Bar", "Call", "Case", "Contender", "Group", "Suite", "SuiteError", "Traffic", "Unavailable"]
