"""Tests of supcon."""

from __future__ import annotations

import torch
from objective_cases import LABELS, C, case, picked
from torch.nn import functional as F

from fusionzoo.objective import IGNORE
from fusionzoo_plugins.supcon import SupCon


def contrast_of(z, y, temperature, focus, weights):
    """Each anchor's loss, one by one."""
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        log_p = (z[others] @ z[i] / temperature).log_softmax(0)[y[others] == y[i]]
        losses.append(-weights[i] * ((1 - log_p.exp()) ** focus * log_p).mean() if len(log_p) else z.sum() * 0)
    return torch.stack(losses)


def test_supcon_is_its_definition_and_averages_over_anchors_with_positives():
    labels = torch.where(LABELS == 2, IGNORE, LABELS)
    labels[0, 4] = 2  # alone of its class: a negative of the others, no anchor
    out, batch = case("text", labels=labels)
    z = F.normalize(picked(out, "text", labels != IGNORE), dim=-1)
    each = contrast_of(z, labels[labels != IGNORE], 0.1, 0.0, torch.ones(len(z)))
    torch.testing.assert_close(SupCon(C, stream="text")(out, batch), each.sum() / (len(z) - 1))
