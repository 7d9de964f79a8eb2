"""Sizes as lists of specs, by what they are for. The longest come first, so that no process is left with one."""

from __future__ import annotations

import numpy as np

from geoact.study.config import CHOICES
from geoact.study.questions.hidden import KINDS
from geoact.study.questions.sizes import Sizes
from geoact.study.questions.specs import Crossing, Inference, Initial, Paired, Spec, Trained

GROUPS = ("ladder", "trained", "paired", "initial", "crossing", "inference")
DEVIATIONS = tuple(float(sd) for sd in np.round(np.geomspace(0.25, 40, 25), 4))


def plan(sizes: Sizes) -> dict[str, list[Spec]]:
    """Return the specs of every group."""
    return {
        "ladder": _ladder(sizes),
        "trained": _trained(sizes),
        "paired": _paired(sizes),
        "initial": _initial(sizes),
        "crossing": [Crossing(tuple(choice.label for choice in CHOICES), DEVIATIONS, 100_001)],
        "inference": [
            Inference(
                tuple(choice.label for choice in CHOICES),
                dtype,
                rows,
                sizes.inference_width,
                sizes.inference_depth,
                sizes.inference_rounds,
                sizes.inference_seconds,
            )
            for dtype in sizes.inference_dtypes
            for rows in sizes.inference_rows
        ],
    }


def _ladder(sizes: Sizes) -> list[Spec]:
    return [
        Trained(
            "spirals",
            name,
            "orthogonal",
            sizes.trained_width,
            depth,
            "Adam",
            sizes.ladder_rates,
            sizes.ladder_epochs,
            sizes.batch,
            sizes.tune_seeds,
            sizes.seeds,
        )
        for depth in sorted(sizes.ladder_depths, reverse=True)
        for name in sizes.ladder
    ]


def _trained(sizes: Sizes) -> list[Spec]:
    shapes = [(depth, sizes.trained_width) for depth in sorted(sizes.trained_depths, reverse=True)]
    shapes += [(min(sizes.trained_depths), width) for width in sizes.trained_widths]
    specs: list[Spec] = []
    for (method, rates), (depth, width), data in (
        (method, shape, data) for method in sizes.methods for shape in shapes for data in sizes.trained_data
    ):
        # A Shepard plot is drawn of one shape and method.
        drawn = (depth, width, method) == (max(sizes.trained_depths), sizes.trained_width, sizes.methods[0][0])
        epochs = sizes.digits_epochs if data == "digits" else sizes.plane_epochs
        specs += [
            Trained(
                data,
                name,
                "own",
                width,
                depth,
                method,
                rates,
                epochs,
                sizes.batch,
                sizes.tune_seeds,
                sizes.seeds,
                pairs=sizes.pairs if drawn and data in ("spirals", "digits") else 0,
            )
            for name in sizes.activations
        ]
    return specs


def _paired(sizes: Sizes) -> list[Spec]:
    method, rates = sizes.methods[0]
    return [
        Paired(
            data,
            sizes.paired_slope,
            "own",
            sizes.trained_width,
            depth,
            method,
            rates,
            sizes.digits_epochs if data == "digits" else sizes.plane_epochs,
            sizes.batch,
            sizes.tune_seeds,
            sizes.seeds,
        )
        for depth in sizes.paired_depths
        for data in sizes.trained_data
    ]


def _initial(sizes: Sizes) -> list[Spec]:
    slices = [
        ("own", sizes.initial_width, data, dtype) for data in sizes.initial_data for dtype in sizes.initial_dtypes
    ]
    slices += [("own", width, "digits", "float32") for width in sizes.initial_widths]
    slices += [(init, sizes.initial_width, "digits", "float32") for init in sizes.initial_inits]
    specs: list[Spec] = []
    for (init, width, data, dtype), name in ((one, name) for one in slices for name in sizes.activations):
        # Layers are drawn independently, so layer d of a deep network stands for a network of depth d, unless the
        # activation depends on the depth.
        nets = (
            [(depth, (depth,)) for depth in sizes.initial_depths]
            if KINDS[name].by_depth
            else [(max(sizes.initial_depths), sizes.initial_depths)]
        )
        specs += [
            Initial(data, name, init, width, depth, read, dtype, sizes.initial_rows, sizes.initial_seeds)
            for depth, read in nets
        ]
    return specs
