"""Tests of mfb."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fusionzoo_plugins.mfb import MFB

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


@pytest.mark.parametrize("order", [1, 3])
def test_mfb_pools_groups(order):
    fusion, xs = shaken(MFB(DIMS, order * 4, width=4, factors=2, order=order)), streams()
    expanded = [p(x)[1, 2].view(order, 4, 2) for p, x in zip(fusion.project, xs, strict=True)]
    expected, before = [], torch.ones(4, 2)
    for i in range(order):
        before = before * expanded[0][i] * expanded[1][i] * expanded[2][i]
        z = torch.stack([before[w].sum() for w in range(4)])
        z = z.sign() * z.abs().sqrt()
        expected.append(z / z.norm())
    torch.testing.assert_close(fusion(xs)[1, 2], torch.cat(expected), rtol=1e-3, atol=1e-3)
