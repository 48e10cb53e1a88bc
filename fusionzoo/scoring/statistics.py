"""Statistics of comparisons: intervals over seeds, paired tests, correction for many comparisons, bootstrap over dialogues."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusionzoo.scoring.metrics import MAIN, scores_from_confusion


def mean_interval(values: Sequence[float], level: float = 0.95) -> dict[str, float | None]:
    """Mean, sample deviation and the t interval of the mean: `{"mean", "sd", "low", "high"}`; None where undefined."""
    from scipy.stats import t

    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return dict.fromkeys(("mean", "sd", "low", "high"))
    mean = float(x.mean())
    if len(x) < 2:
        return {"mean": mean, "sd": None, "low": None, "high": None}
    sd = float(x.std(ddof=1))
    half = float(t.ppf(0.5 + level / 2, len(x) - 1)) * sd / math.sqrt(len(x))
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def paired_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test over seeds; None with fewer than two pairs."""
    from scipy.stats import t

    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if len(d) < 2:
        return None
    sd = float(d.std(ddof=1))
    if sd < 1e-12:  # differences that are all equal: no variance to test against
        return 1.0 if abs(float(d.mean())) < 1e-12 else 0.0
    return float(2 * t.sf(abs(float(d.mean())) / (sd / math.sqrt(len(d))), len(d) - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None stays None and does not count as a comparison."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        out[i] = largest
    return out


def dialogue_confusions(
    rows: Sequence[Mapping[str, Any]], split: str, label_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Dialogue -> `(C, C)` counts (rows true) from the rows of a predictions.csv."""
    index = {name: i for i, name in enumerate(label_names)}
    out: dict[str, np.ndarray] = {}
    for row in rows:
        if row["split"] == split and row["true"]:
            matrix = out.setdefault(row["dialogue"], np.zeros((len(index), len(index))))
            matrix[index[row["true"]], index[row["predicted"]]] += 1
    return out


def bootstrap_difference(
    a: Sequence[Mapping[str, np.ndarray]],
    b: Sequence[Mapping[str, np.ndarray]],
    metric: str = MAIN,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Interval of `score(a) - score(b)`, averaged over seeds, when the test dialogues are drawn anew.

    Parameters
    ----------
    a, b : per seed, dialogue -> confusion matrix, of two models on the same dialogues.

    The dialogue is the unit that is resampled: utterances of one conversation are not independent. Percentile interval;
    None when the models were not scored on the same dialogues.
    """
    if not a or len(a) != len(b) or not a[0] or any(m.keys() != a[0].keys() for m in (*a, *b)):
        return None
    dialogues = sorted(a[0])
    stacks = [np.stack([[m[d] for d in dialogues] for m in side]) for side in (a, b)]  # (S, D, C, C)
    weights = np.random.default_rng(seed).multinomial(
        len(dialogues), np.full(len(dialogues), 1 / len(dialogues)), resamples
    )
    scores = [
        scores_from_confusion(np.einsum("rd,sdij->srij", weights.astype(np.float64), s, optimize=True))[metric].mean(0)
        for s in stacks
    ]
    low, high = np.quantile(scores[0] - scores[1], [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
