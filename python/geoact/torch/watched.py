"""One watched module of a model, and the layers of a reading that come of its probe."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from geoact.statistics import GradientStats
from geoact.torch import known, swap
from geoact.torch.modules import Activation
from geoact.torch.probe import Probe
from geoact.torch.reading import Layer


class Watched:
    """One module of the model and its probe."""

    def __init__(self, name: str, module: nn.Module, twin: known.Twin, probe: Probe) -> None:
        self.name = name
        self.module = module
        self.row = twin.module._row
        if self.row in ("gelu", "geglu") and {**vars(module), **twin.attributes}.get("approximate") == "tanh":
            self.row += "_tanh"
        self._twin = twin
        self.probe = probe
        self._undo: Callable[[], None] | None = None

    def arm(self) -> None:
        """Measure from now on."""
        if self._undo is None:
            had = set(vars(self.module))
            change_back = None
            if not isinstance(self.module, Activation):
                self.probe.original = type(self.module)
                change_back = swap.change_class(self.module, self._twin)
            self.module._probe = self.probe  # type: ignore[assignment]
            self.probe.added = frozenset(vars(self.module)) - had

            def undo() -> None:
                del self.module._probe
                if change_back is not None:
                    change_back()

            self._undo = undo

    def disarm(self) -> None:
        """Put the module back as it was."""
        if self._undo is not None:
            self._undo()
            self._undo = None


def layers_of(name: str, row: str, probe: Probe) -> list[tuple[int, Layer]]:
    """A snapshot: one layer for each kind of data met, each with its place in the order of first calls."""
    forward = probe.forward.members
    backward = {} if probe.backward is None else probe.backward.members
    # A gradient whose forward pass was not measured belongs to no layer.
    keys = [key for key, stats in forward.items() if stats.dtype]
    dtypes, channels = {dtype for dtype, _ in keys}, {count for _, count in keys}
    found = []
    for key in keys:
        stats = forward[key]
        parts = [*([key[0]] if len(dtypes) > 1 else []), *([str(key[1])] if len(channels) > 1 else [])]
        gradient = None
        if probe.backward is not None:
            gradient = backward[key].copy() if key in backward else GradientStats(stats.per, stats.channel_axis)
        shown = f"{name}[{','.join(parts)}]" if parts else name
        found.append((stats._accumulator.order, Layer(shown, row, 0, stats.calls, stats.copy(), gradient)))
    return found
