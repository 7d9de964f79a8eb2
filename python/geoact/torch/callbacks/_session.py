"""A monitor that a framework's events begin, step and end, where no ``with`` block can be."""

from __future__ import annotations

import importlib
import inspect
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from geoact.torch.reading import BACKWARD, FORWARD, Reading

_SCALARS = tuple(scalar.name for scalar in FORWARD + BACKWARD)


class Monitor(Protocol):
    """What is used of the object that ``geoact.torch.instrument`` returns."""

    last: Reading | None

    def __enter__(self) -> Any: ...  # noqa: ANN401

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> Any: ...  # noqa: ANN401

    def step(self) -> Any: ...  # noqa: ANN401


class Session:
    """One monitor at a time, entered at ``begin``, left once: at ``end``, the next ``begin`` or the end of the program.

    Parameters
    ----------
    options : dict
        Keyword arguments of ``geoact.torch.instrument``; ``when`` is "training" unless given.
    scalars : sequence of str
        Columns of a reading that are logged for each layer.
    """

    def __init__(self, options: dict[str, Any], scalars: Sequence[str]) -> None:
        if isinstance(scalars, str) or not isinstance(scalars, Sequence):
            raise TypeError(f"scalars must be a sequence of str, got {type(scalars).__name__}")
        for name in scalars:
            if name not in _SCALARS:
                raise ValueError(f"scalars has {name!r} (accepted: {', '.join(_SCALARS)})")
        # A trainer runs validation between two steps, on other data: it does not belong to the training's readings.
        known = inspect.signature(importlib.import_module("geoact.torch.monitor").instrument).parameters
        for name in options:
            if name not in known:
                raise TypeError(f"{name} is no argument of geoact.torch.instrument (accepted: {', '.join(known)})")
        self._options = {"when": "training", **options}
        self._scalars = tuple(scalars)
        self._seen: Reading | None = None
        self.monitor: Monitor | None = None
        self._leave: weakref.finalize[Any, Any] | None = None

    def begin(self, model: Any) -> None:  # noqa: ANN401
        """Instrument the model."""
        self.end()
        # By name at run time: the callbacks are usable with whatever torch has there, and tests replace it.
        monitor: Monitor = importlib.import_module("geoact.torch").instrument(model, **self._options)
        monitor.__enter__()
        self.monitor, self._seen = monitor, None
        # Frameworks do not tell every failure; a finalizer runs at the latest when the program ends, and only once.
        self._leave = weakref.finalize(self, _leave, monitor)

    def step(self) -> dict[str, float] | None:
        """Count an optimiser step; what to log if that completed a reading."""
        if self.monitor is None or self._leave is None or not self._leave.alive:
            return None
        self.monitor.step()
        reading = self.monitor.last
        if reading is None or reading is self._seen:
            return None
        self._seen = reading
        endings = tuple(f"/{name}" for name in self._scalars)
        values = {name: value for name, value in reading.metrics().items() if name.endswith(endings)}
        return {**values, "geoact/alerts": float(len(reading.alerts))}

    def end(self, error: BaseException | None = None) -> None:
        """Leave the monitor, if it is still entered; it remains readable."""
        if self._leave is not None and self._leave.detach() is not None and self.monitor is not None:
            _leave(self.monitor, error)


def _leave(monitor: Monitor, error: BaseException | None = None) -> None:
    if error is None:
        monitor.__exit__(None, None, None)
    else:
        monitor.__exit__(type(error), error, error.__traceback__)
