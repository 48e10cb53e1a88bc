"""Windowed graphs over packed dialogues: attention, as a band at a cost linear in utterances, and relational convolution.

The real utterances of a batch lie dialogue after dialogue. In the fast form they are cut into blocks, and every block is
multiplied with the stretch that the windows of its utterances cover: no edge list, no padding between dialogues.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.kernels import fast_form
from fusionzoo.kernels.dropout import dropout
from fusionzoo.kernels.packing import Packing, to_device
from fusionzoo.numerics import SHIFT_INVARIANT, masked_softmax


class Band:
    """Every utterance i with the utterances from `past` steps before to `future` after it in its dialogue.

    `None` takes a side whole. `itself` : whether an utterance is its own neighbour.
    """

    def __init__(self, packing: Packing, past: int | None, future: int | None, itself: bool = True):
        most = max(packing.lengths) - 1
        self.packing, self.itself = packing, itself
        self.past, self.future = (most if side is None else min(side, most) for side in (past, future))
        self.total = sum(packing.lengths)
        # Short blocks waste little of the stretch that they are multiplied with, long ones make larger products.
        self.size = min(max(self.past + self.future, 16), self.total)
        self.blocks = -(-self.total // self.size)
        self.span = self.size + self.past + self.future

    @cached_property
    def pairs(self) -> Tensor:
        """bool `(B, T, T)`: which steps (columns) are neighbours of which (rows); padding is nobody's."""
        step = torch.arange(self.packing.steps)
        real = step < torch.tensor(self.packing.lengths).unsqueeze(1)
        offset = step - step.unsqueeze(1)
        near = (offset >= -self.past) & (offset <= self.future) & ((offset != 0) | self.itself)
        return to_device(real.unsqueeze(2) & real.unsqueeze(1) & near, self.packing.device)

    def padded(self, x: Tensor) -> Tensor:
        """`(M, N, ...)` to `(B, M, T, ...)`, zeros at padding."""
        return torch.stack([self.packing.unpack(y) for y in x], 1)

    def packed(self, x: Tensor) -> Tensor:
        """The inverse of `padded`."""
        return torch.stack([self.packing.pack(y) for y in x.unbind(1)])

    @cached_property
    def _positions(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """On the CPU: dialogue and step `(N,)` of every node, nodes `(blocks, size, 1)` and neighbours `(blocks, 1, span)`."""
        lengths = torch.tensor(self.packing.lengths)
        dialogue = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        step = torch.arange(self.total) - (lengths.cumsum(0) - lengths)[dialogue]
        start = torch.arange(self.blocks).view(-1, 1, 1) * self.size
        node = start + torch.arange(self.size).view(1, -1, 1)
        return dialogue, step, node, start - self.past + torch.arange(self.span)

    @cached_property
    def _offsets(self) -> tuple[Tensor, Tensor]:
        """On the CPU: whether the pair is one, and how far the neighbour is ahead, `(blocks, size, span)`."""
        dialogue, _, node, other = self._positions
        offset = other - node
        inside = (node < self.total) & (other >= 0) & (other < self.total)
        inside = inside & (offset >= -self.past) & (offset <= self.future)
        last = self.total - 1
        inside = inside & (dialogue[node.clamp(max=last)] == dialogue[other.clamp(0, last)])
        return inside & ((offset != 0) | self.itself), offset

    @cached_property
    def mask(self) -> Tensor:
        """bool `(blocks, size, span)`: who is a neighbour of whom."""
        return to_device(self._offsets[0], self.packing.device)

    def cut(self, x: Tensor) -> Tensor:
        """`(M, N, d)` to `(M, blocks, size, d)`, zeros after the last node."""
        return F.pad(x, (0, 0, 0, self.blocks * self.size - self.total)).unflatten(1, (self.blocks, self.size))

    def join(self, x: Tensor) -> Tensor:
        """The inverse of `cut`."""
        return x.flatten(1, 2)[:, : self.total]

    def around(self, x: Tensor) -> Tensor:
        """The stretch around every block: `(M, N, d)` to `(M, blocks, d, span)`."""
        x = F.pad(x, (0, 0, self.past, self.blocks * self.size - self.total + self.future))
        return x.unfold(1, self.span, self.size)

    def dense(self, weights: Tensor) -> Tensor:
        """Weights of the pairs `(blocks, size, span, k)` as `(B, k, T, T)`, rows the nodes and columns the neighbours."""
        dialogue, step, node, other = self._positions
        steps, inside = self.packing.steps, self._offsets[0]
        at = inside.flatten().nonzero().squeeze(1)
        node, other = (x.expand_as(inside).flatten()[at] for x in (node, other))
        slot = (dialogue[node] * steps + step[node]) * steps + step[other]
        at, slot = to_device(torch.stack([at, slot]), self.packing.device).unbind(0)
        flat = weights.flatten(0, 2)
        out = flat.new_zeros(len(self.packing.lengths) * steps * steps, flat.shape[-1])
        out = out.index_copy_(0, slot, flat.index_select(0, at))
        return out.view(-1, steps, steps, flat.shape[-1]).permute(0, 3, 1, 2)


def plain_band_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    band: Band,
    presence: Tensor | None,
    across: bool,
    rate: float,
    need_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """`band_attention` over one matrix per dialogue, between the steps of all modalities."""
    q, k, v = (band.padded(x).movedim(3, 1).flatten(2, 3) for x in (query, key, value))  # (B, heads, M T, d)
    modalities, steps = len(query), band.packing.steps
    same = torch.eye(modalities, dtype=torch.bool, device=q.device)[:, None, :, None]
    at_once = torch.eye(steps, dtype=torch.bool, device=q.device)[:, None, :]
    edges = same & band.pairs[:, None, :, None]  # (B, M, T, M, T), from a node (last) to another
    if across:
        edges = edges | (~same & at_once)
    there = torch.ones(query.shape[:2], dtype=torch.bool, device=q.device) if presence is None else presence
    edges = edges & band.padded(there)[:, None, None]
    weights = masked_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, edges.flatten(3).flatten(1, 2).unsqueeze(1))
    out = (dropout(weights, rate, True) @ v).unflatten(2, (modalities, steps)).movedim(1, 3)
    maps = weights.unflatten(3, (modalities, steps)).unflatten(2, (modalities, steps))
    maps = torch.stack([maps[:, :, m, :, m] for m in range(modalities)]) if need_weights else None
    return band.packed(out), maps


@fast_form(plain_band_attention)
def band_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    band: Band,
    presence: Tensor | None,
    across: bool,
    rate: float,
    need_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention of every node over its neighbours in a band and over its utterance's other modalities.

    Nodes are `(M, N, heads, d)`, and so is what is returned; with it come the weights within modalities
    `(M, B, heads, T, T)`, None unless needed. presence : bool `(M, N)`, which nodes are there. across : whether the
    modalities of an utterance are neighbours. rate : of dropout on the weights.
    """
    modalities, _, heads, width = query.shape
    query = query * width**-0.5

    def stretch(y: Tensor) -> Tensor:
        """`(M, N, heads, d)` to `(M, blocks, heads, d, span)`."""
        return band.around(y.flatten(2)).unflatten(2, (heads, -1))

    scores = band.cut(query.flatten(2)).unflatten(-1, (heads, -1)).transpose(2, 3) @ stretch(key)
    mask = band.mask.unsqueeze(1)
    if presence is not None:
        mask = mask & band.around(presence.unsqueeze(-1).to(query.dtype)).unsqueeze(3).bool()
    across = across and modalities > 1
    # Few products of small matrices (N, heads, M, M), beside the band's columns.
    q, k, v = (y.permute(1, 2, 0, 3) for y in (query, key, value))
    if across:
        beside = (q @ k.transpose(-1, -2)).permute(2, 0, 1, 3)
        others = ~torch.eye(modalities, dtype=torch.bool, device=query.device).unsqueeze(1)
        if presence is not None:
            others = others & presence.t()
        beside = band.cut(beside.flatten(2)).unflatten(-1, (heads, -1)).transpose(2, 3)
        others = band.cut(others.expand(-1, band.total, -1)).unsqueeze(2)
        shape = scores.shape[:-1]
        wide = mask.expand(*shape[:2], 1, *mask.shape[-2:])
        scores = torch.cat([scores, beside], -1)
        mask = torch.cat([wide, others.expand(*shape[:2], 1, *others.shape[-2:])], -1)
    weights = masked_softmax(scores, mask)
    dropped = dropout(weights, rate, True)
    out = band.join((dropped[..., : band.span] @ stretch(value).transpose(-1, -2)).transpose(2, 3))
    if across:
        beside = band.join(dropped[..., band.span :].transpose(2, 3))
        out = out + (beside.permute(1, 2, 0, 3) @ v).permute(2, 0, 1, 3)
    maps = None
    if need_weights:
        maps = torch.stack([band.dense(w) for w in weights[..., : band.span].permute(0, 1, 3, 4, 2)])
    return out, maps


class BandAttention(nn.Module):
    r"""Graph attention of every node over its neighbours in a band and over its utterance's other modalities.

    .. math:: y_i = W_0 x_i + \Big[\sum_j \alpha^h_{ij} V_h x_j\Big]_h, \qquad
              \alpha^h_{ij} = \operatorname{softmax}_j \frac{(Q_h x_i)^\top K_h x_j}{\sqrt d}

    every linear map with its bias. It is the `TransformerConv` of torch-geometric (Shi et al., "Masked Label
    Prediction", IJCAI 2021), under whose names its weights lie: `lin_query`, `lin_key`, `lin_value`, `lin_skip`.

    width : of the nodes.
    out : d, width of a head; heads are concatenated.
    dropout : on the weights.
    """

    def __init__(self, width: int, out: int, heads: int = 1, dropout: float = 0.0):
        super().__init__()
        self.heads, self.out, self.dropout = heads, out, dropout
        self.lin_key, self.lin_query, self.lin_value, self.lin_skip = (nn.Linear(width, heads * out) for _ in range(4))

    @property
    def without_gradient(self) -> dict[str, str]:
        """The bias of the keys learns nothing."""
        return {"lin_key.bias": SHIFT_INVARIANT}

    def forward(
        self, x: Tensor, band: Band, presence: Tensor | None = None, across: bool = True, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Nodes `(M, N, width)` to `(M, N, heads * out)`, and the weights within modalities `(M, B, heads, T, T)`.

        presence : bool `(M, N)`, which nodes are there.
        across : whether the modalities of an utterance are neighbours.
        """
        query, key, value = (
            lin(x).unflatten(-1, (self.heads, -1)) for lin in (self.lin_query, self.lin_key, self.lin_value)
        )
        rate = self.dropout if self.training else 0.0
        out, maps = band_attention(query, key, value, band, presence, across, rate, need_weights)
        return out.flatten(2) + self.lin_skip(x), maps


class ModalBandConv(nn.Module):
    r"""Relational convolution of CORECT: past, present and future within a modality, and the other modalities.

    .. math:: y^m_i = W x^m_i + b + W_{m,<} \overline{x^m_{<i}} + W_{m,>} \overline{x^m_{>i}} + W_{m,=} x^m_i
              + \sum_{n \ne m} W_{nm} x^n_i

    with the means over the earlier and the later neighbours in a band. It is `RGCNConv` of torch-geometric over as many
    relations, under whose names its weights lie: `weight (relations, in, out)`, `root`, `bias`. Relations are numbered
    time by time (with `temporal` past, future and present neighbours; without, the present alone), there modality by
    modality, then from every modality to every other one (with `across`).
    """

    def __init__(self, width: int, out: int, modalities: int, temporal: bool = True, across: bool = True):
        super().__init__()
        self.modalities, self.temporal, self.across = modalities, temporal, across and modalities > 1
        self.across_relations = modalities * (modalities - 1) * self.across
        relations = modalities * (3 if temporal else 1) + self.across_relations
        bound = math.sqrt(6 / (width + out))
        self.weight = nn.Parameter(torch.empty(relations, width, out).uniform_(-bound, bound))
        self.root = nn.Parameter(torch.empty(width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, band: Band, presence: Tensor | None = None) -> Tensor:
        """Nodes `(M, N, width)`, zero where not present, to `(M, N, out)`. presence : bool `(M, N)`."""
        modalities = self.modalities
        *sides, now, across = self.weight.split([modalities] * (3 if self.temporal else 1) + [self.across_relations])
        own = now + self.root if band.itself else self.root.expand_as(now)
        if self.across:
            others = iter(across)
            maps = [own[m] if m == n else next(others) for n in range(modalities) for m in range(modalities)]
            square = torch.stack(maps).unflatten(0, (modalities, modalities))
            out = torch.einsum("nti,nmio->mto", x, square) + self.bias
        else:
            out = torch.baddbmm(self.bias, x, own)
        if not self.temporal:
            return out
        nodes = band.padded(x)
        there = torch.ones_like(nodes[..., 0]) if presence is None else band.padded(presence.to(x.dtype))
        for near, weight in zip((band.pairs.tril(-1), band.pairs.triu(1)), sides, strict=True):
            edges = near.unsqueeze(1) * there.unsqueeze(2)  # (B, M, T, T)
            means = edges @ nodes / edges.sum(-1, keepdim=True).clamp(min=1)
            out = torch.baddbmm(out, band.packed(means), weight)
        return out
