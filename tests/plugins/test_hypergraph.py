"""Tests of hypergraph."""

from __future__ import annotations

import pytest
import torch
from modality_graphs import DIMS, NODES, T

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.hypergraph import HypergraphFusion


def test_untrained_hypergraph_variants_agree():
    torch.manual_seed(1)
    default, official = HypergraphFusion(DIMS).eval(), HypergraphFusion(DIMS, variant="official").eval()
    missing = official.load_state_dict(default.state_dict(), strict=False)
    assert set(missing.unexpected_keys) == {"score.weight", "share"}
    xs, mask = list(NODES.unbind(1)), torch.arange(T) < torch.tensor([[5], [3], [1]])
    torch.testing.assert_close(official(xs, mask), default(xs, mask), rtol=1e-4, atol=1e-5)


def test_official_hypergraph_depends_on_the_place_in_the_batch_and_the_default_does_not():
    xs = list(NODES.unbind(1))
    for variant, same in (("official", False), ("default", True)):
        fusion = HypergraphFusion(DIMS, variant=variant).eval()
        with torch.no_grad():
            for p in fusion.parameters():
                p.add_(torch.rand_like(p))
        agree = torch.allclose(fusion([x.flip(0) for x in xs]).flip(0), fusion(xs), rtol=1e-4, atol=1e-4)
        assert agree is same


def test_hypergraph_limits():
    with pytest.raises(OptionError, match=r"exactly 3 modalities.*default variant takes any number"):
        HypergraphFusion({"text": 8, "audio": 4}, variant="official")
    with pytest.raises(ReferenceWeightsError, match=r"variant='official'"):
        HypergraphFusion(DIMS).load_reference({})
    with pytest.raises(OptionError, match="hyper_layers must be an integer from 0"):
        HypergraphFusion(DIMS, hyper_layers=-1)
    with pytest.raises(ReferenceWeightsError, match="fc1"):
        HypergraphFusion(DIMS, variant="official").load_reference({"hyperedge_weight": torch.ones(1000)})
    with pytest.raises(IndexError):
        HypergraphFusion(DIMS, variant="official", edges=10)(list(NODES.unbind(1)))
    bare = HypergraphFusion(DIMS, hyper_layers=0, frequency_layers=0)
    assert sum(p.numel() for p in bare.parameters()) == HypergraphFusion.parameter_count(
        DIMS, hyper_layers=0, frequency_layers=0
    )
    assert bare.fuse(list(NODES.unbind(1))).attention == {}
