"""Result files: written whole, read with every complaint a person can act on; and those of pytest-benchmark.

A document is plain JSON: ``schema``, ``kind``, ``suite``, ``cache``, ``environment``, ``cases`` (one entry for every
case, with all its samples), ``rows`` (bars) and ``groups`` (the samples of what the bars are made of).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoact._files import write_atomic

SCHEMA = 2
KIND = "geoact-bench"
STATUS = ("measured", "skipped", "error")  # of a case


class ResultError(Exception):
    """A result file cannot be used; the message says which and why."""


def dumps(value: object, indent: int = 0) -> str:
    """JSON in which a list of plain values takes one line."""
    if isinstance(value, Mapping) and value:
        inner = " " * (indent + 1)
        items = [f"{inner}{json.dumps(str(k))}: {dumps(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    if isinstance(value, (list, tuple)) and any(isinstance(v, (Mapping, list, tuple)) for v in value):
        inner = " " * (indent + 1)
        return "[\n" + ",\n".join(f"{inner}{dumps(v, indent + 1)}" for v in value) + "\n" + " " * indent + "]"
    return json.dumps(value)


def save(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document, all or nothing: an earlier file is kept until the new one is complete."""
    write_atomic(path, dumps(document) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ResultError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ResultError(f"there is no result file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path} cannot be read: {error}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ResultError(f"{path} is no JSON: {error}") from error


def load(path: Path) -> dict[str, Any]:
    """Read a document, or what pytest-benchmark saved. Raises ResultError."""
    found = read_json(path)
    if isinstance(found, dict) and "benchmarks" in found and "machine_info" in found:
        try:
            return from_pytest_benchmark(found, str(path))
        except (TypeError, ValueError, AttributeError) as error:
            raise ResultError(f"{path} is not laid out as pytest-benchmark does: {error}") from error
    return checked(found, str(path))


def checked(found: Any, name: str) -> dict[str, Any]:
    """The document, if it is one of this schema in which every measured case has samples."""
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ResultError(f"{name} is no result of geoact bench")
    if found.get("schema") != SCHEMA:
        raise ResultError(f"{name} has schema {found.get('schema')}; this version reads schema {SCHEMA}")
    for key, kind in {"cases": list, "environment": dict, "rows": list, "groups": dict}.items():
        if not isinstance(found.get(key), kind):
            raise ResultError(f"{name}: {key} is missing or no {kind.__name__}")
    for case in found["cases"]:
        if not isinstance(case, dict) or not isinstance(case.get("name"), str):
            raise ResultError(f"{name}: a case has no name")
        if case.get("status") not in STATUS:
            raise ResultError(
                f"{name}: the status of {case['name']} is {case.get('status')!r}, not {', '.join(STATUS)}"
            )
        if not isinstance(case.get("axes", {}), dict):
            raise ResultError(f"{name}: axes of {case['name']} is no dict")
        if case["status"] == "measured":
            _check_samples(case, name)
    names = [case["name"] for case in found["cases"]]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise ResultError(f"{name}: there are two cases called {twice}")
    for row in found["rows"]:
        if not isinstance(row, dict) or not {"group", "bar"} <= set(row):
            raise ResultError(f"{name}: a row has no group and bar")
    return found


def _check_samples(case: Mapping[str, Any], name: str) -> None:
    for key in ("ns", "ceiling_ns"):
        samples = case.get(key, [])
        if not isinstance(samples, list) or not all(
            isinstance(s, (int, float)) and not isinstance(s, bool) and math.isfinite(s) and s > 0 for s in samples
        ):
            raise ResultError(f"{name}: {key} of {case['name']} must be a list of positive numbers")
    if not case.get("ns"):
        raise ResultError(f"{name}: {case['name']} has no samples")
    if case.get("ceiling_ns") and len(case["ceiling_ns"]) != len(case["ns"]):
        raise ResultError(f"{name}: {case['name']} has not as many samples of the copy as of the case")


def measured(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Cases that were measured, by name."""
    return {case["name"]: case for case in document["cases"] if case.get("status") == "measured"}


# --- pytest-benchmark -----------------------------------------------------------------------------


def from_pytest_benchmark(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What ``pytest --benchmark-save`` or ``--benchmark-json`` stored, as a document; raises ResultError."""
    machine = found.get("machine_info") or {}
    cpu = machine.get("cpu") or {}
    cases = []
    for benchmark in found["benchmarks"]:
        stats = benchmark.get("stats") or {}
        data = stats.get("data") or []
        label = benchmark.get("fullname") or benchmark.get("name")
        if not label:
            raise ResultError(f"{name}: a benchmark has no name")
        case = {"name": label, "axes": benchmark.get("params") or {}, "device": "cpu", "clock": "pytest-benchmark"}
        if not data:
            text = "has no samples: save with --benchmark-save-data or --benchmark-json"
            cases.append(case | {"status": "error", "reason": f"{label} {text}"})
            continue
        case |= {"status": "measured", "ns": [float(f"{seconds * 1e9:.6g}") for seconds in data]}
        extra = benchmark.get("extra_info") or {}
        evidence = extra.get("geoact")
        cases.append(case | (evidence if isinstance(evidence, dict) else {}))
    environment = machine.get("geoact") or {
        "cpu": cpu.get("brand_raw") or machine.get("processor"),
        "processors": cpu.get("count"),
        "system": f"{machine.get('system')} {machine.get('machine')}",
        "python": machine.get("python_version"),
    }
    commit = (found.get("commit_info") or {}).get("id")
    environment = {**environment, "commit": commit, "date": found.get("datetime")}
    return checked(
        {
            "schema": SCHEMA,
            "kind": KIND,
            "suite": "pytest-benchmark",
            "cache": "warm",
            "environment": environment,
            "cases": cases,
            "rows": [],
            "groups": {},
        },
        name,
    )


def to_pytest_benchmark(document: Mapping[str, Any]) -> dict[str, Any]:
    """The measured cases as pytest-benchmark would have stored them, for its own ``compare`` and histogram."""
    environment = document["environment"]
    benchmarks = []
    for case in measured(document).values():
        benchmarks.append(
            {
                "group": None,
                "name": case["name"],
                "fullname": case["name"],
                "params": case.get("axes") or None,
                "param": None,
                "extra_info": {"geoact": {k: v for k, v in case.items() if k not in ("ns", "ceiling_ns")}},
                "options": {"disable_gc": False, "timer": case.get("clock"), "warmup": True},
                "stats": _their_stats([ns / 1e9 for ns in case["ns"]]),
            }
        )
    return {
        "machine_info": {
            "node": "",
            "processor": "",
            "machine": str(environment.get("system", "")).partition(" ")[2],
            "system": str(environment.get("system", "")).partition(" ")[0],
            "python_version": environment.get("python"),
            "cpu": {"brand_raw": environment.get("cpu"), "count": environment.get("processors")},
            "geoact": dict(environment),
        },
        "commit_info": {"id": environment.get("commit"), "dirty": environment.get("sources_changed")},
        "benchmarks": benchmarks,
        "datetime": environment.get("date"),
        "version": "5.1.0",
    }


def _their_stats(seconds: list[float]) -> dict[str, Any]:
    """The numbers that pytest-benchmark stores beside the data."""
    import statistics

    from geoact.bench.summary import Summary

    summary = Summary.of(seconds)
    mean = statistics.fmean(seconds)
    stddev = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    return {
        "min": summary.minimum,
        "max": max(seconds),
        "mean": mean,
        "stddev": stddev,
        "rounds": len(seconds),
        "median": summary.median,
        "iqr": summary.q3 - summary.q1,
        "q1": summary.q1,
        "q3": summary.q3,
        "iqr_outliers": summary.outliers,
        "stddev_outliers": sum(abs(s - mean) > stddev for s in seconds),
        "outliers": f"{sum(abs(s - mean) > stddev for s in seconds)};{summary.outliers}",
        "ld15iqr": summary.minimum,
        "hd15iqr": max(seconds),
        "ops": 1 / mean if mean else 0,
        "total": sum(seconds),
        "data": seconds,
        "iterations": 1,
    }
