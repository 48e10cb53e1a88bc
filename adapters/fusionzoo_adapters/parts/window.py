"""Checking the sides of a window."""

from __future__ import annotations

from fusionzoo.errors import OptionError


def check_window(value: int | None, option: str) -> int | None:
    """A window side; None and -1 mean all."""
    if value is None or value == -1:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{option} must be a number of utterances, 0 or more, or None for all; got {value!r}")
    return value
