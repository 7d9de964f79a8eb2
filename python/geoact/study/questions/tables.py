"""The tables of the questions in the report."""

from __future__ import annotations

from geoact.study.plotting import shown
from geoact.study.questions.geometry import QUANTITIES
from geoact.study.questions.report import Questions
from geoact.study.questions.rows import Row
from geoact.study.report_table import Table
from geoact.study.wording import number


def question_tables(result: Questions) -> dict[str, Table]:
    """Return the tables of the groups that have rows."""
    tables: dict[str, Table] = {}
    rows = result.rows
    if rows["initial"]:
        tables["q-initial"] = Table(
            ["input", "activation", "init", "width", "dtype", "depth", "distance² kept", "R²", "rank corr.", "bits",
             "|dx|²/|dy|²", "dead"],
            [
                [row["data"], shown(row["activation"]), row["init"], str(row["width"]), row["dtype"], str(row["depth"]),
                 *(_between(row[quantity]) for quantity in QUANTITIES)]
                for row in rows["initial"]
                if row["depth"] in (1, 16, 64)
            ],
            f"At initialisation: mean over {result.sizes.initial_seeds} seeds [95 % interval]; all depths are in "
            "results.json.",
            left=5,
        )  # fmt: skip
    for key, group in (("q-trained", "trained"), ("q-ladder", "ladder")):
        if rows[group]:
            tables[key] = Table(
                ["data", "activation", "layers", "method", "rate", "train", "test", "under noise", "rank corr.",
                 "in bfloat16", "dead"],
                [
                    [row["data"], shown(row["activation"]), f"{row['depth']} × {row['width']}", row["method"],
                     f"{row['rate']:g}", _between(row["train"]), _between(row["accuracy"]), _between(row["robustness"]),
                     _between(row["spearman"]), _between(row["spearman_bfloat16"]), _between(row["dead"])]
                    for row in rows[group]
                ],
                f"Rate chosen on validation data, then {result.sizes.seeds} other seeds: mean [95 % interval]; under "
                "noise: the share of test accuracy that is left.",
                left=4,
            )  # fmt: skip
    if rows["inference"]:
        tables["q-time"] = Table(
            ["activation", "where", "dtype", "values", "µs", "to sigmoid"],
            [
                [shown(row["activation"]), row["where"], row["dtype"], f"{row['values']:,}",
                 f"{1e6 * row['seconds']['value']:,.1f}", _between(row["to_sigmoid"])]
                for row in rows["inference"]
            ],
            "Median time, and the median of its ratios to that of sigmoid within rounds [95 % interval].",
            left=3,
        )  # fmt: skip
    if result.tiers:
        tables["q-tiers"] = Table(
            ["activation", "tier", "dtype", "time with / without", "file"],
            [
                [shown(r["activation"]), r["tier"], r["dtype"], f"{r['median']:.2f} [{r['q1']:.2f}, {r['q3']:.2f}]",
                 r["file"]]
                for r in result.tiers
            ],
            "Stored measurements of what each tier of statistics costs: median [quartiles].",
            left=3,
        )  # fmt: skip
    return tables


def _between(value: Row) -> str:
    numbers = [number(float("nan") if value[key] is None else value[key]) for key in ("value", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"
