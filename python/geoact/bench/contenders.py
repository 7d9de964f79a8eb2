"""What takes part in a measurement: contenders that take turns in a group, and the bars that are made of them.

Terms: a *contender* is something that is timed; a *group* is the contenders that take turns; a *bar* is a ratio of two
of them, with or without a limit; a *ceiling* is a contender that nothing moving the same bytes can beat, which is a
copy. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


class Unavailable(Exception):
    """Something cannot run here (not installed, no such device); the message says why. It is reported, not measured."""


@dataclass
class Contender:
    """Something that is timed.

    ``runs`` are the same call on different buffers; one of them may make ``calls`` calls at once (a graph). ``before``
    is called, untimed, ahead of every sample; ``check`` ahead of all samples and after them: it raises AssertionError,
    or returns a checksum of the output, which must then be the same both times, or None.
    """

    name: str
    runs: Sequence[Callable[[], object]]
    check: Callable[[], object] = lambda: None
    before: Callable[[], object] = lambda: None
    calls: int = 1
    repeat: int = 1
    output: object = None

    def verify(self) -> None:
        """Check the output, and that it is what it was the last time. Raises AssertionError."""
        self.before()
        found, before = self.check(), self.output
        if type(found).__name__ in ("bool", "bool_") and not found:
            raise AssertionError("check returned False")
        if before is not None and not _alike(before, found):
            raise AssertionError("the output is not what it was")
        self.output = found


def _alike(before: object, found: object) -> bool:
    """Whether two checksums are the same; NaN is like NaN."""
    try:
        return bool(before == found) or bool(before != before and found != found)
    except ValueError as error:
        raise AssertionError(f"check must return None or something that compares equal as a whole: {error}") from error


@dataclass(frozen=True)
class Bar:
    """A ratio of times, timed / against; with ``share`` its inverse, the share of the ceiling's speed.

    ``against`` may name several, of which the fastest counts; empty: microseconds of one call.
    """

    title: str
    timed: str
    against: tuple[str, ...] = ()
    at_most: float | None = None
    at_least: float | None = None
    share: bool = False

    @property
    def limit(self) -> str:
        """The limit as it is shown."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}" + ("" if self.against else " us")
        if self.at_least is None:
            return ""
        return f">= {self.at_least:.0%}" if self.share else f">= {self.at_least:g}"


@dataclass
class Group:
    """Contenders that take turns, and the bars made of them; ``missing`` says of the others why they are not there.

    ``after`` is called when the group has been measured or has failed: it puts back what making the group changed.
    """

    name: str
    contenders: list[Contender] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    ceilings: tuple[str, ...] = ()
    bytes_moved: int | None = None
    flops: int | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    after: Callable[[], object] = lambda: None

    def add(self, name: str, make: Callable[[], Contender], absent: type[Exception] = Unavailable) -> None:
        """Add a contender, or the reason why it is absent."""
        try:
            self.contenders.append(make())
        except absent as error:
            self.missing[name] = str(error)

    def drop(self, contender: Contender, reason: str) -> None:
        """Remove a contender and keep the reason."""
        self.contenders.remove(contender)
        self.missing[contender.name] = reason
