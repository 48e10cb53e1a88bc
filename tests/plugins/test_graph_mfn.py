"""Tests of graph-mfn."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.graph_mfn import DynamicFusionGraph, GraphMFN

DIMS = {"text": 6, "audio": 4, "visual": 5}


@pytest.mark.parametrize(("count", "connections"), [(2, 5), (3, 19), (4, 65)])
def test_graph_reads_every_smaller_set_with_an_efficacy_of_its_own(count, connections):
    torch.manual_seed(0)
    widths = [3, 4, 2, 5][:count]
    graph = DynamicFusionGraph(widths, 6, 7, linear=False, dropout=0.0)
    x = [torch.rand(2, w) for w in widths]
    top, efficacies = graph(x)
    assert efficacies.shape == (2, connections)
    assert ((efficacies > 0) & (efficacies < 1)).all()
    left = iter(efficacies.unbind(-1))
    vertices = {(m,): v for m, v in enumerate(x)}
    for size in range(2, count + 1):
        for s in combinations(range(count), size):
            parts = [vertices[b] * next(left)[:, None] for r in range(1, size) for b in combinations(s, r)]
            vertices[s] = graph.nodes["_".join(map(str, s))](torch.cat(parts, -1))
    torch.testing.assert_close(top, graph.top(torch.cat([v * next(left)[:, None] for v in vertices.values()], -1)))
    assert next(left, None) is None


def test_graph_mfn_takes_two_to_four_modalities_and_registers_every_vertex():
    with pytest.raises(OptionError, match="fuses 2 to 4 modalities, got 5"):
        GraphMFN([3] * 5)
    names = dict(GraphMFN(DIMS).named_parameters())
    assert {n.split(".")[2] for n in names if n.startswith("vertex_graph.nodes.")} == {"0_1", "0_2", "1_2", "0_1_2"}


def test_graph_mfn_says_which_official_weights_are_missing():
    fusion = GraphMFN(DIMS)
    with pytest.raises(ReferenceWeightsError, match="missing lstm_l"):
        fusion.load_reference({})
