"""The two published claims, and how a comparison of measured numbers bears on each.

Nothing here knows what was measured: a verdict follows from which side kept more, quantity by quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoact.study.wording import listed

CLAIMS = (
    "ReLU destroys geometric context, sigmoid preserves it",
    "Sigmoid destroys geometric context, ReLU preserves it",
)
FAVOURED = ("sigmoid", "relu")
"""Which activation each claim says preserves, in the order of ``CLAIMS``."""


@dataclass(frozen=True)
class Comparison:
    """One quantity of both activations; ``keeps_more`` is "sigmoid", "relu" or "neither".

    ``axis`` is scale, shape, resolution or gradient, or "accuracy" for what a trained network scores.
    """

    quantity: str
    axis: str
    sigmoid: float
    relu: float
    margin: float
    keeps_more: str


def higher_keeps(quantity: str, axis: str, sigmoid: float, relu: float, margin: float) -> Comparison:
    """Compare where the higher value keeps more; a difference within ``margin`` decides nothing."""
    difference = sigmoid - relu
    decided = abs(difference) > margin  # False for NaN, which decides nothing either
    return Comparison(
        quantity,
        axis,
        sigmoid,
        relu,
        margin,
        ("sigmoid" if difference > 0 else "relu") if decided else "neither",
    )


@dataclass(frozen=True)
class Finding:
    """One result in words, and the comparisons its verdicts follow from."""

    title: str
    text: str
    comparisons: list[Comparison]

    @property
    def about(self) -> str:
        """The axes compared, each named once."""
        return ", ".join(dict.fromkeys(comparison.axis for comparison in self.comparisons))

    @property
    def keepers(self) -> set[str]:
        """The activations that kept more in at least one comparison."""
        return {comparison.keeps_more for comparison in self.comparisons} - {"neither"}

    def verdict(self, claim: int) -> str:
        """Say how the comparisons bear on a claim; "in part" where they differ or some are open."""
        keepers = self.keepers
        if not keepers:
            return "undecided"
        kind = "supports" if FAVOURED[claim] in keepers else "contradicts"
        unanimous = len({comparison.keeps_more for comparison in self.comparisons}) == 1
        return kind if unanimous else f"{kind} in part"


def conclusion(findings: Sequence[Finding]) -> list[str]:
    """Close: for each claim which findings speak for it and which against, then what follows."""
    sentences = []
    for index, claim in enumerate(CLAIMS):
        groups = {kind: _titles(findings, index, kind) for kind in _PHRASES}
        parts = [f"{_PHRASES[kind]} {listed(titles)}" for kind, titles in groups.items() if titles]
        sentences.append(f"“{claim}”: {'; '.join(parts) if parts else 'no finding decides it either way'}.")
    return [*sentences, _together(findings)]


_PHRASES = {
    "supports": "supported by",
    "supports in part": "supported in part by",
    "contradicts in part": "contradicted in part by",
    "contradicts": "contradicted by",
}


def _titles(findings: Sequence[Finding], claim: int, kind: str) -> list[str]:
    return [finding.title[0].lower() + finding.title[1:] for finding in findings if finding.verdict(claim) == kind]


def _together(findings: Sequence[Finding]) -> str:
    leads = {keeper: _leads(findings, keeper) for keeper in FAVOURED}
    if all(leads.values()):
        return (
            "Taken together neither claim holds as it stands. Sigmoid keeps more in at least one comparison "
            "of "
            f"{listed(leads['sigmoid'])}, ReLU in at least one of {listed(leads['relu'])}; no single score "
            "could say "
            "both."
        )
    if any(leads.values()):
        winner = "sigmoid" if leads["sigmoid"] else "ReLU"
        return f"In this run every decided comparison favours {winner}; the axes stay separate all the same."
    return "In this run no comparison separates the two activations."


def _leads(findings: Sequence[Finding], keeper: str) -> list[str]:
    """List the axes of the comparisons that ``keeper`` wins, each named once."""
    comparisons = [comparison for finding in findings for comparison in finding.comparisons]
    return list(dict.fromkeys(c.axis for c in comparisons if c.keeps_more == keeper))
