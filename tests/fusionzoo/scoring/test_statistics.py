from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from fusionzoo.scoring.statistics import (
    ORDERED,
    almost_stochastic_order,
    bootstrap_difference,
    bootstrap_differences,
    dialogue_confusions,
    holm,
    mean_interval,
    paired_p,
    percentiles,
    permutation_p,
    rank_over_blocks,
    smallest_over_dialogues,
    smallest_over_seeds,
    violation_ratio,
)


def test_interval_agrees_with_scipy():
    x = [0.61, 0.63, 0.60, 0.66, 0.62]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(x), scale=stats.sem(x))
    assert mean_interval(x) == pytest.approx({"mean": np.mean(x), "sd": np.std(x, ddof=1), "low": low, "high": high})


def test_interval_of_too_few():
    assert mean_interval([0.5]) == {"mean": 0.5, "sd": None, "low": None, "high": None}
    assert mean_interval([])["mean"] is None
    two = mean_interval([0.5, 0.6])
    assert two["sd"] == pytest.approx(0.1 / np.sqrt(2))
    assert (two["low"], two["high"]) == (None, None), "its t interval is [-0.09, 1.19]"


def test_paired_p_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=8), rng.normal(size=8)
    assert paired_p(a.tolist(), b.tolist()) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert paired_p([0.5], [0.4]) is None
    assert paired_p([0.5, 0.6], [0.5, 0.6]) == 1.0


def test_equal_differences_are_no_proof():
    # Three seeds that all gain one utterance: their signs alone would agree in one of four cases.
    assert paired_p([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]) == pytest.approx(0.25)


def test_permutation_p_by_hand():
    # Of the 32 ways to turn the signs, two (all, none) give a mean as large.
    assert permutation_p([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]) == pytest.approx(2 / 32)
    # +3 -1: signs give means of 1, 2, -1, -2; all four are as large as |1|.
    assert permutation_p([3, 0], [0, 1]) == pytest.approx(1.0)
    # +3 +2 -1, sum 4: of 6, 4, 2, 0 and their negatives, four are as large.
    assert permutation_p([3, 2, 0], [0, 0, 1]) == pytest.approx(4 / 8)
    assert permutation_p([0.5], [0.4]) is None


@pytest.mark.parametrize("seeds", [4, 9])
def test_permutation_p_agrees_with_scipy(seeds):
    a, b = np.random.default_rng(seeds).normal(size=(2, seeds))
    result = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False)
    assert permutation_p(a, b) == pytest.approx(result.pvalue)


def test_many_seeds_are_permuted_by_chance():
    # Fourteen are drawn: as all their signs have it, but for three and a half deviations of ten thousand draws.
    d = np.random.default_rng(3).normal(0.3, 1, size=14)
    every = np.abs(np.array(list(itertools.product([-1, 1], repeat=14))) @ d)
    assert permutation_p(d, np.zeros(14)) == pytest.approx(np.mean(every >= abs(d.sum()) - 1e-9), abs=0.0175)


def test_smallest_difference_agrees_with_power_tables():
    # Effect sizes that a paired t-test at .05 finds in 80 % of all cases, from statsmodels' TTestPower().solve_power.
    for n, effect in ((3, 3.26404), (5, 1.68200), (10, 0.99600), (34, 0.49503)):
        d = np.random.default_rng(n).normal(size=n)
        assert smallest_over_seeds(d, np.zeros(n)) == pytest.approx(effect * d.std(ddof=1), rel=1e-4)
    assert smallest_over_seeds([0.5, 0.6], [0.4, 0.4]) is None
    strict, lenient = (smallest_over_seeds([0.5, 0.6, 0.7], [0.4, 0.4, 0.7], alpha=a) or 0.0 for a in (0.01, 0.05))
    assert strict > lenient


def test_smallest_difference_over_dialogues_by_hand():
    # Of very many dialogues: 1.960 + 0.842 standard errors.
    samples = np.random.default_rng(0).normal(0.3, 0.01, 4000)
    assert smallest_over_dialogues(samples, 100_000) == pytest.approx(2.8016 * samples.std(ddof=1), rel=1e-3)


def test_violation_ratio_by_hand():
    # Lower half of the quantiles: 0 under 1, squared 1; upper half: 4 over 2, squared 4.
    assert violation_ratio([4, 0], [1, 2]) == pytest.approx(1 / 5)
    assert violation_ratio([1, 2], [4, 0]) == pytest.approx(4 / 5)
    # Unequal numbers, in sixths: 0 0 0 3 3 3 beside 1 1 2 2 2 2: -1 -1 -2 1 1 1, so 6 of 9.
    assert violation_ratio([0, 3], [1, 2, 2]) == pytest.approx(6 / 9)
    assert violation_ratio([2, 3], [1, 2]) == 0
    assert violation_ratio([1, 2], [1, 2]) == 0.5


def test_almost_stochastic_order():
    good, bad = [0.70, 0.71, 0.72, 0.73, 0.74], [0.60, 0.61, 0.62, 0.63, 0.64]
    assert almost_stochastic_order(good, bad) == 0
    assert almost_stochastic_order(bad, good) == 1
    assert (almost_stochastic_order(good, list(reversed(good))) or 0) > 0.5
    assert almost_stochastic_order(good[:4], bad) is None


def test_ranks_agree_with_the_example_of_the_method():
    # Table 6 of Demšar (2006), JMLR 7: four ways to grow C4.5 trees on fourteen data sets; his ranks, his chi square of 9.28
    # without correction for ties, his critical difference of 1.25. (.9751: his ranks tell apart what his digits do not.)
    table = {
        "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.94, 0.619, 0.972, 0.957],
        "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
        "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.9751, 0.946],
        "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.975, 0.970],
    }
    ranks = rank_over_blocks(table)
    assert dict(zip(ranks.names, ranks.mean, strict=True)) == pytest.approx(
        {"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}, abs=6e-4
    )
    assert ranks.p == pytest.approx(stats.friedmanchisquare(*table.values()).pvalue)
    assert 12 * 14 / (4 * 5) * (np.square(ranks.mean).sum() - 4 * 5**2 / 4) == pytest.approx(9.28, abs=0.005)
    assert ranks.critical == pytest.approx(1.25, abs=0.006)
    assert ranks.blocks == 14
    assert ranks.together() == [(0, 3)]


@pytest.mark.parametrize(("models", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)])
def test_critical_differences_are_those_of_the_table(models, q):
    # Table 5 of Demšar (2006).
    scores = {str(i): [float(i)] * 6 for i in range(models)}
    ranks = rank_over_blocks(scores)
    assert ranks.critical == pytest.approx(q * np.sqrt(models * (models + 1) / 36), rel=1e-3)
    assert ranks.names == tuple(str(i) for i in reversed(range(models)))


def test_runs_of_models_that_are_not_told_apart():
    scores = {"a": [4.0] * 20, "b": [3.0] * 10 + [2.9] * 10, "c": [2.0] * 10 + [3.0] * 10, "d": [1.0] * 20}
    ranks = rank_over_blocks(scores)
    assert ranks.mean == (1.0, 2.5, 2.5, 4.0)
    assert ranks.together() == [(1, 2)]
    same = rank_over_blocks({"a": [1.0, 1.0], "b": [1.0, 1.0], "c": [1.0, 1.0]})
    assert (same.p, same.together()) == (1.0, [(0, 2)])


def test_holm_by_hand():
    # Sorted: .01 * 3, .02 * 2, .04 * 1, each at least as large as the one before.
    assert holm([0.04, None, 0.01, 0.02]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]


def equals(rng: np.random.Generator, dialogues: int, seeds: int = 2, better: float = 0.0):
    """Two models with dialogues of their own that they find hard; the first is right more often by `better`."""
    truth = rng.integers(0, 3, (dialogues, 12))
    models = []
    for gain in (better, 0.0):
        ease = np.clip(0.55 + gain + 0.12 * rng.normal(size=(dialogues, 1)), 0.02, 0.98)
        runs = []
        for _ in range(seeds):
            given = np.where(rng.random(truth.shape) < ease, truth, (truth + rng.integers(1, 3, truth.shape)) % 3)
            counts = np.zeros((dialogues, 3, 3))
            np.add.at(counts, (np.arange(dialogues)[:, None], truth, given), 1)
            runs.append({str(i): c for i, c in enumerate(counts)})
        models.append(runs)
    return models


def table(rows):
    return [{"split": "test", "dialogue": d, "true": t, "predicted": p} for d, t, p in rows]


def test_confusions_of_dialogues_leave_out_other_splits_and_unlabelled():
    rows = table([("d1", "a", "a"), ("d1", "a", "b"), ("d2", "b", "b"), ("d2", "", "b")])
    rows.append({"split": "dev", "dialogue": "d3", "true": "a", "predicted": "a"})
    confusions = dialogue_confusions(rows, "test", ["a", "b"])
    assert {d: m.tolist() for d, m in confusions.items()} == {"d1": [[1, 1], [0, 0]], "d2": [[0, 0], [0, 1]]}


def test_bootstrap_covers_zero_for_equals_and_not_for_unequals():
    rng = np.random.default_rng(0)
    (good, also), (better, bad) = equals(rng, 40, 3), equals(rng, 40, 3, better=0.2)
    low, high = bootstrap_difference(good, also) or (1.0, 1.0)
    assert low < 0 < high
    low, high = bootstrap_difference(better, bad) or (0.0, 0.0)
    assert 0.1 < low < 0.2 < high < 0.35
    assert bootstrap_difference(good, bad) == bootstrap_difference(good, bad)
    assert bootstrap_difference(good, bad[:2]) is None
    others = {f"other {d}": counts for d, counts in bad[0].items()}
    assert bootstrap_difference([good[0]], [others]) is None
    assert bootstrap_difference([dict(list(good[0].items())[:7])], [dict(list(bad[0].items())[:7])]) is None


def test_percentiles_are_wider_where_few_were_drawn_from():
    samples = np.random.default_rng(0).normal(size=100_000)
    assert percentiles(samples, 1_000_000) == pytest.approx(np.quantile(samples, [0.025, 0.975]), abs=1e-3)
    # Ten: 2.262 of a t with nine degrees of freedom, times the root of 10/9, in deviations of a normal.
    assert percentiles(samples, 10) == pytest.approx((-2.384, 2.384), abs=0.06)


# -- simulated nulls: how often chance is called a difference -----------------------------------------------------------
#
# Each rate is a binomial's share; it may be off by three and a half of its deviations, which chance does once in two thousand.


def off(rate: float, cases: int) -> float:
    return 3.5 * np.sqrt(rate * (1 - rate) / cases)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_t_calls_chance_a_difference_in_one_of_twenty(seeds):
    a, b = np.random.default_rng(seeds).normal(size=(2, 1000, seeds))
    found = np.mean([(paired_p(x, y) or 0) < 0.05 for x, y in zip(a, b, strict=True)])
    assert abs(found - 0.05) < off(0.05, 1000)


@pytest.mark.slow
def test_permutations_never_do_so_more_often():
    rng = np.random.default_rng(0)
    p = np.array([permutation_p(*rng.standard_t(2, size=(2, 6))) for _ in range(1000)], dtype=float)
    for level in (2 / 64, 4 / 64, 0.25):
        assert abs(np.mean(p <= level + 1e-9) - level) < off(level, 1000)


def test_holm_keeps_the_rate_of_the_whole_table():
    rng = np.random.default_rng(0)
    tables = rng.random((2000, 8))
    found = np.mean([min(p for p in holm(t.tolist()) if p is not None) < 0.05 for t in tables])
    assert abs(found - (1 - (1 - 0.05 / 8) ** 8)) < off(0.05, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10])
def test_almost_stochastic_order_rarely_orders_equals(seeds):
    rng = np.random.default_rng(seeds)
    draws = [almost_stochastic_order(*rng.normal(size=(2, seeds)), resamples=300) for _ in range(1000)]
    assert np.mean([d is not None and d < ORDERED for d in draws]) < 0.05 + off(0.05, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(("models", "blocks"), [(3, 3), (4, 6), (8, 12)])
def test_friedman_and_nemenyi_never_find_equals_different_more_often(models, blocks):
    rng = np.random.default_rng(models)
    ranks = [rank_over_blocks({str(i): v for i, v in enumerate(rng.normal(size=(models, blocks)))}) for _ in range(400)]
    assert np.mean([r.p < 0.05 for r in ranks]) < 0.05 + off(0.05, 400)
    assert np.mean([r.mean[-1] - r.mean[0] >= r.critical for r in ranks]) < 0.05 + off(0.05, 400)


@pytest.mark.slow
@pytest.mark.parametrize("dialogues", [8, 12, 31])
def test_the_bootstrap_calls_chance_a_difference_in_one_of_twenty(dialogues):
    rng, found = np.random.default_rng(dialogues), 0
    for _ in range(400):
        low, high = bootstrap_difference(*equals(rng, dialogues), resamples=400) or (-1.0, 1.0)
        found += low > 0 or high < 0
    assert abs(found / 400 - 0.05) < off(0.05, 400)


@pytest.mark.slow
def test_what_could_have_been_shown_is_shown_as_often_as_stated():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, 5))
    effect = 1.68200  # of five seeds, in deviations
    found = np.mean([(paired_p(x + effect, np.zeros(5)) or 0) < 0.05 for x in noise])
    assert abs(found - 0.8) < off(0.8, 2000)
    shown, smallest = [], []
    for _ in range(300):
        samples = bootstrap_differences(*equals(rng, 31, better=0.1), metric="wa", resamples=400)
        assert samples is not None
        shown.append(percentiles(samples, 31)[0] > 0)
        smallest.append(smallest_over_dialogues(samples, 31))
    # The planted difference is about what these dialogues can show, so that it is shown about as often as that says.
    assert np.mean(smallest) == pytest.approx(0.1, abs=0.02)
    assert 0.6 < np.mean(shown) < 0.95
