"""The command ``geoact-kernels-report``: read kernels, store a report, gate against a baseline.

Exit codes: 0 passed or only read, 2 a usage or tool error, 10 a kernel is worse than in the baseline, 12 the baseline
or a kernel of it is missing, 13 refused because the tools or compilers differ.
"""

# No "from __future__ import annotations" here: Typer reads the annotations of functions inside build_app.
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from geoact._files import write_atomic
from geoact.bench.explained import USAGE_ERROR, VANISHED, print_verdict
from geoact.bench.kernels_report.compare import Tolerances, Verdict, compare
from geoact.bench.kernels_report.errors import BaselineMissingError, ReportError
from geoact.bench.kernels_report.reading import Naming, read
from geoact.bench.kernels_report.report import Report

if TYPE_CHECKING:
    import typer

_COMMANDS = ("read", "compare")


class Names(str, Enum):
    """What kernels are called after."""

    function = "function"
    file = "file"

    @property
    def naming(self) -> Naming:
        """As the Python interface says it."""
        return "file" if self is Names.file else "function"


@dataclass(frozen=True)
class Outputs:
    """Where the result goes besides the terminal."""

    as_json: bool = False
    save: Path | None = None
    markdown: Path | None = None
    top: int = 20


def main() -> None:
    """Entry point of the ``geoact-kernels-report`` command."""
    missing = [package for package in ("typer", "rich") if find_spec(package) is None]
    if missing:
        print(f"geoact-kernels-report needs {' and '.join(missing)}: pip install geoact[bench]", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    arguments = sys.argv[1:]
    # Reading is what the command is for, so its name may be left out.
    if arguments and arguments[0] not in (*_COMMANDS, "--help"):
        arguments = ["read", *arguments]
    build_app()(args=arguments, prog_name="geoact-kernels-report")


def build_app() -> "typer.Typer":
    """Make the Typer application; on demand, because Typer is optional."""
    import typer

    app = typer.Typer(
        help="What the machine code of GPU kernels says of their speed, without a GPU; and a gate against a baseline. "
        "'geoact-kernels-report FILE...' is short for 'geoact-kernels-report read FILE...'.",
        epilog="Exit codes: 0 passed, 2 usage or tool error, 10 a kernel is worse, 12 the baseline or a kernel of it "
        "is missing, 13 tools or compilers differ.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    block_option = typer.Option(min=1, max=1024, help="Threads per block, of kernels that do not declare theirs.")
    shared_option = typer.Option(min=0, help="Dynamic shared bytes per block, for occupancy.")
    arch_option = typer.Option(help="Compile .ptx files for this, such as sm_90 (repeatable).")
    names_option = typer.Option(help="Call kernels after their function or after their file.")
    cuobjdump_option = typer.Option(help="Path of cuobjdump; else GEOACT_CUOBJDUMP, PATH and NVIDIA's packages.")
    ptxas_option = typer.Option(help="Path of ptxas, for .ptx files; else GEOACT_PTXAS, PATH and NVIDIA's packages.")
    markdown_option = typer.Option(help="Also write Markdown to this file.")
    json_option = typer.Option("--json", help="Print JSON on standard output instead of text.")
    explained_option = typer.Option(help="JSON file of accepted rises: kernel, arch, metric, limit, reason.")
    instructions_option = typer.Option(min=0, help="Percent by which instructions may rise.")
    loop_option = typer.Option(min=0, help="Percent by which the hottest loop may grow.")
    spills_option = typer.Option(min=0, help="Local loads and stores that may be added.")
    stack_option = typer.Option(min=0, help="Stack or local bytes that may be added.")
    warps_option = typer.Option(min=0, help="Warps per SM that may be lost.")
    others_option = typer.Option("--allow-other-tools", help="Compare although tools or compilers differ.")

    @app.command("read")
    def read_command(
        paths: Annotated[list[Path], typer.Argument(help="Cubins, objects, libraries, .ptx files, or folders.")],
        block: Annotated[int, block_option] = 256,
        shared: Annotated[int, shared_option] = 0,
        arch: Annotated[list[str] | None, arch_option] = None,
        names: Annotated[Names, names_option] = Names.function,
        top: Annotated[int, typer.Option(min=0, help="Rows to show, worst first; 0 shows all.")] = 20,
        as_json: Annotated[bool, json_option] = False,
        save: Annotated[Path | None, typer.Option(help="Store the report: a baseline for later.")] = None,
        markdown: Annotated[Path | None, markdown_option] = None,
        baseline: Annotated[Path | None, typer.Option(help="Gate against this stored report.")] = None,
        explained: Annotated[Path | None, explained_option] = None,
        instructions_tolerance: Annotated[float, instructions_option] = 2.0,
        loop_tolerance: Annotated[float, loop_option] = 2.0,
        spills_tolerance: Annotated[int, spills_option] = 0,
        stack_tolerance: Annotated[int, stack_option] = 0,
        warps_tolerance: Annotated[int, warps_option] = 0,
        allow_other_tools: Annotated[bool, others_option] = False,
        cuobjdump: Annotated[str | None, cuobjdump_option] = None,
        ptxas: Annotated[str | None, ptxas_option] = None,
    ) -> None:
        """Report on kernels; with --baseline, gate them."""
        tolerances = _tolerances(
            instructions_tolerance, loop_tolerance, spills_tolerance, stack_tolerance, warps_tolerance
        )

        def work() -> int:
            report = read(
                paths,
                block=block,
                shared=shared,
                arch=arch or (),
                naming=names.naming,
                cuobjdump=cuobjdump,
                ptxas=ptxas,
            )
            verdict = None
            if baseline is not None:
                verdict = compare(
                    baseline,
                    report,
                    tolerances=tolerances,
                    explanations=explained or (),
                    allow_other_tools=allow_other_tools,
                )
            return _deliver(report, verdict, Outputs(as_json, save, markdown, top))

        raise typer.Exit(_guarded(work))

    @app.command("compare")
    def compare_command(
        baseline: Annotated[Path, typer.Argument(help="Stored report to compare with, or kernels.")],
        current: Annotated[Path, typer.Argument(help="Stored report to judge, or kernels.")],
        explained: Annotated[Path | None, explained_option] = None,
        instructions_tolerance: Annotated[float, instructions_option] = 2.0,
        loop_tolerance: Annotated[float, loop_option] = 2.0,
        spills_tolerance: Annotated[int, spills_option] = 0,
        stack_tolerance: Annotated[int, stack_option] = 0,
        warps_tolerance: Annotated[int, warps_option] = 0,
        allow_other_tools: Annotated[bool, others_option] = False,
        as_json: Annotated[bool, json_option] = False,
        markdown: Annotated[Path | None, markdown_option] = None,
        block: Annotated[int, block_option] = 256,
        shared: Annotated[int, shared_option] = 0,
        names: Annotated[Names, names_option] = Names.function,
        cuobjdump: Annotated[str | None, cuobjdump_option] = None,
    ) -> None:
        """Gate CURRENT against BASELINE: stored reports (.json), or kernels that are read first."""
        tolerances = _tolerances(
            instructions_tolerance, loop_tolerance, spills_tolerance, stack_tolerance, warps_tolerance
        )

        def loaded(path: Path) -> Report:
            if path.suffix == ".json":
                return Report.load(path)
            return read(path, block=block, shared=shared, naming=names.naming, cuobjdump=cuobjdump)

        def work() -> int:
            if not baseline.exists():
                raise BaselineMissingError(f"there is no baseline {baseline}")
            verdict = compare(
                loaded(baseline),
                loaded(current),
                tolerances=tolerances,
                explanations=explained or (),
                allow_other_tools=allow_other_tools,
            )
            return _deliver(None, verdict, Outputs(as_json, markdown=markdown))

        raise typer.Exit(_guarded(work))

    return app


def _tolerances(instructions: float, loop: float, spills: int, stack: int, warps: int) -> Tolerances:
    return Tolerances(instructions / 100, loop / 100, spills, stack, warps)


def _guarded(work: Callable[[], int]) -> int:
    """Run, and turn what a user can fail at into one line and an exit code."""
    try:
        return work()
    except BaselineMissingError as error:
        code, text = VANISHED, str(error)
    except (ReportError, OSError) as error:
        code, text = USAGE_ERROR, str(error)
    print(f"geoact-kernels-report: {text}", file=sys.stderr)
    return code


def _deliver(report: Report | None, verdict: Verdict | None, outputs: Outputs) -> int:
    """Print and write what was found; returns the exit code."""
    from rich.console import Console

    from geoact.bench.kernels_report import show

    console = Console(stderr=outputs.as_json)
    if outputs.as_json:
        told = (report.full() if report else {}) | ({"verdict": verdict.full()} if verdict else {})
        print(json.dumps(told, indent=2))
    else:
        if report:
            show.print_report(report, console, outputs.top)
        if verdict:
            print_verdict(verdict, console)
    if outputs.markdown:
        parts = [show.verdict_markdown(verdict)] if verdict else []
        parts += [show.report_markdown(report)] if report else []
        write_atomic(outputs.markdown, "\n".join(parts))
    if outputs.save and report:
        report.save(outputs.save)
    return verdict.code if verdict else 0
