"""The command ``geoact bench instructions``: count a suite, store a table, gate against a stored one.

Exit codes: 0 passed or only counted, 2 a usage or tool error or a case that failed, 10 a case executes more
instructions, 12 the table or a case of it is missing, 13 refused because compiler or instruction set differ.
"""

# No "from __future__ import annotations" here: Typer reads the annotations of functions inside register.
import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from geoact._files import write_atomic
from geoact.bench import explained
from geoact.bench.explained import USAGE_ERROR, VANISHED
from geoact.bench.instructions.compare import TOLERANCE, Verdict, compare, load_baseline
from geoact.bench.instructions.counting import count_suite
from geoact.bench.instructions.errors import BaselineMissingError, CountingError
from geoact.bench.instructions.table import Table

if TYPE_CHECKING:
    import typer

HELP = "Count the instructions of a suite's calls under callgrind; gate them against a stored table."
EPILOG = (
    "Exit codes: 0 passed, 2 usage or tool error or a failed case, 10 a case executes more, 12 the table or a case of "
    "it is missing, 13 compiler or instruction set differ."
)


@dataclass(frozen=True)
class Options:
    """What the command was asked for."""

    suite: str
    only: tuple[str, ...] = ()
    axes: tuple[tuple[str, str], ...] = ()
    package: str | None = None
    baseline: Path | None = None
    save: Path | None = None
    explained: Path | None = None
    tolerance: float = TOLERANCE
    allow_other_tools: bool = False
    as_json: bool = False
    markdown: Path | None = None
    check: bool = True
    valgrind: str | None = None


def register(app: "typer.Typer") -> None:
    """Add the command to a Typer application."""
    import typer

    @app.command("instructions", help=HELP, epilog=EPILOG)
    def instructions(
        suite: Annotated[str, typer.Argument(help="path/to/file.py or package.module, with :NAME if it has several.")],
        only: Annotated[
            list[str] | None, typer.Option(help="Only cases that match this glob or contain this word (repeatable).")
        ] = None,
        set_: Annotated[
            list[str] | None, typer.Option("--set", metavar="AXIS=VALUE", help="Only cases with this (repeatable).")
        ] = None,
        package: Annotated[
            str | None, typer.Option(help="Gate the compiled modules of this package; default: the suite's.")
        ] = None,
        baseline: Annotated[Path | None, typer.Option(help="Gate against this stored table.")] = None,
        save: Annotated[Path | None, typer.Option(help="Store the table: a baseline for later.")] = None,
        explained: Annotated[
            Path | None, typer.Option(help="JSON file of accepted rises: case, metric, limit, reason.")
        ] = None,
        tolerance: Annotated[float, typer.Option(min=0, help="Percent by which a count may rise.")] = 100 * TOLERANCE,
        allow_other_tools: Annotated[
            bool, typer.Option("--allow-other-tools", help="Compare although compiler or instruction set differ.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of text.")] = False,
        markdown: Annotated[Path | None, typer.Option(help="Also write Markdown to this file.")] = None,
        check: Annotated[bool, typer.Option(help="Check each case's result before counting it.")] = True,
        valgrind: Annotated[str | None, typer.Option(help="Path of valgrind; default: the one on PATH.")] = None,
    ) -> None:
        try:
            axes = tuple(map(_pair, set_ or []))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--set") from error
        options = Options(
            suite,
            tuple(only or ()),
            axes,
            package,
            baseline,
            save,
            explained,
            tolerance / 100,
            allow_other_tools,
            as_json,
            markdown,
            check,
            valgrind,
        )
        raise typer.Exit(execute(options))


def _pair(text: str) -> tuple[str, str]:
    axis, equals, value = text.partition("=")
    if not axis or not equals:
        raise ValueError(f"{text!r} is not AXIS=VALUE")
    return axis, value


def main() -> None:
    """``python -m geoact.bench.instructions``: the command on its own."""
    missing = [package for package in ("typer", "rich") if find_spec(package) is None]
    if missing:
        print(f"geoact bench instructions needs {' and '.join(missing)}: pip install geoact[bench]", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    register(app)
    app(prog_name="geoact bench instructions")


def execute(options: Options) -> int:
    """Count, compare, print and store; what a user can fail at becomes one line and an exit code."""
    try:
        # Before the minutes that counting takes.
        whole = load_baseline(options.baseline) if options.baseline else None
        _refuse_to_drop(options)
        return _counted(options, whole)
    except BaselineMissingError as error:
        code, text = VANISHED, str(error)
    except (CountingError, OSError) as error:
        code, text = USAGE_ERROR, str(error)
    print(f"geoact bench instructions: {text}", file=sys.stderr)
    return code


def _refuse_to_drop(options: Options) -> None:
    """Part of the cases must not replace a table that has more."""
    if not options.save or not (options.only or options.axes) or not options.save.exists():
        return
    stored = Table.load(options.save)
    others = len(stored.rows) - len(stored.select(options.only, options.axes).rows)
    if others:
        raise CountingError(f"{options.save} holds {others} other cases, which --only and --set would drop from it")


def _counted(options: Options, whole: Table | None) -> int:
    table = _count(options)
    verdict, baseline = None, None
    if whole is not None:
        baseline = whole.select(options.only, options.axes)
        verdict = compare(
            baseline,
            table,
            tolerance=options.tolerance,
            explanations=options.explained or (),
            allow_other_tools=options.allow_other_tools,
        )
    _deliver(table, baseline, verdict, options)
    if options.save:
        table.save(options.save)
    code = verdict.code if verdict else 0
    return code or (USAGE_ERROR if table.errors else 0)


def _count(options: Options) -> Table:
    from rich.console import Console

    with Console(stderr=True).status(f"counting {options.suite}") as status:
        return count_suite(
            options.suite,
            only=options.only,
            axes=options.axes,
            package=options.package,
            check=options.check,
            valgrind=options.valgrind,
            told=lambda name, done, number: status.update(f"{done + 1}/{number} {name}".replace("[", r"\[")),
        )


def _deliver(table: Table, baseline: Table | None, verdict: Verdict | None, options: Options) -> None:
    """Print and write what was found."""
    from rich.console import Console

    from geoact.bench.instructions import show

    if options.as_json:
        print(json.dumps(table.full() | ({"verdict": verdict.full()} if verdict else {}), indent=2))
    else:
        console = Console()
        show.print_table(table, baseline, console)
        if verdict:
            explained.print_verdict(verdict, console)
    if options.markdown:
        write_atomic(options.markdown, show.markdown(table, baseline, verdict))
