"""Graph fusions and their layers: blocks against graphs built node by node, formulas against loops, limits."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import nn

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.graphs import (
    GCNII,
    FrequencyConv,
    ModalGraph,
    PairwiseGate,
    angular_graph,
    incidence_hypergraph,
    numbered_hypergraph,
    weighted_hypergraph,
)
from fusionzoo_plugins.dynamic_graph import DynamicGraphFusion
from fusionzoo_plugins.graph import GraphFusion
from fusionzoo_plugins.hypergraph import HypergraphFusion
from fusionzoo_plugins.pairwise_gated import PairwiseGated

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


def test_angular_graph_equals_one_built_edge_by_edge(nodes, presence):
    dense = angular_graph(nodes, presence, 0.7).dense().unflatten(1, (M, T)).unflatten(3, (M, T))
    for b in range(B):
        pairs = present(presence, b)
        expected = torch.zeros(M, T, M, T)
        values = adjacency(rows(nodes, b, pairs), pairs, 0.7)
        for i, (m, t) in enumerate(pairs):
            for j, (n, s) in enumerate(pairs):
                expected[m, t, n, s] = values[i, j]
        torch.testing.assert_close(dense[b], expected, rtol=1e-4, atol=1e-5)


def test_blocks_send_what_their_dense_matrix_sends(nodes):
    graph = ModalGraph(torch.randn(B, M, T, T), torch.randn(B, M, M, T) * (1 - torch.eye(M)).unsqueeze(-1))
    torch.testing.assert_close((graph @ nodes).flatten(1, 2), graph.dense() @ nodes.flatten(1, 2))


def test_a_zero_vector_is_at_a_right_angle_to_every_other(nodes):
    x = nodes.clone()
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


def test_edges_by_angle_join_what_differs_most(nodes):
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


def test_edges_of_another_name_are_refused(nodes):
    with pytest.raises(OptionError, match="similarity"):
        angular_graph(nodes, edges="cosine")


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


def test_dynamic_layers_are_an_lstm_over_depth(nodes):
    torch.manual_seed(1)
    net = GCNII(D, 4, 3, dynamic=True, alpha=0.2).eval()
    lstm = nn.LSTM(4, 4)
    assert net.rnn is not None
    lstm.load_state_dict({f"{k}_l0": v for k, v in net.rnn.state_dict().items()})
    adj, x = torch.rand(T, T), nodes[0, 0]
    h = first = net.fcs[0](x).relu()
    state = (torch.zeros(1, T, 4), torch.zeros(1, T, 4))
    for level, weight in enumerate(net.convs.parameters(), 1):
        g, state = lstm(h[None], state)
        theta = math.log(0.5 / level + 1)
        near = adj @ g[0]
        mixed = 0.8 * near + 0.2 * first
        h = h + (theta * torch.cat([near, first], 1) @ weight + (1 - theta) * mixed).relu()
    torch.testing.assert_close(net(x, adj), torch.cat([x, h], 1), rtol=1e-4, atol=1e-5)


def test_without_edges_across_modalities_do_not_meet(nodes):
    fusion = DynamicGraphFusion(DIMS, across=0.0, layers=2).eval()
    xs = list(nodes.unbind(1))
    before = fusion.fuse(xs).streams
    after = fusion.fuse([xs[0], xs[1] + 1, xs[2]]).streams
    torch.testing.assert_close(after["text"], before["text"])
    assert not torch.equal(after["audio"], before["audio"])


def test_frequency_blocks_equal_edges_one_by_one(nodes, presence):
    torch.manual_seed(1)
    conv = FrequencyConv(D)
    out = conv(nodes, presence)
    for b in range(B):
        pairs = present(presence, b)
        edges = [(i, j) for i, j in permutations(range(len(pairs)), 2) if joined(pairs[i], pairs[j])]
        index = torch.tensor(edges).T
        x = rows(nodes, b, pairs)
        torch.testing.assert_close(rows(out, b, pairs), conv.along(x, index))
        degree = index[0].bincount(minlength=len(pairs))
        expected = torch.zeros_like(x)
        for j, i in edges:
            gate = torch.tanh(conv.gate(torch.cat([x[i], x[j]])))
            expected[i] += gate * x[j] / (degree[i] * degree[j]).sqrt()
        torch.testing.assert_close(rows(out, b, pairs), expected, rtol=1e-4, atol=1e-5)


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


def test_gated_pairs(nodes):
    torch.manual_seed(1)
    fusion = PairwiseGated(DIMS, 3 * 4, hidden=4).eval()
    xs = list(nodes.unbind(1))
    h = [torch.tanh(t(x)) for t, x in zip(fusion.gates.transform, xs, strict=True)]
    parts = []
    for gate, (p, q) in zip(fusion.gates.gate, [(0, 1), (0, 2), (1, 2)], strict=True):
        z = torch.sigmoid(gate(torch.cat([xs[p], xs[q], xs[p] * xs[q]], -1)))
        parts.append(z * h[p] + (1 - z) * h[q])
    torch.testing.assert_close(fusion(xs), torch.cat(parts, -1))
    # Without audio, text | audio is text alone.
    alone = fusion([xs[0], None, xs[2]])
    torch.testing.assert_close(alone[..., :4], h[0])
    torch.testing.assert_close(alone[..., 4:8], parts[1])
    torch.testing.assert_close(alone[..., 8:], h[2])


def test_gated_by_the_anchor(nodes):
    fusion = PairwiseGated(DIMS, D + 2 * 4, form="background", hidden=4).eval()
    text, audio, visual = nodes.unbind(1)
    gates = fusion.gates
    z = torch.sigmoid(gates.gate[1](torch.cat([visual, text], -1)))
    out = fusion([text, None, visual])
    torch.testing.assert_close(out[..., :D], text)
    assert bool((out[..., D : D + 4] == 0).all())
    torch.testing.assert_close(out[..., D + 4 :], z * gates.transform[1](visual))
    assert fusion.fuse([text, audio, visual]).attention["text|visual"].shape == (B, T, 4, 2)


def test_official_gates_are_loaded_in_their_order_only():
    gate = PairwiseGate(4, 3, 2)
    names = [*(f"transform_{m}" for m in "avl"), *(f"transform_{m}" for m in ("av", "al", "vl"))]
    state = {}
    for n in names:
        wide = len(n) == len("transform_av")
        state |= {
            f"{n}.weight": torch.rand(1, 12) if wide else torch.rand(3, 4),
            f"{n}.bias": torch.rand(1 if wide else 3),
        }
    gate.load_reference(state, ["a", "l"])
    torch.testing.assert_close(gate.gate[0].weight, state["transform_al.weight"])
    with pytest.raises(OptionError, match="in the order a, v, l"):
        PairwiseGated({"text": 4, "audio": 4}, hidden=3).load_reference(state)
    with pytest.raises(OptionError, match="not thermal, l"):
        PairwiseGated({"thermal": 4, "text": 4}, hidden=3).load_reference(state)
    with pytest.raises(ShapeError, match="another number of modalities"):
        gate([torch.rand(2, 4)])


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
