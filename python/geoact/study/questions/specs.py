"""What is run, as small frozen objects: hashable, and the same in JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import geoact

RESULT_MODULES = ("network", "training", "questions/deep", "questions/geometry", "questions/hidden",
                  "questions/inference", "questions/initial", "questions/paired", "questions/tasks",
                  "questions/trained")  # fmt: skip
"""The modules a result depends on: a change in one of them makes stored results stale."""


@dataclass(frozen=True)
class Spec:
    """A unit of work. ``alone``: it is timed, so nothing else runs beside it."""

    kind: ClassVar[str] = ""
    alone: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the kind."""
        return {"kind": self.kind, **asdict(self)}

    def key(self) -> str:
        """Name the result: a hash of the spec and of the code that computes it."""
        text = json.dumps([code_version(), self.to_json()], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


@dataclass(frozen=True)
class Initial(Spec):
    """Untrained networks of ``depth`` hidden layers, one per seed, measured at the layers in ``read``.

    ``init`` is "lecun" (variance 1 / fan_in), "he" (2 / fan_in), "orthogonal", or "own": the variance that suits
    the activation.
    """

    kind: ClassVar[str] = "initial"
    data: str
    activation: str
    init: str
    width: int
    depth: int
    read: tuple[int, ...]
    dtype: str
    rows: int
    seeds: int


@dataclass(frozen=True)
class Trained(Spec):
    """The rate is chosen on validation data with ``tune_seeds`` seeds; ``seeds`` others are then trained and tested.

    ``pairs``: how many pair distances of the first network are kept, before and after training, for a Shepard plot.
    """

    kind: ClassVar[str] = "trained"
    data: str
    activation: str
    init: str
    width: int
    depth: int
    method: str
    rates: tuple[float, ...]
    epochs: int
    batch: int
    tune_seeds: int
    seeds: int
    pairs: int = 0


@dataclass(frozen=True)
class Paired(Spec):
    """ReLU and leaky ReLU from the same weights, in the same batches, at every rate."""

    kind: ClassVar[str] = "paired"
    data: str
    slope: float
    init: str
    width: int
    depth: int
    method: str
    rates: tuple[float, ...]
    epochs: int
    batch: int
    tune_seeds: int
    seeds: int


@dataclass(frozen=True)
class Crossing(Spec):
    """Linear share of activations on Gaussian input, by its sd, and where those of sigmoid and ReLU are equal."""

    kind: ClassVar[str] = "crossing"
    activations: tuple[str, ...]
    deviations: tuple[float, ...]
    points: int


@dataclass(frozen=True)
class Inference(Spec):
    """Time of activations alone and inside a network, taking turns."""

    kind: ClassVar[str] = "inference"
    alone: ClassVar[bool] = True
    activations: tuple[str, ...]
    dtype: str
    rows: int
    width: int
    depth: int
    rounds: int
    min_seconds: float


@cache
def code_version() -> str:
    """Identify the code that results depend on: geoact's version and a hash of the modules."""
    study = Path(__file__).parent.parent
    digest = hashlib.sha256(geoact.__version__.encode())
    for module in RESULT_MODULES:
        digest.update((study / f"{module}.py").read_bytes())
    digest.update((study.parent / "adaptive.py").read_bytes())
    return digest.hexdigest()[:16]
