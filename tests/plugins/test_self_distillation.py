"""Tests of self-distillation."""

from __future__ import annotations

import pytest
import torch
from objective_cases import LABELS, REAL, TWO, C, case, picked
from torch.nn import functional as F

from fusionzoo_plugins.self_distillation import SelfDistillation


@pytest.mark.parametrize("variant", ["default", "official"])
def test_self_distillation_is_its_definition(variant):
    out, batch = case(*TWO)
    official = variant == "official"
    objective = SelfDistillation(C, ce=0.7, kl=0.4, temperature=2.0, dims=dict.fromkeys(TWO, 4), variant=variant).eval()
    teacher, expected = (out.logits[REAL] / 2).log_softmax(-1), 0.0
    for student, m in zip(objective.students, TWO, strict=True):
        logits = student(picked(out, m).relu())
        divergence = F.kl_div((logits / 2).log_softmax(-1), teacher, reduction="batchmean", log_target=True)
        expected += 0.7 * F.cross_entropy(logits, LABELS[REAL]) + 0.4 * (1 if official else 4) * divergence
    loss = objective(out, batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (out.logits.grad is not None) == official


def test_self_distillation_takes_reported_logits_as_students():
    out, batch = case("text.logits", "audio.logits")
    objective = SelfDistillation(C, kl=0.0)
    expected = sum(F.cross_entropy(picked(out, n), LABELS[REAL]) for n in out.streams)
    torch.testing.assert_close(objective(out, batch), expected)
