"""The calls of patched models that are running in this thread."""

from __future__ import annotations

import threading
from typing import Any

from torch import nn

#: What is done to the method, whose it is, its arguments, and scratch space for the length of the call.
Running = tuple[Any, nn.Module, tuple[Any, ...], dict[str, Any], dict[str, Any]]
_running: Any = threading.local()


def running_calls() -> tuple[Running, ...]:
    """The calls that are running, the outermost first."""
    return getattr(_running, "calls", ())


def set_running_calls(calls: tuple[Running, ...]) -> None:
    """Put others in their place; the tuple itself is never changed, because torch.compile relies on what it has seen."""
    _running.calls = calls


def running_call(token: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any], dict[str, Any]] | None:
    """Model, arguments and scratch space of the innermost running forward that a patch watches."""
    for override, *call in reversed(running_calls()):
        if token in override.tokens:
            return tuple(call)  # type: ignore[return-value]
    return None
