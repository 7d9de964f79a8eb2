"""The five questions, the possible outcomes of each, and the rule that decides: stated before anything was run.

Functions of numbers, and nothing else: they know neither activations nor data. docs/study.md shows this table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geoact.study.questions.statistics import Interval

RANK_MARGIN = 0.02
"""Rank correlations closer than this count as equal, whatever their sampling error."""
STRONG = 0.3
"""A rank correlation that predicts, instead of merely existing."""
TIME_MARGIN = 0.03
"""Times within 3 % of each other count as equal."""


@dataclass(frozen=True)
class Question:
    """What is asked, what may come out, and what decides."""

    number: int
    short: str
    asks: str
    outcomes: tuple[str, ...]
    rule: str


QUESTIONS = (
    Question(
        1,
        "preservation",
        "Who preserves relative distances: at initialisation, in bfloat16 and float16, and after training with tuned "
        "rates?",
        ("sigmoid everywhere", "ReLU everywhere", "it depends", "undecided"),
        "Rank correlation of pair distances, network input to layer; sigmoid minus ReLU in every cell (data and depth, "
        "mean over seeds; trained: also width and method), in each of the situations: initialisation in each type, "
        "trained, trained and rounded. A situation is decided when the interval over cells excludes 0 and the mean "
        f"exceeds {RANK_MARGIN:g}. All decided for one: that one everywhere. Both win somewhere, or some are decided "
        "and others open: it depends. None decided: undecided. Whom the best activation of a situation ties with is "
        "found in the same way.",
    ),
    Question(
        2,
        "prediction",
        "Does preservation predict test accuracy, or robustness to input noise?",
        ("predicts", "predicts weakly", "does not predict", "predicts the opposite"),
        "Rank correlation of the preserved distance order (last hidden layer) with accuracy, and with the share of it "
        "left under noise, over all trained runs, within strata of equal data, depth, width and method; the interval "
        "resamples whole settings (an activation in a stratum). It includes 0: does not predict. Negative: the "
        f"opposite. Positive: predicts from {STRONG:g} on, weakly below. Accuracy and robustness have a verdict each.",
    ),
    Question(
        3,
        "cost",
        "Does ReLU cost less at inference than sigmoid: in time, and in bits?",
        ("costs less", "costs the same", "costs more", "it depends", "undecided"),
        "Time of ReLU over that of sigmoid, taking turns, median of ratios within rounds, for each type and size, "
        "alone and in a whole network: less (more) when the interval lies below (above) 1 by more than "
        f"{TIME_MARGIN:.0%}, the same when it lies within, else undecided. One answer in all cases, or it depends. "
        "Bits are reported beside it: effective bits of the first layer at initialisation in the 16-bit types, decided "
        "when the interval over cells (data and type) of the difference excludes 0.",
    ),
    Question(
        4,
        "dead units",
        "Do dead units cause ReLU's losses?",
        ("cause", "contribute", "do not cause"),
        "Two tests. Association: over ReLU runs at all rates, the share of dead units and accuracy correlate "
        "negatively within strata of equal data and depth (interval over data, depth and rate below 0). Intervention: "
        "leaky ReLU with a slope of .01 from the same weights, in the same batches and at the rate that suits ReLU "
        "scores higher (interval over all pairs of equal data, depth and seed above 0). Both: cause. The intervention "
        "alone, or the association together with a gain over all rates: contribute. Else: do not cause.",
    ),
    Question(
        5,
        "depth",
        "Does an adaptive activation (GAL, Gaussian GAL, TAT) train deeper than BatchNorm and ReLU, and does GAL train "
        "deeper than TAT?",
        ("deeper", "as deep", "less deep"),
        "Two spirals: the largest depth of the ladder at which training accuracy reaches 95 % in the fixed budget, for "
        "each seed (0 doublings where none does), in doublings, paired by seed. Deeper (less deep) when the interval "
        "of the mean difference lies above (below) 0. Where both reach the top of the ladder nothing can be said.",
    ),
)


def winner(difference: Interval, margin: float, first: str, second: str) -> str:
    """Say which of two is ahead, given first minus second; "neither" unless the interval and the margin say so."""
    if not difference.decided or abs(difference.value) <= margin:
        return "neither"
    return first if difference.value > 0 else second


def preservation(winners: Sequence[str]) -> str:
    """Question 1 from the winner of every situation."""
    decided = {name for name in winners if name != "neither"}
    if not decided:
        return "undecided"
    if len(decided) > 1 or "neither" in winners:
        return "it depends"
    return {"sigmoid": "sigmoid everywhere", "relu": "ReLU everywhere"}[decided.pop()]


def prediction(correlation: Interval) -> str:
    """Question 2 from one correlation."""
    if not correlation.decided:
        return "does not predict"
    if correlation.value < 0:
        return "predicts the opposite"
    return "predicts" if correlation.value >= STRONG else "predicts weakly"


def cost(ratios: Sequence[Interval]) -> str:
    """Question 3 from the ratios of time, ReLU to sigmoid."""
    verdicts = {_cost_of_one(ratio) for ratio in ratios}
    return verdicts.pop() if len(verdicts) == 1 else "it depends"


def _cost_of_one(ratio: Interval) -> str:
    if ratio.high < 1 - TIME_MARGIN:
        return "costs less"
    if ratio.low > 1 + TIME_MARGIN:
        return "costs more"
    return "costs the same" if ratio.low >= 1 - TIME_MARGIN and ratio.high <= 1 + TIME_MARGIN else "undecided"


def dead_units(association: Interval, gain_at_chosen: Interval, gain_at_all: Interval) -> str:
    """Question 4 from the correlation of dead units with accuracy, and what leaky ReLU gains."""
    associated, helps = association.high < 0, gain_at_chosen.low > 0
    if associated and helps:
        return "cause"
    return "contribute" if helps or (associated and gain_at_all.low > 0) else "do not cause"


def trained_depth(difference: Interval) -> str:
    """Question 5 from the difference of doublings."""
    if not difference.decided:
        return "as deep"
    return "deeper" if difference.value > 0 else "less deep"


def largest_depth(reached: Mapping[int, float], threshold: float) -> int:
    """Return the largest depth whose accuracy reaches the threshold; 0 where none does."""
    return max((depth for depth, accuracy in reached.items() if accuracy >= threshold), default=0)
