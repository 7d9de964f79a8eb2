"""Curves in a run of Weights & Biases."""

from __future__ import annotations

from typing import Any

from geoact.torch.reading import Reading
from geoact.torch.sinks.base import optional


class WandB:
    """Every measured scalar as ``geoact/layer/scalar``, the number of alerts, and the step as ``geoact/step``.

    The run drops what is logged for an earlier step than it has reached. So a reading is logged at its own step or, if
    the run has counted further, at the run's; curves are drawn over ``geoact/step``, which is right in both cases.

    Parameters
    ----------
    run : wandb run, optional
        Default: the active one. It is never started or finished here.
    own_step : bool
        False adds the values to whatever the training logs next (``commit=False``): for trainings that pass ``step=``
        in units other than optimiser steps, epochs for instance.
    """

    def __init__(self, run: Any = None, own_step: bool = True) -> None:  # noqa: ANN401
        if not isinstance(own_step, bool):
            raise TypeError(f"own_step must be a bool, got {type(own_step).__name__}")
        if run is None:
            run = optional("wandb", "WandB").run
            if run is None:
                raise ValueError("run is None and no run is active: call wandb.init() first, or pass one")
        if not hasattr(run, "log"):
            raise TypeError(f"run must be a wandb run, got {type(run).__name__}")
        self._run = run
        self._own_step = own_step
        run.define_metric("geoact/step", hidden=True)
        run.define_metric("geoact/*", step_metric="geoact/step")

    def write(self, reading: Reading) -> None:
        """Log one reading."""
        values: dict[str, float] = {
            **reading.metrics(),
            "geoact/alerts": len(reading.alerts),
            "geoact/step": reading.step,
        }
        if self._own_step:
            self._run.log(values, step=max(reading.step, self._run.step))
        else:
            self._run.log(values, commit=False)

    def close(self) -> None:
        """Nothing to do: the run belongs to the training."""
