"""Tests of gmu."""

from __future__ import annotations

import torch

from fusionzoo_plugins.gmu import GMU

DIMS = {"text": 8, "audio": 8, "visual": 8}


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_gmu_of_two_shares_one_gate():
    fusion, x = GMU({"text": 8, "audio": 3}, 6).eval(), streams({"text": 8, "audio": 3})
    z = torch.sigmoid(fusion.gate(torch.cat(list(x.values()), -1)))
    h = [torch.tanh(v @ layer.weight.T) for v, layer in zip(x.values(), fusion.hidden, strict=True)]
    assert_close(fusion(x), z * h[0] + (1 - z) * h[1])
    assert_close(fusion({"audio": x["audio"]}), h[1])


def test_gmu_of_more_has_independent_gates():
    fusion, x = GMU(DIMS, 6).eval(), streams()
    joined = torch.cat(list(x.values()), -1)
    expected = torch.zeros(2, 5, 6)
    for i, v in enumerate(x.values()):
        gate = torch.sigmoid(joined @ fusion.gate.weight[6 * i : 6 * i + 6].T)
        expected = expected + gate * torch.tanh(v @ fusion.hidden[i].weight.T)
    result = fusion.fuse(x)
    assert_close(result.fused, expected)
    assert_close(sum(result.streams.values()), expected)
    assert not result.attention
