"""The two published claims, and how a comparison of measured numbers bears on each.

Nothing here knows what was measured: a verdict follows from which side kept more, quantity by quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CLAIMS = (
    "ReLU destroys geometric context, sigmoid preserves it",
    "Sigmoid destroys geometric context, ReLU preserves it",
)
FAVOURED = ("sigmoid", "relu")
"""Which activation each claim says preserves, in the order of ``CLAIMS``."""


@dataclass(frozen=True)
class Comparison:
    """One quantity of both activations; ``keeps_more`` is "sigmoid", "relu" or "neither"."""

    quantity: str
    sigmoid: float
    relu: float
    margin: float
    keeps_more: str


def higher_keeps(quantity: str, sigmoid: float, relu: float, margin: float) -> Comparison:
    """Compare where the higher value keeps more; a difference within ``margin`` decides nothing."""
    difference = sigmoid - relu
    decided = abs(difference) > margin  # False for NaN, which decides nothing either
    return Comparison(
        quantity, sigmoid, relu, margin, ("sigmoid" if difference > 0 else "relu") if decided else "neither"
    )


@dataclass(frozen=True)
class Finding:
    """One result in words. ``about``: an axis of geometry, or "outcome" for what a trained network scores."""

    title: str
    about: str
    text: str
    comparisons: list[Comparison]

    @property
    def keepers(self) -> set[str]:
        """The activations that kept more in at least one comparison."""
        return {comparison.keeps_more for comparison in self.comparisons} - {"neither"}

    def verdict(self, claim: int) -> str:
        """Say how the comparisons bear on a claim: supports, contradicts, supports in part, or undecided."""
        keepers = self.keepers
        if not keepers:
            return "undecided"
        if len(keepers) == len(FAVOURED):
            return "supports in part"
        return "supports" if FAVOURED[claim] in keepers else "contradicts"


def conclusion(findings: Sequence[Finding]) -> list[str]:
    """Close: for each claim which findings speak for it and which against, then what follows."""
    sentences = []
    for index, claim in enumerate(CLAIMS):
        groups = {
            kind: _titles(findings, index, kind) for kind in ("supports", "supports in part", "contradicts")
        }
        parts = [f"{_PHRASES[kind]} {_join(titles)}" for kind, titles in groups.items() if titles]
        sentences.append(f"“{claim}”: {'; '.join(parts) if parts else 'no finding decides it either way'}.")
    sentences.append(_together(findings))
    return sentences


_PHRASES = {
    "supports": "supported by",
    "supports in part": "supported in part by",
    "contradicts": "contradicted by",
}


def _titles(findings: Sequence[Finding], claim: int, kind: str) -> list[str]:
    return [finding.title.lower() for finding in findings if finding.verdict(claim) == kind]


def _together(findings: Sequence[Finding]) -> str:
    keepers = set().union(*(finding.keepers for finding in findings)) if findings else set()
    if keepers == set(FAVOURED):
        return (
            "Taken together neither claim holds as it stands: which activation keeps more depends on the "
            "quantity asked "
            "for, on the storage precision and on the training setting, so no single score can replace the "
            "axes."
        )
    if keepers:
        winner = "sigmoid" if keepers == {"sigmoid"} else "ReLU"
        return (
            f"In this run every decided comparison favours {winner}; the axes are still reported one by one."
        )
    return "In this run no comparison separates the two activations."


def _join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
