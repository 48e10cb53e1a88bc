"""Scores beside classes: MMSA's numbers, classes made of scores, and a run that is trained on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fusionzoo
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.scores import class_values, with_score_classes
from fusionzoo.errors import DataError, OptionError
from fusionzoo.scoring.regression import evaluate_scores, regression_of

TRUE = [-3.0, -2.4, -1.2, -0.4, 0.0, 0.0, 0.6, 1.4, 2.6, 3.0]
MMSAS = {"MAE": 0.64, "Corr": 0.8928, "Has0_acc_2": 0.8, "Non0_acc_2": 0.875, "Mult_acc_7": 0.4}
SAID = [-3.6, -1.9, 0.3, -0.6, -0.1, 0.4, 0.2, 2.1, 2.4, 1.2]


def corpus(scores: np.ndarray) -> Corpus:
    n = len(scores)
    return Corpus(
        name="scored",
        features={
            "text": np.nan_to_num(scores)[:, None] + np.zeros((n, 3)),
            "audio": np.ones((n, 2)) * np.arange(n)[:, None],
        },
        dialogue_id=np.repeat([f"d{i}" for i in range(n // 4)], 4),
        utterance_index=np.tile(np.arange(4), n // 4),
        speaker=np.full(n, "A"),
        label=np.zeros(n, int),
        label_names=("one", "two"),
        split=np.repeat(["train", "dev", "test"], [n - 8, 4, 4]),
        extras={"score": scores},
    )


def test_the_numbers_of_mmsa():
    """As MMSA's MetricsTop("regression") of MOSI gives them for the same numbers, which it rounds to four places."""
    found = evaluate_scores(TRUE, SAID)
    names = {
        "mae": "MAE",
        "pearson": "Corr",
        "acc_2": "Has0_acc_2",
        "acc_2_nonzero": "Non0_acc_2",
        "acc_7": "Mult_acc_7",
    }
    assert {theirs: round(found[ours], 4) for ours, theirs in names.items()} == MMSAS
    assert found["utterances"] == 10


def test_edges():
    assert evaluate_scores([np.nan, 1.0], [5.0, 1.0]) == {
        "mae": 0.0,
        "pearson": None,
        "acc_2": 1.0,
        "acc_2_nonzero": 1.0,
        "acc_7": 1.0,
        "utterances": 1,
    }
    assert evaluate_scores([0.0, 0.0], [1.0, -1.0])["acc_2_nonzero"] is None


def test_classes_of_scores_are_the_nearest_values():
    scored = with_score_classes(corpus(np.array([-3, -0.6, 0.4, np.nan] * 6)), [3, -3, 0])
    assert scored.label_names == ("-3", "0", "3")
    assert scored.label[:4].tolist() == [0, 1, 1, -100]
    assert class_values(scored.label_names) == (-3.0, 0.0, 3.0)
    assert class_values(("sad", "1")) is None
    with pytest.raises(OptionError, match="two or more different numbers"):
        with_score_classes(scored, [1, 1])
    with pytest.raises(DataError, match="no column 'score'"):
        with_score_classes(replace(scored, extras={}), [0, 1])


def test_the_prediction_is_the_expected_value():
    scored = with_score_classes(corpus(np.tile([-3, -0.5, 0.5, 3.0], 6)), [-3, 0, 3])
    certain = np.eye(3)[[0, 1, 1, 2]]
    found = regression_of(scored, np.arange(4), certain)
    assert found is not None
    assert found["mae"] == 0.25
    assert regression_of(replace(scored, label_names=("a", "b", "c")), np.arange(4), certain) is None


@pytest.mark.slow
def test_a_run_is_trained_and_scored(tmp_path):
    rng = np.random.default_rng(0)
    scored = with_score_classes(corpus(rng.uniform(-3, 3, 64)), range(-3, 4))
    config = {
        "host": {"name": "bc-lstm", "hidden": 16},
        "fusion": {"name": "concat"},
        "objective": {"name": "cross-entropy", "also": {"expected-score": {"weight": 1.0}}},
        "training": {"epochs": 15, "batch_size": 4, "device": "cpu", "lr": 0.01},
    }
    run = fusionzoo.train(config, tmp_path / "run", corpus=scored, quiet=True)
    assert run.test is not None
    assert run.test["regression"]["mae"] < 1.0
    assert run.test["regression"]["pearson"] > 0.8
    assert "Pearson" in str(run)
    again = fusionzoo.evaluate(run.folder, scored, device="cpu")
    np.testing.assert_allclose(again["regression"]["mae"], run.test["regression"]["mae"], atol=1e-6)
    stored = fusionzoo.runs.config.RunConfig.load(run.folder / "config.yaml").objective.also["expected-score"]
    assert stored["values"] == [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
