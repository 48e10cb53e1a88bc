"""A progress bar, of an extraction or of a diagnosis; on standard error, and only lines where that is no terminal."""

from __future__ import annotations

import sys
from typing import Any

from fusionzoo._text import visible


class Bar:
    """Context manager; one line per modality, or whatever is begun.

    Parameters
    ----------
    enabled : whether anything is shown.
    unit : what is counted.
    """

    def __init__(self, enabled: bool, unit: str = "utterances"):
        self.enabled, self.unit = enabled, unit
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Bar:
        if self.enabled and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start(self, what: str, total: int, done: int) -> None:
        """Something begins, of which an earlier run has done some."""
        if self.bar is not None:
            self.task = self.bar.add_task(what, total=total, completed=done)
        elif self.enabled:
            before = f", {done} done before" if done else ""
            print(f"{what}: {total} {self.unit}{before}", file=sys.stderr, flush=True)

    def advance(self, count: int = 1) -> None:
        """Count what is done."""
        if self.bar is not None:
            self.bar.advance(self.task, count)

    def note(self, text: str) -> None:
        """A problem, above the bar."""
        if self.bar is not None:
            self.bar.console.print(visible(text), markup=False, highlight=False)
        elif self.enabled:
            print(visible(text), file=sys.stderr, flush=True)
