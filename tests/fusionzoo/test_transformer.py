"""Transformer layers."""

from __future__ import annotations

import math

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.transformer import Attention, DialogueTransformer, FeedForward, TransformerLayer, sinusoidal_positions

MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_transformer_layer_equals_torchs(norm, activation):
    ours = TransformerLayer(8, heads=2, hidden=12, norm=norm, activation=activation).eval()
    assert ours.norm is not None
    for p in ours.parameters():
        p.data.normal_(std=0.5)
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 12, activation=activation, batch_first=True, norm_first=norm == "pre"
    ).train(False)
    attention, block = ours.attention, ours.feed_forward
    parts = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
    theirs.self_attn.out_proj.load_state_dict(attention.mix.state_dict())
    theirs.linear1.load_state_dict(block.expand.state_dict())
    theirs.linear2.load_state_dict(block.reduce.state_dict())
    theirs.norm1.load_state_dict(ours.norm.state_dict())
    theirs.norm2.load_state_dict(block.norm.state_dict())
    x = torch.randn(2, 5, 8)
    expected = theirs(x, src_key_padding_mask=~MASK)
    assert_close(ours(x, None, MASK)[0][MASK], expected[MASK])
    assert sum(p.numel() for p in ours.parameters()) == 532


def test_memory_norm_and_weights():
    layer = TransformerLayer(8, 6, norm_memory=True).eval()
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    out, weights = layer(x, memory, MASK, need_weights=True)
    assert weights.shape == (2, 8, 3, 5)
    assert (weights[1, ..., 3:] == 0).all()
    # A norm takes away the scale of what it is given.
    assert_close(layer(x, memory * 7, MASK)[0], out)
    assert sum(p.numel() for p in layer.parameters()) == 852


def test_positions_take_turns_of_sine_and_cosine():
    p = sinusoidal_positions(torch.zeros(1, 7, 5))
    for t in range(7):
        for i in range(5):
            angle = t / 10000 ** ((i - i % 2) / 5)
            assert p[t, i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-5)


def test_dialogue_transformer_carries_the_normalised_stream():
    encoder = DialogueTransformer(8, heads=2, hidden=12, layers=2).eval()
    x, memory, speakers = torch.randn(3, 2, 5, 8)
    key = memory + sinusoidal_positions(memory) + speakers
    expected = x + sinusoidal_positions(x) + speakers
    for layer in encoder.layers:
        assert isinstance(layer, TransformerLayer)
        if layer.norm is not None:
            expected = layer.norm(expected)
        expected = layer.feed_forward(expected + layer.attention(expected, key, MASK)[0])
    assert_close(encoder(x, memory, MASK, speakers)[0], expected)
    assert [layer.norm is None for layer in encoder.layers] == [True, False]
    assert sum(p.numel() for p in encoder.parameters()) == 1048


def test_transformer_refuses():
    with pytest.raises(OptionError, match="norm='after' is not one of"):
        TransformerLayer(8, norm="after")
    with pytest.raises(OptionError, match="norm_query=False needs"):
        TransformerLayer(8, norm="post", norm_query=False)
    with pytest.raises(OptionError, match="heads=3 does not divide the width 8"):
        TransformerLayer(8, heads=3)
    with pytest.raises(ReferenceWeightsError, match=r"missing w_2\.bias, w_2\.weight"):
        FeedForward(4).load_reference({"w_1.weight": torch.zeros(16, 4), "w_1.bias": torch.zeros(16)})
    with pytest.raises(ReferenceWeightsError, match="linear_x"):
        Attention(4, heads=2).load_reference({"linear_x.weight": torch.zeros(4, 4)})
