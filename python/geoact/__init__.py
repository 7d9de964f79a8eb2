"""Fused activations that measure, in the same pass over memory, what they do to the geometry of the data.

Every activation is a row of the registry in :mod:`geoact.activations` and a callable here: ``geoact.relu(x)``. Pass
``stats=geoact.GeometryStats()`` and the same pass fills it; pass ``stats=geoact.GradientStats()`` to ``.backward``.
Gated activations of two arrays, ``geoact.swiglu(gate, up)``, are rows of :mod:`geoact.gates`.

What may be imported: NumPy and the compiled ``geoact._core``. Other frameworks are recognised by what is already in
``sys.modules`` and never imported from here; the study and the command line live behind an extra.

A program that imports geoact may run pytest, to which this distribution offers a plugin: PYTEST_DONT_REWRITE keeps it
from warning that geoact was there first.
"""

from typing import Any

from geoact import activations as _registry
from geoact import gates as _gates
from geoact import masks
from geoact.activations import *  # noqa: F403  every public name there is a row or speaks of rows
from geoact.backends import Info, gpu_backend, info, isa, num_threads, set_gpu_backend, set_isa, set_num_threads
from geoact.gates import *  # noqa: F403  Gate and the rows
from geoact.statistics import GeometryStats, GradientStats

__version__ = "0.1.0"

# The functions, not the modules of the same names: geoact.activations() and geoact.gates() list the rows.
activations = _registry.activations
gates = _gates.gates

__all__ = [
    "Activation",
    "Gate",
    "GeometryStats",
    "GradientStats",
    "Info",
    "Parameter",
    "__version__",
    "activations",
    "gates",
    "get",
    "gpu_backend",
    "info",
    "isa",
    "masks",
    "num_threads",
    "set_gpu_backend",
    "set_isa",
    "set_num_threads",
    *_registry.activations(),
    *_gates.gates(),
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """``geoact.torch`` without an import of its own: torch is loaded only for those who ask for it."""
    if name == "torch":
        import importlib

        return importlib.import_module("geoact.torch")
    raise AttributeError(f"module 'geoact' has no attribute {name!r}")
