"""Tests of mmtm."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import ReferenceWeightsError, ShapeError
from fusionzoo_plugins.mmtm import MMTM, MMTMBlock

DIMS = {"text": 8, "audio": 6, "visual": 5}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


@pytest.mark.parametrize(("variant", "factor"), [("default", 2), ("official", 1)])
def test_mmtm_is_the_formula(variant, factor):
    fusion = MMTM(DIMS, 19, variant=variant).eval()
    xs, block = inputs(), fusion.block
    fused = fusion(xs, MASK)
    joint = torch.relu(block.squeeze(torch.cat([x[1, :3].mean(0) for x in xs])))
    expected = [factor * torch.sigmoid(e(joint)) * x[1, :3] for e, x in zip(block.excite, xs, strict=True)]
    torch.testing.assert_close(fused[1, :3], torch.cat(expected, -1))
    maps = fusion.block([x.transpose(1, 2) for x in xs])
    torch.testing.assert_close(torch.cat(maps, 1).transpose(1, 2)[0], fused[0])


def test_mmtm_loads_official_weights_of_two_modalities():
    block = MMTMBlock([8, 4])
    state = {"fc_squeeze.weight": (6, 12), "fc_squeeze.bias": (6,), "fc_visual.weight": (8, 6), "fc_visual.bias": (8,)}
    state |= {"fc_skeleton.weight": (4, 6), "fc_skeleton.bias": (4,)}
    weights = {k: torch.randn(s) for k, s in state.items()}
    block.load_reference(weights)
    assert torch.equal(block.excite[1].get_parameter("weight"), weights["fc_skeleton.weight"])
    with pytest.raises(ReferenceWeightsError, match="two modalities"):
        MMTM(DIMS).load_reference(weights)
    with pytest.raises(ShapeError, match="built for maps"):
        block([torch.rand(2, 8), torch.rand(2, 8)])
