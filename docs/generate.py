"""Writes the tables of the documentation that follow from the code or from stored measurements.

    python docs/generate.py [--check]

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` in README.md or in docs/*.md; what is between
the two is replaced. ``--check`` changes nothing and ends with 1 where a table is not what the code says. Tables of
stored measurements are made in measured.py, those of the study in studied.py, beside this file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import geoact
import measured
import studied
from geoact import _core, _derived, _tiers
from geoact._derived import Derived
from geoact._files import write_atomic
from geoact._tiers import Tier
from measured import ROOT, code, table

BLOCK = re.compile(r"(<!-- generated: ([a-z_-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


# --- from the registry --------------------------------------------------------------------------------------


def _promise(row: geoact.Activation) -> str:
    if row.ulp["float32"] <= 0.5:
        return "correctly rounded"
    return f"{row.ulp['float32']:g} / {row.ulp['float64']:g}"


def activations() -> str:
    """Show all rows of the registry."""
    rows = []
    for name, row in geoact.activations().items():
        given = ", ".join(p.name if p.default is None else f"{p.name}={p.default:g}" for p in row.parameters)
        given += "approximate='none'" if row.variants else ""
        trained = " (trained)" if row.trainable else ""
        rows.append([code(name), code(row.formula), code(given) + trained, code(row.saves), _promise(row), row.source])
    return table(["name", "y =", "parameters", "backward reads", "max ULP float32 / float64", "source or note"], rows)


def activations_short() -> str:
    """Show the registry in three columns, for the README."""
    rows = []
    for name, row in geoact.activations().items():
        given = ", ".join(p.name if p.default is None else f"{p.name}={p.default:g}" for p in row.parameters)
        rows.append([code(name), code(row.formula), code(given)])
    return table(["name", "y =", "parameters"], rows)


def gates() -> str:
    """Show all rows of the registry of gates."""
    rows = []
    for name, row in geoact.gates().items():
        given = ", ".join(f"{p.name}={p.default:g}" for p in row.parameters)
        given += "approximate='none'" if row.variants else ""
        rows.append([code(name), code(row.formula), code(given), row.source])
    return table(["name", "y =", "parameters", "source or note"], rows)


# --- from the derived values --------------------------------------------------------------------------------


def _derived_rows(rows: Iterable[Derived | Tier]) -> str:
    return table(["name", "formula", "meaning"], [[code(r.name), code(r.formula), r.doc] for r in rows])


def _cells(direction: str) -> str:
    words = {
        "sum": "a + b",
        "minimum": "min(a, b)",
        "maximum": "max(a, b)",
        "mean": "Chan: mean_a + (mean_b - mean_a) n_b / n",
        "squared_deviation": "Chan: M2_a + M2_b + d^2 n_a n_b / n",
        "co_deviation": "Chan: C_a + C_b + d_x d_y n_a n_b / n",
    }
    return table(["cell", "merge of a and b"], [[code(n), code(words[m])] for n, m in _core.fields(direction)])


# --- of the torch front end ---------------------------------------------------------------------------------


def scalars() -> str:
    """Show the columns of a reading."""
    from geoact.torch.reading import BACKWARD, FORWARD

    rows = [[code(s.name), s.doc] for s in FORWARD + BACKWARD]
    return table(["column", "what it is"], rows)


def rules() -> str:
    """Show the default rules of a monitor."""
    from geoact.torch.alerts import DEFAULT_RULES

    return table(
        ["rule", "of", "threshold", "why"],
        [[code(r.name), code(r.scalar), f"{r.threshold:g}", r.doc] for r in DEFAULT_RULES],
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "activations": activations,
    "activations-short": activations_short,
    "gates": gates,
    "cells-forward": lambda: _cells("forward"),
    "cells-backward": lambda: _cells("backward"),
    "derived-counts": lambda: _derived_rows(_derived.COUNTS),
    "derived-moments": lambda: _derived_rows(_derived.MOMENTS),
    "derived-layer": lambda: _derived_rows(_derived.LAYER_COUNTS + _derived.LAYER_MOMENTS),
    "tiers-histogram": lambda: _derived_rows(_tiers.HISTOGRAM),
    "tiers-pairs": lambda: _derived_rows(_tiers.PAIRS),
    "tiers-sketch": lambda: _derived_rows(_tiers.SKETCH),
    "derived-gradient": lambda: _derived_rows(_derived.GRADIENT + _derived.LAYER_GRADIENT),
    "scalars": scalars,
    "rules": rules,
    **measured.BLOCKS,
    **studied.BLOCKS,
}


def regenerated(text: str, path: Path) -> str:
    """Renew every generated block in the text of a file."""

    def renew(match: re.Match[str]) -> str:
        name = match[2]
        if name not in BLOCKS:
            raise ValueError(f"{path.name}: no table is called {name!r} (there are: {', '.join(BLOCKS)})")
        return match[1] + BLOCKS[name]() + match[3]

    return BLOCK.sub(renew, text)


def main() -> int:
    """Renew the tables, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 if a table is stale")
    check = parser.parse_args().check
    stale = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if not path.exists():
            continue
        old = path.read_text(encoding="utf-8")
        new = regenerated(old, path)
        if new == old:
            continue
        stale += 1
        print(f"{path.relative_to(ROOT)}: {'stale; run python docs/generate.py' if check else 'tables renewed'}")
        if not check:
            write_atomic(path, new)
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
