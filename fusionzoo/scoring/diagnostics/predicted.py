"""What a model says of the labelled utterances of a split, and intervals that respect that dialogues are whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo.data.loading import split_of
from fusionzoo.errors import DataError
from fusionzoo.scoring.inference import split_probabilities
from fusionzoo.scoring.metrics import MAIN, METRICS, scores_from_confusion
from fusionzoo.scoring.statistics import percentiles

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.host import Host

#: A statistic `(R,)` of sums over dialogues `(R, K)`.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Finding:
    """One thing that was found, in words.

    Parameters
    ----------
    part : which question it answers, such as `calibration`.
    words : the sentence.
    grave : whether it is a fault that somebody should look at; else it is worth knowing.
    """

    part: str
    words: str
    grave: bool = False

    def __str__(self) -> str:
        return f"{'! ' if self.grave else '- '}{self.words}"


@dataclass(frozen=True)
class Predicted:
    """Probabilities of the labelled utterances of one split.

    Parameters
    ----------
    corpus : where they stand.
    split : its name.
    rows : `(N,)` rows of the corpus, all labelled.
    probabilities : `(N, C)`.
    """

    corpus: Corpus
    split: str
    rows: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def true(self) -> np.ndarray:
        """`(N,)` classes."""
        return self.corpus.label[self.rows]

    @cached_property
    def predicted(self) -> np.ndarray:
        """`(N,)` classes of largest probability."""
        return self.probabilities.argmax(1)

    @cached_property
    def dialogue(self) -> np.ndarray:
        """`(N,)` number of the dialogue, from 0."""
        return np.unique(self.corpus.dialogue_id[self.rows], return_inverse=True)[1]

    def confusions(self) -> dict[str, np.ndarray]:
        """Dialogue -> its confusion matrix `(C, C)`, rows true."""
        names, number = np.unique(self.corpus.dialogue_id[self.rows], return_inverse=True)
        c = self.corpus.num_classes
        flat = (number * c + self.true) * c + self.predicted
        counts = np.bincount(flat, minlength=len(names) * c * c).reshape(len(names), c, c)
        return dict(zip(names.tolist(), counts.astype(np.float64), strict=True))

    def score(self, chosen: np.ndarray | None = None) -> dict[str, float]:
        """Every metric of these utterances, or of those that are `chosen` (bool `(N,)`)."""
        here = slice(None) if chosen is None else chosen
        return scores_of(self.true[here], self.predicted[here], self.corpus.num_classes)

    @property
    def main(self) -> float:
        """The field's main score."""
        return self.score()[MAIN]

    def interval(self, columns: np.ndarray, statistic: Statistic, level: float = 0.95) -> tuple[float, float] | None:
        """Interval of a statistic when the dialogues are drawn anew: utterances of one conversation are not independent.

        Parameters
        ----------
        columns : `(N, K)` numbers of each utterance, which are summed.
        statistic : takes sums `(R, K)`, gives `(R,)`; what is not finite in a draw leaves that draw out.
        level : of the interval.

        Returns
        -------
        The interval, see `percentiles`; None with fewer than two dialogues.
        """
        dialogues = int(self.dialogue.max(initial=-1)) + 1
        if dialogues < 2:
            return None
        sums = np.zeros((dialogues, columns.shape[1]))
        np.add.at(sums, self.dialogue, columns)
        draws = np.random.default_rng(0).multinomial(dialogues, np.full(dialogues, 1 / dialogues), 2000)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = statistic(draws.astype(np.float64) @ sums)
        values = values[np.isfinite(values)]
        return percentiles(values, dialogues, level) if len(values) else None


def scores_of(true: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """Every metric of predictions."""
    confusion = np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return {name: float(value) for name, value in scores_from_confusion(confusion).items()}


def predict_split(host: Host, corpus: Corpus, split: str, batch_size: int = 16) -> Predicted:
    """What a host says of a split.

    Raises
    ------
    DataError : the split has no labelled utterance.
    """
    labelled = (corpus.split == split) & (corpus.label >= 0)
    if not labelled.any():
        there = ", ".join(sorted(set(corpus.split[corpus.label >= 0].tolist()))) or "no labels at all"
        raise DataError(f"{corpus.name!r} has no labelled utterance in its {split} split; labels are in: {there}")
    resident = split_of(corpus, split, next(host.parameters()).device)
    rows, probabilities = split_probabilities(host, corpus, resident, split, batch_size)
    kept = corpus.label[rows] >= 0
    return Predicted(corpus, split, rows[kept], probabilities[kept])


def points(value: float, sign: bool = False) -> str:
    """A score or a difference of scores as sentences show it: `.612`, `-.020`, with `sign` `+.020`."""
    text = f"{value:{'+' if sign else ''}.3f}".replace("0.", ".", 1)
    return {"-.000": ".000", "+.000": ".000"}.get(text, text)


def between(interval: tuple[float, float] | None) -> str:
    """` [.010, .030]`, with the space before it; nothing for None."""
    return "" if interval is None else f" [{points(interval[0])}, {points(interval[1])}]"


def main_short() -> str:
    """What tables call the main score."""
    return METRICS[MAIN].short
