"""Statistics of comparisons, by SciPy.

over seeds       mean and t interval, paired t and permutation tests, almost stochastic order
over a table     Holm's correction for many comparisons
over dialogues   the bootstrap of a difference
over blocks      Friedman's test and Nemenyi's critical difference of mean ranks

and, over seeds and dialogues, the smallest difference that so many of them could have shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusionzoo.scoring.metrics import MAIN, scores_from_confusion

#: Fewer seeds than this give no interval and no test: two differences say next to nothing of their own spread.
FEWEST_SEEDS = 3
#: With fewer, the interval of the difference of two equal models leaves out zero in 8 % of all cases or more.
FEWEST_DIALOGUES = 8
#: What counts as an order of two models, and from how many seeds on: then chance alone is called one in 5 % of all cases.
ORDERED, FEWEST_IN_ORDER = 0.2, 5
#: How often a test may call chance a difference, and how often it should see one that is there.
ALPHA, POWER = 0.05, 0.8


# -- over seeds -------------------------------------------------------------------------------------------------------


def mean_interval(values: Sequence[float], level: float = 0.95) -> dict[str, float | None]:
    """Mean, sample deviation and the t interval of the mean: `{"mean", "sd", "low", "high"}`; None where undefined.

    Two values have no interval either: theirs is thirteen times as wide as they lie apart, wider than any score can be.
    """
    from scipy.stats import t

    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return dict.fromkeys(("mean", "sd", "low", "high"))
    mean = float(x.mean())
    sd = float(x.std(ddof=1)) if len(x) > 1 else None
    if sd is None or len(x) < FEWEST_SEEDS:
        return {"mean": mean, "sd": sd, "low": None, "high": None}
    half = float(t.ppf(0.5 + level / 2, len(x) - 1)) * sd / math.sqrt(len(x))
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def paired_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test over seeds; None with fewer than two pairs.

    Differences that are all equal, as few test utterances can make them, have no spread to test against: they get the p of
    the signs alone (`permutation_p`), not one of zero.
    """
    from scipy.stats import t

    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if len(d) < 2:
        return None
    mean, sd = abs(float(d.mean())), float(d.std(ddof=1))
    if sd < 1e-12:
        return 1.0 if mean < 1e-12 else 0.5 ** (len(d) - 1)
    return float(2 * t.sf(mean / (sd / math.sqrt(len(d))), len(d) - 1))


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of the paired permutation test over seeds, which assumes no distribution; None with fewer than two pairs.

    Every way to turn the signs of the differences is tried, from fourteen seeds on ten thousand of them. It cannot be
    smaller than `2 ** (1 - seeds)`: five seeds never reach .05, six do.
    """
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if len(d) < 2:
        return None
    if len(d) < 14:
        signs = 1 - 2 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
    else:
        drawn = np.random.default_rng(0).choice([-1, 1], (9999, len(d)))
        signs = np.concatenate([np.ones((1, len(d))), drawn])  # as it is, which is one of the ways
    means = np.abs(signs @ d)
    return float(np.mean(means >= means[0] * (1 - 1e-9)))


def smallest_over_seeds(
    a: Sequence[float], b: Sequence[float], alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """The smallest true difference that the paired t-test over these seeds would show with this power.

    Parameters
    ----------
    a, b : scores of two models on the same seeds; how much their differences spread is taken from them.
    alpha : of the two-sided test; of one among `m` that Holm corrects, `0.05 / m` is the strictest.
    power : how often a difference of this size would be shown.

    None with fewer than `FEWEST_SEEDS` pairs.
    """
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if len(d) < FEWEST_SEEDS:
        return None
    return _smallest(float(d.std(ddof=1)) / math.sqrt(len(d)), len(d), alpha, power)


def _smallest(standard_error: float, units: int, alpha: float, power: float) -> float:
    """What a two-sided t-test of so many units finds with this power: by the noncentral t, its other side left out."""
    from scipy.optimize import root_scalar
    from scipy.stats import nct, t

    threshold = float(t.ppf(1 - alpha / 2, units - 1))

    def lacking(shift: float) -> float:
        return float(nct.sf(threshold, units - 1, shift)) - power

    upper = 2.0 * threshold
    while lacking(upper) < 0:
        upper *= 2
    return float(root_scalar(lacking, bracket=(0.0, upper)).root) * standard_error


def violation_ratio(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    """By how much the quantiles of `a` (..., n) fall below those of `b` (..., m), of all by which they differ: 0 to 1.

    Squared and integrated, as in del Barrio et al. (2018): 0 where every quantile of `a` is at least as large, 1 where none is,
    0.5 where they are equal.
    """
    a, b = (np.sort(np.asarray(x, dtype=np.float64), axis=-1) for x in (a, b))
    n, m = a.shape[-1], b.shape[-1]
    # Both quantile functions are steps: constant between the multiples of 1/n and of 1/m, here in units of 1/(nm).
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    starts, widths = edges[:-1], np.diff(edges)
    apart = a[..., starts // m] - b[..., starts // n]
    below, all_of_it = ((np.where(where, apart, 0.0) ** 2 * widths).sum(-1) for where in (apart < 0, apart == apart))
    return np.where(all_of_it > 0, below / np.maximum(all_of_it, 1e-300), 0.5)


def almost_stochastic_order(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> float | None:
    """Upper bound of `violation_ratio(a, b)`, by the bootstrap: how far `a` is from being better in every quantile.

    Parameters
    ----------
    a, b : scores of two models over seeds; more is better.
    level : of the bound.
    resamples : of the bootstrap.
    seed : of the bootstrap.

    Below 0.5 `a` is almost stochastically larger (Dror et al. 2019); below `ORDERED`, chance is a poor explanation. None with
    fewer than `FEWEST_IN_ORDER` scores of either: three lie in order by chance too often.
    """
    from scipy.stats import norm

    x, y = (np.asarray(v, dtype=np.float64) for v in (a, b))
    if min(len(x), len(y)) < FEWEST_IN_ORDER:
        return None
    rng = np.random.default_rng(seed)
    drawn = violation_ratio(rng.choice(x, (resamples, len(x))), rng.choice(y, (resamples, len(y))))
    bound = float(violation_ratio(x, y)) + float(norm.ppf(level)) * float(drawn.std())
    return min(bound, 1.0)


# -- over a table of comparisons ---------------------------------------------------------------------------------------


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None stays None and does not count as a comparison."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        out[i] = largest
    return out


# -- over dialogues ----------------------------------------------------------------------------------------------------


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


def bootstrap_differences(
    a: Sequence[Mapping[str, np.ndarray]],
    b: Sequence[Mapping[str, np.ndarray]],
    metric: str = MAIN,
    resamples: int = 2000,
    seed: int = 0,
) -> np.ndarray | None:
    """`score(a) - score(b)`, averaged over seeds, for every time that the test dialogues are drawn anew.

    Parameters
    ----------
    a, b : per seed, dialogue -> confusion matrix, of two models on the same dialogues.
    metric : which score.
    resamples : how often they are drawn.
    seed : of the draws.

    The dialogue is the unit that is resampled: utterances of one conversation are not independent. None when the models were
    not scored on the same dialogues, or on fewer than `FEWEST_DIALOGUES`.
    """
    if not a or len(a) != len(b) or len(a[0]) < FEWEST_DIALOGUES or any(m.keys() != a[0].keys() for m in (*a, *b)):
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
    return scores[0] - scores[1]


def percentiles(samples: np.ndarray, units: int, level: float = 0.95) -> tuple[float, float]:
    """The interval that holds this share of bootstrap samples, and a little more where few units were drawn from.

    Parameters
    ----------
    samples : of a statistic.
    units : how many dialogues were drawn from. The bootstrap's deviation is that of `n` where it should be of `n - 1`, and its
        ends are those of a normal where they should be of a t: plain percentiles of ten dialogues miss the truth in one
        of ten cases. The level is expanded by as much (Hesterberg 2015).
    level : of the interval.
    """
    from scipy.stats import norm, t

    tail = float(norm.sf(t.ppf(0.5 + level / 2, units - 1) * math.sqrt(units / (units - 1))))
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_difference(
    a: Sequence[Mapping[str, np.ndarray]],
    b: Sequence[Mapping[str, np.ndarray]],
    metric: str = MAIN,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Interval of `score(a) - score(b)` when the test dialogues are drawn anew: percentiles of `bootstrap_differences`."""
    samples = bootstrap_differences(a, b, metric, resamples, seed)
    return None if samples is None else percentiles(samples, len(a[0]), level)


def smallest_over_dialogues(samples: np.ndarray, units: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that an interval over these dialogues would show with this power.

    Parameters
    ----------
    samples : of `bootstrap_differences`; their deviation tells the difference's standard error.
    units : how many dialogues were drawn from.
    alpha : one minus the interval's level.
    power : how often a difference of this size would be shown.
    """
    return _smallest(float(samples.std(ddof=1)) * math.sqrt(units / (units - 1)), units, alpha, power)


# -- over blocks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranks:
    """Several models in several blocks (hosts, data sets), by the rank that each has in each block.

    Parameters
    ----------
    names : of the models, the best first.
    mean : their mean ranks; 1 is the best.
    p : of Friedman's test, whose null is that all are equally good.
    critical : Nemenyi's critical difference; mean ranks that lie less apart than this are not told apart.
    blocks : how many there are.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    p: float
    critical: float
    blocks: int

    def together(self) -> list[tuple[int, int]]:
        """The first and last place of every largest run of models that are not told apart, alone ones left out."""
        runs: list[tuple[int, int]] = []
        for first, rank in enumerate(self.mean):
            last = max(i for i, other in enumerate(self.mean) if other - rank < self.critical)
            if last > first and (not runs or last > runs[-1][1]):
                runs.append((first, last))
        return runs


def rank_over_blocks(scores: Mapping[str, Sequence[float]], alpha: float = ALPHA) -> Ranks:
    """Friedman's test and Nemenyi's critical difference, as Demšar (2006) compares classifiers over data sets.

    Parameters
    ----------
    scores : model -> its score in every block; more is better. Three models and two blocks at least.
    alpha : of the critical difference.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    values = np.array(list(scores.values()), dtype=np.float64).T  # (blocks, models)
    blocks, models = values.shape
    mean = rankdata(-values, axis=1).mean(0)
    equal = np.allclose(values, values[:, :1], rtol=0, atol=0)  # nothing to rank: the statistic is 0/0
    p = 1.0 if equal else float(friedmanchisquare(*values.T).pvalue)
    width = float(studentized_range.ppf(1 - alpha, models, np.inf)) / math.sqrt(2)
    order = np.argsort(mean, kind="stable")
    names = list(scores)
    return Ranks(
        names=tuple(names[i] for i in order),
        mean=tuple(float(mean[i]) for i in order),
        p=p,
        critical=width * math.sqrt(models * (models + 1) / (6 * blocks)),
        blocks=blocks,
    )
