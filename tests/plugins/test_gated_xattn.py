"""Tests of gated-xattn."""

from __future__ import annotations

import math

import pytest
import torch

from fusionzoo.errors import OptionError
from fusionzoo.testing.comparisons import gradients, reached
from fusionzoo_plugins.gated_xattn import GatedCrossAttention

DIMS = {"text": 8, "audio": 8, "visual": 8}
TWO = {"text": 8, "audio": 8}


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_closed_gates_pass_the_anchor_alone():
    fusion, x = GatedCrossAttention(DIMS, init_gate=0.0).eval(), streams()
    assert torch.equal(fusion(x), x["text"])
    fusion(x).square().sum().backward()
    felt = reached(gradients(fusion))
    assert felt["layers.0.attention_gate"]
    assert not felt["layers.0.attention.query.weight"].any()


def test_gated_cross_attention_formula():
    fusion, x = GatedCrossAttention(DIMS, heads=1, init_gate=0.7).eval(), streams()
    layer = fusion.layers[0]
    memory = fusion.norm(torch.cat([v + e for v, e in zip(list(x.values())[1:], fusion.embedding, strict=True)], 1))
    text = x["text"]
    attention = layer.attention
    weights = attention.query(layer.norm(text)) @ attention.key(memory).transpose(1, 2) / 8**0.5
    h = text + math.tanh(0.7) * attention.mix(weights.softmax(-1) @ attention.value(memory))
    block = layer.feed_forward
    expected = h + math.tanh(0.7) * block.reduce(torch.nn.functional.gelu(block.expand(block.norm(h))))
    assert_close(fusion(x), expected)


def test_an_anchor_with_nothing_to_read_adds_nothing():
    fusion, x = GatedCrossAttention(TWO, init_gate=2.0).eval(), streams(TWO)
    block = fusion.layers[0].feed_forward
    alone = x["text"] + math.tanh(2.0) * block.update(block.norm(x["text"]))
    assert_close(fusion({"text": x["text"]}), alone)
    with pytest.raises(OptionError, match="init_gate must be a finite number"):
        GatedCrossAttention(TWO, init_gate=math.nan)
