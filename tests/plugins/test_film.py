"""Tests of film."""

from __future__ import annotations

import torch

from fusionzoo_plugins.film import FiLM

DIMS = {"text": 8, "audio": 6, "visual": 5}


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


def test_film_is_the_formula():
    fusion = FiLM(DIMS).eval()
    xs = inputs()
    parts = [g(x) for g, x in zip(fusion.generators, xs[1:], strict=True)]
    scale, shift = (parts[0] + parts[1]).chunk(2, -1)
    torch.testing.assert_close(fusion(xs), (1 + scale) * xs[0] + shift)
    torch.testing.assert_close(fusion({"text": xs[0]}), xs[0])
