"""Tests of dynamic-graph."""

from __future__ import annotations

import math

import pytest
import torch
from modality_graphs import DIMS, NODES, D, M, adjacency, over_one_dense_graph

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.dynamic_graph import DynamicGraphFusion


def test_it_is_the_formula():
    dims, steps, hidden, alpha, lam = {"text": 4, "audio": 3}, 5, 3, 0.3, 0.7
    fusion = DynamicGraphFusion(
        dims, 2 * (6 + hidden), width=6, hidden=hidden, layers=3, lam=lam, alpha=alpha, across=0.4
    )
    fusion = fusion.double().eval()
    xs = [torch.randn(1, steps, d, dtype=torch.float64) for d in dims.values()]
    x = torch.cat([project(y)[0] for project, y in zip(fusion.project, xs, strict=True)])
    graph = adjacency(x, [(m, t) for m in range(2) for t in range(steps)], 0.4)
    h = first = fusion.gcn.fcs[0](x).relu()
    cell = fusion.gcn.rnn
    g = c = torch.zeros_like(h)
    for level in range(1, 4):
        gates = h @ cell.weight_ih.T + cell.bias_ih + g @ cell.weight_hh.T + cell.bias_hh
        i, f, new, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * new.tanh()
        g = o.sigmoid() * c.tanh()
        theta = math.log(lam / level + 1)
        mixed = (1 - alpha) * (graph @ g) + alpha * first
        weight = fusion.gcn.convs[level - 1].weight
        h = (theta * torch.cat([graph @ g, first], -1) @ weight + (1 - theta) * mixed).relu() + h
    expected = torch.cat([x, h], -1).view(2, steps, -1)
    torch.testing.assert_close(fusion(xs)[0], torch.cat(expected.unbind(0), -1))


def test_it_equals_one_dense_graph_over_the_batch():
    fused, expected = over_one_dense_graph(DynamicGraphFusion(DIMS, M * (D + 4), hidden=4, layers=3).eval())
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)


def test_without_edges_across_modalities_do_not_meet():
    fusion = DynamicGraphFusion(DIMS, across=0.0, layers=2).eval()
    xs = list(NODES.unbind(1))
    before = fusion.fuse(xs).streams
    after = fusion.fuse([xs[0], xs[1] + 1, xs[2]]).streams
    torch.testing.assert_close(after["text"], before["text"])
    assert not torch.equal(after["audio"], before["audio"])


def test_options_that_cannot_be():
    with pytest.raises(OptionError, match="across must be a number from 0"):
        DynamicGraphFusion(DIMS, across=-1.0)
    weights = {k: torch.ones_like(v) for k, v in DynamicGraphFusion(DIMS, hidden=4).gcn.state_dict().items()}
    with pytest.raises(ReferenceWeightsError, match=r"missing rnn\.weight_ih"):
        DynamicGraphFusion(DIMS, hidden=4).load_reference({k: v for k, v in weights.items() if k != "rnn.weight_ih"})
