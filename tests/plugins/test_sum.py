"""Tests of sum."""

from __future__ import annotations

import torch

import fusionzoo


def inputs(batch=2, steps=5):
    return [torch.randn(batch, steps, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def test_sum_leaves_a_missing_modality_out_bias_included():
    fusion = fusionzoo.get("sum")({"text": 8, "audio": 4}, 8)
    text = inputs()[0]
    torch.testing.assert_close(fusion({"text": text}), text)
