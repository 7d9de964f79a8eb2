"""What a sink is, and how one gets the package that it writes with."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from geoact.torch.reading import Reading


@runtime_checkable
class Sink(Protocol):
    """Anything with these two methods can be given to the monitor."""

    def write(self, reading: Reading) -> None:
        """Take one reading, with its alerts."""

    def close(self) -> None:
        """Finish what is unfinished. Called once, also when the training raised; may be called again."""


def optional(module: str, sink: str) -> Any:  # noqa: ANN401  a module whose stubs need not be installed
    """Import a package of the ``monitor`` extra for a sink, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        extra = f"pip install {package}" if package == "wandb" else 'pip install "geoact[monitor]"'
        raise ImportError(f"{sink} needs {module}: {extra}") from error


def target(path: str | os.PathLike[str]) -> Path:
    """The path of a file to be written, in a folder that exists."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    chosen = Path(path)
    if chosen.is_dir():
        raise ValueError(f"path is a folder: {chosen}")
    chosen.parent.mkdir(parents=True, exist_ok=True)
    return chosen


def positive(name: str, value: int) -> int:
    """An argument that counts something, so at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} is {value} (accepted: 1 and more)")
    return value
