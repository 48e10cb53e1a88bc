"""Tests of aff."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.aff import AFF

DIMS = {"text": 8, "audio": 6, "visual": 5}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


@pytest.mark.parametrize("variant", ["default", "official"])
def test_aff_of_two_modalities_is_the_papers_sigmoid(variant):
    torch.manual_seed(0)
    fusion = AFF({"text": 8, "audio": 8}, variant=variant).eval()
    x, y = torch.randn(2, 2, 5, 8)
    fused = fusion([x, y], MASK)
    u = x + y
    mean = torch.stack([u[0].mean(0), u[1, :3].mean(0)])
    weight = torch.sigmoid(fusion.local_maps[0](u) + fusion.global_maps[0](mean).unsqueeze(1))
    expected = weight * x + (1 - weight) * y
    expected = 2 * expected if variant == "official" else expected
    torch.testing.assert_close(fused[MASK], expected[MASK], rtol=1e-4, atol=1e-5)


def test_iaff_integrates_twice():
    torch.manual_seed(0)
    twice = AFF({"text": 8, "audio": 8}, iterations=2, context="local").eval()
    x, y = torch.randn(2, 2, 5, 8)
    first = torch.sigmoid(twice.local_maps[0](x + y))
    second = torch.sigmoid(twice.local_maps[1](first * x + (1 - first) * y))
    torch.testing.assert_close(twice([x, y]), second * x + (1 - second) * y, rtol=1e-4, atol=1e-5)


def test_aff_gate_leaves_absent_modalities_out():
    fusion = AFF(DIMS).eval()
    text = inputs()[0]
    torch.testing.assert_close(fusion({"text": text}), text)
    gate = fusion.fuse([*inputs()[:2], None]).attention["gate"]
    torch.testing.assert_close(gate[..., :2].sum(-1), torch.ones(2, 5, 8))


def test_aff_reads_official_names_and_refuses_what_has_none():
    fusion = AFF([8, 8], iterations=2, variant="official")
    layers = {0: "conv", 1: "norm", 3: "conv", 4: "norm"}
    shapes = {0: (2, 8, 1, 1), 1: (2,), 3: (8, 2, 1, 1), 4: (8,)}
    state = {}
    for branch in ("local_att", "global_att", "local_att2", "global_att2"):
        for i, kind in layers.items():
            name = f"{branch}.{i + branch.startswith('global')}"
            state |= {f"{name}.weight": torch.randn(shapes[i]), f"{name}.bias": torch.randn(shapes[i][0])}
            if kind == "norm":
                state |= {f"{name}.running_mean": torch.randn(shapes[i]), f"{name}.running_var": torch.rand(shapes[i])}
                state[f"{name}.num_batches_tracked"] = torch.tensor(3)
    fusion.load_reference(state)
    assert torch.equal(fusion.local_maps[1].net[3].weight, state["local_att2.3.weight"].flatten(1))
    assert torch.equal(fusion.global_maps[0].net[4].running_mean, state["global_att.5.running_mean"])
    with pytest.raises(ReferenceWeightsError, match="missing"):
        fusion.load_reference({k: v for k, v in state.items() if k != "local_att2.3.weight"})
    with pytest.raises(ReferenceWeightsError, match="two modalities"):
        AFF([8, 8, 8], variant="official").load_reference(state)
    with pytest.raises(OptionError, match="iterations must be 1"):
        AFF(DIMS, iterations=3)
    with pytest.raises(OptionError, match="= 0 hidden features"):
        AFF(DIMS, width=3, variant="official")
