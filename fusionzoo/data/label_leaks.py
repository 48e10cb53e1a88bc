"""Whether features hold the labels: a column that is one, and a linear map that reads them too well to be honest.

A column that is the label, its number under another name, one class of it or any function of it is constant within each
class. Labels that were mixed into several columns are found by a linear reader of one modality, fitted on the training
split: reading emotion from honest features that well is beyond anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo._text import visible

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: A column of whose variance the classes explain this share, on the training split and on the one that is judged.
_COLUMN = 0.9
#: A linear reader of one modality that is right this often.
_READER = 0.98
#: Fewer utterances prove nothing of a column among hundreds.
_FEWEST = 30
_RIDGE = 1e-2


@dataclass(frozen=True)
class LabelReader:
    """What one modality tells a linear reader.

    Parameters
    ----------
    modality : its name.
    accuracy : on the split that is judged, of a reader that was fitted on the training split.
    columns : numbers of the features that the classes determine.
    explained : the largest share of a column's variance that the classes explain.
    """

    modality: str
    accuracy: float
    columns: tuple[int, ...]
    explained: float

    @property
    def leak(self) -> str | None:
        """A sentence where the labels are in the features."""
        where = visible(self.modality)
        if self.columns:
            few = ", ".join(map(str, self.columns[:5])) + (", ..." if len(self.columns) > 5 else "")
            which = f"column {few} of {where} is" if len(self.columns) == 1 else f"columns {few} of {where} are"
            return f"{which} made from the labels: the classes explain {100 * self.explained:.0f} % of the variance"
        if self.accuracy >= _READER:
            return f"{where} holds the labels: a linear map of it alone is right on {100 * self.accuracy:.1f} % of the utterances"
        return None


def read_labels(corpus: Corpus, split: str = "test") -> list[LabelReader]:
    """What a linear reader of each modality alone makes of a split; empty where a split has too few labels to tell."""
    out = []
    labelled = corpus.label >= 0
    for modality, x in corpus.features.items():
        there = labelled & corpus.present.get(modality, labelled)
        fit, judge = (np.flatnonzero(there & (corpus.split == s)) for s in ("train", split))
        if min(len(fit), len(judge)) < _FEWEST:
            continue
        a, b = x[fit].astype(np.float64), x[judge].astype(np.float64)
        explained = np.minimum(*(by_class(v, corpus.label[r], corpus.num_classes) for v, r in ((a, fit), (b, judge))))
        columns = tuple(np.flatnonzero(explained >= _COLUMN).tolist())
        accuracy = _linear(a, corpus.label[fit], b, corpus.label[judge], corpus.num_classes)
        out.append(LabelReader(modality, accuracy, columns, float(explained.max(initial=0.0))))
    return out


def by_class(x: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """`(d,)` share of each column's variance that lies between classes; zero for a column that never varies."""
    centred = x - x.mean(0)
    total = (centred**2).sum(0)
    one_hot = np.eye(classes)[label]
    count = np.maximum(one_hot.sum(0), 1)[:, None]
    between = ((one_hot.T @ centred) ** 2 / count).sum(0)
    # Rounding leaves a constant column a variance of about 1e-16 of its size; single precision resolves 1e-7.
    varies = total > len(x) * (1e-6 * np.maximum(np.abs(x).max(0), 1e-30)) ** 2
    return np.where(varies, between / np.where(varies, total, 1.0), 0.0)


def _linear(a: np.ndarray, label: np.ndarray, b: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """Accuracy on `b` of a ridge regression of the classes that was fitted on `a`."""
    mean, std = a.mean(0), a.std(0)
    std[std < 1e-9] = 1.0
    a, b = (a - mean) / std, np.clip((b - mean) / std, -10, 10)
    target = np.eye(classes)[label]
    weights = np.linalg.solve(a.T @ a + _RIDGE * len(a) * np.eye(a.shape[1]), a.T @ (target - target.mean(0)))
    return float(((b @ weights + target.mean(0)).argmax(1) == truth).mean())
