"""Runs a suite and makes the document of it: every case against the copy of its bytes, every group with its bars.

What goes wrong with one case is told in its place and does not keep the others from being measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from geoact.bench.bars import IMPOSSIBLE, Row, impossible, judge, rates, raw
from geoact.bench.bars import flags as flags_of
from geoact.bench.ceilings import SMALL, Traffic
from geoact.bench.clocks import Clock
from geoact.bench.contenders import Group, Unavailable
from geoact.bench.engine import Budget, Measured, StopRule, first_line, measure
from geoact.bench.results import KIND, SCHEMA
from geoact.bench.suite import Call, Case, Family, Suite, SuiteError
from geoact.bench.summary import Summary, interval, quantile
from geoact.bench.timing import Devices, Settings, ceiling

Told = Callable[[str, int, int], None]
"""Called with a name, how many are done and how many there are."""


def group_of(case: Case, call: Call, clock: Clock, cold: bool) -> Group:
    """A case and its ceiling."""
    group = Group(case.name, [call.contender(case.name)], labels=dict(case.axes))
    group.add("ceiling", lambda: ceiling(call, clock, cold))
    traffic = Traffic(call.read, call.written)
    if len(group.contenders) == 2 and traffic.bounded and (call.device != "cpu" or traffic.total >= SMALL):
        group.ceilings = (group.contenders[1].name,)
    group.bytes_moved = call.read + call.written or None
    group.flops = call.flops or None
    return group


def set_up(suite: Suite) -> None:
    """Call the suite's own function; raises SuiteError if it fails."""
    try:
        suite.setup()
    except (Exception, SystemExit) as error:
        raise SuiteError(f"setup of {suite.name} failed: {type(error).__name__}: {first_line(error)}") from error


# --- cases ----------------------------------------------------------------------------------------


def run_case(case: Case, devices: Devices, settings: Settings) -> dict[str, Any]:
    """Measure one case; its entry in the document."""
    entry = _entry(case)
    try:
        return run_call(case, case.prepare(), devices, settings)
    except Unavailable as error:
        return entry | {"status": "skipped", "reason": str(error)}
    except (Exception, SystemExit) as error:  # of the user's own function: the other cases go on
        return entry | {"status": "error", "reason": f"{type(error).__name__}: {first_line(error)}"}


def run_call(case: Case, call: Call, devices: Devices, settings: Settings) -> dict[str, Any]:
    """Measure a case whose call has been prepared; its entry in the document.

    Raises Unavailable where its device has no clock, and whatever the call itself raises.
    """
    clock = devices.clock(call.device)
    group = group_of(case, call, clock, settings.cold)
    entry = _entry(case)
    entry |= {"device": call.device, "clock": clock.label, "cache": "cold" if settings.cold else "warm"}
    entry |= {name: getattr(call, name) for name in ("read", "written", "flops", "threads") if getattr(call, name)}
    if call.code:
        entry["code"] = call.code
    shortest = settings.shortest_of(call.device)
    found = measure(group, clock, settings.rule, settings.seconds, seed=settings.seed, shortest=shortest)
    return entry | _outcome(case.name, group, found, call)


def _entry(case: Case) -> dict[str, Any]:
    return {"name": case.name, "axes": {k: _plain(v) for k, v in case.axes.items()}}


def _outcome(name: str, group: Group, found: Measured, call: Call) -> dict[str, Any]:
    if name not in found.samples:
        wrong = group.missing[name]
        return {"status": "error" if "WRONG RESULT" in wrong else "skipped", "reason": wrong}
    contender = next(c for c in group.contenders if c.name == name)
    others = [c for c in group.contenders if c.name != name]
    entry: dict[str, Any] = {"status": "measured", "stopped": found.stopped, "repeat": contender.repeat}
    if contender.output is not None:
        entry["output"] = contender.output
    copied = found.seconds(others[0].name) if others else ()
    entry |= figures(
        [_short(s / call.calls * 1e9) for s in found.seconds(name)],
        [_short(s * 1e9) for s in copied],
        moved=call.read + call.written,
        flops=call.flops,
    )
    entry |= rates(found.samples[name])
    flags = flags_of(found)
    if others:
        entry["ceiling"] = others[0].name
        impossibly = impossible(group, found)
        if impossibly and entry["score"]["low"] > IMPOSSIBLE:  # beyond what few samples may do by chance
            threads = (
                ""
                if call.threads > 1 or call.device != "cpu"
                else "; does it declare too many bytes, or use more threads than it declares?"
            )
            return entry | {"status": "error", "reason": impossibly[0] + threads, "flags": flags}
    elif "ceiling" in group.missing:
        entry["ceiling_missing"] = group.missing["ceiling"]
    return entry | ({"flags": flags} if flags else {})


def figures(ns: Sequence[float], ceiling_ns: Sequence[float], *, moved: int = 0, flops: int = 0) -> dict[str, Any]:
    """What is said of the samples of a case, and of those of its ceiling in the same rounds.

    Parameters
    ----------
    ns, ceiling_ns : sequence of float
        Nanoseconds of one call; ``ceiling_ns`` is empty where there is no ceiling.
    moved, flops : int
        Bytes and floating-point operations of one call.
    """
    summary = Summary.of(ns)
    found: dict[str, Any] = {"rounds": len(ns), "ns": list(ns)}
    found["summary"] = {k: v if k in ("n", "outliers") else _short(v) for k, v in vars(summary).items()}
    if moved:
        found["GB/s"] = _short(moved / summary.median)
    if flops:
        found["GFLOP/s"] = _short(flops / summary.median)
    if ceiling_ns:
        found |= {"ceiling_ns": list(ceiling_ns), "score": score(ns, ceiling_ns)}
    return found


def score(seconds: Sequence[float], ceiling_seconds: Sequence[float]) -> dict[str, float]:
    """Fraction of the speed of the copy, as ratios within rounds: median, quartiles and the interval of the median."""
    shares = sorted(c / s for s, c in zip(seconds, ceiling_seconds, strict=True))
    low, high = interval(shares)
    q1, median, q3 = (quantile(shares, q) for q in (0.25, 0.5, 0.75))
    return {k: _short(v) for k, v in {"median": median, "q1": q1, "q3": q3, "low": low, "high": high}.items()}


def _short(value: float) -> float:
    """No digits that mean nothing."""
    return float(f"{value:.6g}")


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)


# --- groups ---------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The rows and samples of groups."""

    rows: list[Row] = field(default_factory=list)
    groups: dict[str, Any] = field(default_factory=dict)

    @property
    def cut(self) -> list[str]:
        """Groups with fewer samples than the rule asks for."""
        return [name for name, taken in self.groups.items() if taken.get("cut")]


def run_group(
    family: Family, clock_of: Callable[[Group], Clock], rule: StopRule, seconds: float, outcome: Outcome, *,
    seed: int = 0, shortest: float = 2e-5, bounded: bool = True,
) -> None:  # fmt: skip
    """Make a group and measure it; if anything fails a row says so, and nothing is raised.

    A group may say ``shortest`` and which ``clock`` it wants in its labels. ``bounded=False`` believes speeds above
    the ceiling: those of a dry run mean nothing.
    """
    end, name, group = time.monotonic() + seconds, family.title or family.name, None
    try:
        group = family.make()
        name = group.name
        if not bounded:
            group.ceilings = ()
        clock = clock_of(group)
        shortest = group.labels.pop("shortest", shortest)
        group.labels["clock"] = clock.label
        left = max(0.0, end - time.monotonic())
        found = measure(group, clock, rule, left, seed=seed, shortest=shortest)
        outcome.rows += judge(group, found)
        outcome.groups[group.name] = raw(group, found)
    except (Exception, SystemExit) as error:  # one group that fails must not take the others with it
        reason = f"{type(error).__name__}: {first_line(error)}"
        outcome.rows.append(Row(name, "ran to its end", "exact", "", met="error", reason=reason))
    finally:
        if group is not None:
            _put_back(group, outcome)


def _put_back(group: Group, outcome: Outcome) -> None:
    try:
        group.after()
    except Exception as error:  # of the user's own function: what was measured is kept
        reason = f"{type(error).__name__}: {first_line(error)}"
        outcome.rows.append(Row(group.name, "put back what it changed", "exact", "", met="error", reason=reason))


# --- the whole ------------------------------------------------------------------------------------


def run(
    suite: Suite,
    settings: Settings,
    *,
    environment: Mapping[str, Any],
    cases: Iterable[Case] | None = None,
    families: Sequence[Family] | None = None,
    devices: Devices | None = None,
    group_seconds: float = 300.0,
    told: Told = lambda name, done, total: None,
) -> dict[str, Any]:
    """Run cases and groups of a suite, by default all, and return the document.

    ``group_seconds`` is what all groups may cost together.
    """
    chosen = list(suite.cases.values() if cases is None else cases)
    groups = list(suite.families if families is None else families)
    set_up(suite)
    devices = devices or Devices(settings)
    entries, total = [], len(chosen) + len(groups)
    for done, case in enumerate(chosen):
        told(case.name, done, total)
        entries.append(run_case(case, devices, settings))
    outcome, budget = Outcome(), Budget(group_seconds, sum(f.weight for f in groups))
    for done, family in enumerate(groups):
        told(family.name, len(chosen) + done, total)
        run_group(
            family,
            lambda group: devices.clock(group.labels.get("clock", "cpu")),
            settings.rule,
            budget.part(family.weight),
            outcome,
            seed=settings.seed + done,
            shortest=settings.shortest,
        )
    told("", total, total)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "suite": suite.name,
        "cache": "cold" if settings.cold else "warm",
        "environment": dict(environment) | devices.facts(),
        "cases": entries,
        "rows": [row.document() for row in outcome.rows],
        "groups": outcome.groups,
    }


def failures(document: Mapping[str, Any]) -> list[str]:
    """What was wrong: cases and rows that are errors, one line each."""
    cases = [f"{c['name']}: {c['reason']}" for c in document["cases"] if c["status"] == "error"]
    rows = [f"{r['group']}: {r['bar']}: {r.get('reason', '')}" for r in document["rows"] if r.get("met") == "error"]
    return cases + rows
