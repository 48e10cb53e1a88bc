"""The expected score: its formula, where targets come from, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objective_cases import LABELS, REAL, case
from torch.nn import functional as F

import fusionzoo
from fusionzoo.errors import OptionError

VALUES = (-1.0, 0.5, 3.0)
NAN = float("nan")


def objective(**options: object):
    return fusionzoo.get("expected-score", kind="objective")(3, **options)


@pytest.mark.parametrize(
    ("distance", "torchs"), [("l1", F.l1_loss), ("l2", F.mse_loss), ("smooth-l1", F.smooth_l1_loss)]
)
def test_equals_torchs_distance_of_the_expected_value(distance, torchs):
    out, batch = case()
    scores = torch.where(REAL, torch.linspace(-2, 2, LABELS.numel()).view(LABELS.shape), NAN)
    expected = (out.logits.softmax(-1) * torch.tensor(VALUES)).sum(-1)
    loss = objective(values=VALUES, distance=distance)(out, replace(batch, scores=scores))
    torch.testing.assert_close(loss, torchs(expected[REAL], scores[REAL]))


def test_without_a_score_the_class_says_it_and_a_score_needs_no_class():
    out, batch = case()
    worth = torch.tensor(VALUES)
    by_class = objective(values=VALUES)(out, batch)
    exact = torch.where(REAL, worth[LABELS.clamp(min=0)], NAN)
    torch.testing.assert_close(by_class, objective(values=VALUES)(out, replace(batch, scores=exact)))
    unlabelled = replace(batch, labels=torch.full_like(LABELS, -100), scores=exact)
    torch.testing.assert_close(by_class, objective(values=VALUES)(out, unlabelled))


def test_steps_around_zero_are_the_default():
    assert objective().values == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("options", [{"values": [1, 2]}, {"values": [1, 2, NAN]}, {"distance": "l3"}])
def test_bad_options(options):
    with pytest.raises(OptionError, match="ExpectedScore"):
        objective(**options)
