"""The monitor as a callback of the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from geoact.torch.callbacks._session import Monitor, Session
from geoact.torch.reading import SUMMARY

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("GeoactTrainerCallback needs transformers: pip install transformers accelerate") from error


class GeoactTrainerCallback(TrainerCallback):
    """Monitors the model while it is trained and logs each reading once, when it is complete.

    >>> trainer.add_callback(GeoactTrainerCallback(trainer, per="channel"))  # doctest: +SKIP

    Trainer tells its callbacks nothing when a training raises. The monitor is then left at the next training, when the
    callback is collected or when the program ends, whichever is first; used as a context manager, at once:

    >>> with GeoactTrainerCallback(trainer, per="channel") as callback:  # doctest: +SKIP
    ...     trainer.add_callback(callback)
    ...     trainer.train()

    Parameters
    ----------
    trainer : transformers.Trainer, optional
        The one to log with, by ``trainer.log``. Without it readings go to ``state.log_history`` only, because a
        callback cannot reach the others, those that report to TensorBoard for instance.
    scalars : sequence of str
        What is logged of each layer; the sinks get everything. Trainer prints what it logs, too.
    **options
        Keyword arguments of ``geoact.torch.instrument``; ``when`` is "training" unless given.
    """

    def __init__(
        self,
        trainer: Trainer | None = None,
        *,
        scalars: Sequence[str] = SUMMARY,
        **options: Any,  # noqa: ANN401
    ) -> None:
        if trainer is not None and not isinstance(trainer, Trainer):
            raise TypeError(f"trainer must be a transformers.Trainer, got {type(trainer).__name__}")
        self._trainer = trainer
        self._session = Session(options, scalars)

    @property
    def monitor(self) -> Monitor | None:
        """The monitor of the present or last training."""
        return self._session.monitor

    def __enter__(self) -> GeoactTrainerCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.end(error)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Instrument the model."""
        self._session.begin(kwargs["model"])

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Count a step: Trainer calls this once per optimiser step, and on_substep_end while gradients accumulate."""
        values = self._session.step()
        if values is None:
            return
        if self._trainer is None:
            state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})
            return
        # To log is taken for the answer to should_log, and the Trainer's own loss would be left out.
        due = control.should_log
        self._trainer.log(values)
        control.should_log = due

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Leave the monitor."""
        self._session.end()
