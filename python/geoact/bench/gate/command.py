"""What ``geoact compare`` does with its arguments: find both sides, let them take turns or read them, deliver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoact.bench import config, environment, results
from geoact.bench.gate import baseline, compare, show
from geoact.bench.gate.decide import Rule, Verdict
from geoact.bench.gate.selftest import Outcome, selftest
from geoact.bench.gate.sides import INSTALLED, Build, Side, SideError, find
from geoact.bench.results import ResultError
from geoact.bench.suite import SuiteError, matches

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Reports:
    """Where a verdict goes besides the terminal."""

    json: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None
    plot: Path | None = None


@dataclass(frozen=True)
class Sources:
    """What is measured, and how revisions are built; what is None is looked up in pyproject.toml."""

    suite: str | None = None
    build: str | None = None
    source: str | None = None
    only: Sequence[str] = ()
    axes: Sequence[tuple[str, str]] = ()

    def chosen(self, name: str, axes: Mapping[str, str]) -> bool:
        """Whether a case takes part."""
        if self.only and not any(matches(name, word) for word in self.only):
            return False
        return all(axes.get(axis) == value for axis, value in self.axes)


@dataclass(frozen=True)
class Gate:
    """One use of the command."""

    sources: Sources
    rule: Rule
    plan: compare.Plan
    strict: bool = False
    same_code_is_noise: bool = True
    every: bool = True

    def run(self, a: str | None, b: str | None, slowdown: float | None, reports: Reports) -> int:
        """Decide, show, deliver; the exit code."""
        from geoact.bench.cli import UsageError, writable

        if not __debug__:
            raise UsageError("python -O leaves out the assertions that checks are made of")
        writable(reports.json, reports.markdown, reports.junit, reports.plot)
        if slowdown is not None:
            return self._selftest(a or INSTALLED, slowdown, reports)
        if a is None or b is None:
            raise SideError("two sides are needed: A (before) and B (after); or --selftest")
        stored = [_is_stored(name) for name in (a, b)]
        if all(stored):
            return self._stored(a, b, reports)
        if any(stored):
            which = a if stored[0] else b
            raise SideError(
                f"{which} is a stored result, the other side is not: store that too (geoact bench run --json)"
            )
        return self._measured(a, b, reports)

    # --- sides that are measured now ---

    def _compare(self, a: Side, b: Side, slowdown: Mapping[str, float], title: str) -> compare.Comparison:
        from geoact.bench.cli import progress

        settings = config.find()
        with progress(title) as told:
            return compare.compare(
                a, b, self._suite(settings), folder=settings.root, environment=environment.describe(root=settings.root),
                rule=self.rule, plan=self.plan, choose=self.sources.chosen, slowdown=slowdown, strict=self.strict,
                same_code_is_noise=self.same_code_is_noise and not title.startswith("selftest"), told=told,
            )  # fmt: skip

    def _suite(self, settings: config.Config) -> str:
        where = self.sources.suite or (str(settings.root / settings.suite) if settings.suite else None)
        if where is None:
            raise SuiteError('which suite? --suite FILE, or suite = "..." in [tool.geoact.bench] of pyproject.toml')
        place, colon, name = where.partition(":")
        return f"{Path(place).resolve()}{colon}{name}" if Path(place).exists() else where

    def _side(self, name: str, console: Console) -> Side:
        settings = config.find()
        build = Build(
            self.sources.build or settings.build,
            self.sources.source or settings.source,
            settings.isolated,
            settings.environment,
        )
        with console.status("") as status:
            return find(name, settings.root, build, status.update)

    def _measured(self, a: str, b: str, reports: Reports) -> int:
        from rich.console import Console

        errors = Console(stderr=True)
        found = self._compare(self._side(a, errors), self._side(b, errors), {}, "compare")
        title = f"{a} -> {b}, suite {found.suite}"
        self._deliver(found.verdict, title, found.as_document(), reports, found.suite)
        return found.verdict.code

    def _selftest(self, name: str, slowdown: float, reports: Reports) -> int:
        from rich.console import Console

        console = Console()
        side = self._side(name, Console(stderr=True))
        turns = iter(("selftest, equal", "selftest, slowed"))
        outcome = selftest(lambda slowed: self._compare(side, side, slowed, next(turns)), slowdown=slowdown)
        for part, title in (
            (outcome.equal, "A against A"),
            (outcome.slowed, f"B slowed by {slowdown:.0%} in some cases"),
        ):
            if part is not None:
                show.print_verdict(part.verdict, console, title, self.every)
        console.print(outcome.headline, style="bold", markup=False, highlight=False, soft_wrap=True)
        self._deliver_selftest(outcome, reports)
        return outcome.code

    def _deliver_selftest(self, outcome: Outcome, reports: Reports) -> None:
        if reports.json:
            results.save(reports.json, outcome.as_document())
        last = outcome.slowed or outcome.equal
        self._files(
            last.verdict, f"Self-test of the gate: {outcome.headline}", replace(reports, json=None), last.suite, {}
        )

    # --- sides that are stored ---

    def _stored(self, a: str, b: str, reports: Reports) -> int:
        before = baseline.Baseline.load(Path(a))
        path = Path(b)
        if path.is_dir():
            raise ResultError(f"{b} is a folder; B must be one result file, A may be several")
        after = results.load(path)
        verdict = baseline.compare(before, _part(after, self.sources), rule=self.rule, strict=self.strict,
                                   expected=[n for n in before.cases if _named(n, self.sources)])  # fmt: skip
        document = {
            "schema": compare.SCHEMA, "kind": compare.KIND, "suite": after.get("suite", ""), "a": {"name": a},
            "b": {"name": b}, "code": verdict.code, "headline": verdict.headline, "refused": verdict.refused,
            "strict": verdict.strict, "environment": after["environment"],
            "cases": [compare.as_row(case) for case in verdict.cases],
        }  # fmt: skip
        self._deliver(verdict, f"{a} -> {b}", document, reports, str(after.get("suite", "stored")))
        return verdict.code

    # --- delivering ---

    def _deliver(self, verdict: Verdict, title: str, document: Mapping[str, Any], reports: Reports, suite: str) -> None:
        from rich.console import Console

        from geoact.bench.cli import piped

        self._files(verdict, title, reports, suite, document)
        with piped():
            show.print_verdict(verdict, Console(), title, self.every)

    def _files(self, verdict: Verdict, title: str, reports: Reports, suite: str, document: Mapping[str, Any]) -> None:
        from geoact._files import write_atomic

        if reports.json:
            results.save(reports.json, document)
        if reports.markdown:
            write_atomic(reports.markdown, show.markdown(verdict, title))
        if reports.junit:
            write_atomic(reports.junit, show.junit(verdict, suite))
        if reports.plot and not show.write_plot(verdict, reports.plot, title):
            print(f"{reports.plot} was not written: there is nothing to draw")


def _is_stored(name: str) -> bool:
    """Whether a side is a result file or a folder of them; a name that ends in .json is meant to be one."""
    path = Path(name)
    return path.suffix == ".json" or (path.is_dir() and any(path.glob("*.json")) and not (path / "bin").exists()
                                      and not (path / ".git").exists())  # fmt: skip


def _named(name: str, sources: Sources) -> bool:
    """Whether a case that is only known by its name is chosen: the name holds its axes."""
    inside = name.partition("[")[2].rstrip("]").split(",")
    return sources.chosen(name, {axis: value for axis, _, value in (word.partition("=") for word in inside)})


def _part(document: Mapping[str, Any], sources: Sources) -> dict[str, Any]:
    """The document with only the cases that are chosen."""
    cases = [
        case
        for case in document["cases"]
        if sources.chosen(case["name"], {k: str(v) for k, v in case.get("axes", {}).items()})
    ]
    return {**document, "cases": cases}
