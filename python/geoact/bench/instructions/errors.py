"""What can go wrong on the way to a table of counts."""

from __future__ import annotations


class CountingError(Exception):
    """Nothing can be counted here, or a stored table cannot be used; the message says what and why."""


class BaselineMissingError(CountingError):
    """There is no table to compare with."""
