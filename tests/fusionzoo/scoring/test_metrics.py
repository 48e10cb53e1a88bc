from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from fusionzoo.errors import DataError, ShapeError
from fusionzoo.scoring.metrics import METRICS, evaluate_predictions, scores_from_confusion

NAMES = ["happy", "sad", "neutral"]


def test_by_hand():
    # happy: 1 of 2 found, 1 of 1 right -> F1 2/3; sad: 2 of 2 found, 2 of 3 right -> F1 0.8; neutral: never, F1 0.
    scores = evaluate_predictions([0, 0, 1, 1], [0, 1, 1, 1], NAMES)
    assert scores["weighted_f1"] == pytest.approx((2 * 2 / 3 + 2 * 0.8) / 4)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 3)
    assert scores["ua"] == pytest.approx(0.75)
    assert scores["wa"] == pytest.approx(0.75)
    assert scores["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert scores["per_class"]["happy"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert scores["never_predicted"] == []
    assert "log_loss" not in scores


def test_agrees_with_scikit_learn_on_probabilities():
    rng = np.random.default_rng(0)
    true, p = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    scores = evaluate_predictions(true, p, NAMES)
    assert scores["weighted_f1"] == pytest.approx(f1_score(true, p.argmax(1), average="weighted"))
    assert scores["macro_f1"] == pytest.approx(f1_score(true, p.argmax(1), average="macro"))
    assert scores["ua"] == pytest.approx(balanced_accuracy_score(true, p.argmax(1)))
    assert scores["log_loss"] == pytest.approx(log_loss(true, p))


def test_the_two_ways_to_score_agree():
    rng = np.random.default_rng(1)
    true, guess = rng.integers(0, 2, 50), rng.integers(0, 3, 50)  # class 2 never occurs but is predicted
    scores = evaluate_predictions(true, guess, NAMES)
    stacked = np.stack([np.array(scores["confusion"])] * 2)
    for key, values in scores_from_confusion(stacked).items():
        assert values == pytest.approx([scores[key]] * 2)
    assert set(METRICS) <= set(scores)


def test_unlabelled_utterances_are_left_out():
    with_gaps = evaluate_predictions([0, -100, 1, -100], [0, 1, 1, 2], NAMES)
    assert with_gaps == evaluate_predictions([0, 1], [0, 1], NAMES)
    assert with_gaps["utterances"] == 2


def test_a_class_that_is_never_predicted_is_named():
    assert evaluate_predictions([0, 1, 2], [0, 0, 0], NAMES)["never_predicted"] == ["sad", "neutral"]


@pytest.mark.parametrize(
    ("true", "predicted", "error", "message"),
    [
        ([0, 1], [0], ShapeError, "do not fit 2 labels"),
        ([0], [[0.5, 0.5]], ShapeError, "do not fit 1 labels of 3 classes"),
        ([-100], [0], DataError, "none of these utterances has a label"),
        ([3], [0], DataError, "class index 3 is outside the 3 classes"),
    ],
)
def test_what_cannot_be_scored(true, predicted, error, message):
    with pytest.raises(error, match=message):
        evaluate_predictions(true, predicted, NAMES)
