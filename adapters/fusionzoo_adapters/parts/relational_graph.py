"""The graph part of DialogueGCN: edge weights, two graph convolutions, nodal attention and the classifier."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GraphConv

from fusionzoo._options import check_choice
from fusionzoo.errors import ShapeError
from fusionzoo.kernels.packing import Layout
from fusionzoo.layers import MatchingAttention
from fusionzoo.numerics import masked_softmax
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.window_graph import Edges, WeightedRGCNConv, relation_types

#: Attentions that the official edge attention constructs beside its linear map, and never calls.
UNUSED_ATTENTIONS = ("matchatt.", "simpleatt.", "att.")


class EdgeAttention(nn.Module):
    """Edge weights `a_ij = softmax_j(g_i^T W g_j / sqrt(d))` over the window of `i`: equation 1 of the paper, scaled."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = MatchingAttention(width, width, "general", scaled=True)

    def forward(self, x: Tensor, window: Tensor) -> Tensor:
        """`(B, T, T)`, rows summing to one over the `window (B, T, T)`, from contexts `(B, T, width)`."""
        scores = self.attention.score(self.attention.key(x), self.attention.project(x))
        return masked_softmax(scores, window)


class SlotEdgeAttention(nn.Module):
    """Edge weights of the official code: the row of an utterance depends on its position, not on what it says.

    A linear map gives every step one score for each of `slots` absolute positions; a softmax over *time*, padding
    included, makes the row of slot `j`; the row is then restricted to the window of `j` and normalised.
    """

    def __init__(self, width: int, slots: int):
        super().__init__()
        self.slots = slots
        self.scalar = nn.Linear(width, slots, bias=False)

    def forward(self, x: Tensor, window: Tensor) -> Tensor:
        """`(B, slots, T)` from contexts `(B, T, width)` and the `window (B, T, T)`."""
        steps = x.shape[1]
        if steps > self.slots:
            raise ShapeError(
                f"a dialogue of {steps} utterances does not fit the {self.slots} position slots of the official "
                f"edge attention; build the host with max_seq_len={steps} or more, or with variant='sound'"
            )
        rows = self.scalar(x).softmax(1).transpose(1, 2)
        edges = F.pad(window, (0, 0, 0, self.slots - steps)).to(rows.dtype)
        # The official constant: it keeps the sum of rows without edges away from zero.
        kept = rows * torch.where(edges > 0, 1.0, 1e-10)
        return kept / kept.sum(-1, keepdim=True) * edges

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load an official `MaskedEdgeAttention`; it constructs three more attentions and never calls them."""
        copy_reference_parts({"scalar.": self.scalar}, state, ignored=UNUSED_ATTENTIONS)


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
    official : the official nodal attention, and no ReLU after the convolutions.
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
        official: bool = False,
    ):
        super().__init__()
        check_choice(neighbours, ("add", "mean"), "neighbours", self)
        self.conv1 = WeightedRGCNConv(width, hidden, relations, bases)
        self.conv2 = GraphConv(hidden, hidden, aggr=neighbours)
        self.activation = not official
        joined = width + hidden
        self.attention = DialogueAttention(joined, official) if nodal_attention else None
        self.head = Head(joined, head_width or hidden, classes, dropout)

    def forward(
        self,
        nodes: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        edge_weight: Tensor | None,
        layout: Layout,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits `(B, T, C)` and the nodal attention `(B, T, T)`.

        nodes : `(N, width)`, the real utterances. edge_index : `(2, E)`, from row 0 to row 1. edge_type, edge_weight :
        `(E,)`; without weights the first convolution averages the messages of each relation. mask : `(B, T)`.
        """
        y = self.conv1(nodes, edge_index, edge_type, edge_weight)
        y = self.conv2(y.relu() if self.activation else y, edge_index)
        joined = layout.unpack(torch.cat([nodes, y.relu() if self.activation else y], -1))
        weights = None
        if self.attention is not None:
            joined, weights = self.attention.over(joined, mask)
        return self.head(joined), weights

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load an official `GraphNetwork`, of torch-geometric 1.3 or 2.x."""
        parts = self.reference_parts()
        ignored = () if self.attention is not None else ("matchatt.",)
        copy_reference_parts(parts, modern_names(state), ignored)

    def reference_parts(self) -> dict[str, nn.Module]:
        """`{official prefix: module}`, in the names of torch-geometric 2.x."""
        parts: dict[str, nn.Module] = {"conv1.": self.conv1, "conv2.": self.conv2, **self.head.reference_parts()}
        if self.attention is not None:
            parts["matchatt."] = self.attention
        return parts


def modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the convolutions' entries of torch-geometric 1.3 renamed to those of 2.x."""
    if not any(k.endswith(("conv1.basis", "conv2.lin.weight")) for k in state):
        return dict(state)
    renamed = {}
    for key, value in state.items():
        if key.endswith("conv2.weight"):
            key, value = key.removesuffix("weight") + "lin_rel.weight", value.t()
        for old, new in (
            ("conv1.basis", "conv1.weight"),
            ("conv1.att", "conv1.comp"),
            ("conv2.lin.weight", "conv2.lin_root.weight"),
            ("conv2.lin.bias", "conv2.lin_rel.bias"),
        ):
            if key.endswith(old):
                key = key.removesuffix(old) + new
        renamed[key] = value
    return renamed


def graph_inputs(
    edges: Edges, weights: Tensor | None, speakers: Tensor, parties: int, *, outwards: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Edge index `(2, E)`, types `(E,)` and weights `(E,)` for `GraphNetwork`.

    weights : `(B, T, T)`, `[dialogue, centre, neighbour]`. speakers : `(N,)` of the nodes, below `parties`.
    outwards : edges go from the centre of a window to its neighbours, as in the official code, instead of towards it.
    """
    source, target = (edges.centre, edges.neighbour) if outwards else (edges.neighbour, edges.centre)
    types = relation_types(source, target, speakers, parties)
    chosen = None if weights is None else weights.flatten().index_select(0, edges.slot)
    return torch.stack([source, target]), types, chosen
