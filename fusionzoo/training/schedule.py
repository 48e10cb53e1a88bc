"""Learning rate and stopping as pure functions of the step and the history, so that resuming needs no state for them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def lr_factor(
    kind: str,
    step: int,
    total: int,
    warmup: float,
    scores: Sequence[float],
    decay: float = 0.5,
    decay_epochs: int = 5,
) -> float:
    """What the base learning rate is multiplied by at a step.

    Parameters
    ----------
    kind : `constant`, `cosine` (to zero at the last step), `linear` (likewise), `plateau` (times `decay` after every
        `decay_epochs` epochs without a new best score), or `step` (times `decay` every `decay_epochs` epochs).
    step, total : steps taken so far, steps of the whole run.
    warmup : share of `total` in which the factor rises linearly from zero.
    scores : score of every finished epoch, higher being better.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(total - rising, 1)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if kind == "linear":
        return max(1.0 - progress, 0.0)
    if kind == "plateau":
        return decay ** plateaus(scores, decay_epochs)
    if kind == "step":
        return decay ** (len(scores) // decay_epochs)
    return 1.0


def plateaus(scores: Sequence[float], epochs: int = 5) -> int:
    """How many times so many epochs in a row went by without a new best score."""
    best, waited, count = -math.inf, 0, 0
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited == epochs:
            waited, count = 0, count + 1
    return count


def best_epoch(scores: Sequence[float]) -> int:
    """The best epoch, counted from 1; the earlier of equals; 0 before the first."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i)) + 1 if scores else 0


def out_of_patience(scores: Sequence[float], patience: int) -> bool:
    """Whether `patience` epochs went by since the best one; never when `patience` is 0."""
    return bool(patience) and len(scores) - best_epoch(scores) >= patience
