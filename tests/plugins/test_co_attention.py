"""Tests of co-attention."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import ShapeError
from fusionzoo_plugins.co_attention import CoAttention

DIMS = {"text": 8, "audio": 8, "visual": 8}
TWO = {"text": 8, "audio": 8}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def without(x, *names):
    return {m: v for m, v in x.items() if m not in names}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_parallel_co_attention_formula():
    fusion, x = CoAttention(TWO, 16, hidden=5).eval(), streams(TWO)
    result = fusion.fuse(x, MASK)
    pair = fusion.co_attention[0]
    for b, steps in enumerate((5, 3)):
        v, q = x["text"][b, :steps].T, x["audio"][b, :steps].T  # columns are steps, as in the paper
        w_b, w_v, w_q = pair.affinity.weight, pair.hidden[0].weight, pair.hidden[1].weight
        c = torch.tanh(q.T @ w_b @ v)
        h_v = torch.tanh(w_v @ v + (w_q @ q) @ c)
        h_q = torch.tanh(w_q @ q + (w_v @ v) @ c.T)
        a_v = (pair.score[0].weight @ h_v).softmax(-1).squeeze(0)
        a_q = (pair.score[1].weight @ h_q).softmax(-1).squeeze(0)
        assert_close(result.attention["text"][b, :steps], a_v)
        assert_close(result.attention["audio"][b, :steps], a_q)
        assert_close(result.streams["text"][b, :steps], v.T + v @ a_v)
        assert_close(result.fused[b, :steps, 8:], q.T + q @ a_q)


def test_co_attention_pools_unaligned_sequences():
    x = {"text": torch.randn(2, 5, 8), "audio": torch.randn(2, 9, 8)}
    for form in ("parallel", "transformer"):
        assert CoAttention(TWO, 6, form=form, pool=True)(x).shape == (2, 6)
        with pytest.raises(ShapeError, match="pool=True"):
            CoAttention(TWO, form=form)(x)


@pytest.mark.parametrize("form", ["parallel", "transformer"])
def test_co_attention_ignores_an_absent_partner(form):
    fusion, x = CoAttention(DIMS, 24, form=form).eval(), streams()
    before = fusion(without(x, "visual"))
    for name, p in fusion.named_parameters():
        # Of the pairs (0, 1), (0, 2), (1, 2), and of each modality's partners in order, those with visual.
        if name.startswith(("co_attention.1", "co_attention.2", "layers.0.across.1.", "layers.0.across.3.")):
            p.data.normal_()
    assert_close(fusion(without(x, "visual")), before)
    assert not torch.allclose(fusion(x)[..., :16], before[..., :16])
