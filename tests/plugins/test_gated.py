"""Tests of gated."""

from __future__ import annotations

import torch

import fusionzoo

DIMS = {"text": 8, "audio": 8, "visual": 8}


def inputs(batch=2, steps=5):
    return [torch.randn(batch, steps, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def test_gates_of_present_modalities_sum_to_one():
    fusion = fusionzoo.get("gated")(DIMS, 6).eval()
    result = fusion.fuse({"text": inputs()[0], "visual": inputs()[2]})
    gate = result.attention["gate"]
    torch.testing.assert_close(gate.sum(-1), torch.ones(2, 5, 6))
    assert gate[..., 1].eq(0).all()
