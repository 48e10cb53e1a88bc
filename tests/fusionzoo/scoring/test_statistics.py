from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fusionzoo.scoring.metrics import evaluate_predictions
from fusionzoo.scoring.statistics import bootstrap_difference, dialogue_confusions, holm, mean_interval, paired_p


def test_interval_agrees_with_scipy():
    x = [0.61, 0.63, 0.60, 0.66, 0.62]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(x), scale=stats.sem(x))
    assert mean_interval(x) == pytest.approx({"mean": np.mean(x), "sd": np.std(x, ddof=1), "low": low, "high": high})


def test_interval_of_too_few():
    assert mean_interval([0.5]) == {"mean": 0.5, "sd": None, "low": None, "high": None}
    assert mean_interval([])["mean"] is None


def test_paired_p_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=8), rng.normal(size=8)
    assert paired_p(a.tolist(), b.tolist()) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert paired_p([0.5], [0.4]) is None
    assert paired_p([0.5, 0.6], [0.5, 0.6]) == 1.0


def test_holm_by_hand():
    # Sorted: .01 * 3, .02 * 2, .04 * 1, each at least as large as the one before.
    assert holm([0.04, None, 0.01, 0.02]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]


def table(rows):
    return [{"split": "test", "dialogue": d, "true": t, "predicted": p} for d, t, p in rows]


def test_confusions_of_dialogues_leave_out_other_splits_and_unlabelled():
    rows = table([("d1", "a", "a"), ("d1", "a", "b"), ("d2", "b", "b"), ("d2", "", "b")])
    rows.append({"split": "dev", "dialogue": "d3", "true": "a", "predicted": "a"})
    confusions = dialogue_confusions(rows, "test", ["a", "b"])
    assert {d: m.tolist() for d, m in confusions.items()} == {"d1": [[1, 1], [0, 0]], "d2": [[0, 0], [0, 1]]}


def test_bootstrap_covers_zero_for_equals_and_not_for_unequals():
    rng = np.random.default_rng(0)

    def model(accuracy, seed):
        r = np.random.default_rng(seed)
        return {
            f"d{i}": np.array(
                evaluate_predictions(t, np.where(r.random(20) < accuracy, t, 1 - t), ["a", "b"])["confusion"]
            )
            for i, t in enumerate(truth)
        }

    truth = rng.integers(0, 2, (40, 20))
    good, also, bad = ([model(q, s + k) for k in range(3)] for q, s in ((0.8, 0), (0.8, 10), (0.6, 20)))
    low, high = bootstrap_difference(good, also) or (1.0, 1.0)
    assert low < 0 < high
    low, high = bootstrap_difference(good, bad) or (0.0, 0.0)
    assert 0.1 < low < 0.2 < high < 0.3
    assert bootstrap_difference(good, bad) == bootstrap_difference(good, bad)
    assert bootstrap_difference(good, bad[:2]) is None
    assert bootstrap_difference([{"d0": good[0]["d0"]}], [{"d1": bad[0]["d1"]}]) is None
