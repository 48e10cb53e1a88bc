"""The field's scores, always together.

weighted_f1   F1 per class, averaged with the classes' shares (W-F1)
macro_f1      F1 per class, plain average
ua            unweighted accuracy: recall per class, plain average over the classes that occur
wa            weighted accuracy: share of utterances that are right
log_loss      mean negative log-probability of the true class, where probabilities are given
per_class     precision, recall, F1 and support of each class
confusion     rows true, columns predicted, counts
never_predicted   classes that occur but that no utterance was given
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from fusionzoo._types import Scores
from fusionzoo.errors import DataError, ShapeError

#: Scores by which runs are chosen and compared.
SCORES = ("weighted_f1", "macro_f1", "ua", "wa")

#: What the scores are called in tables.
SHORT_NAMES = {"weighted_f1": "W-F1", "macro_f1": "macro F1", "ua": "UA", "wa": "WA"}


def evaluate_predictions(y_true: ArrayLike, y_pred: ArrayLike, label_names: Sequence[str]) -> Scores:
    """Scores of predictions by scikit-learn; plain Python values, ready for JSON.

    Parameters
    ----------
    y_true : `(N,)` class indices; negative ones are unlabelled and left out.
    y_pred : `(N,)` class indices or `(N, C)` probabilities.
    label_names : the C classes in order.

    Raises `ShapeError` when the lengths or C differ, `DataError` when nothing is labelled or an index is too large.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    true, predicted = np.asarray(y_true), np.asarray(y_pred)
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
    labels = list(range(classes))
    columns: Any = precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0.0)  # type: ignore[arg-type]
    precision, recall, f1, support = columns
    occurs = support > 0
    scores: dict[str, Any] = {
        "weighted_f1": float(np.average(f1, weights=support)),
        "macro_f1": float(f1.mean()),
        "ua": float(recall[occurs].mean()),
        "wa": float((true == predicted).mean()),
    }
    if probabilities is not None:
        chosen = probabilities[np.arange(len(true)), true].astype(np.float64)
        scores["log_loss"] = float(-np.log(np.clip(chosen, 1e-12, None)).mean())
    scores |= {
        "utterances": len(true),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(label_names)
        },
        "confusion": confusion_matrix(true, predicted, labels=labels).tolist(),
        "never_predicted": [n for i, n in enumerate(label_names) if occurs[i] and not (predicted == i).any()],
    }
    return cast(Scores, scores)


def scores_from_confusion(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """The four scores from confusion matrices `(..., C, C)`, rows true; the vectorised twin of `evaluate_predictions`."""
    confusion = np.asarray(confusion, dtype=np.float64)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, given = confusion.sum(-1), confusion.sum(-2)
    f1 = 2 * right / np.maximum(support + given, 1e-12)
    total = np.maximum(support.sum(-1), 1e-12)
    occurs = support > 0
    recall = right / np.maximum(support, 1e-12)
    return {
        "weighted_f1": (f1 * support).sum(-1) / total,
        "macro_f1": f1.mean(-1),
        "ua": (recall * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1),
        "wa": right.sum(-1) / total,
    }
