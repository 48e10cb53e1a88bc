"""Tests of nl-gate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.nl_gate import NLGate

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


def test_nl_gate_slot_by_slot():
    fusion, xs = shaken(NLGate(DIMS, 6, tokens=2, channels=3, memory=4)), streams()
    result = fusion.fuse(xs)
    x = [s[1, 2] for s in xs]
    q = fusion.query(x[0]).view(2, 3)
    k = torch.cat([f(y).view(4, 3) for f, y in zip(fusion.key, x[1:], strict=True)])
    v = torch.cat([f(y).view(4, 3) for f, y in zip(fusion.value, x[1:], strict=True)])
    weights = torch.stack([(k @ row / math.sqrt(3)).softmax(0) for row in q])
    torch.testing.assert_close(result.attention["slots"][1, 2], weights)
    torch.testing.assert_close(result.fused[1, 2], (q + weights @ v).flatten())


def test_nl_gate_gives_an_absent_modality_no_weight():
    fusion, xs = NLGate(DIMS, 6, tokens=2, channels=3, memory=4).eval(), streams()
    here = torch.tensor([[True] * 3, [False, True, True]])
    weights = fusion.fuse(xs, {"text": torch.ones(2, 3, dtype=torch.bool), "audio": here}).attention["slots"]
    assert not weights[1, 0, :, :4].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 2))
    only_text = fusion([xs[0], None, None])
    torch.testing.assert_close(only_text, fusion.query(xs[0]))


def test_nl_gate_refuses():
    with pytest.raises(OptionError, match="'audio' has width 3, its slots take 12"):
        NLGate(DIMS, tokens=2, channels=3, memory=4, project="q")
    with pytest.raises(OptionError, match="which of q, k and v"):
        NLGate(DIMS, project="qx")
    with pytest.raises(ReferenceWeightsError, match="variant='official'"):
        NLGate(DIMS).load_reference({})
