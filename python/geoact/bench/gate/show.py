"""A verdict for people and for other programs: a table in the terminal, Markdown, JUnit, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoact._files import write_atomic
from geoact.bench.gate.decide import PASSED, VERDICTS, Judged, Verdict
from geoact.bench.markdown import plain, table

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {
    "regressed": "bold red",
    "vanished": "bold red",
    "inconclusive": "yellow",
    "faster": "green",
    "open": "yellow",
}
HEADS = ("case", "change of time", "95 % interval", "delta", "A/A width", "rounds", "verdict")
_PIPE_WIDTH = 170
_ORDER = {verdict: place for place, verdict in enumerate(VERDICTS)}


def ordered(cases: Sequence[Judged]) -> list[Judged]:
    """What needs to be looked at first, the largest change in front."""
    return sorted(cases, key=lambda case: (_ORDER[case.verdict], -abs(case.change or 0.0)))


def percent(value: float | None, sign: bool = True) -> str:
    """A relative change as it is shown; nothing where it is not known."""
    return "" if value is None else f"{value:+.1%}" if sign else f"{value:.1%}"


def cells(case: Judged) -> list[str]:
    """One row of the table, in the order of :data:`HEADS`."""
    interval = f"{percent(case.low)} .. {percent(case.high)}" if case.low is not None else ""
    rounds = f"{case.rounds} in {case.incarnations}" if case.rounds else ""
    said = "; ".join(filter(None, [case.reason, *case.notes]))
    verdict = f"{case.verdict} ({said})" if said else case.verdict
    return [case.name, percent(case.change), interval, percent(case.delta, False), percent(case.width, False), rounds,
            verdict]  # fmt: skip


def sensitivity(verdict: Verdict) -> str:
    """The smallest slowdown that this run could have seen."""
    known = verdict.detectable
    if known is None:
        return ""
    best, worst = known
    return (
        f"This run could have seen a slowdown of {best:.1%} in its steadiest case and of {worst:.1%} in its noisiest; "
        f"changes are of time, + is slower."
    )


def print_verdict(verdict: Verdict, console: Console, title: str = "", every: bool = True) -> None:
    """Print the table, the headline and what could have been seen; without ``every`` only cases that are not "same"."""
    from rich.table import Table
    from rich.text import Text

    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    grid = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, head in enumerate(HEADS):
        grid.add_column(head, justify="left" if index in (0, len(HEADS) - 1) else "right", overflow="fold")
    shown = [case for case in ordered(verdict.cases) if every or case.verdict != "same"]
    for case in shown:
        grid.add_row(*map(Text, cells(case)), style=COLOURS.get(case.verdict))
    if shown:
        console.print(grid)
    if len(shown) < len(verdict.cases):
        console.print(f"... and {len(verdict.cases) - len(shown)} that are the same.", markup=False, highlight=False)
    style = "bold green" if verdict.code == PASSED else "bold red"
    console.print(verdict.headline, style=style, markup=False, highlight=False, soft_wrap=True)
    if sensitivity(verdict):
        console.print(sensitivity(verdict), style="dim", markup=False, highlight=False, soft_wrap=True)


def markdown(verdict: Verdict, title: str, notes: Sequence[str] = ()) -> str:
    """For a pull request: the headline, what changed, and the rest folded away."""
    worth = [case for case in ordered(verdict.cases) if case.verdict not in ("same", "skipped")]
    rest = [case for case in ordered(verdict.cases) if case.verdict in ("same", "skipped")]
    lines = [f"## {plain(title)}", "", f"**{plain(verdict.headline)}**", ""]
    if sensitivity(verdict):
        lines += [sensitivity(verdict), ""]
    lines += [*_table(worth), ""] if worth else []
    if rest:
        words = f"{len(rest)} cases without a change"
        lines += [f"<details><summary>{words}</summary>", "", *_table(rest), "", "</details>", ""]
    lines += [f"- {plain(note)}" for note in notes]
    return "\n".join(lines).rstrip() + "\n"


def _table(cases: Sequence[Judged]) -> list[str]:
    return table(HEADS, [cells(case) for case in cases], HEADS[1:-1])


def junit(verdict: Verdict, suite: str) -> bytes:
    """One test per case: a failure where it regressed, an error where it vanished or the run is inconclusive."""
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

    tests = TestSuite(f"geoact compare {suite}")
    for case in verdict.cases:
        test = TestCase(case.name, f"geoact.{suite}")
        said = "; ".join(filter(None, [f"{case.verdict}: {VERDICTS[case.verdict]}", case.reason, *case.notes]))
        text = " | ".join(f"{head}: {cell}" for head, cell in zip(HEADS, cells(case), strict=True) if cell)
        outcome: Failure | Error | Skipped | None = None
        if case.verdict == "regressed":
            outcome = Failure(f"{percent(case.change)} (delta {percent(case.delta, False)})", "regressed")
        elif case.verdict in ("vanished", "inconclusive"):
            outcome = Error(said, case.verdict)
        elif case.verdict == "skipped":
            outcome = Skipped(said)
        if outcome is not None:
            outcome.text = text
            test.result = [outcome]
        test.system_out = text
        tests.add_testcase(test)
    if verdict.refused:
        test = TestCase("comparison", f"geoact.{suite}")
        test.result = [Error("; ".join(verdict.refused), "refused")]
        tests.add_testcase(test)
    whole = JUnitXml()
    whole.add_testsuite(tests)
    whole.update_statistics()  # type: ignore[no-untyped-call]
    text_of: bytes = whole.tostring()  # type: ignore[no-untyped-call]
    return text_of


PALETTE = {"regressed": "#b2182b", "faster": "#1b7837", "same": "#4d4d4d", "open": "#d6862a", "inconclusive": "#7b3294",
           "noise": "#9e9e9e"}  # fmt: skip


def write_plot(verdict: Verdict, path: Path, title: str) -> bool:
    """Every case as a dot with its interval, and its delta as a grey band; False where there is nothing to draw."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    cases = [case for case in reversed(ordered(verdict.cases)) if case.change is not None]
    if not cases:
        return False
    with mpl.rc_context({"svg.hashsalt": "geoact", "font.size": 9}):
        figure = Figure(figsize=(9, 1.3 + 0.22 * len(cases)), layout="constrained")
        axes = figure.add_subplot()
        for row, case in enumerate(cases):
            _draw(axes, row, case)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(cases)), [case.name for case in cases])
        axes.set_ylim(-0.7, len(cases) - 0.3)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("change of time, 95 % interval; grey: what does not count (delta). + is slower")
        axes.set_title(f"{title}\n{verdict.headline}", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix.lstrip(".") or "png", dpi=150, metadata={"Date": None}
                       if path.suffix == ".svg" else None)  # fmt: skip
    write_atomic(path, drawn.getvalue())
    return True


def _draw(axes: Any, row: int, case: Judged) -> None:
    assert case.change is not None
    assert case.low is not None
    assert case.high is not None
    assert case.delta is not None
    colour = PALETTE.get(case.verdict, "#4d4d4d")
    fastest = 1 / (1 + case.delta) - 1
    axes.barh(row, case.delta - fastest, 0.8, left=fastest, color="#e6e6e6", zorder=0)
    axes.plot([case.low, case.high], [row, row], color=colour, linewidth=2, zorder=2)
    axes.plot(case.change, row, "o", color=colour, markersize=5, zorder=3)
