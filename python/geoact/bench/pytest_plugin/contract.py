"""What is used of pytest-benchmark without being promised by it, in one place: see ``changed``."""

from __future__ import annotations

import inspect
from typing import Any

SUPPORTED = ">=5.1,<6"

METHODS = {
    ("fixture", "BenchmarkFixture", "_make_stats"): ("self", "iterations"),
    ("stats", "Metadata", "update"): ("self", "duration"),
}
"""Methods, by module and class, and their parameters: one makes a row of the table, the other adds a sample to it."""

ATTRIBUTES = {
    "_mode": "a fixture without one is warned of as unused",
    "disabled": "whether benchmarks run once, untimed",
    "extra_info": "is stored with the row",
    "fullname": "the name of the row",
    "params": "its parameters",
}
"""Attributes of a fixture, and what for."""

OPTIONS = ("benchmark_disable", "benchmark_enable", "benchmark_only", "benchmark_skip")
"""Options, by the names under which pytest stores them."""

HOOKS = ("pytest_benchmark_update_machine_info", "pytest_benchmark_compare_machine_info")


def changed(benchmark: Any) -> list[str]:
    """What is not as it was, told of one fixture of pytest-benchmark; empty if all that is used is there."""
    import pytest_benchmark.fixture
    import pytest_benchmark.stats

    modules = {"fixture": pytest_benchmark.fixture, "stats": pytest_benchmark.stats}
    found = []
    for (module, kind, name), parameters in METHODS.items():
        method = getattr(getattr(modules[module], kind, None), name, None)
        if method is None:
            found.append(f"{kind}.{name} is gone")
        elif (actual := tuple(inspect.signature(method).parameters)) != parameters:
            found.append(f"{kind}.{name} takes ({', '.join(actual)}), not ({', '.join(parameters)})")
    return found + [f"{type(benchmark).__name__}.{name} is gone" for name in ATTRIBUTES if not hasattr(benchmark, name)]
