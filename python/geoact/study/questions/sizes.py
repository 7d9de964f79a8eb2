"""How much is run: one frozen object of sizes, and the two that the command offers."""

from __future__ import annotations

from dataclasses import dataclass

from geoact.study.questions.hidden import ACTIVATIONS

ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
SGD_RATES = (0.03, 0.1, 0.3, 1.0)
LADDER_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
LADDER = ("relu", "bn_relu", "tanh", "tat", "gal", "gaussian_gal", "gal(2.6)")


@dataclass(frozen=True)
class Sizes:
    """Sizes of every question; ``name`` is what the report calls the run."""

    name: str
    activations: tuple[str, ...] = ACTIVATIONS

    # Untrained networks: every data set, type and depth at one width; then other widths and inits on digits.
    initial_data: tuple[str, ...] = ("moons", "circles", "spirals", "digits")
    initial_dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16", "float16")
    initial_depths: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    initial_width: int = 128
    initial_widths: tuple[int, ...] = (8, 32, 512)
    initial_inits: tuple[str, ...] = ("lecun", "he", "orthogonal")
    initial_rows: int = 128
    initial_seeds: int = 5

    # Trained networks.
    trained_data: tuple[str, ...] = ("moons", "circles", "spirals", "digits")
    trained_depths: tuple[int, ...] = (2, 4, 16)
    trained_width: int = 32
    trained_widths: tuple[int, ...] = ()
    methods: tuple[tuple[str, tuple[float, ...]], ...] = (("Adam", ADAM_RATES),)
    plane_epochs: int = 30
    digits_epochs: int = 10
    batch: int = 50
    tune_seeds: int = 2
    seeds: int = 10
    pairs: int = 250

    # The intervention.
    paired_depths: tuple[int, ...] = (4, 16)
    paired_slope: float = 0.01

    # The ladder, on spirals, with orthogonal weights.
    ladder: tuple[str, ...] = LADDER
    ladder_depths: tuple[int, ...] = (8, 16, 32, 64)
    ladder_rates: tuple[float, ...] = LADDER_RATES
    ladder_epochs: int = 30
    ladder_threshold: float = 0.95

    # Time: rows of ``inference_width`` values, one pair of arrays that a cache holds and one that none does.
    inference_rows: tuple[int, ...] = (256, 16384)
    inference_width: int = 512
    inference_depth: int = 4
    inference_dtypes: tuple[str, ...] = ("float32", "bfloat16")
    inference_rounds: int = 31
    inference_seconds: float = 0.005

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"seeds must be at least 2 to have a spread, got {self.seeds}")
        for needed in ("sigmoid", "relu"):
            if needed not in self.activations:
                raise ValueError(f"activations must contain {needed!r}, got {self.activations}")


FULL = Sizes("full")

QUICK = Sizes(
    "quick",
    initial_data=("spirals", "digits"),
    initial_depths=(1, 4, 16, 64),
    initial_dtypes=("float32", "bfloat16", "float16"),
    initial_widths=(),
    initial_inits=(),
    initial_seeds=3,
    trained_data=("spirals", "digits"),
    trained_depths=(2, 8),
    trained_width=16,
    trained_widths=(),
    methods=(("Adam", (3e-3, 1e-2, 3e-2)),),
    plane_epochs=20,
    digits_epochs=5,
    tune_seeds=1,
    seeds=5,
    paired_depths=(8,),
    ladder=("relu", "bn_relu", "tat", "gal", "gaussian_gal"),
    ladder_depths=(8, 32),
    ladder_rates=(3e-4, 1e-3, 3e-3),
    ladder_epochs=20,
    inference_rounds=11,
    inference_rows=(256,),
)
