"""Tests of cfn-sr."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_plugins._causal_encoder import SinusoidalPositions
from fusionzoo_plugins.cfn_sr import CFNSR, CrossModalBlock

DIMS = {"text": 8, "audio": 6, "visual": 5}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


def test_cfn_sr_is_the_formula():
    torch.manual_seed(0)
    fusion = CFNSR(DIMS, 19, width=4, layers=1).eval()
    xs, block = inputs(), fusion.block
    result = fusion.fuse(xs, MASK)
    for b, n in enumerate((5, 3)):
        condition = sum(
            affine(encoder(project(x[b : b + 1, :n]))[0, -1])
            for x, project, encoder, affine in zip(xs[1:], fusion.project, block.encoders, block.y_affine, strict=True)
        )
        scores = block.attn_weight_affine(torch.tanh(block.channel_affine(xs[0][b, :n]) + condition)).squeeze(-1)
        looked = xs[0][b, :n] * (1 + scores.softmax(0).unsqueeze(-1))
        expected = torch.cat([looked, xs[1][b, :n], xs[2][b, :n]], -1)
        torch.testing.assert_close(result.fused[b, :n], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(result.attention["text"][b, :n], scores.softmax(0))


def test_cfn_sr_guide_that_is_absent_conditions_nothing():
    fusion = CFNSR(DIMS, 19, width=4, layers=1).eval()
    xs = inputs()
    pair = CFNSR({"text": 8, "audio": 6}, 14, width=4, layers=1).eval()
    pair.load_state_dict(fusion.state_dict(), strict=False)
    fused, expected = fusion([*xs[:2], None]), pair(xs[:2])
    torch.testing.assert_close(fused[..., :14], expected)
    assert fused[..., 14:].eq(0).all()


def test_cross_modal_block_gives_every_frame_its_own_softmax():
    block = CrossModalBlock(10, width=8, heads=2, layers=1).eval()
    x, guide = torch.randn(2, 10, 3, 4, 5), torch.randn(2, 8, 6)
    out, weights = block(x, guide)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(out, x * (1 + weights.view(2, 1, 3, 4, 5)))
    torch.testing.assert_close(block(x[:, :, 0], guide)[0], out[:, :, 0])
    torch.testing.assert_close(block(x[1:], guide[1:])[0], out[1:])


def test_official_cross_modal_block_adds_up_the_maps_of_the_batch():
    block = CrossModalBlock(10, width=8, heads=2, layers=1, variant="official", residual=False).eval()
    x, guide = torch.randn(3, 10, 2, 3, 3), torch.randn(3, 8, 6)
    out, weights = block(x, guide)
    torch.testing.assert_close(out, x * weights.sum(0).view(1, 1, 2, 3, 3))


def test_cross_modal_block_of_the_paper_has_its_parameters():
    # One less than published: the bias that the softmax does not see.
    assert sum(p.numel() for p in CrossModalBlock(2048).parameters()) == 385_344
    assert sum(p.numel() for p in CrossModalBlock(2048, variant="official").parameters()) == 385_345


def test_cfn_sr_loads_official_weights_without_projections_only():
    with pytest.raises(ReferenceWeightsError, match="width = the guide's"):
        CFNSR({"visual": 10, "audio": 6}, width=8).load_reference({})
    with pytest.raises(ReferenceWeightsError, match="missing"):
        CFNSR({"visual": 10, "audio": 8}, 18, width=8).load_reference({})


def test_official_positions_of_padding_are_zero_and_shift_nothing():
    tokens = torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 1.0]])
    emb = SinusoidalPositions(6)(tokens)
    assert emb[0, 1].eq(0).all()
    torch.testing.assert_close(emb[0, 2], emb[1, 2])
    torch.testing.assert_close(emb[1, 2, 0], torch.tensor(3.0).sin())
