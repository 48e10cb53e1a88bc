"""Tests of mixture-of-experts."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError
from fusionzoo_plugins.mixture_of_experts import MixtureOfExperts, load_balance

DIMS = {"text": 8, "audio": 8, "visual": 8}


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, None])
def test_mixture_of_experts_formula(top_k):
    fusion, x = MixtureOfExperts(DIMS, experts=1, shared=1, top_k=top_k).eval(), streams()
    joined = torch.cat(list(x.values()), -1)
    out = fusion(x)
    for b in range(2):
        for t in range(5):
            scores = fusion.router.weight @ joined[b, t]
            best = scores.argsort(descending=True)[: top_k or 4]
            gates = scores.softmax(-1)[best] if top_k == 1 else scores[best].softmax(-1)
            inputs = [*(v[b, t] for v in x.values()), joined[b, t]]
            expected = sum(g * fusion.experts[e](inputs[e]) for g, e in zip(gates, best.tolist(), strict=True))
            assert_close(out[b, t], expected)


def test_experts_of_a_missing_modality_are_never_chosen():
    fusion, x = MixtureOfExperts(DIMS, experts=2, shared=0, top_k=3).eval(), streams()
    weights = fusion.fuse({"audio": x["audio"]}).attention["experts"]
    assert (weights[..., [0, 1, 4, 5]] == 0).all()
    assert (weights[..., 2:4] > 0).all()
    assert_close(weights.sum(-1), torch.ones(2, 5))


def test_load_balance_is_one_when_all_experts_are_used_alike():
    probabilities = torch.full((2, 4, 4), 0.25)
    chosen = torch.eye(4, dtype=torch.bool).expand(2, -1, -1)
    assert_close(load_balance(probabilities, chosen, None), torch.tensor(1.0))
    one = torch.zeros(2, 4, 4)
    one[..., 0] = 1
    assert_close(load_balance(one, one.bool(), None), torch.tensor(4.0))
    # Padded steps do not count, and without any step there is nothing to balance.
    mask = torch.tensor([[True] * 4, [False] * 4])
    mixed = torch.stack([probabilities[0], one[0]])
    assert_close(load_balance(mixed, torch.stack([chosen[0], one[0].bool()]), mask), torch.tensor(1.0))
    assert load_balance(mixed, mixed > 0, torch.zeros_like(mask)) == 0


def test_mixture_of_experts_refuses():
    with pytest.raises(OptionError, match="top_k=8 of 7 experts"):
        MixtureOfExperts(DIMS, top_k=8)
    with pytest.raises(OptionError, match="shared must be an integer"):
        MixtureOfExperts(DIMS, shared=-1)
