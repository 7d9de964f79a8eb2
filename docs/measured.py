"""The tables of the documentation that show stored measurements; docs/generate.py writes them into the pages.

What they show lies in benchmarks/results/, where the scripts in benchmarks/ put it. A table without a measurement says
which command makes one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from geoact.bench import results
from geoact.bench.bars import Row

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Make a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(text: str) -> str:
    """Set a formula or a name as code."""
    return f"`{text}`" if text else ""


# --- from stored measurements -------------------------------------------------------------------------------


def _stored(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _machine(environment: dict[str, Any]) -> str:
    load = environment["load_average"][0]
    changed = " plus uncommitted changes" if environment.get("sources_changed") else ""
    return (
        f"{environment['cpu']} ({environment['cpu_model']}), {environment['processors']} processors, "
        f"{environment['compiler']}, commit `{str(environment['commit'])[:10]}`{changed}, {environment['date'][:10]}, "
        f"load average {load:.1f} at the start."
    )


def accuracy() -> str:
    """Show the errors that benchmarks/ulp.py measured."""
    stored = _stored(RESULTS / "accuracy.json")
    if stored is None:
        return "Not measured yet: run `python benchmarks/ulp.py`.\n"
    isas = list(dict.fromkeys(row["isa"] for row in stored["rows"]))
    rows: dict[str, list[str]] = {}
    for row in stored["rows"]:
        given = ", ".join(f"{v:g}" for v in row["parameters"])
        label = code(row["activation"]) + (f" ({given})" if given else "")
        promise = (
            "0.5" if row["promise"]["float32"] <= 0.5 else f"{row['promise']['float32']} / {row['promise']['float64']}"
        )
        line = rows.setdefault(label, [promise])
        wrong = sum(row["wrong"].values())
        line.append(
            f"{row['float32']:.3f} / {row['float64']:.3f}" + (f" ({wrong} narrow results differ)" if wrong else "")
        )
    head = ["activation", "promise, float32 / float64", *(f"{isa}: float32 / float64" for isa in isas)]
    narrow = sum(sum(row["wrong"].values()) for row in stored["rows"])
    text = table(head, [[label, *line] for label, line in rows.items()])
    text += (
        f"\nfloat16 and bfloat16, all 65536 patterns, all rows and instruction sets: {narrow} results differ from the "
    )
    text += "correctly rounded float32 result.\n"
    text += f"\nMeasured with {stored['patterns']} float32 patterns and {stored['points']} float64 arguments on "
    return text + _machine(stored["environment"]) + "\n"


def _documents() -> Iterator[dict[str, Any]]:
    """What `make bench` stored of geoact's own suite, machine by machine."""
    for path in sorted(RESULTS.glob("*.json")):
        found = _stored(path) or {}
        if found.get("kind") == results.KIND and found.get("suite") == "geoact" and not found.get("quick"):
            yield results.checked(found, path.name)


def bars() -> str:
    """Show the bars of benchmarks/suite.py, for every machine that was measured."""
    parts = []
    for document in _documents():
        rows = []
        for stored in document["rows"]:
            row = Row(**{"limit": "", "unit": ""} | stored)
            if row.limit:
                value = ": ".join(filter(None, [row.measured, row.reason]))
                rows.append([row.bar, row.group, row.limit, "; ".join([value, *row.flags]), row.met])
        if rows:
            head = ["bar", "data", "limit", "median of ratios (quartiles)", "met"]
            parts.append(table(head, rows) + f"\nMeasured on {_machine(document['environment'])}\n")
    return "\n".join(parts) or "Not measured yet: run `make bench`.\n"


def bench_cases() -> str:
    """Show the cases of benchmarks/suite.py, for every machine that was measured."""
    parts = []
    for document in _documents():
        rows = []
        for case in document["cases"]:
            speed, score = case.get("GB/s"), case.get("score")
            if case["status"] != "measured":
                rows.append([code(case["name"]), "", f"{case['status']}: {case['reason']}", "", ""])
                continue
            share = "" if score is None else f"{score['median']:.0%} ({score['q1']:.0%} .. {score['q3']:.0%})"
            against = case.get("ceiling") or case.get("ceiling_missing", "")
            rows.append([code(case["name"]), "" if speed is None else f"{speed:.3g}", share, against, case["rounds"]])
        if rows:
            head = ["case", "GB/s", "% of the copy (quartiles)", "which was", "rounds"]
            note = f"Caches {document['cache']}. Measured on {_machine(document['environment'])}"
            parts.append(f"{table(head, rows)}\n{note}\n")
    return "\n".join(parts) or "Not measured yet: run `make bench`.\n"


def watching() -> str:
    """Show what benchmarks/watching.py measured: the step time of models, watched in several ways."""
    parts = []
    for path in sorted(RESULTS.glob("watching-*.json")):
        stored = _stored(path)
        if not stored:
            continue
        models = list(dict.fromkeys(row["model"] for row in stored["watching"]))
        rows: dict[str, list[str]] = {}
        for row in stored["watching"]:
            rows.setdefault(row["way"], []).append(f"{row['median']:.2f} ({row['q1']:.2f} .. {row['q3']:.2f})")
        text = table(["one training step", *models], [[way, *values] for way, values in rows.items()])
        rounds = stored["watching"][0]["rounds"]
        versions = stored["environment"]["versions"]
        parts.append(
            f"{text}\nRatio to the unwatched step of the same round, median of {rounds} rounds (quartiles); 1 thread, "
            f"float32, torch {versions['torch']}. Measured on {_machine(stored['environment'])}\n"
        )
    return "\n".join(parts) or "Not measured yet: run `python benchmarks/watching.py`.\n"


def torch_calls() -> str:
    """Show what benchmarks/torch_calls.py measured."""
    stored = _stored(RESULTS / "torch_calls.json")
    if stored is None:
        return "Not measured yet: run `python benchmarks/torch_calls.py`.\n"
    modes = list(stored["calls"])
    names = list(dict.fromkeys(name for mode in modes for name in stored["calls"][mode]))
    rows = []
    for name in names:
        cells = [stored["calls"][mode].get(name) for mode in modes]
        spreads = [cell and cell["geoact / torch"] for cell in cells]
        rows.append([code(name), *(f"{s[1]:.2f} ({s[0]:.2f} .. {s[2]:.2f})" if s else "" for s in spreads)])
    return (
        table([f"{stored['elements']} float32 elements", *modes], rows)
        + "\nTime of a call of geoact over that of torch's own function, which measures nothing, in the same round: "
        + f"median (quartiles); one thread, torch {stored['environment']['versions']['torch']}, compiled path. "
        + "Without it (a wheel built where torch was not) a forward call takes two to four times as long as torch's, "
        + "one of gelu less. "
        + f"Measured on {_machine(stored['environment'])}\n"
    )


# --- of other harnesses -------------------------------------------------------------------------------------


def _between(values: Iterable[float], sign: str = "") -> str:
    low, high = min(values := list(values)), max(values)
    return f"{low:{sign}.1%}" if low == high else f"{low:{sign}.1%} .. {high:{sign}.1%}"


def _harness_tables(stored: dict[str, Any]) -> str:
    reported: dict[str, list[dict[str, Any]]] = {}
    for row in stored["rows"]:
        reported.setdefault(f"{row['harness']}: {row['number']}", []).append(row)
    apart, sees = [], []
    for name, rows in reported.items():
        by_kernel = {row["kernel"]: f"{row['spread']:.1%}" for row in rows}
        apart.append([name, *(by_kernel.get(kernel, "") for kernel in stored["kernels"])])
        alarms, caught = ([sum(row[key][i] for row in rows) / len(rows) for i in range(len(stored["thresholds"]))]
                          for key in ("false_alarms", "caught"))  # fmt: skip
        cells = [f"{statistics.median(row['seconds'] for row in rows):.1f}", _between((r["seen"] for r in rows), "+")]
        sees.append([name, *(f"{a:.0%} / {c:.0%}" for a, c in zip(alarms, caught, strict=True)), *cells])
        judged = [[v for row in rows for v in row.get("verdicts", {}).get(k, ())] for k in ("plain", "slowed")]
        if all(judged):
            a, c = (f"{found.count('regressed')} of {len(found)}" for found in judged)
            sees.append([f"{rows[0]['harness']}: its verdict", f"its own rule: {a} / {c}",
                         *[""] * (len(stored["thresholds"]) - 1), cells[0], ""])  # fmt: skip
    planted = [row["planted"] for row in stored["rows"] if "planted" in row]
    marks = [f"above {t:.0%}" for t in stored["thresholds"]]
    text = table(["what is reported", *stored["kernels"].values()], apart)
    text += f"\nHow far apart the same kernel was reported: largest over smallest of {_sessions(stored)}.\n\n"
    text += table(["what is reported", *marks, "seconds", "slowdown as reported"], sees)
    text += "\nFalse alarms / slowdowns caught, over all ordered pairs of sessions and all kernels; of the same kernel "
    text += (
        "one order of a pair can alarm, so 50 % is the most. Seconds are of one benchmark in a session or comparison. "
    )
    return text + (f"The slowdown planted was {_between(planted, '+')}.\n" if planted else "\n")


def _sessions(stored: dict[str, Any]) -> str:
    rounds = len({session["round"] for session in stored["sessions"]})
    compared = f"for the gate, of no change and the estimates of {len(stored['comparisons'])} comparisons"
    return f"{rounds} sessions, fresh processes that took turns; {compared}"


def harnesses() -> str:
    """Show what benchmarks/harnesses.py measured, for every machine that was measured."""
    parts = []
    for path in sorted(RESULTS.glob("harnesses-*.json")):
        stored = _stored(path)
        if not stored or stored["quick"]:
            continue
        units = {"%": lambda v: f"{v:+.1%}", "x": lambda v: f"{v:.3g} x", "ns": lambda v: f"{v:.0f} ns"}
        biases = [
            [bias["title"] if i == 0 else "", one["label"], units[one["unit"]](one["value"])]
            for bias in stored["biases"]
            for i, one in enumerate(bias.get("numbers", ()))
        ]
        absent = "".join(f"{name} was not measured: {why}. " for name, why in stored["skipped"].items())
        versions = ", ".join(f"{name} {v}" for name, v in stored["environment"]["versions"].items() if v)
        parts.append(
            f"{_harness_tables(stored)}\n{table(['what moves a time', 'measured', 'result'], biases)}\n{absent}"
            f"{versions}. Measured on {_machine(stored['environment'])}\n"
        )
    return "\n".join(parts) or "Not measured yet: run `python benchmarks/harnesses.py`.\n"


# --- of the gate --------------------------------------------------------------------------------------------


def gate_study() -> str:
    """Show what benchmarks/gate_study.py found: false alarms on equal code, and slowdowns that were caught."""
    parts = []
    for path in sorted(RESULTS.glob("gate-*.json")):
        stored = _stored(path)
        if not stored or stored.get("kind") != "geoact-gate-study" or not stored["equal"]:
            continue
        verdicts = [case for one in stored["equal"] for case in one["cases"] if case.get("change") is not None]
        alarms = sum(case["verdict"] == "regressed" for case in verdicts)
        nonzero = sum(one["code"] != 0 for one in stored["equal"])
        widest = sorted(case["detectable"] for case in verdicts)
        rows = [[
            f"equal code, {len(verdicts) // len(stored['equal'])} cases",
            f"{alarms} false alarms in {len(verdicts)} verdicts",
            len(stored["equal"]), f"{nonzero} with an exit code other than 0",
        ]]  # fmt: skip
        for name in stored["slowed_cases"]:
            found = [c for one in stored["slowed"] for c in one["cases"] if c["name"] == name]
            caught = sum(case["verdict"] == "regressed" for case in found)
            changes = sorted(case["change"] for case in found)
            rows.append([
                f"{code(name)} {stored['slowdown']:.0%} slower", f"caught {caught} times", len(found),
                f"estimated {changes[0]:+.1%} .. {changes[-1]:+.1%}",
            ])  # fmt: skip
        seconds = statistics.median(one["seconds"] for one in stored["equal"])
        said = (
            f"One run over all cases took {seconds:.0f} s (median). It could have seen a slowdown of "
            f"{statistics.median(widest):.1%} in the median case. "
            + "".join(f"{note[0].upper()}{note[1:]}. " for note in stored.get("notes", ()))
        ).rstrip()
        parts.append(f"{table(['what was compared', 'result', 'runs', 'and'], rows)}\n{said} Measured on "
                     f"{_machine(stored['environment'])}\n")  # fmt: skip
    return "\n".join(parts) or "Not measured yet: run `python benchmarks/gate_study.py`.\n"


def tiers() -> str:
    """Show what benchmarks/tiers.py measured: the time of each tier over that of the moments."""
    parts = []
    for path in sorted(RESULTS.glob("tiers-*.json")):
        stored = _stored(path)
        assert stored is not None
        kinds = list(dict.fromkeys(row["tier"] for row in stored["rows"]))
        lines: dict[tuple[str, str], dict[str, str]] = {}
        for row in stored["rows"]:
            label = row["activation"], " x ".join(map(str, row["shape"]))
            low, middle, high = row["over_moments"]
            lines.setdefault(label, {})[row["tier"]] = f"{middle:.2f} ({low:.2f} .. {high:.2f})"
        body = [[code(name), shape, *(found[kind] for kind in kinds)] for (name, shape), found in lines.items()]
        parts.append(
            table(["activation", "rows x channels", *kinds], body)
            + f"\nMeasured on {_machine(stored['environment'])}\n"
        )
    return "\n".join(parts) or "Not measured yet: run `python benchmarks/tiers.py`.\n"


BLOCKS: dict[str, Callable[[], str]] = {
    "tiers": tiers,
    "accuracy": accuracy,
    "bars": bars,
    "bench-cases": bench_cases,
    "watching": watching,
    "torch-calls": torch_calls,
    "harnesses": harnesses,
    "gate-study": gate_study,
}
