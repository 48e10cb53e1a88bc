"""Tests of self-attention."""

from __future__ import annotations

import pytest
import torch

import fusionzoo

DIMS = {"text": 8, "audio": 8, "visual": 8}


def inputs(batch=2, steps=5):
    return [torch.randn(batch, steps, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.mark.parametrize("score", ["scaled-dot", "dot", "additive", "bilinear"])
def test_self_attention_scores(score):
    torch.manual_seed(0)
    fusion = fusionzoo.get("self-attention")(DIMS, heads=2, score=score).eval()
    weights = fusion.fuse(inputs()).attention["self"]
    assert weights.shape == (2, 2, 15, 15)
    attention = fusion.attention
    tokens = torch.cat([x + e for x, e in zip(inputs(), fusion.embedding, strict=True)], 1)
    q = attention.w_q(tokens).unflatten(-1, (2, 4))[0, :, 1]
    k = attention.w_k(tokens).unflatten(-1, (2, 4))[0, :, 1]
    if score == "additive":
        pairs = torch.cat([k.unsqueeze(0).expand(15, -1, -1), q.unsqueeze(1).expand(-1, 15, -1)], -1)
        expected = torch.tanh(pairs @ attention.weight)
    else:
        expected = (q @ attention.weight if score == "bilinear" else q) @ k.T / (2 if score == "scaled-dot" else 1)
    torch.testing.assert_close(weights[0, 1], expected.softmax(-1), rtol=1e-4, atol=1e-5)


def test_utterance_scope_never_looks_across_time():
    fusion = fusionzoo.get("self-attention")(DIMS, scope="utterance").eval()
    xs = inputs()
    y = fusion(xs)
    changed = [x.clone() for x in xs]
    changed[1][:, 0] += 1
    z = fusion(changed)
    torch.testing.assert_close(z[:, 1:], y[:, 1:])
    assert (z[:, 0] - y[:, 0]).abs().max() > 1e-3
