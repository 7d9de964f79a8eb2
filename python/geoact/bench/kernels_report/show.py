"""Reports and verdicts for people: tables in the terminal (rich) and Markdown for a pull request."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from geoact.bench import explained
from geoact.bench.kernels_report import limits
from geoact.bench.kernels_report.compare import Verdict
from geoact.bench.kernels_report.report import Kernel, Report
from geoact.bench.markdown import table

HEADS = ("kernel", "arch", "regs", "warps/SM", "spills", "stack", "shared", "ld/st bits", "instr", "loop", "/16 B")
"""``loop`` is the hottest loop, ``/16 B`` its instructions per 16 bytes stored (or loaded)."""

_PIPE_WIDTH = 160
"""Columns of a table that no terminal limits."""

NO_SPEED = "Static counts of machine code; they are no measurement of speed."


def offenders(report: Report) -> list[Kernel]:
    """Kernels, those to look at first in front: spills, then lost occupancy, then long loops, then long code."""

    def rank(kernel: Kernel) -> tuple[float, ...]:
        occupancy = report.occupancy(kernel)
        return (
            -kernel.spills,
            -kernel.stack,
            occupancy.share if occupancy else 1.0,
            -(kernel.loop_instructions_per_16_bytes or 0),
            -kernel.instructions,
        )

    return sorted(report.kernels, key=rank)


def cells(report: Report, kernel: Kernel) -> list[str]:
    """One row of the table, in the order of :data:`HEADS`."""
    occupancy = report.occupancy(kernel)
    per_16 = kernel.loop_instructions_per_16_bytes
    shared = kernel.shared + kernel.dynamic_shared
    return [
        kernel.name,
        kernel.arch,
        str(kernel.registers),
        f"{occupancy.warps} {occupancy.share:4.0%}" if occupancy else "?",
        str(kernel.spills),
        str(kernel.stack + kernel.local),
        str(shared),
        f"{kernel.load_width or '-'}/{kernel.store_width or '-'}",
        str(kernel.instructions),
        str(kernel.loop_instructions or "-"),
        "-" if per_16 is None else f"{per_16:.1f}",
    ]


def totals(report: Report) -> str:
    """All kernels in a sentence or three."""
    kernels = report.kernels
    archs = sorted({kernel.arch for kernel in kernels}, key=limits.order)
    names = {kernel.name for kernel in kernels}
    spilling = sum(1 for kernel in kernels if kernel.spills)
    text = (
        f"{len(names)} kernels on {', '.join(archs)}: {len(kernels)} rows, {sum(one.instructions for one in kernels)}"
        f" instructions, {sum(one.code_bytes for one in kernels)} bytes of code; {spilling} with local memory traffic."
    )
    unknown = sorted({opcode for kernel in kernels for opcode in kernel.other_opcodes.split()})
    if unknown:
        text += f" Opcodes without a class: {', '.join(unknown)}."
    without = sorted({kernel.arch for kernel in kernels if report.occupancy(kernel) is None})
    if without:
        text += f" No occupancy for {', '.join(without)}: its limits are not known here."
    return text


def print_report(report: Report, console: Console, top: int) -> None:
    """Print the worst ``top`` rows (0: all) and the totals."""
    ordered = offenders(report)
    shown = ordered[:top] if top else ordered
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, head in enumerate(HEADS):
        table.add_column(head, justify="left" if i < 2 else "right", overflow="fold", no_wrap=i > 0)
    for kernel in shown:
        style = "red" if kernel.spills or kernel.stack or kernel.local else None
        table.add_row(*map(Text, cells(report, kernel)), style=style)
    console.print(table)
    if len(shown) < len(ordered):
        console.print(f"... and {len(ordered) - len(shown)} more (--top 0 shows all).", markup=False, highlight=False)
    console.print(totals(report), markup=False, highlight=False, soft_wrap=True)
    console.print(NO_SPEED, style="dim", markup=False, highlight=False)


def report_markdown(report: Report) -> str:
    """The whole report as a Markdown table, worst rows first."""
    rows = [cells(report, kernel) for kernel in offenders(report)]
    return "\n".join(
        [
            "## Kernels",
            "",
            totals(report),
            "",
            *table(HEADS, rows, HEADS[2:]),
            "",
            f"{NO_SPEED} Threads per block where a kernel does not say: {report.block}.",
            "",
        ]
    )


def verdict_markdown(verdict: Verdict) -> str:
    """A verdict as Markdown, one section per kind of finding."""
    return explained.verdict_markdown(verdict, "Kernel gate")
