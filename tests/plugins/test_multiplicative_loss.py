"""Tests of multiplicative-loss."""

from __future__ import annotations

import pytest
import torch
from objective_cases import LABELS, REAL, C, case, picked

from fusionzoo.errors import ShapeError
from fusionzoo_plugins.multiplicative_loss import Multiplicative


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_multiplicative_is_its_definition(beta):
    names = ("text.logits", "audio.logits", "visual.logits")
    out, batch = case(*names)
    p = [picked(out, n).softmax(-1).gather(1, LABELS[REAL][:, None])[:, 0] for n in names]
    expected = 0.0
    for m in range(3):
        rest = [1 - p[n] for n in range(3) if n != m]
        expected -= ((rest[0] * rest[1]) ** (beta / 2) * p[m].log()).mean()
    torch.testing.assert_close(Multiplicative(C, beta=beta)(out, batch), expected)


def test_multiplicative_refuses_logits_of_another_width():
    out, batch = case("text.logits", "audio.logits", classes=5)
    with pytest.raises(ShapeError, match="fusion_width=3"):
        Multiplicative(C)(out, batch)
