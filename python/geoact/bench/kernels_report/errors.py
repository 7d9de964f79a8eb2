"""What can go wrong on the way to a report."""

from __future__ import annotations


class ReportError(Exception):
    """The input, a tool or a stored report cannot be used; the message says which and why."""


class BaselineMissingError(ReportError):
    """There is no baseline to compare with."""
