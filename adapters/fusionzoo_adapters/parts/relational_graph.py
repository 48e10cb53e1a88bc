"""The graph part of DialogueGCN: edge weights, two graph convolutions, nodal attention and the classifier."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_geometric.nn import GraphConv

from fusionzoo._options import check_choice
from fusionzoo.kernels.packing import Packing
from fusionzoo.layers import MatchingAttention
from fusionzoo.numerics import masked_softmax
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.relational_convolution import WeightedRGCNConv
from fusionzoo_adapters.parts.window_graph import Edges, relation_types


class EdgeAttention(nn.Module):
    """Edge weights `a_ij = softmax_j(g_i^T W g_j / sqrt(d))` over the window of `i`: equation 1 of the paper, scaled."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = MatchingAttention(width, width, "general", scaled=True)

    def forward(self, x: Tensor, window: Tensor) -> Tensor:
        """`(B, T, T)`, rows summing to one over the `window (B, T, T)`, from contexts `(B, T, width)`."""
        scores = self.attention.score(self.attention.key(x), self.attention.project(x))
        return masked_softmax(scores, window)


class GraphNetwork(nn.Module):
    """Two graph convolutions over the utterances, nodal attention over the dialogue, and the classifier.

    Parameters
    ----------
    width, hidden : of the nodes, and of the convolutions.
    classes, relations : C, and the number of edge types.
    head_width : hidden width of the classifier.
    bases : of the relational convolution; None for one free matrix per relation.
    nodal_attention : `DialogueAttention` of every node over its dialogue.
    neighbours : `add` or `mean`, how the second convolution joins them.
    rectify : ReLU after the convolutions.
    matching : options of the nodal attention.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        classes: int,
        relations: int,
        *,
        head_width: int | None = None,
        bases: int | None = 30,
        dropout: float = 0.0,
        nodal_attention: bool = True,
        neighbours: str = "add",
        rectify: bool = True,
        matching: Mapping[str, bool] | None = None,
    ):
        super().__init__()
        check_choice(neighbours, ("add", "mean"), "neighbours", self)
        self.conv1 = WeightedRGCNConv(width, hidden, relations, bases)
        self.conv2 = GraphConv(hidden, hidden, aggr=neighbours)
        self.rectify = rectify
        joined = width + hidden
        self.attention = DialogueAttention(joined, **(matching or {})) if nodal_attention else None
        self.head = Head(joined, head_width or hidden, classes, dropout)

    def forward(
        self,
        nodes: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        edge_weight: Tensor | None,
        packing: Packing,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits `(B, T, C)` and the nodal attention `(B, T, T)`.

        nodes : `(N, width)`, the real utterances.
        edge_index : `(2, E)`, from row 0 to row 1.
        edge_type, edge_weight : `(E,)`; without weights the first convolution averages the messages of each relation.
        mask : `(B, T)`.
        """
        y = self.conv1(nodes, edge_index, edge_type, edge_weight)
        y = self.conv2(y.relu() if self.rectify else y, edge_index)
        joined = packing.unpack(torch.cat([nodes, y.relu() if self.rectify else y], -1))
        weights = None
        if self.attention is not None:
            joined, weights = self.attention.over(joined, mask)
        return self.head(joined), weights


def graph_inputs(
    edges: Edges, weights: Tensor | None, speakers: Tensor, parties: int, *, outwards: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Edge index `(2, E)`, types `(E,)` and weights `(E,)` for `GraphNetwork`.

    weights : `(B, T, T)`, `[dialogue, centre, neighbour]`.
    speakers : `(N,)` of the nodes, below `parties`.
    outwards : edges go from the centre of a window to its neighbours instead of towards it.
    """
    source, target = (edges.centre, edges.neighbour) if outwards else (edges.neighbour, edges.centre)
    types = relation_types(source, target, speakers, parties)
    chosen = None if weights is None else weights.flatten().index_select(0, edges.slot)
    return torch.stack([source, target]), types, chosen
