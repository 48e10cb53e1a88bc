"""Modality attention: installed, conformant, and equal to its formula."""

from __future__ import annotations

import fusionzoo
import torch
from fusionzoo.testing import parametrize_checks

DIMS = {"text": 8, "audio": 5, "visual": 3}


def test_is_installed():
    """Fails when the package is not installed, or was installed before its entry point was written."""
    assert "modality-attention" in fusionzoo.names()
    assert fusionzoo.card("modality-attention").distribution == "fusionzoo-modality-attention"


@parametrize_checks("modality-attention")
def test_conformance(check):
    check()


def test_formula():
    """The formula of the docstring, written a second time, for one step of one sample."""
    torch.manual_seed(0)
    fusion = fusionzoo.get("modality-attention")(DIMS, out_dim=6).eval()
    streams = {name: torch.randn(2, 4, width) for name, width in DIMS.items()}
    h = [fusion.project[i].weight @ x[1, 2] + fusion.project[i].bias for i, x in enumerate(streams.values())]
    a = torch.sigmoid(fusion.score.weight @ torch.cat(h) + fusion.score.bias)
    alpha = a.exp() / a.exp().sum()
    torch.testing.assert_close(fusion(streams)[1, 2], alpha[0] * h[0] + alpha[1] * h[1] + alpha[2] * h[2])
    torch.testing.assert_close(fusion.fuse(streams).attention["modality"][1, 2], alpha)


def test_the_sigmoid_bounds_the_ratio_of_two_weights():
    """Which is why `squash=False` is there: with the sigmoid no weight is more than e times another."""
    torch.manual_seed(0)
    streams = {name: 100 * torch.randn(50, width) for name, width in DIMS.items()}
    ratios = []
    for squash in (True, False):
        fusion = fusionzoo.get("modality-attention")(DIMS, squash=squash).eval()
        weights = fusion.fuse(streams).attention["modality"]
        ratios.append(float((weights.amax(-1) / weights.amin(-1).clamp(min=1e-9)).max()))
    assert ratios[0] <= torch.e + 1e-4
    assert ratios[1] > 100
