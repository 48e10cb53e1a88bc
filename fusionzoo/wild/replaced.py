"""Attributes of libraries that are others while a script runs, and are put back after it; nothing on disk changes."""

from __future__ import annotations

from types import TracebackType
from typing import Any

_NOTHING = object()


class Replaced:
    """Sets attributes, and restores them when the block ends."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Give an attribute another value."""
        self._before.append((owner, name, vars(owner).get(name, _NOTHING)))
        setattr(owner, name, value)

    def __enter__(self) -> Replaced:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for owner, name, own in reversed(self._before):
            if own is _NOTHING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
        self._before.clear()
