"""The relational convolution of DialogueGCN. Imports torch-geometric: import it when needed.

Nothing here loops over nodes, edges or relations, and no `(E, d, d)` tensor is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing

from fusionzoo.reference import copy_reference


class WeightedRGCNConv(MessagePassing):
    """Relational graph convolution whose messages carry a weight per edge.

    `y_i = root x_i + bias + sum_{(j, r) -> i} w_ji W_r x_j` with `W_r = sum_b comp_rb weight_b`. The weighted sum is
    what `RGCNConv` of torch-geometric 1.3 computed with its `edge_norm`; later versions have no such argument. Without
    weights the messages of each relation are averaged, as `RGCNConv` does today.

    Parameters, named as those of `RGCNConv`: `weight (bases, in, out)`, `comp (relations, bases)`, `root (in, out)`,
    `bias (out,)`. With `bases=None` there is no `comp`, and `weight` is `(relations, in, out)`.
    """

    def __init__(self, in_width: int, out_width: int, relations: int, bases: int | None = 30):
        super().__init__(aggr="add", node_dim=0)
        self.relations, self.bases, self.out_width = relations, bases, out_width
        self.weight = nn.Parameter(torch.empty(bases or relations, in_width, out_width))
        self.comp = None if bases is None else nn.Parameter(torch.empty(relations, bases))
        self.root = nn.Parameter(torch.empty(in_width, out_width))
        self.bias = nn.Parameter(torch.zeros(out_width))
        # Glorot over the last two axes, as torch-geometric initialises RGCNConv.
        for matrix in (self.weight, self.comp, self.root):
            if matrix is not None:
                bound = math.sqrt(6 / (matrix.shape[-2] + matrix.shape[-1]))
                nn.init.uniform_(matrix, -bound, bound)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """`(N, out)` from nodes `(N, in)`, edges `(2, E)` from row 0 to row 1, types `(E,)` and weights `(E,)`."""
        nodes, relations = x.shape[0], self.relations
        source, target = edge_index
        if edge_weight is None:
            group = target * relations + edge_type
            counts = x.new_zeros(nodes * relations).index_add(0, group, x.new_ones(len(group)))
            edge_weight = counts.index_select(0, group).reciprocal()
        # Every node once through every relation, (N * R, out); an edge then takes one row of it.
        messages = self._transform(x).reshape(nodes * relations, self.out_width)
        rows = torch.stack([source * relations + edge_type, target])
        # propagate_type: (x: OptPairTensor, edge_weight: Tensor)
        out = self.propagate(rows, x=(messages, None), edge_weight=edge_weight, size=(nodes * relations, nodes))
        return out + F.linear(x, self.root.t(), self.bias)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load an official `RGCNConv`, of torch-geometric 1.3 (`basis`, `att`) or 2.x (`weight`, `comp`)."""
        names = {"basis": "weight", "att": "comp"}
        copy_reference(self, {names.get(k, k): v for k, v in state.items()})

    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:  # type: ignore[override]
        return x_j * edge_weight.unsqueeze(-1)

    def _transform(self, x: Tensor) -> Tensor:
        """`W_r x_n` for every node and relation, `(N, R, out)`."""
        weight = self.weight if self.comp is None else torch.einsum("rb,bio->rio", self.comp, self.weight)
        return torch.einsum("ni,rio->nro", x, weight)
