"""geoact for PyTorch: drop-in modules, autograd, torch.compile, and a monitor for a whole model."""
