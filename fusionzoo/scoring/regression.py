"""Scores of sentiment: MAE, Pearson's correlation, Acc-2 and Acc-7, as MULT, MISA and MMSA count them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fusionzoo._types import RegressionScores
from fusionzoo.data.scores import class_values, scores_of

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: Metric -> what tables call it.
SHORT = {
    "mae": "MAE",
    "pearson": "Pearson",
    "acc_2": "Acc-2 (neg/non-neg)",
    "acc_2_nonzero": "Acc-2 (neg/pos)",
    "acc_7": "Acc-7",
}


def evaluate_scores(true: ArrayLike, predicted: ArrayLike) -> RegressionScores:
    """Metrics of predicted scores.

    mae : mean absolute error.
    pearson : correlation; None where one of the two does not vary.
    acc_2, acc_2_nonzero : the sign is right: below zero or not, of all; below or above, of those whose true score is not 0.
    acc_7 : equal after rounding to -3, ..., 3.

    Parameters
    ----------
    true : `(N,)`; NaN where there is none.
    predicted : `(N,)`.
    """
    t, p = np.asarray(true, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    known = np.isfinite(t)
    t, p = t[known], p[known]
    signed = t != 0
    varies = len(t) > 1 and t.std() > 0 and p.std() > 0
    rounded = [np.round(np.clip(x, -3, 3)) for x in (t, p)]
    return {
        "mae": _mean(np.abs(t - p)),
        "pearson": float(np.corrcoef(t, p)[0, 1]) if varies else None,
        "acc_2": _mean((t >= 0) == (p >= 0)),
        "acc_2_nonzero": _mean((t[signed] > 0) == (p[signed] > 0)),
        "acc_7": _mean(rounded[0] == rounded[1]),
        "utterances": int(known.sum()),
    }


def _mean(x: np.ndarray) -> float | None:
    return float(x.mean()) if len(x) else None


def regression_of(corpus: Corpus, rows: np.ndarray, probabilities: np.ndarray) -> RegressionScores | None:
    """The metrics of some rows; None where the corpus has no scores there, or classes that are no numbers.

    The predicted score is the expected value of the classes.
    """
    values, scores = class_values(corpus.label_names), scores_of(corpus)
    if values is None or scores is None or not np.isfinite(scores[rows]).any():
        return None
    return evaluate_scores(scores[rows], probabilities.astype(np.float64) @ np.array(values))


def in_words(scores: RegressionScores) -> str:
    """One line of all of them."""
    shown = {SHORT[k]: scores[k] for k in ("mae", "pearson", "acc_2", "acc_2_nonzero", "acc_7")}
    return "   ".join(f"{name} {'' if value is None else f'{value:.4f}'}" for name, value in shown.items())
