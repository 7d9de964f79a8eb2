"""Callbacks that run a monitor inside somebody else's training loop.

==================  ==============================================================================
``lightning``       :class:`~geoact.torch.callbacks.lightning.GeoactCallback` (lightning.pytorch)
``transformers``    :class:`~geoact.torch.callbacks.transformers.GeoactTrainerCallback`
==================  ==============================================================================

Each module imports its framework, so import the one that is wanted; this package imports none. They know the monitor by
``geoact.torch.instrument`` and the methods of :class:`~geoact.torch.callbacks._session.Monitor` only.
"""
