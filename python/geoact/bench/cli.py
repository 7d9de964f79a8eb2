"""The commands ``geoact bench`` (run, list, show, baseline, history, instructions) and ``geoact compare``.

Exit codes of ``compare``: 0 nothing is slower, 10 something is, 11 inconclusive, 12 a case or the baseline is missing,
13 refused because the machines differ. Of ``bench run``: 1 if a case raised, gave a wrong result or beat its own
ceiling. Of all: 2 for a usage error.
"""

# No "from __future__ import annotations" here: Typer reads the annotations of functions inside register.
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geoact.bench import config, environment, results
from geoact.bench.results import ResultError
from geoact.bench.suite import Suite, SuiteError, load
from geoact.bench.timing import Settings

if TYPE_CHECKING:
    import typer
    from rich.console import Console

USAGE_ERROR, FAILED, MISSING = 2, 1, 12
PACKAGES = {"rich": "rich", "typer": "typer", "jinja2": "jinja2", "matplotlib": "matplotlib", "plotly": "plotly",
            "ruptures": "ruptures", "junitparser": "junitparser"}  # fmt: skip
"""Importable name -> package of the ``bench`` extra."""


class UsageError(Exception):
    """The command line asks for something that there is not."""


def register(app: "typer.Typer") -> None:
    """Add both commands to the application."""
    import typer

    from geoact.bench import history
    from geoact.bench.instructions import cli as instructions

    bench = typer.Typer(
        help="Microbenchmarks: run a suite, look at results, follow them over time.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    _register_bench(bench)
    history.register(bench)
    instructions.register(bench)
    app.add_typer(bench, name="bench")
    _register_compare(app)


def missing_message(name: str) -> str:
    """What of the ``bench`` extra is not installed, and how to get it; empty if nothing is missing."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    return f"geoact {name} needs {', '.join(missing)}: pip install geoact[bench]" if missing else ""


def guarded(name: str, work: Callable[[], int]) -> int:
    """Run, and turn what a user can fail at into one line and an exit code."""
    missing = missing_message(name)
    if missing:
        print(missing, file=sys.stderr)
        return USAGE_ERROR
    from geoact.bench.gate.baseline import BaselineMissingError
    from geoact.bench.gate.process import WorkerError
    from geoact.bench.gate.sides import SideError

    try:
        return work()
    except BaselineMissingError as error:
        code, text = MISSING, str(error)
    except (UsageError, SuiteError, SideError, WorkerError, ResultError, config.ConfigError) as error:
        code, text = USAGE_ERROR, str(error)
    except OSError as error:
        code, text = USAGE_ERROR, f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
    print(f"geoact {name}: {text}", file=sys.stderr)
    return code


def suite_of(words: str | None) -> Suite:
    """The suite that is named, or that of pyproject.toml."""
    settings = config.find()
    if words is None and settings.suite is None:
        raise UsageError('which suite? name its file, or put suite = "..." into [tool.geoact.bench] of pyproject.toml')
    return load(words if words is not None else str(settings.root / str(settings.suite)))


def axes_of(words: Sequence[str] | None) -> list[tuple[str, str]]:
    """``axis=value`` as pairs."""
    pairs = []
    for word in words or ():
        axis, equals, value = word.partition("=")
        if not equals or not axis:
            raise UsageError(f"--set takes axis=value, got {word!r}")
        pairs.append((axis, value))
    return pairs


# --- bench ----------------------------------------------------------------------------------------


def writable(*paths: Path | None) -> None:
    """Raise ResultError if a file cannot be written, ahead of a long measurement; folders are made."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise ResultError(f"{path} is a folder, not a file to write to")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultError(f"{path} cannot be written: {error.strerror}") from error
        if not os.access(path.parent, os.W_OK):
            raise ResultError(f"{path} cannot be written: its folder is read-only")


@dataclass(frozen=True)
class Outputs:
    """Where results go besides the terminal."""

    json: Path | None = None
    html: Path | None = None
    plots: Path | None = None
    markdown: Path | None = None
    pytest_benchmark: Path | None = None
    overhead_axis: str = "statistics"

    def check(self) -> None:
        """Raise ResultError if something would be lost, ahead of a long measurement."""
        from geoact.bench.report import page

        if self.html:
            page.check(self.html)
        writable(self.json, self.html, self.markdown, self.pytest_benchmark)

    def write(self, document: Mapping[str, Any]) -> list[str]:
        """Write what was asked for; what there is to say of it."""
        written: list[object] = []
        said = []
        if self.json:  # first: what fails at the rest can be made of it again
            results.save(self.json, document)
            written.append(self.json)
        from geoact._files import write_atomic
        from geoact.bench.report import page, plots, show

        if self.html:
            page.write_page(document, self.html, overhead_axis=self.overhead_axis)
            written.append(self.html)
        if self.markdown:
            write_atomic(self.markdown, show.markdown(document))
            written.append(self.markdown)
        if self.pytest_benchmark:
            write_atomic(self.pytest_benchmark, json.dumps(results.to_pytest_benchmark(document), indent=1) + "\n")
            written.append(self.pytest_benchmark)
        if self.plots:
            drawn = plots.write_plots(document, self.plots, overhead_axis=self.overhead_axis)
            written += drawn.written
            for name, reason in drawn.missing.items():
                said.append(f"no plot {name}: {reason}")
        return said + [f"wrote {path}" for path in written]


def _register_bench(bench: "typer.Typer") -> None:
    import typer

    suite_argument = typer.Argument(help="File or module of the suite; default: that of pyproject.toml.")
    only_option = typer.Option(help="Only cases and groups whose name contains this, or matches this glob.")
    set_option = typer.Option("--set", help="Only cases with this axis=value (repeatable).")
    json_option = typer.Option("--json", help="Store the document, with all samples.")
    html_option = typer.Option(help="Write one self-contained page.")
    plots_option = typer.Option(help="Folder for plots as PNG and SVG.")
    markdown_option = typer.Option(help="Write Markdown tables.")
    overhead_option = typer.Option(help="Axis whose price the plots show: cases that differ in nothing else.")
    export_option = typer.Option(help="Write the cases as pytest-benchmark stores them.")

    @bench.command("run")
    def run_command(
        suite: Annotated[str | None, suite_argument] = None,
        only: Annotated[list[str] | None, only_option] = None,
        axes: Annotated[list[str] | None, set_option] = None,
        cases: Annotated[bool, typer.Option(help="Measure the cases.")] = True,
        bars: Annotated[bool, typer.Option(help="Measure the groups and their bars.")] = True,
        quick: Annotated[bool, typer.Option(help="Few samples: to see that it runs, not to quote.")] = False,
        cold: Annotated[bool, typer.Option(help="Flush the caches ahead of every sample.")] = False,
        seconds: Annotated[float, typer.Option(min=0.0, help="What one case may cost at most.")] = 3.0,
        bars_seconds: Annotated[float, typer.Option(min=0.0, help="What all groups may cost together.")] = 300.0,
        as_json: Annotated[Path | None, json_option] = None,
        html: Annotated[Path | None, html_option] = None,
        plots: Annotated[Path | None, plots_option] = None,
        markdown: Annotated[Path | None, markdown_option] = None,
        pytest_benchmark: Annotated[Path | None, export_option] = None,
        overhead_axis: Annotated[str, overhead_option] = "statistics",
    ) -> None:
        """Measure a suite: every case against the copy of its bytes, every group with its bars."""
        settings = Settings.quick(cold) if quick else Settings(seconds=seconds, cold=cold)
        chosen = Chosen(only or [], axes or [], cases, bars, min(bars_seconds, 20.0) if quick else bars_seconds)
        outputs = Outputs(as_json, html, plots, markdown, pytest_benchmark, overhead_axis)
        raise typer.Exit(guarded("bench run", lambda: run(suite, settings, chosen, outputs, quick)))

    @bench.command("list")
    def list_command(suite: Annotated[str | None, suite_argument] = None) -> None:
        """Show the cases, axes and groups of a suite."""

        def work() -> int:
            from rich.console import Console

            from geoact.bench.report import show

            show.list_suite(suite_of(suite), Console())
            return 0

        raise typer.Exit(guarded("bench list", work))

    @bench.command("show")
    def show_command(
        file: Annotated[Path, typer.Argument(help="A result of bench run, compare --json or pytest-benchmark.")],
        as_json: Annotated[Path | None, json_option] = None,
        html: Annotated[Path | None, html_option] = None,
        plots: Annotated[Path | None, plots_option] = None,
        markdown: Annotated[Path | None, markdown_option] = None,
        pytest_benchmark: Annotated[Path | None, export_option] = None,
        overhead_axis: Annotated[str, overhead_option] = "statistics",
    ) -> None:
        """Show a stored result, or write it as a page, plots, Markdown or for pytest-benchmark."""
        outputs = Outputs(as_json, html, plots, markdown, pytest_benchmark, overhead_axis)
        raise typer.Exit(guarded("bench show", lambda: show_stored(file, outputs)))

    @bench.command("baseline")
    def baseline_command(
        baseline: Annotated[Path, typer.Argument(help="The baseline to make or to add to.")],
        files: Annotated[list[Path], typer.Argument(help="Results, one session each; three make limits of their own.")],
    ) -> None:
        """Make a baseline of normalised scores out of results, or add them to it."""
        raise typer.Exit(guarded("bench baseline", lambda: make_baseline(baseline, files)))


@dataclass(frozen=True)
class Chosen:
    """What of a suite is run."""

    only: list[str]
    axes: list[str]
    cases: bool
    bars: bool
    bars_seconds: float


def run(suite_name: str | None, settings: Settings, chosen: Chosen, outputs: Outputs, quick: bool) -> int:
    """Run a suite, show and write its document; the exit code."""
    from rich.console import Console

    from geoact.bench import runner
    from geoact.bench.report import show

    if not __debug__:
        raise UsageError("python -O leaves out the assertions that checks are made of")
    here = Path.cwd()
    suite = suite_of(suite_name)
    cases = list(suite.select(chosen.only, axes_of(chosen.axes))) if chosen.cases else []
    families = suite.select_families(chosen.only) if chosen.bars and not chosen.axes else []
    if not cases and not families:
        raise UsageError(f"nothing of the suite {suite.name} is chosen")
    outputs.check()
    described = environment.describe(packages_of(suite), root=config.find().root)
    with progress("bench") as told:
        document = runner.run(
            suite, settings, environment=described, cases=cases, families=families,
            group_seconds=chosen.bars_seconds, told=told,
        )  # fmt: skip
    document["quick"] = quick
    os.chdir(here)  # a suite may have gone elsewhere
    console = Console()
    told_of = outputs.write(document)
    with piped():
        show.print_document(document, console)
        _say(told_of, console)
    return FAILED if runner.failures(document) else 0


def _say(lines: Sequence[str], console: "Console") -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def piped() -> Iterator[None]:
    """Show something to a reader who may stop reading (``| head``): that is no failure, and everything is stored."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit:  # so rich ends where its reader is gone
        return


def packages_of(suite: Suite) -> list[str]:
    """Packages whose versions belong to a result: the one that is measured, and those that its kernels come from."""
    known = ("torch", "triton", "cupy-cuda13x", "numexpr", "onnxruntime", "ml_dtypes")
    return [*([suite.package] if suite.package else []), *(name for name in known if environment.version(name))]


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error while something runs; gives the function that moves it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda name, done, total: shown.update(
            task, description=f"{title}: {escape(name[:60])}", completed=done, total=total
        )


def show_stored(file: Path, outputs: Outputs) -> int:
    """Show a file of any kind that we write."""
    from rich.console import Console

    from geoact.bench.gate import compare, show
    from geoact.bench.report import show as report

    console, found = Console(), results.read_json(file)
    if isinstance(found, dict) and found.get("kind") == compare.KIND:
        if outputs != Outputs():
            raise UsageError("a comparison can only be shown; geoact compare writes Markdown, JUnit and plots itself")
        verdict = compare.verdict_of(found, str(file))
        with piped():
            show.print_verdict(verdict, console, f"{found['a']['name']} -> {found['b']['name']}")
        return 0
    document = results.load(file)
    outputs.check()
    told_of = outputs.write(document)
    with piped():
        report.print_document(document, console)
        _say(told_of, console)
    return 0


def make_baseline(path: Path, files: Sequence[Path]) -> int:
    """Add results to a baseline."""
    from geoact.bench.gate.baseline import Baseline, is_baseline

    documents = [results.load(file) for file in files]
    if path.exists() and not is_baseline(path):
        raise ResultError(f"{path} is no baseline; it is not overwritten")
    baseline = Baseline.load(path) if path.exists() else Baseline(environment.identity(documents[0]["environment"]))
    for document, file in zip(documents, files, strict=True):
        other = environment.differences(baseline.identity, document["environment"])
        if other:
            raise ResultError(f"{file} was measured on another machine than the baseline: {'; '.join(other)}")
        if not results.measured(document):
            raise ResultError(f"{file} has no measured case, so it is no session")
        if baseline.holds(document):
            raise ResultError(f"the samples of {file} are in the baseline already; a session counts once")
        if document.get("quick"):
            print(f"{file} was measured with --quick: its few samples make limits wide", file=sys.stderr)
        baseline.add(document)
    baseline.save(path)
    sessions = max((len(s) for s in baseline.cases.values()), default=0)
    print(f"{path}: {len(baseline.cases)} cases, {sessions} sessions")
    return 0


# --- compare --------------------------------------------------------------------------------------


def _register_compare(app: "typer.Typer") -> None:
    import typer

    side = (
        "A result file or a folder of them, a git revision, '.' (the working tree), 'installed', a virtual environment."
    )
    suite_option = typer.Option("--suite", help="File or module of the suite; default: that of pyproject.toml.")
    only_option = typer.Option(help="Only cases whose name contains this, or matches this glob.")
    set_option = typer.Option("--set", help="Only cases with this axis=value (repeatable).")
    build_option = typer.Option(
        help="How a revision becomes importable: pip or none; default: pyproject.toml, then pip."
    )
    source_option = typer.Option(help="With --build none: the folder of the repository that has the package.")

    @app.command("compare")
    def compare_command(
        a: Annotated[str | None, typer.Argument(help=side)] = None,
        b: Annotated[str | None, typer.Argument(help=side)] = None,
        suite: Annotated[str | None, suite_option] = None,
        only: Annotated[list[str] | None, only_option] = None,
        axes: Annotated[list[str] | None, set_option] = None,
        selftest: Annotated[
            bool, typer.Option(help="Test the gate on this machine, with side A or what is installed.")
        ] = False,
        slowdown: Annotated[
            float, typer.Option(min=0.1, help="Percent that --selftest makes three cases slower.")
        ] = 5.0,
        threshold: Annotated[float, typer.Option(min=0.0, help="Percent below which no change counts.")] = 3.0,
        strict: Annotated[bool, typer.Option(help="Exit with 11 if a case is open.")] = False,
        same_code: Annotated[bool, typer.Option(help="Differences of the same machine code are noise.")] = True,
        incarnations: Annotated[int, typer.Option(min=1, help="Times that all processes start anew.")] = 5,
        seconds: Annotated[float, typer.Option(min=0.0, help="Of a case in one incarnation, at most.")] = 0.9,
        cold: Annotated[bool, typer.Option(help="Flush the caches ahead of every sample.")] = False,
        build: Annotated[str | None, build_option] = None,
        source: Annotated[str | None, source_option] = None,
        every: Annotated[bool, typer.Option("--all/--changed", help="Show every case or those that changed.")] = True,
        as_json: Annotated[Path | None, typer.Option("--json", help="Store everything, with all samples.")] = None,
        markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request.")] = None,
        junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
        plot: Annotated[Path | None, typer.Option(help="Write a plot of all changes (.png or .svg).")] = None,
    ) -> None:
        """Decide whether B is slower than A: both take turns in processes kept warm, or stored results are compared."""
        from geoact.bench.gate.command import Gate, Reports, Sources
        from geoact.bench.gate.compare import Plan
        from geoact.bench.gate.decide import Rule

        def work() -> int:
            gate = Gate(
                Sources(suite, build, source, only or [], axes_of(axes)),
                Rule(least=threshold / 100),
                Plan(incarnations=incarnations, seconds=seconds, cold=cold),
                strict=strict,
                same_code_is_noise=same_code,
                every=every,
            )
            return gate.run(a, b, slowdown / 100 if selftest else None, Reports(as_json, markdown, junit, plot))

        raise typer.Exit(guarded("compare", work))
