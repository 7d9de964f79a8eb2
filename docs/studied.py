"""The parts of the documentation that show the study: rules from the code, numbers from docs/study/results.json.

docs/generate.py writes them into the pages. A part without a stored run says which command makes one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from measured import table

STORED = Path(__file__).parent / "study" / "results.json"
COMMAND = "geoact study --full --out docs/study"
NAMES = {"relu": "ReLU", "bn_relu": "BN + ReLU", "tat": "TAT", "gal": "GAL", "gaussian_gal": "Gaussian GAL"}
SHOWN = ("sigmoid", "centered_sigmoid", "tanh", "relu", "bn_relu", "tat", "gal", "gaussian_gal")


@cache
def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _of_run(make: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    @wraps(make)
    def block() -> str:
        stored = _read(STORED)
        if stored is None or not stored.get("questions"):
            return f"Not measured yet: run `{COMMAND}`.\n"
        return make(stored)

    return block


def _name(activation: str) -> str:
    return NAMES.get(activation, activation.replace("_", " "))


def _between(value: dict[str, Any], digits: int = 2) -> str:
    if value["value"] is None:
        return "–"
    parts = [_number(value[key], digits) for key in ("value", "low", "high")]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if value and abs(value) < 10**-digits else f"{value:.{digits}f}"


def _paragraphs(text: str) -> str:
    return text.replace("\n", "\n\n")


def rules() -> str:
    """Show the questions, their outcomes and rules."""
    from geoact.study.questions.rules import QUESTIONS

    parts = [f"**{q.number}. {q.asks}** {q.rule}\n\nMay come out: {'; '.join(q.outcomes)}.\n" for q in QUESTIONS]
    return "\n".join(parts)


@_of_run
def run(stored: dict[str, Any]) -> str:
    """Say on what and how much was run."""
    machine, found = stored["machine"], stored["questions"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    failed = f" {len(found['failures'])} units failed." if found["failures"] else ""
    return (
        f'Size "{found["sizes"]["name"]}": {found["units"]} units, {found["seconds"] / 60:.0f} minutes of processor '
        f"time; code {found['code']}.{failed} Measured on {machine['processor']}, {machine['cores']} cores, Python "
        f"{machine['python']}, {packages}, {machine['measured_at']}.\n"
    )


@_of_run
def answers(stored: dict[str, Any]) -> str:
    """Show every question with its answer."""
    return table(["question", "answer"], [[a["asks"], a["outcome"]] for a in stored["questions"]["answers"]])


def _text(number: int) -> Callable[[], str]:
    def text(stored: dict[str, Any]) -> str:
        found = [a for a in stored["questions"]["answers"] if a["number"] == number]
        return (
            f"**{found[0]['outcome'][0].upper()}{found[0]['outcome'][1:]}.** {_paragraphs(found[0]['text'])}\n"
            if found
            else ("Not answered: units of this question failed.\n")
        )

    text.__name__ = f"answer_{number}"
    return _of_run(text)


@_of_run
def crossing(stored: dict[str, Any]) -> str:
    """Say where the shapes of sigmoid and ReLU cross."""
    row = stored["questions"]["rows"]["crossing"][0]
    at = min(range(len(row["deviations"])), key=lambda i: abs(row["deviations"][i] - 1))
    share = {name: row["shares"][name][at] for name in ("sigmoid", "relu")}
    return (
        f"On Gaussian input of standard deviation {row['deviations'][at]:.2f} sigmoid has a linear share of "
        f"{share['sigmoid']:.3f} and ReLU of {share['relu']:.3f}; the two are equal at a standard deviation of "
        f"{row['crossing']:.2f}, beyond which ReLU has more.\n"
    )


@_of_run
def axes(stored: dict[str, Any]) -> str:
    """Show the four axes of untrained networks at the largest depth that all have, in float32."""
    sizes, rows = stored["questions"]["sizes"], stored["questions"]["rows"]["initial"]
    depth = sorted(sizes["initial_depths"])[len(sizes["initial_depths"]) * 2 // 3]
    parts = []
    for data in (d for d in ("spirals", "digits") if d in sizes["initial_data"]):
        lines = []
        for name in SHOWN:
            for row in rows:
                key = (row["data"], row["activation"], row["init"], row["width"], row["dtype"], row["depth"])
                if key == (data, name, "own", sizes["initial_width"], "float32", depth):
                    quantities = ("distance", "spearman", "effective_bits", "gradient")
                    lines.append([_name(name), *(_between(row[quantity]) for quantity in quantities)])
        head = [f"{data}, layer {depth}", "scale: distance² kept", "shape: rank correlation", "resolution: bits",
                "gradient: ‖dx‖²/‖dy‖²"]  # fmt: skip
        parts.append(table(head, lines))
    return (
        "\n".join(parts)
        + f"\nMean over {sizes['initial_seeds']} seeds [95 % interval], width "
        + (f"{sizes['initial_width']}, float32.\n")
    )


@_of_run
def preservation(stored: dict[str, Any]) -> str:
    """Show the means of every situation of question 1."""
    found = next((a["evidence"] for a in stored["questions"]["answers"] if a["number"] == 1), [])
    rows = [[_name(name), *(_number(row["means"].get(name), 2) for row in found)] for name in SHOWN]
    return table(["rank correlation", *(row["situation"] for row in found)], rows)


@_of_run
def ladder(stored: dict[str, Any]) -> str:
    """Show training accuracy by depth."""
    rows, sizes = stored["questions"]["rows"]["ladder"], stored["questions"]["sizes"]
    depths = sorted({row["depth"] for row in rows})
    lines = []
    for name in sizes["ladder"]:
        by_depth = {row["depth"]: row for row in rows if row["activation"] == name}
        lines.append([_name(name), *(_between(by_depth[d]["train"]) if d in by_depth else "–" for d in depths)])
    return table(["training accuracy, layers", *map(str, depths)], lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "study-rules": rules,
    "study-run": run,
    "study-answers": answers,
    **{f"study-answer-{word}": _text(n) for n, word in enumerate(("one", "two", "three", "four", "five"), start=1)},
    "study-crossing": crossing,
    "study-axes": axes,
    "study-preservation": preservation,
    "study-ladder": ladder,
}
