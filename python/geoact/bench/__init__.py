"""GPU microbenchmarking and the performance gate.

Each part is imported by its own name; importing this package alone does nothing. A part may depend on the standard
library, on ``geoact._files`` and, where a person reads its output, on the ``bench`` extra (rich, typer). None needs
torch, Triton, CuPy or a GPU to be imported, and nothing else in geoact imports from here.
"""
