"""The machine code of geoact's own GPU kernels against the committed table, without a GPU.

    python benchmarks/kernels_static.py [--triton FOLDER] [--update] [--arch sm_90 ...] [--jobs N]

Compiles every unit that cmake/cuda_units.txt lists for two architectures, or those named, reads the cubins, adds those
that Triton compiled (a folder of <kernel>-<activation>-<dtype>-sm_<arch>.cubin), and compares with
benchmarks/results/kernels.json.
benchmarks/results/kernels_explained.json lists accepted rises. --update stores the table anew instead.

A line of the list is a unit: the path of a .cu file, then its compile definitions as name=value; # begins a comment.
One file may be listed several times with different definitions.

Exit codes are those of geoact-kernels-report: 0 passed, 2 no compiler or a compile error, 10 worse, 12 the table or
a kernel of it is missing, 13 refused because compiler or tools differ from those of the table.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from geoact._files import write_atomic
from geoact.bench import kernels_report
from geoact.bench.explained import print_verdict
from geoact.bench.kernels_report import show
from geoact.bench.kernels_report.tools import find
from rich.console import Console

ROOT = Path(__file__).parent.parent
ARCHS = ("sm_90", "sm_120")  # --arch for others: each takes as many minutes as all of Triton
# --fmad=false: results must not depend on what the compiler fuses. The rest is what CMake passes.
FLAGS = ("-std=c++20", "--fmad=false", "--expt-relaxed-constexpr", "-O3", "-Icsrc")
BLOCK = 256


@dataclass(frozen=True)
class Unit:
    """One compilation: a file, relative to the root, and its definitions."""

    path: Path
    definitions: tuple[str, ...]

    @property
    def label(self) -> str:
        """A file name that no other unit has."""
        return "-".join([self.path.stem, *(re.sub(r"[^\w.]+", "_", one) for one in self.definitions)])


def units(file: Path, root: Path) -> list[Unit]:
    """Read the list of units; paths in it are relative to ``root``."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise kernels_report.ReportError(f"cannot read the list of units {file}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        wrong = [word for word in words[1:] if not re.fullmatch(r"[A-Za-z_]\w*=.*", word)]
        if wrong or not (root / words[0]).is_file():
            reason = f"{wrong[0]!r} is not name=value" if wrong else f"there is no file {words[0]}"
            raise kernels_report.ReportError(f"{file}, line {number}: {reason}")
        found.append(Unit(Path(words[0]), tuple(words[1:])))
    if not found:
        raise kernels_report.ReportError(f"{file} lists no unit")
    labels = [unit.label for unit in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise kernels_report.ReportError(f"{file} lists {', '.join(twice)} twice")
    return found


def compile_units(found: Sequence[Unit], archs: Sequence[str], folder: Path, nvcc: Path, root: Path, jobs: int) -> None:
    """Compile every unit for every architecture into ``folder``; the first error is raised when all have ended."""

    def one(unit: Unit, arch: str) -> None:
        command = [str(nvcc), "-cubin", f"-arch={arch}", *FLAGS, *(f"-D{word}" for word in unit.definitions)]
        command += [str(unit.path), "-o", str(folder.resolve() / f"{unit.label}.{arch}.cubin")]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise kernels_report.ReportError(f"{shlex.join(command)}\n{done.stderr.strip()}")

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = [pool.submit(one, unit, arch) for unit in found for arch in archs]
    for each in waiting:
        each.result()


def collect(options: argparse.Namespace) -> kernels_report.Report:
    """Report on all kernels, compiled now."""
    reports = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.cubins or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        nvcc = find("nvcc", options.nvcc)
        compile_units(units(options.units, options.root), options.arch, folder, nvcc, options.root, options.jobs)
        cubins = sorted(folder.glob("*.cubin"))
        reports.append(kernels_report.read(cubins, block=BLOCK, cuobjdump=options.cuobjdump))
    if options.triton:
        reports.append(kernels_report.read(options.triton, block=BLOCK, naming="file", cuobjdump=options.cuobjdump))
    return kernels_report.joined(reports)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    results = ROOT / "benchmarks" / "results"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=Path, default=ROOT / "cmake" / "cuda_units.txt", help="list of units")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that the list's paths start from")
    parser.add_argument("--arch", action="append", help=f"architecture, repeatable (default: {', '.join(ARCHS)})")
    parser.add_argument("--triton", type=Path, help="folder of cubins that Triton compiled")
    parser.add_argument("--baseline", type=Path, default=results / "kernels.json")
    parser.add_argument("--explained", type=Path, default=results / "kernels_explained.json")
    parser.add_argument("--update", action="store_true", help="store the table anew; what got worse is still shown")
    parser.add_argument("--markdown", type=Path, help="also write the verdict as Markdown")
    parser.add_argument("--allow-other-tools", action="store_true")
    parser.add_argument("--cubins", type=Path, help="keep the cubins in this folder, which should be empty")
    parser.add_argument("--nvcc", help="path of nvcc")
    parser.add_argument("--cuobjdump", help="path of cuobjdump")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="compilers at a time")
    options = parser.parse_args(arguments)
    options.arch = options.arch or list(ARCHS)
    return options


def gate(report: kernels_report.Report, options: argparse.Namespace, console: Console) -> int:
    verdict = kernels_report.compare(
        options.baseline,
        report,
        explanations=options.explained if options.explained.exists() else (),
        # An update is how a new compiler comes in, and should still say what it changed.
        allow_other_tools=options.allow_other_tools or options.update,
    )
    print_verdict(verdict, console)
    if options.markdown:
        write_atomic(options.markdown, show.verdict_markdown(verdict))
    return verdict.code


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    console = Console()
    try:
        report = collect(options)
        console.print(show.totals(report), markup=False, highlight=False, soft_wrap=True)
        if not options.update or options.baseline.exists():
            code = gate(report, options, console)
        if options.update:
            report.save(options.baseline)
            console.print(f"stored {options.baseline}", markup=False, highlight=False, soft_wrap=True)
            code = 0
    except kernels_report.BaselineMissingError as error:
        print(f"kernels_static: {error}", file=sys.stderr)
        return 12
    except (kernels_report.ReportError, OSError) as error:
        print(f"kernels_static: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
