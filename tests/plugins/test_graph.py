"""Tests of graph."""

from __future__ import annotations

import pytest
import torch
from modality_graphs import DIMS, D, M, over_one_dense_graph

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.graph import GraphFusion


def test_it_equals_one_dense_graph_over_the_batch():
    fused, expected = over_one_dense_graph(GraphFusion(DIMS, M * (D + 4), hidden=4, layers=3).eval())
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)


def test_options_that_cannot_be():
    with pytest.raises(OptionError, match="lam must be a positive number"):
        GraphFusion(DIMS, lam=0.0)
    with pytest.raises(OptionError, match="layers must be a positive integer"):
        GraphFusion(DIMS, layers=0)
    with pytest.raises(ReferenceWeightsError, match=r"missing fcs\.0\.bias"):
        GraphFusion(DIMS, hidden=4).load_reference({"graph_net.fcs.0.weight": torch.ones(4, D)})
