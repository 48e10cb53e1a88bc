"""Whether a model is right as often as it says it is: expected calibration error, and the bins of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo.errors import ShapeError
from fusionzoo.scoring.diagnostics.predicted import Finding, between, points

if TYPE_CHECKING:
    from fusionzoo.scoring.diagnostics.predicted import Predicted

BINS = 15
#: A gap below this is not worth a sentence, however certain it is.
_WORTH_SAYING = 0.02


@dataclass(frozen=True)
class Bin:
    """Utterances whose largest probability lies in one interval.

    Parameters
    ----------
    low, high : the interval.
    count : utterances.
    confidence : mean largest probability.
    accuracy : share that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How confidence and accuracy agree.

    Parameters
    ----------
    ece : expected calibration error: the gap between confidence and accuracy in a bin, averaged with the bins' shares.
    by_chance : the error that a model which is calibrated exactly shows in 95 of 100 samples of so many utterances.
    gap : mean confidence minus accuracy; above zero is over-confident.
    interval : 95 % of `gap` when the dialogues are drawn anew; None where that was not asked for.
    brier : mean squared distance of the probabilities from the truth, summed over classes.
    bins : those that hold an utterance.
    """

    ece: float
    by_chance: float
    gap: float
    interval: tuple[float, float] | None
    brier: float
    bins: tuple[Bin, ...]

    def findings(self) -> list[Finding]:
        """Over- or under-confident, where utterances and dialogues both say so."""
        clear = self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)
        numbers = f"ECE {points(self.ece)}, mean confidence minus accuracy {points(self.gap, sign=True)}{between(self.interval)}"
        chance = f"a calibrated model would show an ECE of up to {points(self.by_chance)} here"
        if self.ece <= self.by_chance:
            return [Finding("calibration", f"calibrated as far as this split can show: {numbers}; {chance}")]
        if clear and abs(self.gap) >= _WORTH_SAYING:
            word = "over-confident" if self.gap > 0 else "under-confident"
            return [Finding("calibration", f"{word}: {numbers}; {chance}", grave=True)]
        return [
            Finding("calibration", f"not calibrated, though not clearly over- or under-confident: {numbers}; {chance}")
        ]


def calibration(true: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Calibration:
    """Calibration of the most probable class, in bins of equal width.

    Parameters
    ----------
    true : `(N,)` classes.
    probabilities : `(N, C)`.
    bins : how many.

    Examples
    --------
    Twice sure of itself, once right:

    >>> calibration(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]])).ece
    0.5
    """
    if probabilities.ndim != 2 or len(true) != len(probabilities) or not len(true):
        raise ShapeError(
            f"calibration takes labels (N,) and probabilities (N, C), not {true.shape}, {probabilities.shape}"
        )
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == true
    where = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    sums = [np.bincount(where, weights=x, minlength=bins) for x in (confidence, right)]
    found = tuple(
        Bin(i / bins, (i + 1) / bins, int(n), float(sums[0][i] / n), float(sums[1][i] / n))
        for i, n in enumerate(count)
        if n
    )
    truth = np.eye(probabilities.shape[1])[true]
    return Calibration(
        ece=float(np.abs(sums[0] - sums[1]).sum() / len(true)),
        by_chance=_by_chance(confidence, where, bins),
        gap=float(confidence.mean() - right.mean()),
        interval=None,
        brier=float(((probabilities - truth) ** 2).sum(1).mean()),
        bins=found,
    )


def calibration_of(predicted: Predicted, bins: int = BINS) -> Calibration:
    """Calibration of a split, its gap with an interval over dialogues."""
    plain = calibration(predicted.true, predicted.probabilities, bins)
    confidence = predicted.probabilities.max(1)
    right = predicted.predicted == predicted.true
    columns = np.stack([confidence, right, np.ones(len(right))], 1)
    interval = predicted.interval(columns, lambda s: (s[:, 0] - s[:, 1]) / s[:, 2])
    return Calibration(plain.ece, plain.by_chance, plain.gap, interval, plain.brier, plain.bins)


def _by_chance(confidence: np.ndarray, where: np.ndarray, bins: int) -> float:
    """The error of a calibrated model is not zero in a sample: each utterance is right with the probability it was given."""
    rng = np.random.default_rng(0)
    inside = np.eye(bins)[where]
    expected = confidence @ inside
    errors = []
    for _ in range(20):
        right = rng.random((25, len(confidence))) < confidence
        errors.append(np.abs(expected - right @ inside).sum(1) / len(confidence))
    return float(np.quantile(np.concatenate(errors), 0.95))
