"""The command line: ``geoact info``, ``study``, ``bench`` and ``compare``.

Typer, rich and the packages of the study are imported where they are used, so that the base package needs
NumPy alone. Without Typer ``geoact info`` still prints plain text; the other commands name the extra to
install and end with code 2.
"""

# No "from __future__ import annotations" here: Typer reads the annotations of functions inside build_app,
# whose names only exist while it runs.
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    import typer

STUDY_MODULES = {
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "rich": "rich",
    "typer": "typer",
    "ml_dtypes": "ml_dtypes",
    "threadpoolctl": "threadpoolctl",
}
"""Importable name -> package of the ``study`` extra."""

USAGE_ERROR = 2
INTERRUPTED = 130


def main() -> None:
    """Entry point of the ``geoact`` command."""
    if find_spec("typer") is None or find_spec("rich") is None:
        sys.exit(_plain(sys.argv[1:]))
    build_app()()


def missing_packages() -> list[str]:
    """Return the packages of the ``study`` extra that cannot be imported, by the name pip knows."""
    return [package for module, package in STUDY_MODULES.items() if find_spec(module) is None]


def missing_message(packages: list[str]) -> str:
    """One line that says what is missing and how to get it."""
    return f"geoact study needs {', '.join(packages)}: pip install geoact[study]"


def build_app() -> "typer.Typer":
    """Make the Typer application; on demand, because Typer is optional."""
    import typer

    from geoact.bench.cli import register

    app = typer.Typer(
        help="Activations that measure geometry in the same pass, and the harness that measures kernels.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.command()
    def info(
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    ) -> None:
        """Print version, instruction set, threads and the backends that were found."""
        show_info(as_json)

    @app.command()
    def study(
        out: Annotated[Path, typer.Option(help="Folder for report.html, results.json and figures/.")] = Path(
            "geoact-study"
        ),
        seeds: Annotated[int, typer.Option(min=2, help="Seeds of the grids on two moons and digits.")] = 10,
        only: Annotated[
            list[str] | None,
            typer.Option(
                help="Run only this section (repeatable): replica, learning-rates, axes, digits, overhead, questions."
            ),
        ] = None,
        full: Annotated[
            bool, typer.Option("--full/--quick", help="Size of the five questions: half an hour, or a minute.")
        ] = False,
        jobs: Annotated[int, typer.Option(min=0, help="Processes. 0: one per core.")] = 0,
        ray: Annotated[bool, typer.Option("--ray", help="Run the five questions as Ray tasks.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON on standard output.")] = False,
    ) -> None:
        """Run the study of activations and geometry, and write its report."""
        code = run_study_command(out, seeds, only or [], as_json, full, jobs, ray)
        if code:
            raise typer.Exit(code)

    register(app)
    return app


def show_info(as_json: bool) -> None:
    """Print ``geoact.info()`` as a table or as JSON."""
    from rich.console import Console
    from rich.table import Table

    information = _information()
    if as_json:
        _print_json(information)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in information.items():
        table.add_row(key, _text(value))
    Console().print(table)


def run_study_command(
    out: Path, seeds: int, only: list[str], as_json: bool, full: bool = False, jobs: int = 0, ray: bool = False
) -> int:
    """Run the study and print where the report is; returns the exit code: 1 if a unit of the questions failed."""
    missing = missing_packages()
    if missing:
        print(missing_message(missing), file=sys.stderr)
        return USAGE_ERROR
    from rich.console import Console

    from geoact.study.config import StudyConfig
    from geoact.study.machine import cores
    from geoact.study.questions.sizes import FULL, QUICK
    from geoact.study.runner import Execution, run_study, summary

    console = Console(stderr=True)
    try:
        execution = Execution(jobs or cores(), ray)
        config = StudyConfig(seeds=seeds) if full else StudyConfig.quick(seeds)
        results = run_study(config, out, only, console, FULL if full else QUICK, execution)
    except KeyboardInterrupt:
        print(f"geoact study: stopped; the same command goes on from what {out / 'units'} holds", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"geoact study: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, ValueError) else 1
    told = summary(results, out)
    failed = told.get("failed_units", [])
    if as_json:
        _print_json(told)
        return int(bool(failed))
    answers = [f"{short}: {outcome}" for short, outcome in told.get("answers", {}).items()]
    for sentence in [*told["conclusion"], *answers]:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    if failed:
        print(f"geoact study: {len(failed)} units failed, see the report; the first: {failed[0]}", file=sys.stderr)
    print(told["report"])
    return int(bool(failed))


def _plain(arguments: list[str]) -> int:
    """Serve the command without Typer and rich: ``info`` works, the others say what to install."""
    if arguments[:1] == ["study"]:
        print(missing_message(missing_packages()), file=sys.stderr)
        return USAGE_ERROR
    if arguments[:1] in (["bench"], ["compare"]):
        from geoact.bench import cli

        print(cli.missing_message(arguments[0]), file=sys.stderr)
        return USAGE_ERROR
    if arguments[:1] == ["info"]:
        if "--json" in arguments:
            _print_json(_information())
        else:
            import geoact

            print(geoact.info())
        return 0
    needs = "geoact study (needs: pip install geoact[study]) | geoact bench | geoact compare (need: geoact[bench])"
    print(f"usage: geoact info [--json] | {needs}", file=sys.stderr)
    return USAGE_ERROR


def _information() -> dict[str, Any]:
    import geoact

    return {str(key): value for key, value in dict(geoact.info()).items()}


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _print_json(value: object) -> None:
    import json

    print(json.dumps(value, indent=2, default=str))
