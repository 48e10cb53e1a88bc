"""Ctrl-C and SIGTERM: a command that is stopped says how to go on. Nothing here happens on import."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_hint = ""
_terminated = False


def goes_on(hint: str) -> None:
    """Say what to do after an interruption of the command that is running: a sentence without its full stop."""
    global _hint
    _hint = hint


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Turn the first SIGTERM into a `KeyboardInterrupt`, so that files are closed and processes ended; a second one kills.

    Only in the main thread, and only where nobody else handles the signal.
    """
    global _hint, _terminated
    _hint, _terminated = "", False
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        global _terminated
        _terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def interrupted() -> tuple[str, int]:
    """What to say after an interruption, and the exit status: 130 after Ctrl-C, 143 after SIGTERM."""
    what = "interrupted by SIGTERM" if _terminated else "interrupted"
    return f"{what}; {_hint}" if _hint else what, 143 if _terminated else 130


def from_interrupt(error: BaseException) -> bool:
    """Whether an exit came of an interruption that somebody has caught and turned into it."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        if isinstance(at, KeyboardInterrupt):
            return True
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return False
