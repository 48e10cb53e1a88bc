"""Tests of perceiver."""

from __future__ import annotations

import pytest
import torch

from fusionzoo_plugins.perceiver import Perceiver

DIMS = {"text": 8, "audio": 8, "visual": 8}
TWO = {"text": 8, "audio": 8}


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [False, True])
def test_perceiver_knows_order_by_positions_alone(positions):
    fusion, x = Perceiver(TWO, positions=positions).eval(), streams(TWO)
    out = fusion({**x, "audio": x["audio"].flip(1)})
    assert torch.allclose(out, fusion(x), atol=1e-5) is not positions


def test_perceiver_formula_and_pooling():
    fusion, x = Perceiver(TWO, latents=3, layers=1, positions=False).eval(), streams(TWO)
    tokens = torch.cat([v + e for v, e in zip(x.values(), fusion.embedding, strict=True)], 1)
    latents = fusion.layers[0](fusion.read(fusion.latents.expand(2, -1, -1), tokens)[0])[0]
    assert_close(fusion(x), fusion.answer(x["text"] + fusion.embedding[0], latents)[0])
    pooled = Perceiver(TWO, latents=3, layers=1, positions=False, pool=True).eval()
    pooled.load_state_dict({k: v for k, v in fusion.state_dict().items() if not k.startswith("answer.")})
    assert_close(pooled(x), latents.mean(1))
