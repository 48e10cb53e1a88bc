from __future__ import annotations

import numpy as np
import pytest

from fusionzoo.errors import ShapeError
from fusionzoo.scoring.diagnostics.calibration import calibration, calibration_of
from fusionzoo.scoring.diagnostics.predicted import Predicted


def drawn(rng, n=600, sharpness=1.0):
    """Probabilities and labels that are drawn from them; then made sharper or flatter."""
    p = rng.dirichlet(np.ones(4), n)
    true = (p.cumsum(1) < rng.random((n, 1))).sum(1)
    p = p**sharpness
    return true, p / p.sum(1, keepdims=True)


def test_by_hand():
    # Confidences .9 (two, one right) and .6 (two, both right): gaps .4 and .4, half of the utterances each.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    found = calibration(np.array([0, 1, 0, 1]), p, bins=10)
    assert found.ece == pytest.approx(0.4)
    assert found.gap == pytest.approx(0.75 - 0.75)
    assert found.brier == pytest.approx((2 * 0.01 + 2 * 0.81 + 4 * 0.16) / 4)
    assert [(b.count, b.confidence, b.accuracy) for b in found.bins] == [
        (2, pytest.approx(0.6), 1.0),
        (2, pytest.approx(0.9), 0.5),
    ]


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_and_certainty_to_the_last():
    found = calibration(np.array([0, 0]), np.array([[0.5, 0.5], [1.0, 0.0]]), bins=2)
    assert [(b.low, b.count) for b in found.bins] == [(0.0, 1), (0.5, 1)]


def test_what_a_calibrated_model_shows_is_exceeded_in_one_of_twenty_samples():
    rng = np.random.default_rng(0)
    beyond = 0
    for _ in range(60):
        found = calibration(*drawn(rng, 120))
        beyond += found.ece > found.by_chance
    assert beyond <= 9  # of 60 draws at .05, 9 or fewer come in 998 of 1000


@pytest.mark.parametrize(
    ("sharpness", "word"), [(4.0, "over-confident: ECE ."), (0.3, "under-confident: ECE ."), (1.0, "calibrated as far")]
)
def test_a_miscalibrated_model_is_named(sharpness, word, corpus):
    true, p = drawn(np.random.default_rng(1), len(corpus), sharpness)
    labels = np.arange(corpus.num_classes) < 4
    wide = np.zeros((len(corpus), corpus.num_classes))
    wide[:, labels] = p
    predicted = Predicted(_labelled(corpus, true), "test", np.arange(len(corpus)), wide)
    (finding,) = calibration_of(predicted).findings()
    assert finding.words.startswith(word)
    assert finding.grave == (sharpness != 1.0)


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"labels \(N,\) and probabilities \(N, C\)"):
        calibration(np.array([0]), np.array([0.5]))


def _labelled(corpus, label):
    from dataclasses import replace

    return replace(corpus, label=label)
