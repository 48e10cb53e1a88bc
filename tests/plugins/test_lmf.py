"""Tests of lmf."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_plugins.lmf import LowRankFusion
from fusionzoo_plugins.tfn import TensorFusion

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


def test_lmf_is_tensor_fusion_with_a_low_rank_weight():
    low, xs = shaken(LowRankFusion(DIMS, 6, rank=3)), streams()
    f = [low.factors.get_parameter(f"factor{i}") for i in range(3)]
    weight = torch.einsum("r,rio,rjo,rko->oijk", low.factors.fusion_weights[0], *f)
    full = TensorFusion(DIMS, 6, project=False, hidden=()).eval()
    with torch.no_grad():
        full.head.layers[0].weight.copy_(weight.flatten(1))
        full.head.layers[0].bias.copy_(low.factors.fusion_bias[0])
    torch.testing.assert_close(low(xs), full(xs), rtol=1e-4, atol=1e-4)


def test_lmf_starts_neutral_to_an_absent_modality():
    fusion, xs = LowRankFusion(DIMS, 6).eval(), streams()
    alone = LowRankFusion({"text": 5, "audio": 3}, 6).eval()
    state = {k: v for k, v in fusion.state_dict().items() if "factor2" not in k}
    alone.load_state_dict(state)
    torch.testing.assert_close(fusion([*xs[:2], None]), alone(xs[:2]))


def test_lmf_official_learns_weights_and_bias_only():
    fusion = LowRankFusion(DIMS, 6, variant="official")
    assert {n for n, _ in fusion.named_parameters()} == {"factors.fusion_weights", "factors.fusion_bias"}
    assert sum("factor" in k for k in fusion.state_dict()) == 5
    assert fusion.double().factors.get_buffer("factor0").dtype == torch.float64


def test_reference_weights_name_three_modalities():
    state = LowRankFusion({"a": 2, "b": 3}, 4).state_dict()
    named = {f"audio_{k[8:]}": v for k, v in state.items()}
    with pytest.raises(ReferenceWeightsError, match="three modalities, this one 2"):
        LowRankFusion({"a": 2, "b": 3}, 4).load_reference(named)
    with pytest.raises(ReferenceWeightsError, match="post_fusion_layer_1"):
        TensorFusion(DIMS, 4, project=False).load_reference({"post_fusion_layer_1.weight": torch.zeros(1, 2)})
