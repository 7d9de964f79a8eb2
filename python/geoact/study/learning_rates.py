"""Section b: what one seed and one learning rate hide, on two moons."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geoact.study import grid
from geoact.study.config import StudyConfig
from geoact.study.data import two_moons
from geoact.study.replica import BATCH, SEED, WIDTHS
from geoact.study.training import BinaryHead


def run(config: StudyConfig, advance: Callable[[], None]) -> grid.GridResult:
    """Train on the replica's points and split; each seed draws its own weights and batch order."""
    task = grid.Task(
        splits=[two_moons(SEED)] * config.seeds,
        widths=WIDTHS,
        head=BinaryHead(),
        epochs=config.moons_epochs,
        batch=BATCH,
        dtype=np.float64,
    )
    return grid.run_grid(task, config.choices, config.moons_settings, advance)


def steps(config: StudyConfig) -> int:
    """How many times ``run`` reports progress."""
    return grid.steps(config.choices, config.moons_settings, config.moons_epochs)
