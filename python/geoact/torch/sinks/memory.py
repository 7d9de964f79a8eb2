"""Readings kept as they are."""

from __future__ import annotations

from geoact.torch.reading import Reading


class Memory:
    """A list of readings, for notebooks and tests.

    Attributes
    ----------
    readings : list of Reading
        In the order in which they came.
    """

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def write(self, reading: Reading) -> None:
        """Keep a reading."""
        self.readings.append(reading)

    def close(self) -> None:
        """Nothing to do; the readings stay."""
