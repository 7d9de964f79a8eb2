"""Shows, on this machine and now, that the gate passes what is equal and catches what is slower.

First A against A: every alarm is a false one. Then B is made slower by a known share in the steadiest cases of the
first run, by waiting inside the timed span: each that is not caught is a miss, each other one that is reported a false
alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from geoact.bench.gate.compare import Comparison
from geoact.bench.gate.decide import INCONCLUSIVE, PASSED, REGRESSED, Verdict

SLOWDOWN, CASES = 0.05, 3


@dataclass
class Outcome:
    """Of one self-test."""

    slowdown: float
    equal: Comparison
    slowed: Comparison | None = None
    chosen: tuple[str, ...] = ()
    caught: tuple[str, ...] = ()
    false_alarms: tuple[str, ...] = field(default=())

    @property
    def code(self) -> int:
        """0: as it should be; 10: a false alarm; 11: a slowdown was missed, or nothing could be slowed down."""
        if self.false_alarms or self.equal.verdict.code == REGRESSED:
            return REGRESSED
        return PASSED if self.chosen and set(self.caught) == set(self.chosen) else INCONCLUSIVE

    @property
    def headline(self) -> str:
        """The outcome in a sentence."""
        alarms = len(self.false_alarms)
        words = f"{alarms} false alarm{'s' * (alarms != 1)}"
        missed = [name for name in self.chosen if name not in self.caught]
        seen = f"{len(self.caught)} of {len(self.chosen)} slowdowns of {self.slowdown:.0%} were caught"
        verdict = "the gate works here" if self.code == PASSED else "the gate is NOT to be trusted here"
        return f"{verdict}: {words}; {seen}" + (f"; missed: {', '.join(missed)}" if missed else "")

    def as_document(self) -> dict[str, Any]:
        """For a file."""
        return {
            "schema": 1,
            "kind": "geoact-selftest",
            "code": self.code,
            "headline": self.headline,
            "slowdown": self.slowdown,
            "slowed_cases": list(self.chosen),
            "caught": list(self.caught),
            "false_alarms": list(self.false_alarms),
            "equal": self.equal.as_document(),
            "slowed": self.slowed.as_document() if self.slowed else None,
        }


def steadiest(verdict: Verdict, count: int) -> tuple[str, ...]:
    """The cases in which the smallest slowdown could have been seen, at most ``count``."""
    known = sorted((case.detectable, case.name) for case in verdict.cases if case.detectable is not None)
    return tuple(name for _, name in known[:count])


def selftest(
    run: Callable[[Mapping[str, float]], Comparison], *, slowdown: float = SLOWDOWN, cases: int = CASES
) -> Outcome:
    """Run both parts.

    Parameters
    ----------
    run : callable
        Compares the same side with itself; its argument is which cases of B are made slower, and by which share.
    slowdown : float
    cases : int
        How many are slowed down.
    """
    equal = run({})
    alarms = [case.name for case in equal.verdict.named("regressed")]
    outcome = Outcome(slowdown, equal, chosen=steadiest(equal.verdict, cases))
    if outcome.chosen:
        outcome.slowed = run(dict.fromkeys(outcome.chosen, slowdown))
        regressed = [case.name for case in outcome.slowed.verdict.named("regressed")]
        outcome.caught = tuple(name for name in outcome.chosen if name in regressed)
        alarms += [name for name in regressed if name not in outcome.chosen]
    outcome.false_alarms = tuple(alarms)
    return outcome
