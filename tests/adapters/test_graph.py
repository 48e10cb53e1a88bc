"""The dialogue graph, its convolution and its edge weights, against definitions written out."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import RGCNConv

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo.kernels.packing import Packing
from fusionzoo.testing.comparisons import counts, largest
from fusionzoo_adapters.parts.relational_convolution import WeightedRGCNConv
from fusionzoo_adapters.parts.relational_graph import EdgeAttention, graph_inputs
from fusionzoo_adapters.parts.window_graph import relation_types, window_edges, window_mask

CPU = torch.device("cpu")
LENGTHS = [5, 1, 3]


def by_definition(lengths, steps, past, future):
    """Edges (centre, neighbour, slot) with two loops."""
    edges, first = [], 0
    for b, n in enumerate(lengths):
        for i in range(n):
            for j in range(n):
                if (past is None or j >= i - past) and (future is None or j <= i + future):
                    edges.append((first + i, first + j, (b * steps + i) * steps + j))
        first += n
    return edges


@pytest.mark.parametrize("past", [0, 2, 50, None])
@pytest.mark.parametrize("future", [0, 1, None])
@pytest.mark.parametrize("steps", [5, 8])
def test_edges_of_a_window(past, future, steps):
    edges = window_edges(Packing(LENGTHS, steps, CPU), past, future)
    found = list(zip(edges.centre.tolist(), edges.neighbour.tolist(), edges.slot.tolist(), strict=True))
    assert found == by_definition(LENGTHS, steps, past, future)
    mask = torch.arange(steps) < torch.tensor(LENGTHS).unsqueeze(1)
    inside = window_mask(steps, past, future, mask).flatten().nonzero().squeeze(1)
    assert inside.tolist() == edges.slot.tolist()


def test_relations_tell_apart_speakers_and_order():
    source, target = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 1, 1])
    speakers = torch.tensor([2, 0, 1])
    # P = 3: (source's speaker * 3 + target's speaker) * 2 + (source not earlier).
    assert relation_types(source, target, speakers, 3).tolist() == [12, 5, 1, 7]


def test_edges_run_to_the_centre_and_officially_from_it():
    edges = window_edges(Packing([3], 3, CPU), 1, 0)
    speakers, weights = torch.tensor([0, 1, 0]), torch.arange(9.0).view(1, 3, 3)
    index, types, chosen = graph_inputs(edges, weights, speakers, 2, outwards=False)
    assert index.tolist() == [[0, 0, 1, 1, 2], [0, 1, 1, 2, 2]]
    assert chosen is not None
    assert chosen.tolist() == [0, 3, 4, 7, 8]
    assert types.tolist() == [1, 2, 7, 4, 1]
    turned, _, same = graph_inputs(edges, weights, speakers, 2, outwards=True)
    assert turned.tolist() == index.flip(0).tolist()
    assert same is not None
    assert same.tolist() == chosen.tolist()


@pytest.mark.parametrize(("relations", "bases"), [(2, 30), (40, 3), (5, None)])
def test_convolution_by_definition(relations, bases):
    torch.manual_seed(0)
    conv = WeightedRGCNConv(4, 3, relations, bases).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    index, types = torch.randint(6, (2, 20)), torch.randint(relations, (20,))
    weight = torch.rand(20, dtype=torch.float64)
    matrices = conv.weight if conv.comp is None else torch.einsum("rb,bio->rio", conv.comp, conv.weight)
    expected = x @ conv.root + conv.bias
    for (j, i), r, w in zip(index.t().tolist(), types.tolist(), weight, strict=True):
        expected[i] = expected[i] + w * (x[j] @ matrices[r])
    torch.testing.assert_close(conv(x, index, types, weight), expected)
    # Without weights it is torch-geometric's own convolution.
    official = RGCNConv(4, 3, relations, num_bases=bases).double()
    official.load_state_dict(conv.state_dict())
    torch.testing.assert_close(conv(x, index, types), official(x, index, types))


def test_edge_weights_are_the_softmax_of_the_scores_in_the_window():
    torch.manual_seed(0)
    attention, x = EdgeAttention(4), torch.randn(2, 5, 4)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    weights = attention(x, window_mask(5, 2, 1, mask))
    matrix = attention.attention.transform.weight
    scores = torch.stack([x[1, 1] @ (matrix.t() @ x[1, j]) / 4**0.5 for j in (0, 1, 2)])
    torch.testing.assert_close(weights[1, 1, :3], scores.softmax(0))
    torch.testing.assert_close(weights.sum(-1), mask.float())
    assert (weights[0, 4, :2] == 0).all()
    assert (weights[1, :, 3:] == 0).all()


def one_modality(x, speakers=None) -> Batch:
    shape = x.shape[:2]
    mask = torch.ones(shape, dtype=torch.bool)
    speakers = torch.zeros(shape, dtype=torch.long) if speakers is None else speakers
    return Batch({"text": x}, mask, speakers, torch.zeros(shape, dtype=torch.long), ["d"], None, [shape[1]] * shape[0])


def reach(variant: str) -> list[int]:
    """Steps whose logits feel a change at step 5 of 11, with two past utterances and none of the future."""
    torch.manual_seed(0)
    host = fusionzoo.get("dialogue-gcn", kind="host")(
        {"text": 4},
        3,
        2,
        base="none",
        window_past=2,
        window_future=0,
        nodal_attention=False,
        dropout=0.0,
        variant=variant,
    ).eval()
    x = torch.randn(1, 11, 4, requires_grad=True)
    logits = host(one_modality(x)).logits
    felt = []
    for t in range(11):
        (grad,) = torch.autograd.grad(logits[0, t].sum(), x, retain_graph=True)
        if counts(grad[0, 5], largest(grad)).any():
            felt.append(t)
    return felt


def test_the_past_window_is_the_receivers_past():
    # Two convolutions of two past utterances each.
    assert reach("default") == [5, 6, 7, 8, 9]
    # The official graph is turned round; its slot softmax over time is felt everywhere besides.
    assert {1, 2, 3, 4, 5} <= set(reach("official"))


def test_an_unlimited_window_is_one_longer_than_the_dialogue():
    torch.manual_seed(0)
    build = fusionzoo.get("dialogue-gcn", kind="host")
    wide = build({"text": 4}, 3, 2, hidden=4, window_past=None, window_future=-1).eval()
    long = build({"text": 4}, 3, 2, hidden=4, window_past=6, window_future=6).eval()
    long.load_state_dict(wide.state_dict())
    batch = one_modality(torch.randn(2, 7, 4))
    torch.testing.assert_close(wide(batch).logits, long(batch).logits)


def test_incoming_weights_sum_to_one():
    torch.manual_seed(0)
    host = fusionzoo.get("dialogue-gcn", kind="host")({"text": 4}, 3, 2, hidden=4, window_past=2).eval()
    host.keep_attention = True
    out = host(one_modality(torch.randn(2, 7, 4)))
    torch.testing.assert_close(out.attention["edges"].sum(-1), torch.ones(2, 7))
    assert out.attention["nodal"].shape == (2, 7, 7)
