"""Every size and number the study can vary, in one frozen object; the defaults are the published study."""

from __future__ import annotations

from dataclasses import dataclass, field

SECTIONS = ("replica", "learning-rates", "axes", "digits", "overhead", "questions")


@dataclass(frozen=True)
class Choice:
    """An activation as the study uses it: registry name, keyword options, gain of the weight initialisation.

    Weights are drawn with variance ``weight_gain / fan_in``: 2 for the ReLU family (He et al. 2015,
    arXiv:1502.01852), 1 for the bounded ones (LeCun et al. 1998, "Efficient BackProp").
    """

    name: str
    weight_gain: float
    options: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name as printed: ``leaky_relu(0.1)`` where an option is not the default."""
        values = ", ".join(f"{value:g}" for value in self.options.values())
        return f"{self.name}({values})" if values else self.name


CHOICES = (
    Choice("sigmoid", 1.0),
    Choice("centered_sigmoid", 1.0),
    Choice("tanh", 1.0),
    Choice("relu", 2.0),
    Choice("leaky_relu", 2.0, {"negative_slope": 0.1}),
    Choice("elu", 2.0),
    Choice("silu", 2.0),
    Choice("gelu", 2.0),
)


@dataclass(frozen=True)
class Setting:
    """One way to train: ``method`` is "SGD" (plain gradient descent on mini-batches) or "Adam"."""

    method: str
    learning_rate: float

    @property
    def label(self) -> str:
        """For example ``SGD 0.05``."""
        return f"{self.method} {self.learning_rate:g}"


@dataclass(frozen=True)
class StudyConfig:
    """Sizes of sections a to e. ``StudyConfig()`` is the study; tests pass smaller numbers."""

    seeds: int = 10
    choices: tuple[Choice, ...] = CHOICES

    # a, b: two moons. The replica is a published experiment: 800 epochs are part of it.
    moons_settings: tuple[Setting, ...] = (
        Setting("SGD", 0.05),
        Setting("SGD", 0.5),
        Setting("SGD", 2.0),
        Setting("Adam", 0.01),
    )
    replica_epochs: int = 800
    moons_epochs: int = 800

    # c: initialisation. Depth d is read at layer d of the deepest net, which has the same distribution as a
    # net of depth d because layers are drawn independently.
    init_width: int = 256
    init_depth: int = 20
    init_rows: int = 192
    init_seeds: int = 3
    init_dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16")

    # d: digits
    digits_settings: tuple[Setting, ...] = (Setting("SGD", 0.05), Setting("SGD", 0.5), Setting("Adam", 0.003))
    digits_widths: tuple[int, ...] = (64, 128, 128, 10)
    digits_epochs: int = 20

    # e: cost. Sizes are rows of 256 values in float32: one pair of arrays that stays in a private cache, one
    # that does not fit in a shared one.
    overhead_activations: tuple[str, ...] = ("sigmoid", "relu", "silu")
    overhead_rows: tuple[int, ...] = (256, 65536)
    overhead_rounds: int = 11
    overhead_min_seconds: float = 0.002

    @classmethod
    def quick(cls, seeds: int) -> StudyConfig:
        """Make the study that ends in three minutes: section e takes fewer turns."""
        return cls(seeds=seeds, overhead_rounds=7)

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"seeds must be at least 2 to have a spread, got {self.seeds}")
