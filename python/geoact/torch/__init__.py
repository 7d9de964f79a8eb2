"""geoact for PyTorch: drop-in modules, autograd, torch.compile, and a monitor for a whole model.

What lives here may import torch and the rest of geoact; nothing outside this folder imports it at load time, so that
NumPy users never pay for torch. Optional packages (rich, plotly, TensorBoard, Lightning, transformers, ...) are
imported by the sink or callback that needs them, when it is made.
"""

from geoact.torch import ops as _ops  # registers torch.ops.geoact

__all__: list[str] = []
