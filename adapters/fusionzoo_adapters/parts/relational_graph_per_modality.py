"""DialogueGCN's graph per modality, one of the graphs of MMGCN's code. Imports torch-geometric: import it when needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import GraphConv

from fusionzoo.kernels.packing import Packing
from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.parts.relational_convolution import WeightedRGCNConv
from fusionzoo_adapters.parts.relational_graph import EdgeAttention, graph_inputs
from fusionzoo_adapters.parts.window_graph import window_edges, window_mask

BASES = 30


class Convolutions(nn.Module):
    """A relational and a plain graph convolution, `(N, width)` to `(N, hidden)`.

    Parameters
    ----------
    width, hidden : as above.
    relations : edge types.
    neighbours : how the second one joins them, `mean` or `add`.
    rectify : ReLU after each.
    """

    def __init__(self, width: int, hidden: int, relations: int, neighbours: str = "mean", rectify: bool = True):
        super().__init__()
        self.conv1 = WeightedRGCNConv(width, hidden, relations, BASES)
        self.conv2 = GraphConv(hidden, hidden, aggr=neighbours)
        self.rectify = rectify

    def forward(self, nodes: Tensor, edge_index: Tensor, types: Tensor, weights: Tensor) -> Tensor:
        y = self.conv1(nodes, edge_index, types, weights)
        y = self.conv2(y.relu() if self.rectify else y, edge_index)
        return y.relu() if self.rectify else y


class RelationGraphs(nn.Module):
    """`[x; h]` per modality: its utterances joined within a window, edges typed by the speakers and weighed by attention.

    Edges are those of `DialogueGCN`; one edge attention serves all modalities.

    Parameters
    ----------
    names : of the nodes of an utterance, one per modality.
    width, hidden : of nodes and of the convolutions.
    parties : number of speakers.
    window : past and future, None for all.
    attention : what weighs the edges; None for `EdgeAttention`.
    weighing : number of the modality whose weights are used for all; None for each its own.
    outwards : edges go from the centre of a window to its neighbours instead of towards it.
    convolutions : further options of `Convolutions`.
    """

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        hidden: int,
        parties: int,
        window: tuple[int | None, int | None],
        *,
        attention: nn.Module | None = None,
        weighing: int | None = None,
        outwards: bool = False,
        **convolutions,
    ):
        super().__init__()
        self.names, self.parties, self.window = tuple(names), parties, window
        self.weighing, self.outwards = weighing, outwards
        self.attention = EdgeAttention(width) if attention is None else attention
        self.nets = nn.ModuleList(Convolutions(width, hidden, 2 * parties**2, **convolutions) for _ in names)

    def edges(
        self, x: Tensor, packing: Packing, speakers: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Edge index, types and weights for the packed nodes, and the weights as `(B, T, T)`."""
        steps = x.shape[1]
        weights = self.attention(x, window_mask(steps, *self.window, mask))[:, :steps]
        edge_index, types, chosen = graph_inputs(
            window_edges(packing, *self.window), weights, packing.pack(speakers), self.parties, outwards=self.outwards
        )
        assert chosen is not None
        return edge_index, types, chosen, weights

    def forward(
        self,
        xs: Sequence[Tensor],
        present: Sequence[Tensor],
        packing: Packing,
        speakers: Tensor,
        maps: dict[str, Tensor] | None,
        mask: Tensor,
    ) -> list[Tensor]:
        """`(B, T, width + hidden)` per modality; the edge weights `(B, T, T)` go into `maps`."""
        read = xs if self.weighing is None else [xs[self.weighing]] * len(xs)
        out = []
        for name, net, x, y, there in zip(self.names, self.nets, xs, read, present, strict=True):
            edge_index, types, chosen, weights = self.edges(y, packing, speakers, mask)
            nodes = packing.pack(x)
            h = net(nodes, edge_index, types, chosen)
            out.append(zero_padded(packing.unpack(torch.cat([nodes, h], -1)), there))
            if maps is not None:
                maps[f"edges.{name}"] = weights
        return out
