"""Tests of focal."""

from __future__ import annotations

import pytest
import torch
from objective_cases import COUNTS, LABELS, REAL, C, case

from fusionzoo_plugins.cross_entropy import CrossEntropy
from fusionzoo_plugins.focal import Focal


def test_focal_without_focus_is_cross_entropy():
    out, batch = case()
    focal, plain = (
        Focal(C, COUNTS, gamma=0.0, class_weights="balanced"),
        CrossEntropy(C, COUNTS, class_weights="balanced"),
    )
    torch.testing.assert_close(focal(out, batch), plain(out, batch))


@pytest.mark.parametrize("variant", ["default", "official"])
def test_focal_weighs_by_what_is_missing_to_one(variant):
    out, batch = case()
    weights = torch.tensor([1.0, 2.0, 0.5])
    loss = Focal(C, gamma=1.5, class_weights=weights.tolist(), variant=variant)(out, batch)
    log_p = out.logits[REAL].log_softmax(-1).gather(1, LABELS[REAL][:, None])[:, 0]
    factor, w = (1 - log_p.exp()) ** 1.5, weights[LABELS[REAL]]
    official = variant == "official"
    expected = -(w * (factor.detach() if official else factor) * log_p).sum() / (len(w) if official else w.sum())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, out.logits)[0] for x in (loss, expected)))


def test_focal_of_certainty_has_a_finite_slope():
    out, batch = case()
    out.logits = torch.full((*LABELS.shape, C), -1e3).scatter(2, LABELS.clamp(min=0)[..., None], 1e3).requires_grad_()
    loss = Focal(C, gamma=0.3)(out, batch)
    assert torch.autograd.grad(loss, out.logits)[0].isfinite().all()
