"""The HTML report: one self-contained file made of the results, the figures and the template."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from geoact.study.axes import InitialAxes
from geoact.study.claims import CLAIMS, conclusion
from geoact.study.grid import GridResult
from geoact.study.overhead import RATIOS, Overhead
from geoact.study.plotting import shown
from geoact.study.questions.rules import QUESTIONS
from geoact.study.questions.tables import question_tables
from geoact.study.replica import Replica
from geoact.study.report_table import Table
from geoact.study.results import StudyResults
from geoact.study.wording import number, significant


@dataclass(frozen=True)
class Picture:
    """A figure as PNG for light and dark pages; its caption is also its text alternative."""

    name: str
    caption: str
    light: bytes
    dark: bytes


def render_report(results: StudyResults, pictures: Sequence[Picture]) -> str:
    """Return the whole page as text; it refers to nothing outside itself."""
    environment = Environment(
        loader=PackageLoader("geoact.study", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        results=results,
        machine=results.machine,
        claims=CLAIMS,
        rules={question.number: question for question in QUESTIONS},
        conclusion=conclusion(results.findings) if results.findings else [],
        pictures={picture.name: picture for picture in pictures},
        tables=_tables(results),
        cost=_cost(results.overhead),
        axes_guide=AXES_GUIDE,
        data_uri=_data_uri,
        total_seconds=sum(results.seconds.values()),
    )


def _data_uri(image: bytes) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(image).decode("ascii"))


def _tables(results: StudyResults) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    if results.replica:
        tables |= _replica_tables(results.replica)
    if results.learning_rates:
        tables |= _grid_tables("moons", results.learning_rates)
    if results.axes:
        tables["init"] = _initial_table(results.axes)
    if results.digits:
        tables |= _grid_tables("digits", results.digits)
    if results.overhead:
        tables["overhead"] = _overhead_table(results.overhead)
    if results.questions:
        tables |= question_tables(results.questions)
    return tables


def _replica_tables(result: Replica) -> dict[str, Table]:
    checks = [
        [shown(c.network), c.quantity, c.printed, f"{c.measured:.10g}", "yes" if c.matches else "no"]
        for c in result.checks
    ]
    axes = [
        [
            shown(network.activation),
            str(layer.layer),
            *map(number, (layer.gain, layer.linear_share, layer.spearman)),
            number(layer.effective_bits, 1),
            *map(number, (layer.mean_sq_slope, layer.realised_gain, sd_numpy, sd_fused)),
        ]
        for network in result.networks
        for layer, sd_numpy, sd_fused in zip(network.axes, network.sd_numpy, network.sd_fused, strict=True)
    ]
    return {
        "replica": Table(
            ["network", "quantity", "published", "measured", "same digits"],
            checks,
            "Every published number and the one measured here, in float64.",
            left=2,
        ),
        "replica-axes": Table(
            [
                "network",
                "layer",
                "gain",
                "R²",
                "rank corr.",
                "bits",
                "E f'²",
                "|dx|²/|dy|²",
                "np.std",
                "fused sd",
            ],
            axes,
            "The replica's hidden layers on the test set. The last two columns are the same quantity, from "
            "NumPy "
            "afterwards and from the statistics gathered while the activation ran.",
        ),
    }


AXES_GUIDE = (
    (
        "Scale",
        "gain, distance² kept",
        "1 keeps mean squared distances (per coordinate); below 1 pulls samples together",
    ),
    ("Shape", "linear share R², rank correlation", "1 keeps relative positions, or the order of distances"),
    (
        "Resolution",
        "effective bits",
        "how finely the stored type divides one standard deviation, as a power of 2",
    ),
    (
        "Gradient",
        "E f'², |dx|²/|dy|²",
        "the factor on the squared gradient; far below 1 it vanishes with depth",
    ),
)
"""Axis, statistics, and how to read them."""

AXES_HEADS = ["gain", "R²", "rank corr.", "bits", "E f'²", "|dx|²/|dy|²", "saturated", "zero", "dead"]
AXES_QUANTITIES = (
    "gain",
    "linear_share",
    "spearman",
    "effective_bits",
    "mean_sq_slope",
    "realised_gain",
    "saturation_fraction",
    "zero_fraction",
    "dead_fraction",
)


def _grid_tables(key: str, result: GridResult) -> dict[str, Table]:
    accuracy = [
        [
            shown(name),
            *(
                f"{100 * a.mean:.1f} ± {100 * a.sd:.1f} [{100 * a.low:.1f}, {100 * a.high:.1f}]"
                for a in (result.cell(name, setting).accuracy for setting in result.settings)
            ),
        ]
        for name in result.activations
    ]
    axes = [
        [
            shown(row.activation),
            row.setting,
            str(row.layer),
            *(number(row.quantities[q].mean, 1 if q == "effective_bits" else 3) for q in AXES_QUANTITIES),
        ]
        for row in result.axes
    ]
    return {
        f"{key}-accuracy": Table(
            ["activation", *result.settings],
            accuracy,
            f"Test accuracy in %: mean ± sd over {result.seeds} seeds [95 % bootstrap interval of the mean].",
        ),
        f"{key}-axes": Table(
            ["activation", "setting", "layer", *AXES_HEADS],
            axes,
            f"The four axes on the test set after training, mean over {result.seeds} seeds; the spread of "
            "each is in "
            "results.json.",
            left=2,
        ),
    }


def _initial_table(result: InitialAxes) -> Table:
    depths = sorted({depth for depth in (1, 2, 5, 10, result.depth) if depth <= result.depth})
    rows = [
        [
            row.data,
            shown(row.activation),
            row.dtype,
            str(row.depth),
            number(row.quantities["distance"]),
            *(number(row.quantities[q], 1 if q == "effective_bits" else 3) for q in AXES_QUANTITIES),
        ]
        for row in result.rows
        if row.depth in depths
    ]
    return Table(
        ["input", "activation", "dtype", "depth", "distance² kept", *AXES_HEADS],
        rows,
        f"At initialisation, mean over {result.seeds} seeds; all depths are in results.json.",
        left=3,
    )


def _overhead_table(result: Overhead) -> Table:
    rows = [
        [
            shown(case.activation),
            f"{case.bytes_touched / 2**20:.1f} MiB",
            f"{1e6 * case.seconds['plain']:,.1f} µs",
            *(f"{significant(r.ratio)} [{significant(r.lower)}, {significant(r.upper)}]" for r in case.ratios),
        ]
        for case in result.cases
    ]
    disagreement = max(case.largest_disagreement for case in result.cases)
    return Table(
        ["activation", "x and y", "alone", "tensor", "channel", "NumPy", "NumPy : geoact"],
        rows,
        "Ratio of median times [quartiles of the ratios within rounds]: with statistics per tensor and per "
        "channel to the activation alone; NumPy with the same numbers to NumPy's activation alone, and to "
        "geoact "
        "per tensor. "
        f"NumPy's numbers and the fused ones differ by {disagreement:.1e} relatively, at most.",
    )


def _cost(result: Overhead | None) -> str:
    """Sum up the range of each ratio over all cases."""
    if result is None:
        return ""
    ranges = []
    for index in range(len(RATIOS)):
        values = [case.ratios[index].ratio for case in result.cases]
        ranges.append(f"{significant(min(values))} to {significant(max(values))}")
    tensor, channel, numpy, against = ranges
    return (
        f"An activation with statistics takes {tensor} times as long as alone per tensor and {channel} times "
        "per "
        f"channel. NumPy takes {numpy} times as long as its own activation alone when it computes the same "
        f"numbers, which is {against} times as long as geoact with statistics."
    )
