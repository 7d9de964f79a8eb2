"""The rules applied to the rows: one answer per question, in words that follow from its numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from geoact.study.plotting import shown
from geoact.study.questions import rules
from geoact.study.questions.rows import Row, interval
from geoact.study.questions.rules import QUESTIONS, STRONG
from geoact.study.questions.sizes import Sizes
from geoact.study.questions.statistics import Interval, mean_interval, rank_correlation
from geoact.study.wording import coefficient, listed, number

NARROW = ("bfloat16", "float16")
Rows = dict[str, list[Row]]


@dataclass(frozen=True)
class Answer:
    """The outcome of a question, what was found in words, and the numbers the rule saw."""

    number: int
    short: str
    asks: str
    outcome: str
    text: str
    evidence: list[Row] = field(default_factory=list)


def all_answers(rows: Rows, sizes: Sizes) -> list[Answer]:
    """Answer every question that there are rows for."""
    answering: list[tuple[str, Callable[[Rows, Sizes], tuple[str, str, list[Row]]]]] = [
        ("initial", _preservation),
        ("trained", _prediction),
        ("inference", _cost),
        ("paired", _dead_units),
        ("ladder", _depth),
    ]
    return [
        Answer(question.number, question.short, question.asks, *answer(rows, sizes))
        for question, (needed, answer) in zip(QUESTIONS, answering, strict=True)
        if rows.get(needed)
    ]


def _cells(rows: Sequence[Row], keys: Sequence[str], value: str) -> dict[str, dict[tuple[object, ...], float]]:
    """Means over seeds: activation -> cell -> value."""
    found: dict[str, dict[tuple[object, ...], float]] = defaultdict(dict)
    for row in rows:
        mean = row[value]["value"]
        if mean is not None and np.isfinite(mean):
            found[row["activation"]][tuple(row[key] for key in keys)] = mean
    return found


def _difference(cells: dict[str, dict[tuple[object, ...], float]], first: str, second: str) -> Interval:
    shared = cells[first].keys() & cells[second].keys()
    return mean_interval([cells[first][cell] - cells[second][cell] for cell in sorted(shared, key=str)])


def situations(rows: Rows, sizes: Sizes) -> dict[str, dict[str, dict[tuple[object, ...], float]]]:
    """Return the cells of each situation of question 1: situation -> activation -> cell -> rank correlation."""
    same = [r for r in rows["initial"] if (r["init"], r["width"]) == ("own", sizes.initial_width)]
    found = {
        f"initialised, {dtype}": _cells([r for r in same if r["dtype"] == dtype], ("data", "depth"), "spearman")
        for dtype in sizes.initial_dtypes
    }
    keys = ("data", "depth", "width", "method")
    found["trained, float32"] = _cells(rows["trained"], keys, "spearman")
    for dtype in NARROW:
        found[f"trained, rounded to {dtype}"] = _cells(rows["trained"], keys, f"spearman_{dtype}")
    return {name: cells for name, cells in found.items() if cells}


def _preservation(rows: Rows, sizes: Sizes) -> tuple[str, str, list[Row]]:
    evidence: list[Row] = []
    sentences = []
    for name, cells in situations(rows, sizes).items():
        difference = _difference(cells, "sigmoid", "relu")
        ahead = rules.winner(difference, rules.RANK_MARGIN, "sigmoid", "relu")
        means = {activation: float(np.mean(list(values.values()))) for activation, values in cells.items()}
        best = max(means, key=lambda activation: means[activation])
        tied = [
            other
            for other in means
            if other != best
            and rules.winner(_difference(cells, best, other), rules.RANK_MARGIN, best, other) == "neither"
        ]
        evidence.append(
            {
                "situation": name,
                "sigmoid_minus_relu": interval(difference),
                "ahead": ahead,
                "best": best,
                "tied": tied,
                "means": {key: float(f"{value:.6g}") for key, value in means.items()},
            }
        )
        verdict = "neither is ahead" if ahead == "neither" else f"{shown(ahead)} keeps more"
        with_it = f" (not told apart from {listed([shown(other) for other in tied])})" if tied else ""
        sentences.append(
            f"{name[0].upper()}{name[1:]}: sigmoid {coefficient(means['sigmoid'])}, ReLU {coefficient(means['relu'])}, "
            f"difference {_signed(difference)}: {verdict}; the most is kept by {shown(best)} at "
            f"{coefficient(means[best])}{with_it}."
        )
    return rules.preservation([row["ahead"] for row in evidence]), "\n".join(sentences), evidence


def _prediction(rows: Rows, sizes: Sizes) -> tuple[str, str, list[Row]]:
    runs = [(row, run) for row in rows["trained"] for run in row["runs"]]
    clusters = [(r["activation"], r["data"], r["depth"], r["width"], r["method"]) for r, _ in runs]
    strata: dict[str, Sequence[Hashable]] = {
        "within equal data, depth, width and method": [cluster[1:] for cluster in clusters],
        "within equal depth": [(cluster[2],) for cluster in clusters],
        "over all runs": [()] * len(clusters),
        "between the seeds of one activation and setting": clusters,
    }
    kept = [run["spearman"] for _, run in runs]
    evidence: list[Row] = []
    for target, (how, parts) in product(("accuracy", "robustness"), strata.items()):
        found = rank_correlation(kept, [run[target] for _, run in runs], clusters, parts)
        outcome = rules.prediction(found)
        evidence.append({"target": target, "over": how, "correlation": interval(found), "outcome": outcome})
    for depth in sorted({r["depth"] for r, _ in runs}):
        part = [i for i, (r, _) in enumerate(runs) if r["depth"] == depth]
        for target in ("accuracy", "robustness"):
            found = rank_correlation(
                [kept[i] for i in part], [runs[i][1][target] for i in part], [clusters[i] for i in part],
                [clusters[i][1:] for i in part],
            )  # fmt: skip
            evidence.append(
                {"target": target, "over": f"depth {depth}, within equal data, width and method",
                 "correlation": interval(found), "outcome": rules.prediction(found)}
            )  # fmt: skip
    main = [row for row in evidence if row["over"] == "within equal data, depth, width and method"]
    sentences = [f"{row['target']}: {_of(row['correlation'])}, so preservation {row['outcome']}" for row in main]
    every = [row for row in evidence if row["over"] == "over all runs"]
    text = (
        f"Over {len(runs)} trained networks, within strata of equal data, depth, width and method, what a network "
        f"keeps of the order of distances correlates with {'; with '.join(sentences)}. Over all runs at once the two "
        f"correlations are {_of(every[0]['correlation'])} and {_of(every[1]['correlation'])}: what remains there "
        f"beyond the first two is depth and data acting on both. A correlation counts as prediction from {STRONG:g} on."
    )
    return "; ".join(f"{row['target']}: {row['outcome']}" for row in main), text, evidence


def _cost(rows: Rows, sizes: Sizes) -> tuple[str, str, list[Row]]:
    timed = [row for row in rows["inference"] if row["activation"] == "relu"]
    ratios = [_interval(row["to_sigmoid"]) for row in timed]
    evidence: list[Row] = [
        {"where": r["where"], "dtype": r["dtype"], "values": r["values"], "relu_to_sigmoid": r["to_sigmoid"],
         "outcome": rules.cost([ratio])}
        for r, ratio in zip(timed, ratios, strict=True)
    ]  # fmt: skip
    first = [r for r in rows["initial"] if r["depth"] == min(sizes.initial_depths) and r["dtype"] in NARROW]
    bits = _cells(first, ("data", "dtype"), "effective_bits")
    difference = _difference(bits, "relu", "sigmoid")
    more = rules.winner(difference, 0.0, "relu", "sigmoid")
    in_bits = {"relu_minus_sigmoid": interval(difference), "ahead": more}
    evidence.append({"where": "bits", "dtype": ", ".join(NARROW), **in_bits})
    parts = {
        where: [ratio.value for row, ratio in zip(timed, ratios, strict=True) if row["where"] == where]
        for where in ("alone", "network")
    }
    kept = "neither keeps more" if more == "neither" else f"{shown(more)} keeps more"
    text = (
        f"ReLU takes {_range(parts['alone'])} of the time of sigmoid alone and {_range(parts['network'])} in a whole "
        f"network, over types and sizes. In the 16-bit types the first layer of ReLU keeps "
        f"{number(abs(difference.value), 1)} effective bits {'more' if difference.value > 0 else 'fewer'} than that of "
        f"sigmoid [{number(difference.low, 1)}, {number(difference.high, 1)}]: {kept}."
    )
    return f"time: {rules.cost(ratios)}; bits: {kept}", text, evidence


def _dead_units(rows: Rows, sizes: Sizes) -> tuple[str, str, list[Row]]:
    cells = rows["paired"]
    runs = [(row, run) for row in cells for run in row["runs"]]
    association = rank_correlation(
        [run["dead"] for _, run in runs],
        [run["relu"] for _, run in runs],
        [(row["data"], row["depth"], row["rate"]) for row, _ in runs],
        [(row["data"], row["depth"]) for row, _ in runs],
    )
    chosen = mean_interval([run["leaky"] - run["relu"] for row, run in runs if row["chosen"]])
    every = mean_interval([run["leaky"] - run["relu"] for _, run in runs])
    evidence: list[Row] = [
        {"test": "association of dead units and accuracy", "interval": interval(association)},
        {"test": "leaky ReLU minus ReLU at the rate that suits ReLU", "interval": interval(chosen)},
        {"test": "leaky ReLU minus ReLU at every rate", "interval": interval(every)},
    ]
    dead = [row["dead"]["value"] for row in cells if row["chosen"]]
    text = (
        f"At the rate that suits it {np.mean(dead):.0%} of a ReLU network's units are dead on average. Over all rates "
        f"dead units and accuracy correlate at {_signed(association)}. Leaky ReLU from the same weights scores "
        f"{_percent(chosen)} points higher at that rate, and {_percent(every)} over all rates."
    )
    return rules.dead_units(association, chosen, every), text, evidence


def _depth(rows: Rows, sizes: Sizes) -> tuple[str, str, list[Row]]:
    reached = ladder_depths(rows, sizes)
    doublings = {name: [float(np.log2(d)) if d else 0.0 for d in depths] for name, depths in reached.items()}
    rivals = [(a, b) for a in ("gal", "gaussian_gal", "tat", "gal(2.6)") for b in ("bn_relu", "tat") if a != b]
    evidence: list[Row] = []
    for name, rival in rivals:
        if name in doublings and rival in doublings:
            found = mean_interval(np.subtract(doublings[name], doublings[rival]).tolist())
            outcome = rules.trained_depth(found)
            evidence.append({"activation": name, "rival": rival, "doublings": interval(found), "outcome": outcome})
    top = max(sizes.ladder_depths)
    medians = [f"{shown(name)} {np.median(depths):g}" for name, depths in reached.items()]
    parts = [f"{shown(r['activation'])} {r['outcome']} than {shown(r['rival'])}".replace("as deep than", "as deep as")
             for r in evidence]  # fmt: skip
    full = [shown(name) for name, depths in reached.items() if min(depths) == top]
    text = (
        f"Median over seeds of the largest depth that trains, of up to {top}: {', '.join(medians)}. "
        f"{'; '.join(parts)}." + (f" At the top of the ladder with every seed: {listed(full)}." if full else "")
    )
    return "; ".join(parts), text, evidence


def ladder_depths(rows: Rows, sizes: Sizes) -> dict[str, list[int]]:
    """Return the largest depth that trains: activation -> one depth per seed."""
    found = {}
    for name in sizes.ladder:
        by_depth = {row["depth"]: row["runs"] for row in rows["ladder"] if row["activation"] == name}
        if by_depth:
            found[name] = [
                rules.largest_depth({d: runs[seed]["train"] for d, runs in by_depth.items()}, sizes.ladder_threshold)
                for seed in range(sizes.seeds)
            ]
    return found


def _interval(row: Row) -> Interval:
    return Interval(row["value"], row["low"], row["high"], row["n"])


def _signed(found: Interval) -> str:
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _of(row: Row) -> str:
    return _signed(_interval(row))


def _percent(found: Interval) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0%}", f"{max(values):.0%}"
    return low if low == high else f"{low} to {high}"
