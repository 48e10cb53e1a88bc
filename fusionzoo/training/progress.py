"""What one sees while training: a progress bar on a terminal, one line per epoch elsewhere, nothing when quiet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusionzoo._progress import Bar
from fusionzoo.scoring.metrics import MAIN, METRICS
from fusionzoo.training.schedule import best_epoch

if TYPE_CHECKING:
    from fusionzoo.runs.config import RunConfig


class Progress(Bar):
    """Context manager around the training loop."""

    def __init__(self, config: RunConfig, enabled: bool):
        super().__init__(enabled, "epochs", digits=1)
        self.config = config

    def __enter__(self) -> Progress:
        super().__enter__()
        self.start(self.config.title, self.config.training.epochs)
        return self

    def step(self, epochs: float) -> None:
        """A step has been issued, after which so many epochs (a fraction) are done. Reads nothing from the device."""
        self.to(epochs)

    def epoch(self, row: Mapping[str, Any], split: str, scores: Sequence[float]) -> None:
        """An epoch is finished: `row` of the history and the choosing score of all epochs so far."""
        best, main, chosen = best_epoch(scores), METRICS[MAIN], METRICS[self.config.training.metric]
        note = (
            f"loss {row['train_loss']:.4f}  {split} {main.short} {main.show(row[f'{split}_{MAIN}'])}  "
            f"best {chosen.show(chosen.gain(scores[best - 1]))} (epoch {best})"
        )
        self.to(row["epoch"], note)
        if not self.on_terminal:
            self.line(f"epoch {row['epoch']}/{self.config.training.epochs}  {note}")
