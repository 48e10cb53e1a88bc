"""Tests of msaf."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo_plugins.msaf import MSAF, MSAFBlock

DIMS = {"text": 8, "audio": 6, "visual": 5}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


def test_msaf_is_the_formula_also_where_blocks_are_not_full():
    torch.manual_seed(0)
    fusion = MSAF(DIMS, 19, block=4, lowest=0.1).eval()
    xs, split = inputs(), fusion.split.blocks[0]
    fused = fusion(xs, MASK)
    for b, n in enumerate((5, 3)):
        blocks, real = [], []
        for x in xs:
            mean = x[b, :n].mean(0)
            for start in range(0, len(mean), 4):
                part = mean[start : start + 4]
                real.append(torch.arange(4) < len(part))
                blocks.append(torch.cat([part, torch.zeros(4 - len(part))]))
        logits = split.dense_group(split.joint_features(torch.stack(blocks).sum(0))).view(-1, 4)
        attention = logits.masked_fill(~torch.stack(real), -torch.inf).softmax(0)
        factor = 0.1 + 0.9 * torch.cat([a[r] for a, r in zip(attention, real, strict=True)])
        torch.testing.assert_close(fused[b, :n], torch.cat([x[b, :n] for x in xs], -1) * factor, rtol=1e-4, atol=1e-5)


def test_msaf_absent_modality_takes_no_attention():
    fusion = MSAF(DIMS, block=4).eval()
    weights = fusion.fuse({"text": inputs()[0], "visual": inputs()[2]}).attention["blocks"]
    assert weights.shape == (2, 1, 4, 6)
    assert weights[..., 2:4].eq(0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 4))


def test_msaf_segments_count_real_steps():
    fusion = MSAF(DIMS, 19, block=4, segments=2).eval()
    maps = [x.transpose(1, 2) for x in inputs()]
    expected = torch.cat(fusion.split(maps), 1).transpose(1, 2)
    torch.testing.assert_close(fusion(inputs()), expected)
    # Two steps in the first segment, three in the last: as upstream.
    ends = [torch.cat(fusion.split.blocks[i](squeezed, None)[0], -1) for i, squeezed in enumerate(halves(inputs()))]
    factor = torch.stack([ends[0]] * 2 + [ends[1]] * 3, 1)
    torch.testing.assert_close(expected, torch.cat(inputs(), -1) * factor)
    gapped = [torch.cat([x[:, :1], torch.full_like(x[:, :2], torch.nan), x[:, 1:]], 1) for x in inputs()]
    mask = torch.tensor([[True, False, False, True, True, True, True]] * 2)
    torch.testing.assert_close(fusion(gapped, mask)[mask], expected.flatten(0, 1))


def halves(xs):
    return [x[:, :2].mean(1) for x in xs], [x[:, 2:].mean(1) for x in xs]


def test_msaf_dropout_drops_whole_blocks():
    torch.manual_seed(0)
    block = MSAFBlock([8, 8], 4, block_dropout=0.5).train()
    x = torch.ones(50, 8)
    y = torch.cat(block([x, x]), 1).unflatten(1, (4, 4))
    dropped = y.eq(0)
    assert torch.equal(dropped.any(-1), dropped.all(-1))
    assert 0.3 < dropped.float().mean() < 0.7


def test_msaf_utterance_scope_squeezes_each_step():
    fusion = MSAF(DIMS, block=4, scope="utterance").eval()
    xs = inputs()
    torch.testing.assert_close(fusion(xs)[:, 2], fusion([x[:, 2] for x in xs]))
    with pytest.raises(OptionError, match="no time to cut"):
        MSAF(DIMS, scope="utterance", segments=2)


def test_msaf_refusals():
    with pytest.raises(ReferenceWeightsError, match="variant='official'"):
        MSAF(DIMS).load_reference({})
    with pytest.raises(OptionError, match="= 0 joint features"):
        MSAF(DIMS, block=3, variant="official")
    with pytest.raises(ShapeError, match="built for maps"):
        MSAFBlock([8, 8], 4)([torch.rand(2, 8, 3), torch.rand(2, 7, 3)])
    official = MSAF([8, 8], block=4, variant="official")
    with pytest.raises(ReferenceWeightsError, match=r"missing blocks\.0\.dense_group\.bias"):
        official.load_reference({})
    with pytest.raises(ReferenceWeightsError, match=r"the first is 'blocks\.1"):
        official.load_reference({"blocks.1.x": torch.zeros(1)})
