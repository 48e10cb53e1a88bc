"""Graphs over the modalities of dialogues of different lengths, in blocks: nobody pays for the longest one's square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from fusionzoo.graphs import GCNII, ModalGraph, angular_graph
from fusionzoo.kernels import fast_form
from fusionzoo.kernels.packing import Buckets, Packing, to_device
from fusionzoo.numerics import zero_padded


def plain_propagate(
    gcn: GCNII,
    xs: Sequence[Tensor],
    present: Sequence[Tensor],
    packing: Packing,
    across: float = 1.0,
    maps: dict[str, Tensor] | None = None,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """`propagate` over the padded batch: one graph for every dialogue, each as large as the longest."""
    graph = angular_graph(torch.stack(list(xs), 1), torch.stack(list(present), -1), across)
    if maps is not None:
        maps |= {"edges": graph.within, "edges.across": graph.across}
    out = gcn(torch.stack(list(xs), 1), graph)
    return [zero_padded(y, p) for y, p in zip(out.unbind(1), present, strict=True)]


class ModalBuckets(Buckets):
    """Buckets of the dialogues of M modalities: `(M, B, T)` as one bucket `(b, M, t)` after another."""

    def __init__(self, packing: Packing, modalities: int, ratio: float | None = None):
        super().__init__(packing, ratio)
        self.modalities = modalities

    @cached_property
    def _index(self) -> Tensor:
        batch, steps = self.packing.size
        modality = torch.arange(self.modalities).view(1, -1, 1) * batch
        parts = [
            ((modality + torch.tensor(rows).view(-1, 1, 1)) * steps + torch.arange(own)).flatten()
            for rows, own in self.groups
        ]
        return to_device(torch.cat(parts), self.packing.device)

    @cached_property
    def _target(self) -> Tensor:
        """Where every packed row goes back to; the padding of all buckets to one surplus row at the end."""
        batch, steps = self.packing.size
        modality = torch.arange(self.modalities).view(1, -1, 1) * batch
        lengths = torch.tensor(self.packing.lengths)
        parts = []
        for rows, own in self.groups:
            row, step = torch.tensor(rows).view(-1, 1, 1), torch.arange(own)
            place = (modality + row) * steps + step
            parts.append(torch.where(step < lengths[row], place, self.modalities * batch * steps).flatten())
        return to_device(torch.cat(parts), self.packing.device)

    def pack(self, xs: Sequence[Tensor]) -> Tensor:
        """M times `(B, T, ...)` as rows `(N, ...)`, bucket after bucket."""
        return torch.stack(list(xs)).flatten(0, 2).index_select(0, self._index)

    def unpack(self, rows: Tensor) -> list[Tensor]:
        """The inverse of `pack`; zero at padded steps, whatever the rows hold there."""
        out = rows.new_zeros(self.modalities * self.packing.size[0] * self.packing.size[1] + 1, *rows.shape[1:])
        out = out.index_copy_(0, self._target, rows)[:-1]
        return list(out.unflatten(0, (self.modalities, *self.packing.size)).unbind(0))

    def split(self, rows: Tensor) -> list[Tensor]:
        """Rows `(N, ...)` as one `(b, M, t, ...)` per bucket."""
        shapes = [(b, self.modalities, t) for b, t in self.shapes]
        parts = rows.split([math.prod(shape) for shape in shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]


class BlockGraphs:
    """One `ModalGraph` per bucket; `graphs @ nodes` sends rows `(N, d)`, as `ModalBuckets` packs them, along their edges."""

    def __init__(self, graphs: Sequence[ModalGraph], buckets: ModalBuckets):
        self.graphs, self.buckets = list(graphs), buckets

    def __matmul__(self, nodes: Tensor) -> Tensor:
        parts = zip(self.graphs, self.buckets.split(nodes), strict=True)
        return torch.cat([(graph @ x).flatten(0, 2) for graph, x in parts])


@fast_form(plain_propagate)
def propagate(
    gcn: GCNII,
    xs: Sequence[Tensor],
    present: Sequence[Tensor],
    packing: Packing,
    across: float = 1.0,
    maps: dict[str, Tensor] | None = None,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """GCNII over the angular graph of every dialogue: `(B, T, .)` per modality, zero where it is absent.

    xs : `(B, T, d)` per modality.
    present : bool `(B, T)` per modality.
    maps : where to put the edges, if they are wanted.
    mask : the real steps; a modality that is present wherever they are may have this very tensor, which spares a pass.
    """
    if maps is not None:  # they have one shape for the whole batch
        return plain_propagate(gcn, xs, present, packing, across, maps, mask)
    buckets = ModalBuckets(packing, len(xs))
    rows = buckets.pack(xs)
    there = buckets.split(buckets.pack(present))
    graphs = [angular_graph(x, p.transpose(1, 2), across) for x, p in zip(buckets.split(rows), there, strict=True)]
    out = buckets.unpack(gcn(rows, BlockGraphs(graphs, buckets)))
    return [y if p is mask else zero_padded(y, p) for y, p in zip(out, present, strict=True)]
