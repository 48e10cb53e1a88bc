"""Tests of cross-attention."""

from __future__ import annotations

import pytest
import torch

import fusionzoo
from fusionzoo.errors import OptionError

DIMS = {"text": 8, "audio": 8, "visual": 8}


def inputs(batch=2, steps=5):
    return [torch.randn(batch, steps, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def test_cross_attention_equals_torchs_multi_head_attention():
    fusion = fusionzoo.get("cross-attention")(DIMS, 24, heads=2).eval()
    xs = inputs()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    result = fusion.fuse(xs, mask)
    block = fusion.blocks[1]
    parts = (block.attention.query, block.attention.key, block.attention.value)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        reference.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        reference.out_proj.weight.copy_(block.attention.mix.weight)
        reference.out_proj.bias.copy_(block.attention.mix.bias)
    memory = torch.cat([xs[0], xs[2]], 1)
    out, weights = reference(
        xs[1], memory, memory, key_padding_mask=~torch.cat([mask, mask], 1), average_attn_weights=False
    )
    torch.testing.assert_close(result.streams["audio"][mask], block.norm(xs[1] + out)[mask], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        result.attention["audio"].transpose(1, 2)[mask], weights.transpose(1, 2)[mask], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(result.fused[..., 8:16], result.streams["audio"])


@pytest.mark.filterwarnings("ignore::fusionzoo.errors.MaskWarning")  # a dialogue with data and no real step is meant
@pytest.mark.parametrize("name", ["cross-attention", "self-attention"])
def test_with_and_without_maps_agree(name):
    fusion = fusionzoo.get(name)(DIMS, 5).eval()
    xs = inputs()
    mask = torch.tensor([[True] * 5, [False] * 5])
    torch.testing.assert_close(fusion(xs, mask), fusion.fuse(xs, mask).fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cross-attention", "self-attention"])
def test_heads_must_divide(name):
    options = {"heads": 3} if name == "cross-attention" else {"heads": 9}
    with pytest.raises(OptionError, match="heads="):
        fusionzoo.get(name)(DIMS, **options)
