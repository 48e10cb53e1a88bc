"""Graphs of dialogues and convolutions over them."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from modality_graphs import NODES, PRESENCE, B, D, M, T, adjacency, hyperedges, joined, present, rows
from torch import nn

from fusionzoo.errors import OptionError
from fusionzoo.graphs import (
    GCNII,
    FrequencyConv,
    GCNIIConv,
    ModalGraph,
    angular_graph,
    incidence_hypergraph,
    numbered_hypergraph,
    weighted_hypergraph,
)


def test_angular_graph_equals_one_built_edge_by_edge():
    dense = angular_graph(NODES, PRESENCE, 0.7).dense().unflatten(1, (M, T)).unflatten(3, (M, T))
    for b in range(B):
        pairs = present(PRESENCE, b)
        expected = torch.zeros(M, T, M, T)
        values = adjacency(rows(NODES, b, pairs), pairs, 0.7)
        for i, (m, t) in enumerate(pairs):
            for j, (n, s) in enumerate(pairs):
                expected[m, t, n, s] = values[i, j]
        torch.testing.assert_close(dense[b], expected, rtol=1e-4, atol=1e-5)


def test_blocks_send_what_their_dense_matrix_sends():
    graph = ModalGraph(torch.randn(B, M, T, T), torch.randn(B, M, M, T) * (1 - torch.eye(M)).unsqueeze(-1))
    torch.testing.assert_close((graph @ NODES).flatten(1, 2), graph.dense() @ NODES.flatten(1, 2))


def test_a_zero_vector_is_at_a_right_angle_to_every_other():
    x = NODES.clone()
    x[0, 0, 0] = 0
    x.requires_grad_()
    graph = angular_graph(x)
    assert bool(graph.within.isfinite().all())
    (graph.within.square().sum() + graph.across.square().sum()).backward()
    assert x.grad is not None
    assert bool((x.grad[0, 0, 0] == 0).all())
    # Relative to its weight to itself, which is nearly one, the edge to another of the same degree weighs one half.
    two = angular_graph(torch.stack([torch.zeros(D), torch.ones(D)]).view(1, 1, 2, D))
    assert float(two.within[0, 0, 0, 1] / two.within[0, 0, 0, 0]) == pytest.approx(0.5, abs=1e-2)


def test_edges_by_angle_join_what_differs_most():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.2]]).view(1, 1, 3, 2)
    alike, apart = (angular_graph(x, edges=edges).within[0, 0, 0] for edges in ("similarity", "angle"))
    assert alike[1] > alike[2]
    assert apart[1] < apart[2]


def test_edges_of_a_window_end_after_twenty_utterances_and_are_constants():
    x = torch.randn(1, 1, 30, D, requires_grad=True)
    graph = angular_graph(x, edges="window")
    step = torch.arange(30)
    assert torch.equal(graph.within[0, 0] > 0, (step.unsqueeze(1) - step).abs() <= 20)
    assert not graph.within.requires_grad


def test_edges_of_another_name_are_refused():
    with pytest.raises(OptionError, match="similarity"):
        angular_graph(NODES, edges="cosine")


@pytest.mark.parametrize("variant", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_layer_of_gcnii_is_the_papers_equation(variant, residual):
    torch.manual_seed(0)
    conv = GCNIIConv(5, 3, lam=0.7, alpha=0.3, variant=variant, residual=residual).double()
    x, initial = torch.randn(2, 7, 5, dtype=torch.float64)
    graph, theta = torch.rand(7, 7, dtype=torch.float64), math.log(0.7 / 3 + 1)
    mixed = 0.7 * (graph @ x) + 0.3 * initial
    support = torch.cat([graph @ x, initial], -1) if variant else mixed
    expected = theta * support @ conv.weight + (1 - theta) * mixed + residual * x
    torch.testing.assert_close(conv(x, graph, initial), expected)


def test_dynamic_layers_are_an_lstm_over_depth():
    torch.manual_seed(1)
    net = GCNII(D, 4, 3, dynamic=True, alpha=0.2).eval()
    lstm = nn.LSTM(4, 4)
    assert net.rnn is not None
    lstm.load_state_dict({f"{k}_l0": v for k, v in net.rnn.state_dict().items()})
    adj, x = torch.rand(T, T), NODES[0, 0]
    h = first = net.fcs[0](x).relu()
    state = (torch.zeros(1, T, 4), torch.zeros(1, T, 4))
    for level, weight in enumerate(net.convs.parameters(), 1):
        g, state = lstm(h[None], state)
        theta = math.log(0.5 / level + 1)
        near = adj @ g[0]
        mixed = 0.8 * near + 0.2 * first
        h = h + (theta * torch.cat([near, first], 1) @ weight + (1 - theta) * mixed).relu()
    torch.testing.assert_close(net(x, adj), torch.cat([x, h], 1), rtol=1e-4, atol=1e-5)


def test_frequency_blocks_equal_edges_one_by_one():
    torch.manual_seed(1)
    conv = FrequencyConv(D)
    out = conv(NODES, PRESENCE)
    for b in range(B):
        pairs = present(PRESENCE, b)
        edges = [(i, j) for i, j in permutations(range(len(pairs)), 2) if joined(pairs[i], pairs[j])]
        index = torch.tensor(edges).T
        x = rows(NODES, b, pairs)
        torch.testing.assert_close(rows(out, b, pairs), conv.along(x, index))
        degree = index[0].bincount(minlength=len(pairs))
        expected = torch.zeros_like(x)
        for j, i in edges:
            gate = torch.tanh(conv.gate(torch.cat([x[i], x[j]])))
            expected[i] += gate * x[j] / (degree[i] * degree[j]).sqrt()
        torch.testing.assert_close(rows(out, b, pairs), expected, rtol=1e-4, atol=1e-5)


def test_hypergraph_blocks_equal_incidences_one_by_one():
    g = torch.Generator().manual_seed(1)
    context, cross = torch.randn(2, B, M, T, generator=g)
    share = torch.rand(M, generator=g)
    out = weighted_hypergraph(context, cross, share, PRESENCE) @ NODES
    for b in range(B):
        pairs = present(PRESENCE, b)
        weights = torch.cat([rows(context, b, pairs), rows(cross, b, pairs)]).exp()
        for i, (m, t) in enumerate(pairs):
            # One node's share at a time: the other hyperedges' weights do not matter to it.
            edge_weight = torch.where(torch.arange(M + T) < M, share[m], 1 - share[m])
            hypergraph = incidence_hypergraph(hyperedges(pairs), len(pairs), edge_weight, weights)
            torch.testing.assert_close(out[b, m, t], (hypergraph @ rows(NODES, b, pairs))[i])


def test_numbered_weights_count_through_the_batch():
    g = torch.Generator().manual_seed(1)
    lengths = [5, 3, 1]
    mask = torch.arange(T) < torch.tensor(lengths).unsqueeze(1)
    edge_weight, node_weight = torch.rand(40, generator=g) + 0.5, torch.rand(40, generator=g) + 0.5
    out = numbered_hypergraph(edge_weight, node_weight, (B, M, T), mask) @ NODES
    index, flat, edges = [], [], 0
    for b, n in enumerate(lengths):
        pairs = [(m, t) for m in range(M) for t in range(n)]
        one = hyperedges(pairs)
        index.append(torch.stack([one[0] + len(flat), one[1] + edges]))
        flat += [(b, *p) for p in pairs]
        edges += M + n
    hypergraph = incidence_hypergraph(torch.cat(index, 1), len(flat), edge_weight[:edges], node_weight, "official")
    x = torch.stack([NODES[f] for f in flat])
    torch.testing.assert_close(torch.stack([out[f] for f in flat]), hypergraph @ x)


def test_classes_are_read_beside_the_residue():
    with pytest.raises(OptionError, match="residue=True"):
        GCNII(4, 4, 2, residue=False, classes=3)
