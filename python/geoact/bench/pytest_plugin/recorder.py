"""Keeps what a session measured; judges it and saves it when the session ends.

A benchmark that looks slower than the baseline is measured ``AGAIN`` times more, at once, with the same call and as
many rounds, and is judged by all its samples together: what disturbed one measurement for seconds does not repeat
itself, and what the code does, does. No sample is left out, and how often it is measured depends on the first time
alone. The price is that a slowdown which is there in one of three measurements passes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pytest_geoact import number

from geoact.bench import environment, results
from geoact.bench.gate import baseline as baselines
from geoact.bench.gate.baseline import Baseline, BaselineMissingError, compare
from geoact.bench.gate.decide import MISSING, REFUSED, Rule, Verdict
from geoact.bench.pytest_plugin import arrays, section
from geoact.bench.pytest_plugin.selection import Selection, narrowed_by, paths_of
from geoact.bench.results import ResultError
from geoact.bench.runner import figures, run_call
from geoact.bench.suite import Call, Case
from geoact.bench.timing import Devices, Settings

AGAIN = 2
CANNOT = int(pytest.ExitCode.USAGE_ERROR)


def settings_of(config: pytest.Config) -> Settings:
    """How this session measures."""
    cold = bool(config.getoption("geoact_cold") or config.getini("geoact_cold"))
    settings = Settings.quick(cold) if config.getoption("geoact_quick") else Settings(cold=cold)
    seconds = number(config, "seconds")
    return settings if seconds is None else replace(settings, seconds=seconds)


def pooled(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several measurements of one case as one, with all their samples; the first that went wrong, if one did."""
    for entry in entries:
        if entry["status"] != "measured":
            return entry
    first, last = entries[0], entries[-1]
    ns = [t for entry in entries for t in entry["ns"]]
    copied = [t for entry in entries for t in entry["ceiling_ns"]] if all("ceiling_ns" in e for e in entries) else []
    flags = sorted({flag for entry in entries for flag in entry.get("flags", ())})
    moved = first.get("read", 0) + first.get("written", 0)
    whole = {**last, **figures(ns, copied, moved=moved, flops=first.get("flops", 0))}
    return whole | {"measured": len(entries)} | ({"flags": flags} if flags else {})


@dataclass
class Outcome:
    """What the end of the session came to: an exit code, or None to leave pytest's, and lines that say why."""

    code: int | None = None
    verdict: Verdict | None = None
    lines: tuple[str, ...] = ()

    def tell(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines


class Recorder:
    """The measurements of a session; a plugin of pytest.

    Raises UsageError if an option is wrong, or the baseline that is asked for cannot be used.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.gate, self.saving = bool(config.getoption("geoact_gate")), bool(config.getoption("geoact_save_baseline"))
        self.settings = settings_of(config)
        self.rule = Rule(least=number(config, "delta") or Rule.least)
        self.entries: dict[str, dict[str, Any]] = {}
        self.untimed: set[str] = set()
        self.notes: set[str] = set()
        self.outcome = Outcome()
        self._devices: dict[bool, Devices] = {}
        self._reasons: dict[str, str] = {}
        self._files: set[str] = set()
        self._collected: set[str] = set()
        self.before = self._load() if self.gate or self.saving else None

    # --- where ------------------------------------------------------------------------------------

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The environment block of this session."""
        described = environment.describe(root=self.config.rootpath)
        models = sorted(set(arrays.models()))
        return described | ({"gpu": {"name": models[0]}} if len(models) == 1 else {})

    @property
    def identity(self) -> dict[str, Any]:
        """The class of this machine."""
        return environment.identity(self.environment)

    @cached_property
    def path(self) -> Path:
        """The baseline."""
        given = self.config.getoption("geoact_baseline")
        if given:
            return Path(self.config.invocation_params.dir, given)
        named = self.config.getini("geoact_baseline")
        return Path(self.config.rootpath, named or f".geoact/{environment.slug(self.environment)}.json")

    @property
    def shown_path(self) -> str:
        """The baseline as a person would write it."""
        inside = self.path.is_relative_to(self.config.rootpath)
        return str(self.path.relative_to(self.config.rootpath) if inside else self.path)

    def _load(self) -> Baseline | None:
        """The baseline; None where there is none yet. Raises UsageError if the file is anything else."""
        try:
            if self.saving and self.path.is_dir():
                raise ResultError(f"{self.path} is a folder; a baseline is saved to a file")
            found = Baseline.load(self.path)
            if self.saving and not self._own():
                raise ResultError(f"{self.path} is a result and no baseline; it is not overwritten: name another file")
        except BaselineMissingError:
            return None
        except ResultError as error:
            raise pytest.UsageError(f"--geoact-baseline: {error}") from error
        return found

    def _own(self) -> bool:
        return self.path.is_file() and results.read_json(self.path).get("kind") == baselines.KIND

    # --- measuring --------------------------------------------------------------------------------

    def devices(self, cold: bool | None) -> Devices:
        """The clocks for this state of the caches."""
        state = self.settings.cold if cold is None else cold
        if state not in self._devices:
            self._devices[state] = Devices(replace(self.settings, cold=state))
        return self._devices[state]

    def measure(self, name: str, axes: Mapping[str, object], call: Call, cold: bool | None) -> dict[str, Any]:
        """Measure a call; with the gate, again if it looks slower than the baseline. Its entry in the document."""
        case = Case(name, axes, lambda: call)
        settings = replace(self.settings, cold=self.settings.cold if cold is None else cold)
        entry = run_call(case, call, self.devices(cold), settings)
        if self._slower(entry):
            entry = pooled([entry, *self._again(case, call, cold, settings, entry["rounds"])])
        self.entries[name] = entry
        return entry

    def _again(
        self, case: Case, call: Call, cold: bool | None, settings: Settings, rounds: int
    ) -> Iterator[dict[str, Any]]:
        """More measurements of a case, each with as many rounds as the first, so that the first is outnumbered."""
        rule = replace(settings.rule, least=max(settings.rule.least, rounds))
        for turn in range(1, AGAIN + 1):
            yield run_call(case, call, self.devices(cold), replace(settings, rule=rule, seed=settings.seed + turn))

    def _slower(self, entry: Mapping[str, Any]) -> bool:
        """Whether the gate would call this case regressed if it were the only one."""
        known = self.before is not None and entry["name"] in self.before.cases
        if not (self.gate and known and entry["status"] == "measured"):
            return False
        assert self.before is not None
        found = compare(self.before, self.document([entry]), rule=self.rule, expected=())
        return bool(found.named("regressed"))

    def not_timed(self, node: pytest.Item) -> None:
        """A benchmark ran once, untimed, because pytest-benchmark is disabled."""
        self.untimed.add(node.nodeid)

    def document(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Entries as the document of a result file."""
        described = dict(self.environment)
        for devices in self._devices.values():
            for key, facts in devices.facts().items():
                described[key] = {**facts, **described.get(key, {})}
        if "gpu" not in described and self.before is not None and not any(e.get("device") == "cuda" for e in entries):
            described["gpu"] = self.before.identity.get("gpu")  # nothing ran on it, so which one it is changes nothing
        return {
            "schema": results.SCHEMA,
            "kind": results.KIND,
            "suite": "pytest",
            "cache": "cold" if self.settings.cold else "warm",
            "environment": described,
            "cases": list(entries),
            "rows": [],
            "groups": {},
        }

    # --- hooks ------------------------------------------------------------------------------------

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Which files were looked at."""
        self._files.add(report.nodeid.partition("::")[0])

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Which tests there are."""
        self._collected.add(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Mark what was not timed: an attribute of a report reaches the main process of xdist."""
        report = yield
        if item.nodeid in self.untimed:
            report.geoact_untimed = True
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Why a test has no measurement."""
        if report.skipped:
            where = report.longrepr
            self._reasons[report.nodeid] = where[2] if isinstance(where, tuple) else "its test is expected to fail"
        elif report.failed:
            self._reasons[report.nodeid] = "its test failed"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, Any, Any]:
        """Judge and save ahead of the summary, which tells of it; set the exit code behind all others."""
        if not hasattr(self.config, "workerinput"):
            self._conclude(session, int(exitstatus))
        result = yield
        passed = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if self.outcome.code is not None and session.exitstatus in passed:
            session.exitstatus = self.outcome.code
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The section "geoact"."""
        section.write(terminalreporter, self)

    # --- the end ----------------------------------------------------------------------------------

    def selection(self, session: pytest.Session) -> Selection:
        """What this session was meant to run."""
        return Selection(
            self.config.rootpath,
            paths_of(self.config),
            self._files,
            self._collected,
            {item.nodeid for item in session.items},
            tuple(self.config.getoption("deselect", None) or ()),
            narrowed_by(self.config),
        )

    def _entries(self) -> list[dict[str, Any]]:
        """What was measured, and why what the baseline has was not."""
        known = self.before.cases if self.before is not None else {}
        absent = {name: why for name, why in self._reasons.items() if name in known and name not in self.entries}
        return [
            *self.entries.values(),
            *({"name": name, "status": "skipped", "reason": why} for name, why in absent.items()),
        ]

    def _conclude(self, session: pytest.Session, status: int) -> None:
        outcome, done = self.outcome, (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if not (self.gate or self.saving):
            return
        if status not in (*done, pytest.ExitCode.TESTS_FAILED):
            outcome.tell("neither judged nor saved: the session did not come to its end")
            return
        document, selection = self.document(self._entries()), self.selection(session)
        expected = selection.expected(self.before.cases if self.before is not None else ())
        if self.gate:
            self._judge(document, expected)
        if selection.unknown:
            outcome.tell(
                f"{_count(len(selection.unknown), 'benchmark')} of the baseline not found, but {selection.narrowed} is "
                "given, so nobody can tell whether it is missed: run the gate without that"
            )
        if self.saving and status not in done:
            outcome.tell("not saved: tests failed")
        elif self.saving and outcome.code:
            outcome.tell("not saved: the gate did not pass")
        elif self.saving:
            self._save(document, set(expected))

    def _judge(self, document: Mapping[str, Any], expected: Sequence[str]) -> None:
        if self.before is None:
            self.outcome.code = MISSING
            self.outcome.tell("MISSING: there is no baseline to judge against")
            return
        strict = bool(self.config.getoption("geoact_strict"))
        self.outcome.verdict = compare(self.before, document, rule=self.rule, strict=strict, expected=expected)
        self.outcome.code = self.outcome.verdict.code
        self.outcome.tell(self.outcome.verdict.headline)

    def _save(self, document: Mapping[str, Any], expected: set[str]) -> None:
        """Add this session to the baseline as it is now, which another session may have written meanwhile."""
        outcome, measured = self.outcome, results.measured(document)
        if not measured:
            outcome.tell("not saved: nothing was measured")
            return
        try:
            now = self._load() or Baseline(environment.identity(document["environment"]))
            refused = environment.differences(now.identity, document["environment"])
            if refused:
                outcome.code = REFUSED
                outcome.tell(f"not saved: {self.shown_path} is of another machine: {'; '.join(refused)}")
                return
            known = {entry["name"] for entry in document["cases"]}
            gone = sorted(name for name in now.cases if name in expected and name not in known)
            for name in gone:
                del now.cases[name]
            now.add(document)
            now.save(self.path)
        except (OSError, pytest.UsageError) as error:
            outcome.code = CANNOT
            outcome.tell(f"not saved: {error}")
            return
        fewest = min(len(now.cases[name]) for name in measured)
        outcome.tell(f"saved: {_count(len(measured), 'benchmark')} to {self.shown_path}, {_sessions(fewest)}")
        outcome.tell(*(f"dropped from it: {name}, which is not there any more" for name in gone))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _sessions(fewest: int) -> str:
    """How many sessions of a benchmark there are, and what that is good for."""
    enough = "" if fewest >= 3 else ": with three the limit of each benchmark is its own"
    return f"{_count(fewest, 'session')} of each{enough}"
