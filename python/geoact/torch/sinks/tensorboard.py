"""Curves and histograms in TensorBoard."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from geoact.torch.reading import Layer, Reading
from geoact.torch.sinks.base import optional

_CHANNELS = {"firing": "positive_fraction", "gain": "gain", "sd_x": "sd_x", "sd_y": "sd_y"}  # tag: derived value


class TensorBoard:
    """Scalars as ``geoact/layer/scalar``, histograms over channels as ``geoact/layer/channels/...``, alerts as text.

    Parameters
    ----------
    log : path-like or torch.utils.tensorboard.SummaryWriter
        A folder, for a writer of its own, or the writer that the training uses; that one is flushed, not closed.
    histograms : bool
        Whether to add the histograms, which need per="channel": firing rate, gain, sd of input and output.
    """

    def __init__(self, log: Any, histograms: bool = True) -> None:  # noqa: ANN401  any object with the writer's methods
        if not isinstance(histograms, bool):
            raise TypeError(f"histograms must be a bool, got {type(histograms).__name__}")
        self._own = isinstance(log, (str, os.PathLike))
        if not self._own and not hasattr(log, "add_scalar"):
            raise TypeError(f"log must be a path or a SummaryWriter, got {type(log).__name__}")
        self._writer = optional("torch.utils.tensorboard", "TensorBoard").SummaryWriter(str(log)) if self._own else log
        self._histograms = histograms

    def write(self, reading: Reading) -> None:
        """Add the reading at its step. What was not measured has no point."""
        for tag, value in reading.metrics().items():
            self._writer.add_scalar(tag, value, reading.step)
        if self._histograms:
            for layer in reading:
                self._add_histograms(layer, reading.step)
        if reading.alerts:
            # Markdown: one item per alert
            self._writer.add_text("geoact/alerts", "\n".join(f"- {alert}" for alert in reading.alerts), reading.step)
        self._writer.flush()

    def _add_histograms(self, layer: Layer, step: int) -> None:
        if layer.forward.per != "channel" or layer.forward.groups == 0:
            return
        for tag, name in _CHANNELS.items():
            if name != "positive_fraction" and layer.forward.level != "moments":
                continue
            values = getattr(layer.forward, name)
            values = values[np.isfinite(values)]  # a dead input has no gain, and an empty histogram is refused
            if values.size:
                self._writer.add_histogram(f"geoact/{layer.name or layer.activation}/channels/{tag}", values, step)

    def close(self) -> None:
        """Close the writer if it is the sink's own."""
        if self._own:
            self._writer.close()
        else:
            self._writer.flush()
