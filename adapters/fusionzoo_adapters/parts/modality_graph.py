"""Graphs over the utterances of several modalities: one over all of them, or one for each; all are called alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.graphs import GCNII
from fusionzoo.kernels.graph_blocks import propagate
from fusionzoo.kernels.packing import Packing
from fusionzoo.numerics import zero_padded


class NodeEmbeddings(nn.Module):
    """Learnt vectors of speakers and of modalities, added to the nodes.

    Parameters
    ----------
    width : of the nodes.
    speakers : their number, 0 for no embedding of theirs.
    targets : the nodes, by number, that it is added to.
    rows : every node's row in the embedding of modalities, None for none.
    table : rows of that embedding at least.
    """

    def __init__(
        self,
        width: int,
        speakers: int = 0,
        targets: Sequence[int] = (),
        rows: Sequence[int] | None = None,
        table: int = 0,
    ):
        super().__init__()
        self.targets, self.rows = list(targets), None if rows is None else list(rows)
        self.speaker = nn.Embedding(speakers, width) if speakers and self.targets else None
        self.modal = nn.Embedding(max(table, 1 + max(self.rows)), width) if self.rows else None

    def forward(
        self, xs: Sequence[Tensor], present: Sequence[Tensor], speakers: Tensor, mask: Tensor | None = None
    ) -> list[Tensor]:
        """`(B, T, width)` per node. present, speakers, mask : `(B, T)`; padding is what `mask` leaves out.

        Zero where a node is absent; not at padding, where no graph looks, if `present` is `mask` itself.
        """
        out = list(xs)
        if self.speaker is not None:
            who = self.speaker(speakers)
            for i in self.targets:
                out[i] = out[i] + who
        if self.modal is not None and self.rows is not None:
            out = [x + self.modal.weight[row] for x, row in zip(out, self.rows, strict=True)]
        same = [x is old or p is mask for x, old, p in zip(out, xs, present, strict=True)]
        return [x if kept else zero_padded(x, p) for x, p, kept in zip(out, present, same, strict=True)]


class ModalGCN(nn.Module):
    """The graph of MMGCN and MM-DFN: embeddings of speakers and modalities added to the nodes, and GCNII over them.

    Parameters
    ----------
    width : of the nodes.
    gcn : further options of `GCNII`.
    across : weight of the edges across modalities. embeddings : options of `NodeEmbeddings`.
    """

    def __init__(self, width: int, gcn: Mapping[str, Any], across: float = 1.0, **embeddings: Any):
        super().__init__()
        self.gcn, self.across = GCNII(width, **gcn), across
        self.embed = NodeEmbeddings(width, **embeddings)

    def forward(
        self,
        xs: Sequence[Tensor],
        present: Sequence[Tensor],
        packing: Packing,
        speakers: Tensor,
        maps: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> list[Tensor]:
        """`[x; h]` per modality, `(B, T, .)`; see `propagate`. speakers : `(B, T)`."""
        return propagate(self.gcn, self.embed(xs, present, speakers, mask), present, packing, self.across, maps, mask)


class GCNIIPerModality(nn.ModuleList):
    """A GCNII for each node of an utterance, over the angular graph of its own modality.

    Parameters
    ----------
    names : of the nodes.
    width : of the nodes.
    gcn : further options of `GCNII`.
    """

    def __init__(self, names: Sequence[str], width: int, gcn: Mapping[str, Any]):
        super().__init__(GCNII(width, **gcn) for _ in names)
        self.names = tuple(names)

    def forward(
        self,
        xs: Sequence[Tensor],
        present: Sequence[Tensor],
        packing: Packing,
        speakers: Tensor,
        maps: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> list[Tensor]:
        """`[x; h]` per modality, `(B, T, .)`."""
        out = []
        for name, net, x, there in zip(self.names, self, xs, present, strict=True):
            own: dict[str, Tensor] | None = None if maps is None else {}
            out += propagate(net, [x], [there], packing, maps=own, mask=mask)  # type: ignore[arg-type]
            if maps is not None and own:
                maps[f"edges.{name}"] = own["edges"][:, 0]
        return out


class MapPerModality(nn.ModuleList):
    """A linear map for each node of an utterance, and no graph: `[x; W x]`."""

    def __init__(self, count: int, width: int, hidden: int):
        super().__init__(nn.Linear(width, hidden) for _ in range(count))

    def forward(self, xs: Sequence[Tensor], present: Sequence[Tensor], *_: object) -> list[Tensor]:
        """`(B, T, width + hidden)` per modality."""
        return [zero_padded(torch.cat([net(x), x], -1), there) for net, x, there in zip(self, xs, present, strict=True)]
