"""DialogueGCN's graph per modality, one of the graphs of MMGCN's code. Imports torch-geometric: import it when needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import GraphConv

from fusionzoo.kernels.packing import Layout
from fusionzoo_adapters.hosts.official.slot_edges import SlotEdgeAttention
from fusionzoo_adapters.parts.relational_graph import EdgeAttention, GraphNetwork, graph_inputs
from fusionzoo_adapters.parts.window_graph import WeightedRGCNConv, window_edges, window_mask

BASES = 30


class Convolutions(nn.Module):
    """A relational and a plain graph convolution, `(N, width)` to `(N, hidden)`; official: no ReLU, and sums."""

    def __init__(self, width: int, hidden: int, relations: int, official: bool):
        super().__init__()
        self.conv1 = WeightedRGCNConv(width, hidden, relations, BASES)
        self.conv2 = GraphConv(hidden, hidden, aggr="add" if official else "mean")
        self.official = official

    def forward(self, nodes: Tensor, edge_index: Tensor, types: Tensor, weights: Tensor) -> Tensor:
        y = self.conv1(nodes, edge_index, types, weights)
        y = self.conv2(y if self.official else y.relu(), edge_index)
        return y if self.official else y.relu()


class RelationGraphs(nn.Module):
    """`[x; h]` per modality: its utterances joined within a window, edges typed by the speakers and weighed by attention.

    Edges, and what differs in the official form, are those of `DialogueGCN`; one edge attention serves all modalities. In
    the official form all have the weights of one of them: there the last one computed overwrites the others.

    Parameters
    ----------
    width, hidden : of nodes and of the convolutions. count : of modalities, 0 for the edges alone. relations : edge types.
    window : past and future, None for all. slots : positions of the official edge attention. weighing : number of the
        modality whose weights are used officially.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        count: int,
        relations: int,
        window: tuple[int | None, int | None],
        slots: int,
        official: bool,
        weighing: int = -1,
    ):
        super().__init__()
        self.window, self.official, self.weighing = window, official, weighing
        self.attention = SlotEdgeAttention(width, slots) if official else EdgeAttention(width)
        self.nets = nn.ModuleList(Convolutions(width, hidden, relations, official) for _ in range(count))

    def edges(
        self, x: Tensor, layout: Layout, speakers: Tensor, parties: int, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Edge index, types and weights for the packed nodes, and the weights as `(B, T, T)`."""
        steps = x.shape[1]
        weights = self.attention(x, window_mask(steps, *self.window, mask))[:, :steps]
        edge_index, types, chosen = graph_inputs(
            window_edges(layout, *self.window), weights, layout.pack(speakers), parties, outwards=self.official
        )
        assert chosen is not None
        return edge_index, types, chosen, weights

    def forward(
        self, xs: Sequence[Tensor], layout: Layout, speakers: Tensor, parties: int, mask: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """`(B, T, width + hidden)` and the edge weights `(B, T, T)`, both per modality."""
        read = [xs[self.weighing]] * len(xs) if self.official else xs
        out, maps = [], []
        for net, x, y in zip(self.nets, xs, read, strict=True):
            edge_index, types, chosen, weights = self.edges(y, layout, speakers, parties, mask)
            nodes = layout.pack(x)
            out.append(layout.unpack(torch.cat([nodes, net(nodes, edge_index, types, chosen)], -1)))
            maps.append(weights)
        return out, maps


def single_network(
    width: int, hidden: int, classes: int, relations: int, dropout: float, nodal_attention: bool
) -> GraphNetwork:
    """The official graph over a single stream, with its nodal attention and classifier: DialogueGCN's."""
    return GraphNetwork(
        width,
        hidden,
        classes,
        relations,
        bases=BASES,
        dropout=dropout,
        nodal_attention=nodal_attention,
        official=True,
    )
