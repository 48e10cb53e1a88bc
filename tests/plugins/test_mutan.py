"""Tests of mutan."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionzoo_plugins.mutan import Mutan

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


def test_mutan_is_a_tucker_form():
    fusion, xs = shaken(Mutan({"a": 5, "b": 3}, 6, width=4, core=2, rank=3)), streams()[:2]
    with torch.no_grad():
        for s in fusion.slices:
            s.bias.zero_()
    a, b = (torch.tanh(p(x)) for p, x in zip(fusion.project, xs, strict=True))
    m, n = (s.weight.view(3, 2, 4) for s in fusion.slices)
    core = torch.einsum("roi,roj->ijo", m, n)
    torch.testing.assert_close(fusion(xs), fusion.head(torch.einsum("bti,btj,ijo->bto", a, b, core)))
