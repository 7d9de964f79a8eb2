"""The command ``geoact bench history``.

Exit codes: 0 shown, 2 a usage error, 10 with ``--fail-on-regression`` where a series ends slower than it was, 12 no
usable result.
"""

# No "from __future__ import annotations" here: Typer reads the annotations of functions inside register.
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import typer

USAGE_ERROR, REGRESSED, MISSING = 2, 10, 12


def register(app: "typer.Typer") -> None:
    """Add the command ``history`` to an application."""
    import typer

    @app.command("history")
    def history_command(
        sources: Annotated[
            list[Path], typer.Argument(metavar="DIR", help="Folder of result files, with its folders; or files.")
        ],
        only: Annotated[
            list[str] | None, typer.Option(metavar="WORD", help="Only cases that match this glob or word (repeatable).")
        ] = None,
        html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with all charts.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of text.")] = False,
        fail: Annotated[
            bool, typer.Option("--fail-on-regression", help="End with 10 if a series ends slower than it was.")
        ] = False,
        within: Annotated[
            int, typer.Option(min=1, help="Runs from the end in which a slowdown counts for --fail-on-regression.")
        ] = 10,
    ) -> None:
        """Show results over time: where each case changed, by how much, and between which commits."""
        code = run_history(sources, only or [], html, as_json, within if fail else None)
        if code:
            raise typer.Exit(code)


def run_history(sources: list[Path], only: list[str], html: Path | None, as_json: bool, within: int | None) -> int:
    """Read, show and judge; returns the exit code. ``within`` None: do not judge."""
    from rich.console import Console

    from geoact.bench.history.page import write_trend_page
    from geoact.bench.history.series import History
    from geoact.bench.history.show import print_history
    from geoact.bench.results import ResultError

    try:
        history = History.read(sources[0] if len(sources) == 1 else sources, only)
    except ResultError as error:
        return _say(str(error), MISSING)
    if not history.series:
        if only:
            return _say(f"--only {' '.join(only)} matches no measured case", USAGE_ERROR)
        return _say("no result has a measured case", MISSING)
    if html is not None:
        try:
            write_trend_page(history, html)
        except (ResultError, OSError) as error:
            return _say(str(error), USAGE_ERROR)
    if as_json:
        print(json.dumps(history.document(), indent=1))
    else:
        print_history(history, Console())
    slowed = history.slowed(within) if within is not None else []
    for one in slowed:
        _say(f"{one.case} is slower by {-one.shifts[-1].percent:.1f}% since {one.shifts[-1].commits}", REGRESSED)
    return REGRESSED if slowed else 0


def _say(text: str, code: int) -> int:
    print(f"geoact bench history: {text}", file=sys.stderr)
    return code
