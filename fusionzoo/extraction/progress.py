"""The progress bar of an extraction; on standard error, and only lines of problems where that is no terminal."""

from __future__ import annotations

import sys
from typing import Any

from fusionzoo._text import visible


class Bar:
    """Context manager; one line per modality."""

    def __init__(self, enabled: bool):
        self.enabled = enabled
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
        """A modality begins, of which an earlier run has done some."""
        if self.bar is not None:
            self.task = self.bar.add_task(what, total=total, completed=done)
        elif self.enabled:
            before = f", {done} done before" if done else ""
            print(f"{what}: {total} utterances{before}", file=sys.stderr, flush=True)

    def advance(self, utterances: int) -> None:
        """Count utterances that are done."""
        if self.bar is not None:
            self.bar.advance(self.task, utterances)

    def note(self, text: str) -> None:
        """A problem, above the bar."""
        if self.bar is not None:
            self.bar.console.print(visible(text), markup=False, highlight=False)
        elif self.enabled:
            print(visible(text), file=sys.stderr, flush=True)
