"""What a script predicts, read where it computes its own score: every call of scikit-learn's `f1_score`.

The script gets the number that it asked for; what it gave (true classes, predictions, weights of padding) is kept as a confusion matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sklearn.metrics

from fusionzoo.scoring.metrics import scores_from_confusion
from fusionzoo.wild.replaced import Replaced


def confusion(true: Any, predicted: Any, weights: Any = None, classes: int = 6) -> np.ndarray:
    """Counts `(C, C)`, rows true; what a mask of zeros covers is not counted."""
    out = np.zeros((classes, classes))
    ones = np.ones(len(true)) if weights is None else np.asarray(weights, dtype=float)
    np.add.at(out, (np.asarray(true, dtype=int), np.asarray(predicted, dtype=int)), ones)
    return out


def weighted_f1(matrix: np.ndarray) -> float:
    """The study's one metric, in percent."""
    return 100 * float(scores_from_confusion(matrix)["weighted_f1"])


@dataclass
class Epoch:
    """The scores of one epoch: of test, validation and training utterances, as far as the script computes them."""

    matrices: dict[str, np.ndarray] = field(default_factory=dict)

    def f1(self, part: str) -> float | None:
        """Weighted F1 of a part, in percent."""
        return weighted_f1(self.matrices[part]) if part in self.matrices else None


class Evaluations:
    """Keeps what a script scores while the block runs.

    Parameters
    ----------
    test : how many utterances the test split has; no other part has as many.
    training : how many the others have together.
    """

    def __init__(self, test: int, training: int):
        self.test, self.training = test, training
        self.seen: list[tuple[str, np.ndarray]] = []
        self._replaced = Replaced()

    def __enter__(self) -> Evaluations:
        original = sklearn.metrics.f1_score

        def f1_score(true: Any, predicted: Any, *args: Any, sample_weight: Any = None, **kwargs: Any) -> Any:
            if len(true):
                self._keep(confusion(true, predicted, sample_weight))
            return original(true, predicted, *args, sample_weight=sample_weight, **kwargs)

        self._replaced.__enter__().set(sklearn.metrics, "f1_score", f1_score)
        return self

    def __exit__(self, *error: Any) -> None:
        self._replaced.__exit__(*error)

    def _keep(self, matrix: np.ndarray) -> None:
        count = matrix.sum()
        part = "test" if count == self.test else "training" if count > self.training / 2 else "validation"
        self.seen.append((part, matrix))

    def epochs(self, count: int) -> list[Epoch]:
        """The first `count` epochs; a new one begins where the part comes again that the script scores first.

        What a script computes twice in one epoch counts once; what it computes after the last one is not of an epoch.
        """
        out: list[Epoch] = []
        for part, matrix in self.seen:
            if part == self.seen[0][0]:
                out.append(Epoch())
            out[-1].matrices.setdefault(part, matrix)
        return [e for e in out[:count] if "test" in e.matrices]


def by_rule(rule: str, epochs: Sequence[Epoch], namespace: dict[str, Any]) -> int:
    """Which epoch a script takes by its own rule, counted from 0."""
    if rule == "test loss":  # which it does not give to a function; the predictions that it kept say which one it was
        kept = confusion(*(namespace[f"best_{k}"] for k in ("label", "pred", "mask")))
        return next(i for i, e in enumerate(epochs) if np.array_equal(e.matrices["test"], kept))
    part = {"test f1": "test", "validation f1": "validation"}[rule]
    return int(np.argmax([e.f1(part) or 0.0 for e in epochs]))  # the first of equals, as all of them do but MultiEMO


def honest(epochs: Sequence[Epoch]) -> int:
    """Which epoch is chosen without a look at the test: by the script's validation dialogues, else the last one."""
    if any("validation" not in e.matrices for e in epochs):
        return len(epochs) - 1
    return by_rule("validation f1", epochs, {})
