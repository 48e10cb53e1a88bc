"""How long work shows itself: a bar with the time left on a terminal, lines elsewhere; all of it on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from fusionzoo._text import visible


def print_line(text: str) -> None:
    """A line to standard error, in which names may stand that come from files."""
    print(visible(text), file=sys.stderr, flush=True)


class Bar:
    """Context manager: one line of the bar per piece of work, and lines of text above it.

    Parameters
    ----------
    enabled : whether anything is shown.
    unit : what is counted, for people: `epochs`.
    digits : of the count after the point.
    lines : whether there are lines on a terminal too, where what is counted has a bar of its own.
    """

    def __init__(self, enabled: bool = True, unit: str = "", digits: int = 0, lines: bool = False):
        self.enabled, self.unit, self.digits, self.lines = enabled, unit, digits, lines
        self.bar: Any = None
        self.task: Any = None

    @property
    def on_terminal(self) -> bool:
        """Whether there is a bar; elsewhere there are lines alone."""
        return self.bar is not None

    def __enter__(self) -> Self:
        if self.enabled and not self.lines and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.TextColumn(f"{{task.completed:.{self.digits}f}}/{{task.total:.0f}} {self.unit}", markup=False),
                progress.TextColumn("{task.fields[note]}", markup=False),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                speed_estimate_period=600,
            )
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    @property
    def completed(self) -> float:
        """How much of it is done."""
        return 0.0 if self.task is None else self.bar.tasks[self.task].completed

    def start(self, what: str, total: float, done: float = 0) -> None:
        """A piece of work begins, of which an earlier run has done some."""
        if self.bar is not None:
            self.task = self.bar.add_task(what, total=total, completed=done, note="")

    def to(self, completed: float, note: str | None = None) -> None:
        """So much of it is done, with a word about it."""
        if self.task is not None:
            self.bar.update(self.task, completed=completed, **({} if note is None else {"note": note}))

    def advance(self, by: float) -> None:
        """So much more of it is done."""
        if self.task is not None:
            self.bar.advance(self.task, by)

    def line(self, text: str) -> None:
        """A line of text: above the bar on a terminal."""
        if self.bar is not None:
            self.bar.console.print(visible(text), markup=False, highlight=False)
        elif self.enabled:
            print_line(text)
