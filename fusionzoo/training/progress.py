"""What one sees while training: a progress bar on a terminal, one line per epoch elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusionzoo.scoring.metrics import MAIN, METRICS
from fusionzoo.training.schedule import best_epoch

if TYPE_CHECKING:
    from fusionzoo.runs.config import RunConfig


class Progress:
    """Context manager around the training loop; goes to standard error."""

    def __init__(self, config: RunConfig, enabled: bool):
        self.config, self.enabled = config, enabled
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Progress:
        if self.enabled and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.TextColumn("{task.completed:.1f}/{task.total} epochs"),
                progress.TextColumn("{task.fields[note]}", markup=False),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task(self.config.title, total=self.config.training.epochs, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, epochs: float) -> None:
        """A step has been issued, after which so many epochs (a fraction) are done. Reads nothing from the device."""
        if self.bar is not None:
            self.bar.update(self.task, completed=epochs)

    def epoch(self, row: Mapping[str, Any], split: str, scores: Sequence[float]) -> None:
        """An epoch is finished: `row` of the history and the choosing score of all epochs so far."""
        best, main, chosen = best_epoch(scores), METRICS[MAIN], METRICS[self.config.training.metric]
        note = (
            f"loss {row['train_loss']:.4f}  {split} {main.short} {main.show(row[f'{split}_{MAIN}'])}  "
            f"best {chosen.show(chosen.gain(scores[best - 1]))} (epoch {best})"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=row["epoch"], note=note)
        elif self.enabled:
            print(f"epoch {row['epoch']}/{self.config.training.epochs}  {note}", file=sys.stderr, flush=True)
