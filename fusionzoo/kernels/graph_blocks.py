"""Graphs over the modalities of dialogues of different lengths, in blocks: nobody pays for the longest one's square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fusionzoo.graphs import GCNII, ModalGraph, angular_graph
from fusionzoo.kernels import fast_form
from fusionzoo.kernels.packing import Buckets, Layout, to_device
from fusionzoo.numerics import zero_padded


def plain_propagate(
    gcn: GCNII,
    xs: Sequence[Tensor],
    present: Sequence[Tensor],
    layout: Layout,
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
    """Where `(M, B, T)` lies as one bucket `(b, M, t)` after another."""

    def __init__(self, layout: Layout, modalities: int, ratio: float | None = None):
        super().__init__(layout, ratio)
        self.modalities = modalities

    @cached_property
    def _index(self) -> Tensor:
        batch, steps = self.layout.size
        modality = torch.arange(self.modalities).view(1, -1, 1) * batch
        parts = [
            ((modality + torch.tensor(rows).view(-1, 1, 1)) * steps + torch.arange(own)).flatten()
            for rows, own in self.groups
        ]
        return to_device(torch.cat(parts), self.layout.device)

    @cached_property
    def _target(self) -> Tensor:
        """Where every packed row goes back to; the padding of all buckets to one surplus row at the end."""
        batch, steps = self.layout.size
        modality = torch.arange(self.modalities).view(1, -1, 1) * batch
        lengths = torch.tensor(self.layout.lengths)
        parts = []
        for rows, own in self.groups:
            row, step = torch.tensor(rows).view(-1, 1, 1), torch.arange(own)
            place = (modality + row) * steps + step
            parts.append(torch.where(step < lengths[row], place, self.modalities * batch * steps).flatten())
        return to_device(torch.cat(parts), self.layout.device)

    def pack(self, xs: Sequence[Tensor]) -> Tensor:
        """M times `(B, T, ...)` as rows `(N, ...)`, bucket after bucket."""
        return torch.stack(list(xs)).flatten(0, 2).index_select(0, self._index)

    def unpack(self, rows: Tensor) -> list[Tensor]:
        """The inverse of `pack`; zero at padded steps, whatever the rows hold there."""
        out = rows.new_zeros(self.modalities * self.layout.size[0] * self.layout.size[1] + 1, *rows.shape[1:])
        out = out.index_copy_(0, self._target, rows)[:-1]
        return list(out.unflatten(0, (self.modalities, *self.layout.size)).unbind(0))

    def split(self, rows: Tensor) -> list[Tensor]:
        """Rows `(N, ...)` as one `(b, M, t, ...)` per bucket."""
        shapes = [(b, self.modalities, t) for b, t in self.shapes]
        parts = rows.split([math.prod(shape) for shape in shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]


class _Along(torch.autograd.Function):
    """`ModalGraph @ nodes` without the products of every pair of modalities as one tensor, forward and backward."""

    @staticmethod
    def forward(ctx: Any, within: Tensor, across: Tensor, nodes: Tensor) -> Tensor:
        ctx.save_for_backward(within, across, nodes)
        # Under autocast the product would come in another precision than the nodes.
        with torch.autocast(nodes.device.type, enabled=False):
            out = within @ nodes
            for m, n in _pairs(nodes.shape[1]):
                out[:, m].addcmul_(across[:, m, n].unsqueeze(-1), nodes[:, n])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        within, across, nodes = ctx.saved_tensors
        to_nodes = within.transpose(-1, -2) @ grad
        to_within = grad @ nodes.transpose(-1, -2) if ctx.needs_input_grad[0] else None
        to_across = torch.zeros_like(across) if ctx.needs_input_grad[1] else None
        for m, n in _pairs(nodes.shape[1]):
            to_nodes[:, n].addcmul_(across[:, m, n].unsqueeze(-1), grad[:, m])
            if to_across is not None:
                to_across[:, m, n] = torch.linalg.vecdot(grad[:, m], nodes[:, n])
        return to_within, to_across, to_nodes


def _pairs(modalities: int) -> list[tuple[int, int]]:
    return [(m, n) for m in range(modalities) for n in range(modalities) if m != n]


class BlockGraphs:
    """One `ModalGraph` per bucket; `graphs @ nodes` sends rows `(N, d)`, as `ModalBuckets` packs them, along their edges."""

    def __init__(self, graphs: Sequence[ModalGraph], buckets: ModalBuckets):
        self.graphs, self.buckets = list(graphs), buckets

    def __matmul__(self, nodes: Tensor) -> Tensor:
        parts = zip(self.graphs, self.buckets.split(nodes), strict=True)
        if nodes.device.type == "cpu":
            sent = [_Along.apply(g.within.to(x.dtype), g.across.to(x.dtype), x) for g, x in parts]
        else:
            # Few large kernels rather than many small ones.
            sent = [g @ x for g, x in parts]
        return torch.cat([y.flatten(0, 2) for y in sent])  # type: ignore[union-attr]


@fast_form(plain_propagate)
def propagate(
    gcn: GCNII,
    xs: Sequence[Tensor],
    present: Sequence[Tensor],
    layout: Layout,
    across: float = 1.0,
    maps: dict[str, Tensor] | None = None,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """GCNII over the angular graph of every dialogue: `(B, T, .)` per modality, zero where it is absent.

    xs : `(B, T, d)` per modality. present : bool `(B, T)` per modality. maps : where to put the edges, if they are wanted.
    mask : the real steps; a modality that is present wherever they are may have this very tensor, which spares a pass.
    """
    if maps is not None:  # they have one shape for the whole batch
        return plain_propagate(gcn, xs, present, layout, across, maps, mask)
    buckets = ModalBuckets(layout, len(xs))
    rows = buckets.pack(xs)
    there = buckets.split(buckets.pack(present))
    graphs = [angular_graph(x, p.transpose(1, 2), across) for x, p in zip(buckets.split(rows), there, strict=True)]
    out = buckets.unpack(gcn(rows, BlockGraphs(graphs, buckets)))
    return [y if p is mask else zero_padded(y, p) for y, p in zip(out, present, strict=True)]
