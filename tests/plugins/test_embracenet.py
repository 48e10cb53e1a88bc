"""Tests of embracenet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusionzoo.errors import OptionError
from fusionzoo_plugins.embracenet import EmbraceNet

DIMS = {"text": 8, "audio": 6, "visual": 5}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


def test_embracenet_takes_every_feature_from_one_modality():
    torch.manual_seed(0)
    fusion = EmbraceNet(DIMS, 40, weights={"text": 2.0, "audio": 1.0, "visual": 1.0})
    for docking in fusion.docking:
        nn.init.constant_(docking.bias, 5.0)  # keeps the ReLU open, so that values tell modalities apart
    xs = inputs((50, 50, 50))
    xs = [x * 0.1 for x in xs]
    result = fusion.train().fuse(xs)
    docked = torch.stack(list(result.streams.values()), -1)
    chosen = result.fused.unsqueeze(-1) == docked
    assert chosen.sum(-1).eq(1).all()
    shares = chosen.double().mean((0, 1, 2))
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.25]).double(), atol=0.03, rtol=0)
    expected = (docked * torch.tensor([0.5, 0.25, 0.25])).sum(-1)
    torch.testing.assert_close(fusion.eval()(xs), expected)


def test_embracenet_never_draws_an_absent_modality():
    torch.manual_seed(0)
    fusion = EmbraceNet(DIMS, 40).train()
    xs = inputs()
    nn.init.constant_(fusion.docking[1].bias, 1e6)
    masks = {"text": MASK, "audio": torch.zeros_like(MASK), "visual": MASK}
    result = fusion.fuse(xs, masks)
    assert result.fused.max() < 1e5
    torch.testing.assert_close(result.attention["selection"][0, 0], torch.tensor([0.5, 0.0, 0.5]))
    assert fusion.eval()(xs, masks).max() < 1e5


def test_embracenet_reads_official_names_and_checks_weights():
    fusion = EmbraceNet([8, 6], 4)
    state = {f"docking_{i}.{k}": torch.randn(*s) for i, d in enumerate((8, 6)) for k, s in (("weight", (4, d)), ("bias", (4,)))}  # fmt: skip
    fusion.load_reference(state)
    assert torch.equal(fusion.docking[1].weight, state["docking_1.weight"])
    for wrong in ([1.0], [1.0, 0.0, 1.0], {"text": 1.0, "audio": 1.0}):
        with pytest.raises(OptionError, match="weights"):
            EmbraceNet(DIMS, weights=wrong)
