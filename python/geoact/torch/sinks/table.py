"""A table in the terminal, refreshed at each reading."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Any

from geoact.torch.reading import BACKWARD, FORWARD, SUMMARY, Reading
from geoact.torch.sinks.base import optional

_TITLES = {scalar.name: scalar.title for scalar in FORWARD + BACKWARD}
_SHARES = ("shape", "zero", "saturated", "dead")
_FRAME = 5  # lines of the title, the head and its rule, the note about what is left out, and the cursor
_SHORTEST = 12  # columns left to the name of a layer
_BAD = "bold red"


class Table:
    """One row per layer: the four axes, zero, saturated and dead shares, gradient gain; the alerts below.

    Parameters
    ----------
    console : rich.console.Console, optional
        Default: standard output.
    live : bool
        Refresh one table in place. Where the console is no terminal, or with False, each reading is printed anew.
    """

    def __init__(self, console: Any = None, live: bool = True) -> None:  # noqa: ANN401
        optional("rich", "Table")
        if not isinstance(live, bool):
            raise TypeError(f"live must be a bool, got {type(live).__name__}")
        self._console = optional("rich.console", "Table").Console() if console is None else console
        if not hasattr(self._console, "is_terminal"):
            raise TypeError(f"console must be a rich Console, got {type(console).__name__}")
        self._refresh = live and self._console.is_terminal
        self._live: Any = None
        self._last: Reading | None = None

    def write(self, reading: Reading) -> None:
        """Show a reading."""
        self._last = reading
        if not self._refresh:
            self._console.print(render(reading, self._console.width))
            return
        shown = render(reading, *self._console.size)
        if self._live is None:
            # Refreshed by readings only: a thread of its own would draw into whatever the training prints.
            self._live = optional("rich.live", "Table").Live(shown, console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._live.update(shown, refresh=True)

    def close(self) -> None:
        """Leave the last reading on the screen, all layers of it."""
        if self._live is not None and self._last is not None:
            self._live.update(render(self._last, self._console.width), refresh=False)
            self._live.stop()
            self._live = None


def render(reading: Reading, width: int = 120, height: int | None = None) -> Any:  # noqa: ANN401  a rich renderable
    """The table of a reading for a console of ``width`` columns.

    Where it is to fit into ``height`` lines, layers with alerts come before the others. Numbers are never cut: names
    give way, and the column of activations goes if there is still too little room.
    """
    group, text = optional("rich.console", "Table").Group, optional("rich.text", "Table").Text
    judged = {(alert.layer, alert.scalar) for alert in reading.alerts}
    troubled = {alert.layer for alert in reading.alerts}
    rows = reading.rows()
    columns = [name for name in SUMMARY if any(not math.isnan(row[name]) for row in rows)]
    chosen = _fitting(rows, troubled, height, len(reading.alerts))

    numbers = {name: [_number(name, row[name]) for row in chosen] for name in columns}
    room = width - sum(2 + max(map(len, [_TITLES[name], *numbers[name]])) for name in columns)
    kind = 2 + max([10, *(len(row["activation"]) for row in chosen)])
    with_kind = room - kind >= _SHORTEST
    room = max(_SHORTEST, room - kind if with_kind else room)

    table = optional("rich.table", "Table").Table(
        title=text(f"geoact, step {reading.step}", style="bold"),
        title_justify="left",
        box=optional("rich.box", "Table").SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("layer", no_wrap=True)
    if with_kind:
        table.add_column("activation", no_wrap=True, style="dim")
    for name in columns:
        table.add_column(_TITLES[name], justify="right", no_wrap=True)
    names = _shortened([row["layer"] for row in chosen], room)
    for place, row in enumerate(chosen):
        cells = [text(names[row["layer"]], style=_BAD if row["layer"] in troubled else "")]
        cells += [text(row["activation"])] if with_kind else []
        cells += [text(numbers[name][place], style=_BAD if (row["layer"], name) in judged else "") for name in columns]
        table.add_row(*cells)
    parts: list[Any] = [table]
    if len(chosen) < len(rows):
        parts.append(text(f"... {len(rows) - len(chosen)} more layers", style="dim"))
    parts += [text.assemble(("! ", _BAD), (alert.layer, "bold"), f": {alert.message}") for alert in reading.alerts]
    return group(*parts)


def _shortened(names: list[str], room: int) -> dict[str, str]:
    """Names that fit: first the leading parts that all share are left out, then the end of what is still too long."""
    levels = zip(*(name.split(".") for name in names), strict=False)
    shared = takewhile(lambda parts: len(set(parts)) == 1, levels)
    skip = sum(len(parts[0]) + 1 for parts in shared)

    def short(name: str) -> str:
        if len(name) > room and len(name) > skip > 1:
            name = "…" + name[skip:]
        return name if len(name) <= room else name[: room - 1] + "…"

    return {name: short(name) for name in names}


def _fitting(rows: list[dict[str, Any]], troubled: set[str], height: int | None, alerts: int) -> list[dict[str, Any]]:
    if height is None or len(rows) + alerts + _FRAME <= height:
        return rows
    # At least three layers stay, whatever the number of alerts; rich then cuts the end off.
    room = max(3, height - _FRAME - alerts)
    by_need = sorted(rows, key=lambda row: row["layer"] not in troubled)  # stable: order of depth within each
    kept = {row["layer"] for row in by_need[:room]}
    return [row for row in rows if row["layer"] in kept]


def _number(column: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    if column in _SHARES:
        return f"{value:.3f}"
    return f"{value:.1f}" if column == "resolution" else f"{value:.3g}"
