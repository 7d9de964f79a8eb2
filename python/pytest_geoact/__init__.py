"""The part of geoact's pytest plugin that every pytest run of an environment with geoact loads.

It has the options, and the fixture ``gpu_benchmark``, which fetches the rest: geoact.bench.pytest_plugin. It imports
pytest and nothing else, not even geoact, because that loads NumPy, and no run that has nothing to do with geoact may
become slower, or fail, because geoact is installed. It is a package of its own for that reason, and written for
versions of pytest older than those that the fixture needs.
"""

from __future__ import annotations

from typing import Any

import pytest

RECORDER = "geoact-recorder"
INSTALL = "pip install 'geoact[bench]'"

OPTIONS = {
    "gate": "Judge the benchmarks of gpu_benchmark against the baseline; exit code 10: slower, 11: inconclusive, "
    "12: no baseline, or a benchmark of it is gone, 13: another machine.",
    "save_baseline": "Add this session to the baseline, if all tests pass.",
    "strict": "With the gate: exit code 11 also where a slowdown is neither shown nor excluded.",
    "quick": "Few samples: to see that everything runs.",
    "cold": "Flush the caches ahead of every sample.",
}
VALUES = {
    "baseline": ("FILE", "Baseline. Default: the ini value geoact_baseline, or .geoact/MACHINE.json in rootdir."),
    "seconds": ("SECONDS", "What one benchmark may cost. Default: the ini value geoact_seconds, or 3."),
    "delta": ("SHARE", "Smallest change that counts. Default: the ini value geoact_delta, or 0.03, which is 3 %%."),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--geoact-*``, and their twins in the ini file."""
    group = parser.getgroup("geoact", "geoact: benchmarks against the copy of their bytes, and a gate")
    for name, text in OPTIONS.items():
        group.addoption(f"--geoact-{name.replace('_', '-')}", action="store_true", default=False, help=text)
    for name, (metavar, text) in VALUES.items():
        group.addoption(f"--geoact-{name}", metavar=metavar, default=None, help=text)
        parser.addini(f"geoact_{name}", text.replace("%%", "%").partition(" Default")[0], default="")
    parser.addini("geoact_cold", OPTIONS["cold"], type="bool", default=False)


def number(config: pytest.Config, name: str) -> float | None:
    """An option that is a number above 0, or its ini value; None where neither is given. Raises UsageError."""
    text = config.getoption(f"geoact_{name}") or config.getini(f"geoact_{name}")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise pytest.UsageError(f"geoact_{name} is {text!r}; it must be a number above 0")
    return value


def recorder(config: pytest.Config) -> Any:  # noqa: ANN401
    """What keeps the measurements of the session: geoact.bench.pytest_plugin.recorder.Recorder, loaded when needed."""
    found = config.pluginmanager.get_plugin(RECORDER)
    if found is None:
        from geoact.bench.pytest_plugin.recorder import Recorder

        found = Recorder(config)
        config.pluginmanager.register(found, RECORDER)
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixture; with the gate, refuse at once what cannot be judged later."""
    for name in ("seconds", "delta"):
        number(config, name)
    present = hasattr(config.option, "benchmark_disable")
    wanted = [f"--geoact-{name.replace('_', '-')}" for name in ("gate", "save_baseline") if _given(config, name)]
    if wanted:
        reason = _untimed(config) if present else absence(config)
        if reason:
            raise pytest.UsageError(f"{wanted[0]}: {reason}")
    config.pluginmanager.register(_Fixture(config) if present else _NoFixture(), "geoact-fixture")
    if wanted and not config.option.collectonly:
        recorder(config)


def _given(config: pytest.Config, name: str) -> bool:
    return bool(config.getoption(f"geoact_{name}"))


def absence(config: pytest.Config) -> str:
    """Why there is no fixture of pytest-benchmark."""
    if config.pluginmanager.is_blocked("benchmark"):
        return "gpu_benchmark needs pytest-benchmark, which -p no:benchmark blocks"
    return f"gpu_benchmark needs pytest-benchmark: {INSTALL}"


def _untimed(config: pytest.Config) -> str:
    """Why this session times nothing; empty if it does."""
    if config.getoption("dist", "no") != "no" or hasattr(config, "workerinput"):
        return "processes of pytest-xdist disturb each other, so nothing is timed; run without it, or with -n 0"
    if config.option.benchmark_skip and not config.option.benchmark_only:
        return "--benchmark-skip skips every benchmark"
    if config.option.benchmark_disable and not config.option.benchmark_enable:
        return "--benchmark-disable times nothing; add --benchmark-enable"
    return ""


class _NoFixture:
    """In place of the fixture where pytest-benchmark is missing."""

    @pytest.fixture
    def gpu_benchmark(self, pytestconfig: pytest.Config) -> None:
        """Skip the test: pytest-benchmark is not there."""
        pytest.skip(absence(pytestconfig))


class _Fixture:
    """The fixture, and what belongs to pytest-benchmark's storage."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.fixture
    def gpu_benchmark(self, request: pytest.FixtureRequest, benchmark: Any) -> Any:  # noqa: ANN401
        """Time a call, on a GPU or a CPU, against the copy of its bytes: geoact.bench.pytest_plugin.GpuBenchmark."""
        from geoact.bench.pytest_plugin import GpuBenchmark

        return GpuBenchmark(benchmark, recorder(request.config), request.node)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Where processes of xdist ran the benchmarks, the one that reports learns of them by their reports."""
        if hasattr(report, "geoact_untimed"):
            recorder(self._config).untimed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, config: pytest.Config, machine_info: dict[str, Any]) -> None:
        """Name the machine in what pytest-benchmark saves, if gpu_benchmark measured something."""
        found = config.pluginmanager.get_plugin(RECORDER)
        if found is not None and found.entries:
            machine_info["geoact"] = found.identity

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_benchmark_compare_machine_info(
        self, config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
    ) -> None:
        """Let runs that were saved with and without that name be compared without a warning about the name alone."""
        machine_info.pop("geoact", None)
        if "geoact" in compared_benchmark["machine_info"]:
            machine_info["geoact"] = recorder(config).identity
