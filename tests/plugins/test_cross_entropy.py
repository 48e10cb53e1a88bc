"""Cross-entropy: padding ignored, weights, smoothing, edge cases."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

import fusionzoo
from fusionzoo.errors import OptionError

CrossEntropy = fusionzoo.get("cross-entropy", kind="objective")
LABELS = torch.tensor([[0, 1, 2], [2, 2, -100]])
COUNTS = torch.tensor([2, 4, 6])


def call(objective, labels=LABELS):
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return logits, objective(SimpleNamespace(logits=logits), SimpleNamespace(labels=labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, "balanced", "sqrt", [1.0, 2.0, 0.5]])
def test_equals_torchs_mean_over_labelled_utterances(weights, smoothing):
    objective = CrossEntropy(3, COUNTS, class_weights=weights, label_smoothing=smoothing)
    logits, loss = call(objective)
    real = LABELS != -100
    log = logits[real].log_softmax(-1)
    weight = torch.ones(3) if objective.weight is None else objective.weight
    picked = -log.gather(-1, LABELS[real][:, None])[:, 0] * weight[LABELS[real]]
    # torch's smoothing spreads over the classes by their weights
    spread = -(log * weight).sum(-1) / 3
    expected = ((1 - smoothing) * picked + smoothing * spread).sum() / weight[LABELS[real]].sum()
    torch.testing.assert_close(loss, expected)
    if not smoothing:
        torch.testing.assert_close(loss, F.cross_entropy(logits[real], LABELS[real], weight))


def test_balanced_weights_are_inverse_frequencies_with_mean_one():
    weight = CrossEntropy(3, COUNTS, class_weights="balanced").weight
    torch.testing.assert_close(weight * COUNTS, torch.full((3,), 4.0))
    assert CrossEntropy(3, torch.tensor([2, 0, 2]), class_weights="balanced").weight[1] == 0


def test_no_labelled_utterance_is_finite():
    logits, loss = call(CrossEntropy(3), torch.full((2, 3), -100))
    loss.backward()
    assert loss == 0
    assert logits.grad.eq(0).all()


def test_bad_options():
    with pytest.raises(OptionError, match="training class counts"):
        CrossEntropy(3, class_weights="balanced")
    with pytest.raises(OptionError, match="3 non-negative numbers"):
        CrossEntropy(3, class_weights=[1.0, -1.0, 0.0])
    with pytest.raises(OptionError, match="not one of balanced"):
        CrossEntropy(3, COUNTS, class_weights="blanced")
    with pytest.raises(OptionError, match="label_smoothing"):
        CrossEntropy(3, label_smoothing=1.0)
