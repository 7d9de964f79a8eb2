"""Units of the intervention: ReLU and leaky ReLU from the same weights, so that only dead units tell them apart."""

from __future__ import annotations

from typing import Any

from geoact.study.questions import tasks
from geoact.study.questions.specs import Paired
from geoact.study.questions.trained import accuracy, best_rate, fit, measured, tune
from geoact.study.training import SoftmaxHead


def paired(spec: Paired) -> dict[str, Any]:
    """Return, for each rate and seed, what both scored and the share of dead units of the ReLU network.

    "rate" is the one that suits ReLU, chosen on validation data with other seeds.
    """
    head = SoftmaxHead(tasks.classes(spec.data))
    validation = tune(spec, head, "relu")
    grid = [(seed, rate) for rate in spec.rates for seed in range(spec.seeds)]
    rectified = fit(spec, head, grid, "relu")
    leaky = fit(spec, head, grid, f"leaky_relu({spec.slope:g})")
    rows = []
    for (seed, rate), relu, other in zip(grid, rectified, leaky, strict=True):
        test = tasks.test_part(spec.data, seed)
        first, last = measured(head, relu, test)[0]
        rows.append(
            {
                "seed": seed,
                "rate": rate,
                "relu": accuracy(head, relu, test),
                "leaky": accuracy(head, other, test),
                "dead": (first["dead"] + last["dead"]) / 2,
            }
        )
    return {"rate": best_rate(spec.rates, validation), "validation": validation, "rows": rows}
