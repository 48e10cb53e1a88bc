"""Tests of graph and dynamic-graph."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.graphs import (
    GCNII,
)
from fusionzoo_plugins.dynamic_graph import DynamicGraphFusion
from fusionzoo_plugins.graph import GraphFusion

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


def joined(p, q):
    """Whether two different nodes are neighbours."""
    return p != q and (p[0] == q[0] or p[1] == q[1])


def adjacency(x, pairs, across=1.0):
    """The normalised angular graph, edge by edge."""
    a = torch.zeros(len(pairs), len(pairs))
    for i, p in enumerate(pairs):
        for j, q in enumerate(pairs):
            if p == q or joined(p, q):
                cosine = 0.99999 * nn.functional.cosine_similarity(x[i], x[j], 0)
                a[i, j] = (1 - torch.acos(cosine) / math.pi) * (1.0 if p[0] == q[0] else across)
    degree = a.sum(1)
    return a / (degree[:, None] * degree).sqrt()


@pytest.mark.parametrize("cls", [GraphFusion, DynamicGraphFusion])
def test_graph_fusions_equal_one_dense_graph_over_the_batch(cls, nodes, presence):
    torch.manual_seed(1)
    fusion = cls(DIMS, M * (D + 4), hidden=4, layers=3).eval()
    masks = {m: presence[..., i] for i, m in enumerate(DIMS)}
    fused = fusion(list(nodes.unbind(1)), masks)
    pairs = [present(presence, b) for b in range(B)]
    dense = torch.block_diag(*[adjacency(rows(nodes, b, p), p) for b, p in enumerate(pairs)])
    out = fusion.gcn(torch.cat([rows(nodes, b, p) for b, p in enumerate(pairs)]), dense)
    expected = torch.zeros(B, T, M, D + 4)
    for row, (b, m, t) in zip(out, [(b, m, t) for b, p in enumerate(pairs) for m, t in p], strict=True):
        expected[b, t, m] = row
    torch.testing.assert_close(fused, expected.flatten(2), rtol=1e-4, atol=1e-5)


def test_options_that_cannot_be():
    with pytest.raises(OptionError, match="lam must be a positive number"):
        GraphFusion(DIMS, lam=0.0)
    with pytest.raises(OptionError, match="layers must be a positive integer"):
        GraphFusion(DIMS, layers=0)
    with pytest.raises(OptionError, match="across must be a number from 0"):
        DynamicGraphFusion(DIMS, across=-1.0)
    with pytest.raises(OptionError, match="residue=True"):
        GCNII(4, 4, 2, residue=False, classes=3)
    with pytest.raises(ReferenceWeightsError, match=r"missing fcs\.0\.bias"):
        GraphFusion(DIMS, hidden=4).load_reference({"graph_net.fcs.0.weight": torch.ones(4, D)})
