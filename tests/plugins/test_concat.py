"""Tests of concat."""

from __future__ import annotations

import torch

from fusionzoo_plugins.concat import Concat

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams() -> list[torch.Tensor]:
    return [torch.randn(2, 4, d, dtype=torch.float64) for d in DIMS.values()]


def test_it_is_a_linear_map_of_the_joined_modalities():
    fusion, xs = Concat(DIMS, 6).double(), streams()
    weight, bias = fusion.parameters()
    assert weight.shape == (6, 5 + 3 + 4)
    expected = torch.zeros(2, 4, 6, dtype=torch.float64)
    for b in range(2):
        for t in range(4):
            for o in range(6):
                parts = zip(xs, weight[o].split(list(DIMS.values())), strict=True)
                expected[b, t, o] = bias[o] + sum((x[b, t] * w).sum() for x, w in parts)
    torch.testing.assert_close(fusion(xs), expected)


def test_at_the_summed_width_nothing_is_learnt_and_nothing_lost():
    fusion, xs = Concat(DIMS, 12), streams()
    assert list(fusion.parameters()) == []
    for x, part in zip(xs, fusion(xs).split(list(DIMS.values()), -1), strict=True):
        assert torch.equal(part, x)


def test_an_absent_modality_is_zeros_at_its_steps_alone():
    fusion, xs = Concat(DIMS, 6).double(), streams()
    there = torch.tensor([[True, False, True, True], [False] * 4])
    zeroed = [xs[0], torch.where(there.unsqueeze(-1), xs[1], 0.0), xs[2]]
    rubbish = [xs[0], torch.where(there.unsqueeze(-1), xs[1], torch.nan), xs[2]]
    torch.testing.assert_close(fusion(rubbish, {"audio": there}), fusion(zeroed))
    assert torch.equal((fusion(zeroed) != fusion(xs)).any(-1), ~there)
