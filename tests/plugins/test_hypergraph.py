"""Tests of hypergraph."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.graphs import (
    incidence_hypergraph,
    numbered_hypergraph,
    weighted_hypergraph,
)
from fusionzoo_plugins.hypergraph import HypergraphFusion

B, M, T, D = 3, 3, 5, 6
DIMS: dict[str, int] = {"text": D, "audio": D, "visual": D}


@pytest.fixture
def nodes():
    return torch.randn(B, M, T, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def presence():
    """Dialogues of 5, 3 and 1 utterances; the second has no audio at its second, the third no visual at all."""
    there = (torch.arange(T) < torch.tensor([[5], [3], [1]])).unsqueeze(-1).repeat(1, 1, M)
    there[1, 1, 1] = there[2, :, 2] = False
    return there


def present(presence, b):
    """(modality, step) of every node of dialogue b."""
    return [(m, t) for m in range(M) for t in range(T) if presence[b, t, m]]


def rows(x, b, pairs):
    return torch.stack([x[b, m, t] for m, t in pairs])


def hyperedges(pairs):
    """(node, hyperedge) of every incidence: modalities first, then utterances, and which hyperedges are modalities."""
    index = [(i, m) for i, (m, _) in enumerate(pairs)] + [(i, M + t) for i, (_, t) in enumerate(pairs)]
    return torch.tensor(index).T


def test_hypergraph_blocks_equal_incidences_one_by_one(nodes, presence):
    g = torch.Generator().manual_seed(1)
    context, cross = torch.randn(2, B, M, T, generator=g)
    share = torch.rand(M, generator=g)
    out = weighted_hypergraph(context, cross, share, presence) @ nodes
    for b in range(B):
        pairs = present(presence, b)
        weights = torch.cat([rows(context, b, pairs), rows(cross, b, pairs)]).exp()
        for i, (m, t) in enumerate(pairs):
            # One node's share at a time: the other hyperedges' weights do not matter to it.
            edge_weight = torch.where(torch.arange(M + T) < M, share[m], 1 - share[m])
            hypergraph = incidence_hypergraph(hyperedges(pairs), len(pairs), edge_weight, weights)
            torch.testing.assert_close(out[b, m, t], (hypergraph @ rows(nodes, b, pairs))[i])


def test_numbered_weights_count_through_the_batch(nodes):
    g = torch.Generator().manual_seed(1)
    lengths = [5, 3, 1]
    mask = torch.arange(T) < torch.tensor(lengths).unsqueeze(1)
    edge_weight, node_weight = torch.rand(40, generator=g) + 0.5, torch.rand(40, generator=g) + 0.5
    out = numbered_hypergraph(edge_weight, node_weight, (B, M, T), mask) @ nodes
    index, flat, edges = [], [], 0
    for b, n in enumerate(lengths):
        pairs = [(m, t) for m in range(M) for t in range(n)]
        one = hyperedges(pairs)
        index.append(torch.stack([one[0] + len(flat), one[1] + edges]))
        flat += [(b, *p) for p in pairs]
        edges += M + n
    hypergraph = incidence_hypergraph(torch.cat(index, 1), len(flat), edge_weight[:edges], node_weight, "official")
    x = torch.stack([nodes[f] for f in flat])
    torch.testing.assert_close(torch.stack([out[f] for f in flat]), hypergraph @ x)


def test_untrained_hypergraph_variants_agree(nodes):
    torch.manual_seed(1)
    default, official = HypergraphFusion(DIMS).eval(), HypergraphFusion(DIMS, variant="official").eval()
    missing = official.load_state_dict(default.state_dict(), strict=False)
    assert set(missing.unexpected_keys) == {"score.weight", "share"}
    xs, mask = list(nodes.unbind(1)), torch.arange(T) < torch.tensor([[5], [3], [1]])
    torch.testing.assert_close(official(xs, mask), default(xs, mask), rtol=1e-4, atol=1e-5)


def test_official_hypergraph_depends_on_the_place_in_the_batch_and_the_default_does_not(nodes):
    xs = list(nodes.unbind(1))
    for variant, same in (("official", False), ("default", True)):
        fusion = HypergraphFusion(DIMS, variant=variant).eval()
        with torch.no_grad():
            for p in fusion.parameters():
                p.add_(torch.rand_like(p))
        agree = torch.allclose(fusion([x.flip(0) for x in xs]).flip(0), fusion(xs), rtol=1e-4, atol=1e-4)
        assert agree is same


def test_hypergraph_limits(nodes):
    with pytest.raises(OptionError, match=r"exactly 3 modalities.*default variant takes any number"):
        HypergraphFusion({"text": 8, "audio": 4}, variant="official")
    with pytest.raises(ReferenceWeightsError, match=r"variant='official'"):
        HypergraphFusion(DIMS).load_reference({})
    with pytest.raises(OptionError, match="hyper_layers must be an integer from 0"):
        HypergraphFusion(DIMS, hyper_layers=-1)
    with pytest.raises(ReferenceWeightsError, match="fc1"):
        HypergraphFusion(DIMS, variant="official").load_reference({"hyperedge_weight": torch.ones(1000)})
    with pytest.raises(IndexError):
        HypergraphFusion(DIMS, variant="official", edges=10)(list(nodes.unbind(1)))
    bare = HypergraphFusion(DIMS, hyper_layers=0, frequency_layers=0)
    assert sum(p.numel() for p in bare.parameters()) == HypergraphFusion.parameter_count(
        DIMS, hyper_layers=0, frequency_layers=0
    )
    assert bare.fuse(list(nodes.unbind(1))).attention == {}
