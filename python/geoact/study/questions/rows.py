"""Results of units as rows: one per activation and setting, every number with its interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from geoact.study.questions.specs import Inference, Initial, Paired, Spec, Trained
from geoact.study.questions.statistics import Interval, mean_interval, median_interval

Row = dict[str, Any]
Results = dict[Spec, dict[str, Any]]


def interval(value: Interval) -> Row:
    """Round an interval to what it can say; full precision is in the units."""
    return {key: _short(item) for key, item in asdict(value).items()}


def _short(item: float | None) -> float | None:
    return float(f"{item:.6g}") if isinstance(item, float) else item


def initial_rows(results: Results) -> list[Row]:
    """One row per depth of untrained networks: mean over seeds."""
    rows = []
    for spec, result in _of(results, Initial):
        for depth in spec.read:
            quantities = result["layers"][str(depth)]
            row: Row = {name: getattr(spec, name) for name in ("data", "activation", "init", "width", "dtype")}
            row["depth"] = depth
            rows.append(row | {name: interval(mean_interval(values)) for name, values in quantities.items()})
    return rows


RUN_VALUES = ("train", "accuracy", "robustness")
LAYER_VALUES = ("spearman", "linear_share", "effective_bits", "gradient", "dead")


def trained_rows(results: Results) -> list[Row]:
    """One row per trained setting: mean over seeds, and the runs themselves."""
    rows = []
    for spec, result in _of(results, Trained):
        names = ("data", "activation", "init", "width", "depth", "method", "epochs")
        row: Row = {name: getattr(spec, name) for name in names}
        runs = result["runs"]
        row |= {
            "rate": result["rate"],
            "validation": dict(zip(map(str, spec.rates), result["validation"], strict=True)),
        }
        row |= {name: interval(mean_interval([run[name] for run in runs])) for name in RUN_VALUES}
        row |= {name: interval(mean_interval([run["last"][name] for run in runs])) for name in LAYER_VALUES}
        for dtype in runs[0]["stored"]:
            for name in ("accuracy", "spearman"):
                row[f"{name}_{dtype}"] = interval(mean_interval([run["stored"][dtype][name] for run in runs]))
        row["runs"] = [
            {"seed": run["seed"], **{name: _short(run[name]) for name in RUN_VALUES}}
            | {name: _short(run["last"][name]) for name in ("spearman", "linear_share", "dead")}
            | {f"spearman_{dtype}": _short(values["spearman"]) for dtype, values in run["stored"].items()}
            for run in runs
        ]
        if "pairs" in result:
            row["pairs"] = result["pairs"]
        rows.append(row)
    return rows


def paired_rows(results: Results) -> list[Row]:
    """One row per rate of each intervention: leaky ReLU minus ReLU, paired by seed."""
    rows = []
    for spec, result in _of(results, Paired):
        for rate in spec.rates:
            runs = [run for run in result["rows"] if run["rate"] == rate]
            rows.append(
                {
                    "data": spec.data,
                    "depth": spec.depth,
                    "width": spec.width,
                    "rate": rate,
                    "chosen": rate == result["rate"],
                    "dead": interval(mean_interval([run["dead"] for run in runs])),
                    "relu": interval(mean_interval([run["relu"] for run in runs])),
                    "leaky": interval(mean_interval([run["leaky"] for run in runs])),
                    "difference": interval(mean_interval([run["leaky"] - run["relu"] for run in runs])),
                    "runs": [{key: run[key] for key in ("seed", "relu", "leaky", "dead")} for run in runs],
                }
            )
    return rows


def inference_rows(results: Results) -> list[Row]:
    """One row per activation, type and size: time as a ratio to sigmoid's in the same round."""
    rows = []
    for spec, result in _of(results, Inference):
        for where, seconds in result.items():
            for name, times in seconds.items():
                ratios = [own / other for own, other in zip(times, seconds["sigmoid"], strict=True)]
                rows.append(
                    {
                        "where": where,
                        "activation": name,
                        "dtype": spec.dtype,
                        "values": spec.rows * spec.width,
                        "seconds": interval(median_interval(times)),
                        "to_sigmoid": interval(median_interval(ratios)),
                    }
                )
    return rows


def _of(results: Results, kind: type[Any]) -> Iterable[tuple[Any, dict[str, Any]]]:
    return ((spec, result) for spec, result in results.items() if isinstance(spec, kind))
