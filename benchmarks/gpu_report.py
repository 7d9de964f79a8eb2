"""Result files of the GPU benchmark, and the texts in README.md and docs/gpu.md that are made from them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from geoact._files import write_atomic

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
UNMEASURED = (
    "No GPU has been measured yet, so there are no GPU figures. `make gpu`, on a machine with one NVIDIA GPU,\n"
    "measures them, and `python benchmarks/gpu.py --readme` writes them here.\n"
)
PAGES = {"bars": ROOT / "README.md", "rows": ROOT / "docs" / "gpu.md"}
"""The block ``<!-- gpu NAME -->`` ... ``<!-- /gpu NAME -->`` of each page."""


def slug(name: str) -> str:
    """Name of a device, for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(path: Path, document: dict[str, Any]) -> None:
    """Compact: one line per row and per group."""
    lines = []
    for key, value in document.items():
        if isinstance(value, (list, dict)) and key in ("rows", "samples"):
            parts = [json.dumps(v, separators=(",", ":")) for v in value] if isinstance(value, list) else [
                f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in value.items()
            ]  # fmt: skip
            open_, close = "[]" if isinstance(value, list) else "{}"
            inner = ",\n".join(parts)
            lines.append(f"{json.dumps(key)}:{open_}\n{inner}\n{close}")
        else:
            lines.append(f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}")
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def stored(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All GPU results."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return [document for document in found if document.get("kind") == "gpu"]


# --- tables -------------------------------------------------------------------------------------------------


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def number(row: dict[str, Any], value: float) -> str:
    """A median as it is shown."""
    if row.get("unit") == "%":
        return f"{value:.1%}"
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.2f}"


def _worst(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row furthest on the wrong side of its limit."""
    highest_is_worst = rows[0]["limit"].startswith(("<=", "="))
    return (max if highest_is_worst else min)(rows, key=lambda row: row["median"])


def summary(document: dict[str, Any]) -> list[list[str]]:
    """One line per bar and dtype that has a limit: how many cases meet it, the worst and the median case."""
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        if row.get("limit"):
            dtype = row.get("labels", {}).get("dtype", "")
            families.setdefault((row["bar"], dtype), []).append(row)
    lines = []
    for (bar, dtype), rows in families.items():
        measured = sorted((r for r in rows if "median" in r), key=lambda r: r["median"])
        met = sum(r.get("met") == "yes" for r in rows)
        wrong = sum(r.get("met") == "error" for r in rows)
        shares = [f"{met} of {len(measured)}"] + ([f"{wrong} ERRORS"] if wrong else [])
        if not measured:
            reasons = "; ".join(dict.fromkeys(r.get("reason", "") for r in rows))
            lines.append([bar, dtype, rows[0]["limit"], f"not measured: {reasons}", "", ", ".join(shares)])
            continue
        worst, middle = _worst(measured), measured[(len(measured) - 1) // 2]
        where = worst["group"].partition(",")[0]
        lines.append([bar, dtype, measured[0]["limit"], f"{number(worst, worst['median'])} ({where})",
                      number(middle, middle["median"]), ", ".join(shares)])  # fmt: skip
    return lines


def machine(document: dict[str, Any]) -> str:
    """Where and when, and what a reader must know."""
    environment = document["environment"]
    gpu, versions = environment["gpu"], environment["versions"]
    changed = " plus uncommitted changes" if environment.get("sources_changed") else ""
    named = ("torch", "triton", "cupy-cuda13x")
    packages = ", ".join(f"{name} {versions[name]}" for name in named if versions.get(name))
    text = (
        f"Measured on {gpu['name']}, driver {gpu.get('driver', 'not known')}, CUDA {gpu['cuda']}, {packages}, "
        f"commit `{str(environment['commit'])[:10]}`{changed}, {environment['date'][:10]}; L2 {document['cache']} "
        f"unless a row says otherwise."
    )
    flagged = sum(bool(row.get("flags")) for row in document["rows"])
    return text + (f" {flagged} rows are flagged (clock, throttling or few samples).\n" if flagged else "\n")


def bars(documents: list[dict[str, Any]]) -> str:
    """The block of README.md."""
    head = ["bar", "dtype", "limit", "worst case", "median case", "cases that meet it"]
    return "\n".join(f"{_table(head, summary(d))}\n{machine(d)}" for d in documents) or UNMEASURED


def preferences(document: dict[str, Any]) -> str:
    """The faster backend for every activation, dtype and size; empty if there is only one."""
    table = document.get("preferences", {})
    columns = list(dict.fromkeys((d, n) for dtypes in table.values() for d, sizes in dtypes.items() for n in sizes))
    lines = [[name, *(dtypes.get(d, {}).get(n, "") for d, n in columns)] for name, dtypes in table.items()]
    if not lines:
        return ""
    return (
        _table(["faster backend, moments per tensor", *(f"{d}, {n}" for d, n in columns)], lines)
        + '\nColumns: dtype and elements; "either" where the interval of the ratio contains 1.\n\n'
    )


def rows(documents: list[dict[str, Any]]) -> str:
    """The block of docs/gpu.md: every row, those that compare our backends as one table."""
    parts = []
    for document in documents:
        lines = []
        for row in document["rows"]:
            if "elements" in row.get("labels", {}):
                continue
            known = "median" in row
            value = "not measured: " + row.get("reason", "")
            if known:
                value = f"{number(row, row['median'])} ({number(row, row['q1'])} .. {number(row, row['q3'])})"
            notes = "; ".join([*row.get("flags", []), *([row["reason"]] if known and row.get("reason") else [])])
            lines.append([row["group"], row["bar"], row.get("limit", ""), value, row.get("met", ""), notes])
        head = ["case", "bar", "limit", "median (quartiles)", "met", "notes"]
        parts.append(f"{_table(head, lines)}\n{preferences(document)}{machine(document)}")
    return "\n".join(parts) or UNMEASURED


BLOCKS = {"bars": bars, "rows": rows}


def renewed(text: str, name: str, documents: list[dict[str, Any]]) -> str:
    """The page with its block made anew; ValueError if it has none."""
    begin, end = f"<!-- gpu {name} -->\n", f"<!-- /gpu {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no block {begin.strip()} ... {end}")
    return before + begin + BLOCKS[name](documents) + end + after


def renew() -> list[str]:
    """Write the blocks of all pages; names those that changed."""
    documents, changed = stored(), []
    for name, path in PAGES.items():
        old = path.read_text(encoding="utf-8")
        new = renewed(old, name, documents)
        if new != old:
            write_atomic(path, new)
            changed.append(path.name)
    return changed
