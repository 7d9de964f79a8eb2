"""The monitor as a callback of Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geoact.torch.callbacks._session import Monitor, Session
from geoact.torch.reading import SUMMARY

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("GeoactCallback needs lightning: pip install lightning") from error


class GeoactCallback(Callback):
    """Monitors the module while it is fitted and logs to the Trainer's loggers.

    A reading is logged once, when it is complete, whatever ``log_every_n_steps`` says, at ``trainer.global_step``.
    Where a batch makes several optimisers step, they count as one step of the monitor.

    Parameters
    ----------
    scalars : sequence of str
        What is logged of each layer; the sinks get everything.
    **options
        Keyword arguments of ``geoact.torch.instrument``; ``when`` is "training" unless given.
    """

    def __init__(self, *, scalars: Sequence[str] = SUMMARY, **options: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._session = Session(options, scalars)
        self._steps = 0

    @property
    def monitor(self) -> Monitor | None:
        """The monitor of the present or last training."""
        return self._session.monitor

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Instrument the module, after the sanity check of the validation."""
        self._steps = trainer.global_step
        self._session.begin(pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count a step if the optimiser made one: not while gradients are accumulated."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        values = self._session.step()
        if values is not None:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the monitor."""
        self._session.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the monitor, and tell it why."""
        self._session.end(exception)
