"""What a project writes into its pyproject.toml, so that commands need no arguments.

[tool.geoact.bench]
suite = "benchmarks/suite.py"
build = "pip"                     # or "none", with source = "src": imported from where a revision is checked out
isolated = false                  # build with what is installed
environment = { GEOACT_CUDA = "OFF" }
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEYS = {"suite": str, "build": str, "source": str, "isolated": bool, "environment": dict}


class ConfigError(Exception):
    """The table in pyproject.toml cannot be used; the message says why."""


@dataclass(frozen=True)
class Config:
    """The table, with its defaults; ``root`` is the folder of the pyproject.toml, or the current one without any."""

    root: Path
    suite: str | None = None
    build: str = "pip"
    source: str = "."
    isolated: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def find(start: Path | None = None) -> Config:
    """The table of the nearest pyproject.toml at or above a folder. Raises ConfigError."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return _checked(folder, _table(path), path)
    return Config(start)


def _table(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            whole = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    table: dict[str, Any] = whole
    for key in ("tool", "geoact", "bench"):
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {key} in tool.geoact.bench must be a table")
    return table


def _checked(root: Path, table: dict[str, Any], path: Path) -> Config:
    for key, value in table.items():
        if key not in KEYS:
            raise ConfigError(f"{path}: tool.geoact.bench has no key {key!r}; there are {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise ConfigError(f"{path}: {key} must be a {KEYS[key].__name__}, got {value!r}")
    environment = {str(k): str(v) for k, v in table.get("environment", {}).items()}
    return Config(root, **{**table, "environment": environment})
