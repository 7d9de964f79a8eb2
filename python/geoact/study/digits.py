"""Section d: the same questions on real data, scikit-learn's bundled digits with a 64-128-128-10 network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geoact.study import data, grid
from geoact.study.config import StudyConfig
from geoact.study.training import SoftmaxHead

BATCH = 64
CLASSES = 10


def run(config: StudyConfig, advance: Callable[[], None]) -> grid.GridResult:
    """Train in float32; each seed draws its own split, weights and batch order."""
    task = grid.Task(
        splits=[data.digits(seed) for seed in range(config.seeds)],
        widths=config.digits_widths,
        head=SoftmaxHead(CLASSES),
        epochs=config.digits_epochs,
        batch=BATCH,
        dtype=np.float32,
    )
    return grid.run_grid(task, config.choices, config.digits_settings, advance)


def steps(config: StudyConfig) -> int:
    """How many times ``run`` reports progress."""
    return grid.steps(config.choices, config.digits_settings, config.digits_epochs)
