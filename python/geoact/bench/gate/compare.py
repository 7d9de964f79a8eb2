"""Both sides take turns: three processes (A, a twin of A, and B), kept warm, replaced for every incarnation.

A round asks each of them for one sample of the case and one of its control, in shuffled order. The twin costs a third
of the time and makes the verdict trustworthy: how far A lies from A, in the same minute, is known for every case.
Rounds of a case end when its estimate is narrow or its time is up.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from geoact.bench.gate.decide import VERDICTS, Judged, Measurement, Rule, Verdict, judge
from geoact.bench.gate.process import Worker, WorkerError
from geoact.bench.gate.sides import Side
from geoact.bench.results import ResultError

A, TWIN, B = "A", "A'", "B"
ROLES = (A, TWIN, B)
SCHEMA, KIND = 1, "geoact-compare"
WARM_UP = 0.2  # seconds, at most, of a case and of its control

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Parameters
    ----------
    incarnations : int
        Times that all processes are started anew.
    placements : int
        Times that a case is prepared anew in one incarnation, for where its data lie in memory moves its time as well.
    rounds : int
        Of a case in one placement, at least.
    seconds : float
        ... and as many more as fit into this, over all placements of an incarnation.
    narrow : float
        Standard error of a case's median at which its rounds end, as a relative change.
    cold : bool
        Flush the caches ahead of every sample.
    batches, shortest
        As in ``timing.Settings``.
    seed : int
        Of the order in rounds.
    """

    incarnations: int = 5
    placements: int = 3
    rounds: int = 10
    seconds: float = 0.9
    narrow: float = 0.002
    cold: bool = False
    batches: int = 3
    shortest: float = 3e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("incarnations", 1),
            ("placements", 1),
            ("rounds", 1),
            ("seconds", 0),
            ("narrow", 0),
            ("batches", 1),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


@dataclass
class Samples:
    """Of one case: one inner list of rounds per placement and role, in nanoseconds of one call."""

    times: dict[str, list[list[float]]] = field(default_factory=lambda: {role: [] for role in ROLES})
    controls: dict[str, list[list[float]]] = field(default_factory=lambda: {role: [] for role in ROLES})
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)
    codes: dict[str, str | None] = field(default_factory=dict)
    control: str = ""
    gpu: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def measurement(self, name: str, same_code: bool) -> Measurement:
        """As the rule takes it: logarithms."""
        codes = self.codes.get(A), self.codes.get(B)
        alike = same_code or (codes[0] is not None and codes[0] == codes[1])
        notes = tuple(dict.fromkeys(self.notes))
        missing, reason = self._missing()
        if missing:
            return Measurement(name, missing=missing, reason=reason, notes=notes)
        ratios, twin = _paired(self.times)
        control, control_twin = _paired(self.controls)
        return Measurement(name, ratios, twin, control, control_twin, same_code=alike, notes=notes)

    def _missing(self) -> tuple[str, str]:
        before = self.missing.get(A) or self.missing.get(TWIN)
        after = self.missing.get(B)
        if not before and not after:
            return ("", "") if any(self.times[B]) else ("vanished", "no round was measured")
        if after and (not before or after[0] == "failed"):
            return "vanished", after[1]
        if before and not after:
            return "new", before[1]
        return "skipped", after[1] if after else ""

    def as_document(self) -> dict[str, Any]:
        """The samples as stored."""

        def short(groups: dict[str, list[list[float]]]) -> dict[str, list[list[float]]]:
            return {role: [[float(f"{v:.6g}") for v in one] for one in found] for role, found in groups.items()}

        return {"control": self.control, "ns": short(self.times), "control_ns": short(self.controls)}


def _paired(times: Mapping[str, list[list[float]]]) -> tuple[list[list[float]], list[list[float]]]:
    """ln(B / A) and ln(A' / A) of every round; A is the mean of its two processes in the first."""
    ratios, twin = [], []
    for rounds in zip(*(times[role] for role in ROLES), strict=True):
        logs = [(_log(a), _log(t), _log(b)) for a, t, b in zip(*rounds, strict=True)]
        ratios.append([b - (a + t) / 2 for a, t, b in logs])
        twin.append([t - a for a, t, _ in logs])
    return ratios, twin


def _log(value: float) -> float:
    return math.log(max(value, 1e-3))  # of nanoseconds: a clock that did not move


@dataclass
class Comparison:
    """What came out: the verdict and what it was made from."""

    a: Side
    b: Side
    suite: str
    rule: Rule
    plan: Plan
    verdict: Verdict
    samples: dict[str, Samples]
    environment: Mapping[str, Any]
    same_code: bool = False
    seconds: float = 0.0

    def as_document(self) -> dict[str, Any]:
        """For a file: everything, the raw samples included."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "suite": self.suite,
            "a": self.a.as_document(),
            "b": self.b.as_document(),
            "code": self.verdict.code,
            "headline": self.verdict.headline,
            "strict": self.verdict.strict,
            "same_machine_code": self.same_code,
            "rule": asdict(self.rule),
            "plan": asdict(self.plan),
            "seconds": round(self.seconds, 1),
            "environment": dict(self.environment),
            "cases": [as_row(case) for case in self.verdict.cases],
            "samples": {name: found.as_document() for name, found in self.samples.items()},
        }


def as_row(case: Judged) -> dict[str, Any]:
    """A verdict for a file: no digits that mean nothing, nothing that is not known."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in asdict(case).items()
        if value is not None and value != "" and value != []
    }


def verdict_of(found: Mapping[str, Any], name: str) -> Verdict:
    """The verdict that a stored comparison holds. Raises ResultError."""
    if found.get("schema") != SCHEMA or not isinstance(found.get("cases"), list):
        raise ResultError(f"{name} is no comparison of schema {SCHEMA}")
    try:
        cases = [Judged(**row) for row in found["cases"]]
        unknown = [case.verdict for case in cases if case.verdict not in VERDICTS]
        refused = list(found.get("refused", []))
    except TypeError as error:
        raise ResultError(f"{name} has a case that cannot be read: {error}") from error
    if unknown:
        raise ResultError(f"{name} has a verdict {unknown[0]!r} that there is not")
    return Verdict(cases, refused, strict=bool(found.get("strict")))


class Incarnation:
    """Three processes, started in the order of the roles given."""

    def __init__(self, sides: Mapping[str, Side], order: Sequence[str], folder: Path, options: dict[str, Any]) -> None:
        self._stack, self.workers = ExitStack(), {}
        try:
            for role in order:
                self.workers[role] = self._stack.enter_context(Worker(sides[role], folder, options))
        except BaseException:
            self._stack.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether all three can be asked."""
        return all(worker.alive for worker in self.workers.values())

    def close(self) -> None:
        """End them."""
        self._stack.close()


def compare(
    a: Side,
    b: Side,
    suite: str,
    *,
    folder: Path,
    environment: Mapping[str, Any],
    rule: Rule | None = None,
    plan: Plan | None = None,
    choose: Callable[[str, Mapping[str, str]], bool] = lambda name, axes: True,
    slowdown: Mapping[str, float] | None = None,
    same_code_is_noise: bool = True,
    strict: bool = False,
    told: Told = lambda name, done, total: None,
) -> Comparison:
    """Measure the cases of a suite on both sides and judge them.

    Parameters
    ----------
    suite : str
        As ``suite.load`` takes it, from ``folder``; the same file serves both sides.
    choose : callable
        Whether a case, by its name and axes, takes part.
    slowdown : mapping of str to float, optional
        Shares by which cases of side B are made longer: for the test of the gate itself.
    same_code_is_noise : bool
        False to judge sides whose machine code is the same, as that test does.
    strict : bool
        A case that is open makes the verdict inconclusive.

    Raises
    ------
    WorkerError
        Where a side cannot be started.
    """
    begin = time.monotonic()
    rule, plan = rule or Rule(), plan or Plan()
    random_, slowdown = random.Random(plan.seed), slowdown or {}
    sides = {A: a, TWIN: a, B: b}
    options = {"suite": suite, "cold": plan.cold, "batches": plan.batches, "shortest": plan.shortest}
    found: dict[str, Samples] = {}
    names: list[str] = []
    codes: dict[str, str | None] = {}
    done = 0
    for index in range(plan.incarnations):
        group = Incarnation(sides, random_.sample(ROLES, 3), folder, options)
        try:
            if index == 0:
                names = _chosen(group, choose)
                codes = {role: worker.about["code"] for role, worker in group.workers.items()}
                found = {name: Samples() for name in names}
            order = random_.sample(names, len(names))
            for name in order:
                if not group.alive:
                    group.close()
                    group = Incarnation(sides, random_.sample(ROLES, 3), folder, options)
                told(name, done, plan.incarnations * len(names))
                done += 1
                if not found[name].missing:
                    _measure(group, name, found[name], plan, random_, slowdown.get(name, 0.0))
        finally:
            group.close()
    told("", done, done)
    # Another interpreter brings other libraries, which the hash of the package does not see.
    same = same_code_is_noise and a.python == b.python and codes.get(A) is not None and codes.get(A) == codes.get(B)
    measurements = [found[name].measurement(name, same) for name in names]
    if not same_code_is_noise:
        measurements = [replace(m, same_code=False) for m in measurements]
    gpu = next(({"gpu": one.gpu} for one in found.values() if one.gpu), {})
    return Comparison(
        a, b, Path(suite.partition(":")[0]).name, rule, plan, Verdict(judge(measurements, rule), strict=strict), found,
        {**environment, **gpu}, same, time.monotonic() - begin,
    )  # fmt: skip


def _chosen(group: Incarnation, choose: Callable[[str, Mapping[str, str]], bool]) -> list[str]:
    """Names of the cases of either side that are to be measured."""
    axes: dict[str, Mapping[str, str]] = {}
    for worker in group.workers.values():
        axes |= worker.about["axes"]
    return [name for name in axes if choose(name, axes[name])]


def _measure(
    group: Incarnation, name: str, samples: Samples, plan: Plan, random_: random.Random, slowdown: float
) -> None:
    """One case in one incarnation; what keeps it from being measured is noted in its samples."""
    for _ in range(plan.placements):
        for role in ROLES:
            _prepare(group.workers[role], role, name, samples, slowdown if role == B else 0.0)
        if samples.missing:
            return
        rounds = _take_turns(group, samples, plan, random_)
        if samples.missing:
            return
        for role in ROLES:
            samples.times[role].append([one[role]["ns"] for one in rounds])
            samples.controls[role].append([one[role]["control_ns"] for one in rounds])
        samples.notes += _evidence(rounds)


def _take_turns(
    group: Incarnation, samples: Samples, plan: Plan, random_: random.Random
) -> list[dict[str, dict[str, Any]]]:
    """The rounds of a case that is ready on all sides, and the check that it is still right afterwards."""
    rounds: list[dict[str, dict[str, Any]]] = []
    try:
        _calibrate(group, samples, plan)
        rounds = _rounds(group, plan, random_)
        for role in ROLES:
            wrong = group.workers[role].ask("release").get("wrong")
            if wrong:
                samples.missing[role] = "failed", wrong
    except WorkerError as error:
        for role in ROLES:  # which of them would have gone on is not known
            samples.missing[role] = "failed", str(error)
    return rounds


def _prepare(worker: Worker, role: str, name: str, samples: Samples, slowdown: float) -> None:
    try:
        answer = worker.ask("prepare", case=name, slowdown=slowdown)
    except WorkerError as error:
        samples.missing[role] = "failed", str(error)
        return
    samples.codes[role] = answer.get("code")
    samples.gpu = answer.get("gpu", samples.gpu)
    if "missing" in answer:
        samples.missing[role] = answer["missing"], answer["reason"]


def _calibrate(group: Incarnation, samples: Samples, plan: Plan) -> None:
    """All sides repeat as often, and use the same control."""
    seconds = min(WARM_UP, plan.seconds / 3 / plan.placements)
    first = group.workers[A].ask("calibrate", control=samples.control or None, seconds=seconds)
    samples.control = first["control"]
    answers = [first] + [
        group.workers[role].ask("calibrate", control=first["control"], seconds=seconds) for role in (TWIN, B)
    ]
    most = {key: max(answer[key] for answer in answers) for key in ("repeat", "control_repeat")}
    for role in ROLES:
        group.workers[role].ask("repeat", **most)


def _rounds(group: Incarnation, plan: Plan, random_: random.Random) -> list[dict[str, dict[str, Any]]]:
    rounds: list[dict[str, dict[str, Any]]] = []
    end = time.monotonic() + plan.seconds / plan.placements
    while len(rounds) < plan.rounds or (time.monotonic() < end and not _narrow(rounds, plan.narrow)):
        rounds.append({role: group.workers[role].ask("sample") for role in random_.sample(ROLES, 3)})
    return rounds


def _narrow(rounds: Sequence[Mapping[str, Mapping[str, float]]], wanted: float) -> bool:
    """Whether the standard error of the median log-ratio, by the MAD of normal data, is small enough."""
    ratios = [_log(r[B]["ns"]) - _log(r[A]["ns"]) for r in rounds]
    middle = statistics.median(ratios)
    deviation = 1.4826 * statistics.median(abs(v - middle) for v in ratios)
    return 1.2533 * deviation / math.sqrt(len(ratios)) <= wanted


def _evidence(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    rates = [one["hertz"] for r in rounds for one in r.values() if one.get("hertz")]
    notes = []
    if rates and (max(rates) - min(rates)) / statistics.median(rates) > 0.02:
        notes.append("the clock rate moved by more than 2 %")
    why = sorted({word for r in rounds for one in r.values() for word in one.get("throttled", ())})
    return notes + ([f"throttled: {', '.join(why)}"] if why else [])
