"""The field's scores, always together: one table, `METRICS`, which everything that chooses, shows or compares reads.

per_class     precision, recall, F1 and support of each class
confusion     rows true, columns predicted, counts
log_loss      mean negative log-probability of the true class, where probabilities are given
never_predicted   classes that occur but that no utterance was given
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from fusionzoo._types import Scores
from fusionzoo.errors import DataError, ShapeError

#: Less than one count, for divisions by none.
_TINY = 1e-12


class Counts:
    """What confusion matrices `(..., C, C)`, rows true, say of each class `(..., C)`."""

    def __init__(self, confusion: ArrayLike):
        self.confusion = np.asarray(confusion, dtype=np.float64)
        self.right = np.diagonal(self.confusion, axis1=-2, axis2=-1)
        #: How often each class is true, and how often it was given.
        self.support, self.given = self.confusion.sum(-1), self.confusion.sum(-2)
        self.total = np.maximum(self.support.sum(-1), _TINY)

    @cached_property
    def precision(self) -> np.ndarray:
        """Of what was given a class, the share that is right; zero where nothing was."""
        return self.right / np.maximum(self.given, _TINY)

    @cached_property
    def recall(self) -> np.ndarray:
        """Of a class, the share that was found; zero where it does not occur."""
        return self.right / np.maximum(self.support, _TINY)

    @cached_property
    def f1(self) -> np.ndarray:
        """Harmonic mean of the two."""
        return 2 * self.right / np.maximum(self.support + self.given, _TINY)


@dataclass(frozen=True)
class Metric:
    """A score of predictions.

    Parameters
    ----------
    short : what tables call it.
    of : its values `(...)` from the counts of confusion matrices `(..., C, C)`.
    higher_is_better : which epoch of a run is the best one.
    format : of its values in tables.
    """

    short: str
    of: Callable[[Counts], np.ndarray]
    higher_is_better: bool = True
    format: str = ".4f"

    def gain(self, value: float) -> float:
        """The value turned so that more is better."""
        return value if self.higher_is_better else -value

    def show(self, value: float | None) -> str:
        """The value as tables show it; nothing for None."""
        return "" if value is None else format(value, self.format)


def _unweighted_accuracy(counts: Counts) -> np.ndarray:
    occurs = counts.support > 0
    return (counts.recall * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1)


#: Every score by which runs are chosen and compared, by its name in configurations and files. Whoever adds one adds a line:
#: the choices of `training.metric`, recipes, histories, results, reports and comparisons follow. The first one is the
#: field's, and stands where there is room for one.
METRICS: dict[str, Metric] = {
    # F1 per class, averaged with the classes' shares.
    "weighted_f1": Metric("W-F1", lambda counts: (counts.f1 * counts.support).sum(-1) / counts.total),
    # F1 per class, plain average.
    "macro_f1": Metric("macro F1", lambda counts: counts.f1.mean(-1)),
    # Unweighted accuracy: recall per class, plain average over the classes that occur.
    "ua": Metric("UA", _unweighted_accuracy),
    # Weighted accuracy: share of utterances that are right.
    "wa": Metric("WA", lambda counts: counts.right.sum(-1) / counts.total),
}
#: The metric that stands where there is room for one.
MAIN = next(iter(METRICS))
#: Which is no confusion's: of probabilities, lower is better.
LOG_LOSS = "log_loss"


def short_name(metric: str) -> str:
    """What tables call a metric; one that is not known here, of a file from elsewhere, keeps its name."""
    return METRICS[metric].short if metric in METRICS else metric


def scores_from_confusion(confusion: ArrayLike) -> dict[str, np.ndarray]:
    """Every metric of confusion matrices `(..., C, C)`, rows true."""
    counts = Counts(confusion)
    return {name: metric.of(counts) for name, metric in METRICS.items()}


def evaluate_predictions(y_true: ArrayLike, y_pred: ArrayLike, label_names: Sequence[str]) -> Scores:
    """Scores of predictions; plain Python values, ready for JSON.

    Parameters
    ----------
    y_true : `(N,)` class indices; negative ones are unlabelled and left out.
    y_pred : `(N,)` class indices or `(N, C)` probabilities.
    label_names : the C classes in order.

    Raises
    ------
    ShapeError : the lengths or C differ.
    DataError : nothing is labelled, or an index is too large.
    """
    from sklearn.metrics import confusion_matrix

    true, predicted, probabilities = _labelled(np.asarray(y_true), np.asarray(y_pred), label_names)
    confusion = confusion_matrix(true, predicted, labels=list(range(len(label_names))))
    counts = Counts(confusion)
    scores: dict[str, Any] = {name: float(metric.of(counts)) for name, metric in METRICS.items()}
    if probabilities is not None:
        chosen = probabilities[np.arange(len(true)), true].astype(np.float64)
        scores[LOG_LOSS] = float(-np.log(np.clip(chosen, 1e-12, None)).mean())
    columns = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    scores |= {
        "utterances": len(true),
        "per_class": {
            name: {**{k: float(v[i]) for k, v in columns.items()}, "support": int(counts.support[i])}
            for i, name in enumerate(label_names)
        },
        "confusion": confusion.tolist(),
        "never_predicted": [n for i, n in enumerate(label_names) if counts.support[i] and not counts.given[i]],
    }
    return cast(Scores, scores)


def _labelled(
    true: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """True and predicted classes where there is a label, and the probabilities that the latter came from, if any."""
    classes = len(label_names)
    if len(true) != len(predicted) or (predicted.ndim == 2 and predicted.shape[1] != classes):
        raise ShapeError(
            f"predictions of shape {predicted.shape} do not fit {len(true)} labels of {classes} classes; "
            "expected (N,) class indices or (N, C) probabilities"
        )
    labelled = true >= 0
    if not labelled.any():
        raise DataError(
            "none of these utterances has a label, so nothing can be scored; use predict for unlabelled data"
        )
    true, predicted = true[labelled], predicted[labelled]
    probabilities = predicted if predicted.ndim == 2 else None
    predicted = predicted.argmax(1) if predicted.ndim == 2 else predicted
    top = int(max(true.max(), predicted.max()))
    if top >= classes:
        raise DataError(f"class index {top} is outside the {classes} classes {', '.join(label_names)}")
    return true, predicted, probabilities
