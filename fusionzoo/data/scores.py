"""Scores beside classes: MOSI-style sentiment of -3 to 3, a column `score` of one number per utterance.

A model of classes predicts scores where the names of its classes are numbers: the expected value over their probabilities.
`with_score_classes` makes such classes of scores, the nearest of some values each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fusionzoo.data.conventions import UNLABELLED
from fusionzoo.data.corpus import Corpus
from fusionzoo.errors import DataError, OptionError


def class_values(label_names: Sequence[str]) -> tuple[float, ...] | None:
    """The numbers that the classes are called, two or more; None where they are called otherwise."""
    try:
        values = tuple(float(name) for name in label_names)
    except ValueError:
        return None
    return values if len(values) > 1 and all(map(math.isfinite, values)) else None


def scores_of(corpus: Corpus) -> np.ndarray | None:
    """`(N,)` float64 of the column `score`, NaN where there is none; None without such a column."""
    column = corpus.extras.get("score")
    if column is None or column.shape != (len(corpus),) or column.dtype.kind not in "fiu":
        return None
    return column.astype(np.float64)


def with_score_classes(corpus: Corpus, values: Sequence[float]) -> Corpus:
    """The same corpus whose classes are these values, each utterance's the one nearest to its score.

    Raises
    ------
    DataError : the corpus has no scores.
    OptionError : fewer than two values, or one twice.
    """
    ordered = sorted(float(v) for v in values)
    if len(ordered) < 2 or len(set(ordered)) != len(ordered) or not all(map(math.isfinite, ordered)):
        raise OptionError(
            f"score classes {list(values)!r}: expected two or more different numbers, such as -3,-2,-1,0,1,2,3"
        )
    scores = scores_of(corpus)
    if scores is None:
        raise DataError(
            f"{corpus.source} has no column 'score' of one number per utterance, of which classes could be made; it has "
            f"{', '.join(corpus.extras) or 'no further columns'}."
        )
    known = np.isfinite(scores)
    nearest = np.abs(np.where(known, scores, 0.0)[:, None] - np.array(ordered)).argmin(1)
    return replace(
        corpus, label=np.where(known, nearest, UNLABELLED), label_names=tuple(f"{v:g}" for v in ordered)
    ).validate()
