from typing import Any

from geoact.activations import Activation
from geoact.statistics import GeometryStats, GradientStats

def forward(
    row: Activation,
    x: Any,
    values: tuple[Any, ...],
    out: Any,
    stats: GeometryStats | None,
    gradient_stats: GradientStats | None,
    channel_axis: int,
    /,
) -> Any: ...
def connect(
    api: object,
    rows: tuple[tuple[Activation, int, bool, int, int, str], ...],
    forward: object,
    direct: object,
    differentiable: object,
    geometry: type,
    gradient: type,
    /,
) -> None: ...
