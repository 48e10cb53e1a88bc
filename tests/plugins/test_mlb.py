"""Tests of mlb."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionzoo_plugins.mlb import MLB

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


def test_mlb():
    fusion, xs = shaken(MLB(DIMS, 6, rank=7)), streams()
    h = [torch.tanh(p(x)) for p, x in zip(fusion.project, xs, strict=True)]
    torch.testing.assert_close(fusion(xs), fusion.head(h[0] * h[1] * h[2]))
    torch.testing.assert_close(fusion([xs[0], None, xs[2]]), fusion.head(h[0] * h[2]))
