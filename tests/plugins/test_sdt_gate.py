"""Tests of sdt-gate."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_plugins.sdt_gate import SDTGate

DIMS = {"text": 8, "audio": 8, "visual": 8}


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def without(x, *names):
    return {m: v for m, v in x.items() if m not in names}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unimodal", ["learned", "identity", "none"])
def test_sdt_gate_formula(unimodal):
    fusion, x = SDTGate(DIMS, unimodal=unimodal).eval(), streams()
    gated = []
    for i, v in enumerate(x.values()):
        if unimodal == "learned":
            v = torch.sigmoid(v @ fusion.unimodal[i].fc.weight.T) * v
        elif unimodal == "identity":
            v = torch.sigmoid(v) * v
        gated.append(v)
    scores = torch.stack([g @ fusion.multimodal.fc.weight.T for g in gated])
    assert_close(fusion(x), (scores.softmax(0) * torch.stack(gated)).sum(0))


def test_sdt_gate_gives_a_missing_modality_no_weight():
    fusion, x = SDTGate(DIMS).eval(), streams()
    gate = fusion.fuse(without(x, "audio")).attention["gate"]
    assert (gate[..., 1] == 0).all()
    # Alone, a modality passes whole.
    result = fusion.fuse(without(x, "audio", "visual"))
    assert_close(result.fused, result.streams["text"])


def test_sdt_gate_official_weights_are_those_of_the_last_gate():
    weight = torch.randn(8, 8)
    fusion = SDTGate(DIMS, unimodal="none")
    fusion.load_reference({"fc.weight": weight})
    assert torch.equal(fusion.multimodal.fc.weight, weight)
    with pytest.raises(ReferenceWeightsError, match="unimodal='none'"):
        SDTGate(DIMS).load_reference({"fc.weight": weight})
