"""Windowed graphs over packed dialogues, as bands: attention and relational convolution at a cost linear in utterances.

The real utterances of a batch lie dialogue after dialogue; they are cut into blocks, and every block is multiplied with
the stretch that the windows of its utterances cover. No edge list, no padding between dialogues.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.kernels.dropout import dropout
from fusionzoo.kernels.packing import Layout, to_device
from fusionzoo.numerics import SHIFT_INVARIANT, masked_softmax


class Band:
    """Every utterance i with the utterances from `past` steps before to `future` after it in its dialogue.

    `None` takes a side whole. `itself` : whether an utterance is its own neighbour.
    """

    def __init__(self, layout: Layout, past: int | None, future: int | None, itself: bool = True):
        most = max(layout.lengths) - 1
        self.layout, self.itself = layout, itself
        self.past, self.future = (most if side is None else min(side, most) for side in (past, future))
        self.total = sum(layout.lengths)
        # Short blocks waste little of the stretch that they are multiplied with, long ones make larger products.
        self.size = min(max(self.past + self.future, 16), self.total)
        self.blocks = -(-self.total // self.size)
        self.span = self.size + self.past + self.future

    @cached_property
    def _positions(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """On the CPU: dialogue and step `(N,)` of every node, nodes `(blocks, size, 1)` and neighbours `(blocks, 1, span)`."""
        lengths = torch.tensor(self.layout.lengths)
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
        return to_device(self._offsets[0], self.layout.device)

    @cached_property
    def sides(self) -> Tensor:
        """bool `(2, blocks, size, span)`: earlier neighbours, later neighbours."""
        inside, offset = self._offsets
        return to_device(torch.stack([inside & (offset < 0), inside & (offset > 0)]), self.layout.device)

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
        steps, inside = self.layout.steps, self._offsets[0]
        at = inside.flatten().nonzero().squeeze(1)
        node, other = (x.expand_as(inside).flatten()[at] for x in (node, other))
        slot = (dialogue[node] * steps + step[node]) * steps + step[other]
        at, slot = to_device(torch.stack([at, slot]), self.layout.device).unbind(0)
        flat = weights.flatten(0, 2)
        out = flat.new_zeros(len(self.layout.lengths) * steps * steps, flat.shape[-1])
        out = out.index_copy_(0, slot, flat.index_select(0, at))
        return out.view(-1, steps, steps, flat.shape[-1]).permute(0, 3, 1, 2)


class BandAttention(nn.Module):
    r"""Graph attention of every node over its neighbours in a band and over its utterance's other modalities.

    .. math:: y_i = W_0 x_i + \Big[\sum_j \alpha^h_{ij} V_h x_j\Big]_h, \qquad
              \alpha^h_{ij} = \operatorname{softmax}_j \frac{(Q_h x_i)^\top K_h x_j}{\sqrt d}

    every linear map with its bias. It is the `TransformerConv` of torch-geometric (Shi et al., "Masked Label
    Prediction", IJCAI 2021), under whose names its weights lie: `lin_query`, `lin_key`, `lin_value`, `lin_skip`.

    width : of the nodes. out : d, width of a head; heads are concatenated. dropout : on the weights.
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

        presence : bool `(M, N)`, which nodes are there. across : whether the modalities of an utterance are neighbours.
        """
        heads, modalities = self.heads, len(x)
        query, key, value = (lin(x) for lin in (self.lin_query, self.lin_key, self.lin_value))
        query = query * self.out**-0.5

        def split(y: Tensor) -> Tensor:
            """`(M, blocks, size, heads * out)` to `(M, blocks, heads, size, out)`."""
            return y.unflatten(-1, (heads, -1)).transpose(2, 3)

        def stretch(y: Tensor) -> Tensor:
            """`(M, N, heads * out)` to `(M, blocks, heads, out, span)`."""
            return band.around(y).unflatten(2, (heads, -1))

        scores = split(band.cut(query)) @ stretch(key)
        mask = band.mask.unsqueeze(1)
        if presence is not None:
            mask = mask & band.around(presence.unsqueeze(-1).to(x.dtype)).unsqueeze(3).bool()
        across = across and modalities > 1
        if across:
            # (N, heads, M, M), a few products of small matrices, beside the band's columns.
            q, k, v = (y.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for y in (query, key, value))
            beside = (q @ k.transpose(-1, -2)).permute(2, 0, 1, 3)
            others = ~torch.eye(modalities, dtype=torch.bool, device=x.device).unsqueeze(1)
            if presence is not None:
                others = others & presence.t()
            beside = band.cut(beside.flatten(2)).unflatten(-1, (heads, -1)).transpose(2, 3)
            others = band.cut(others.expand(-1, band.total, -1)).unsqueeze(2)
            shape = scores.shape[:-1]
            wide = mask.expand(*shape[:2], 1, *mask.shape[-2:])
            scores = torch.cat([scores, beside], -1)
            mask = torch.cat([wide, others.expand(*shape[:2], 1, *others.shape[-2:])], -1)
        weights = masked_softmax(scores, mask)
        dropped = dropout(weights, self.dropout, self.training)
        out = dropped[..., : band.span] @ stretch(value).transpose(-1, -2)
        out = band.join(out.transpose(2, 3).flatten(3))
        if across:
            beside = band.join(dropped[..., band.span :].transpose(2, 3).flatten(3)).unflatten(-1, (heads, -1))
            out = out + (beside.permute(1, 2, 0, 3) @ v).permute(2, 0, 1, 3).flatten(2)  # type: ignore[possibly-undefined]
        maps = None
        if need_weights:
            within = weights[..., : band.span].permute(0, 1, 3, 4, 2)
            maps = torch.stack([band.dense(w) for w in within])
        return out + self.lin_skip(x), maps


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
        relations = modalities * (3 if temporal else 1) + modalities * (modalities - 1) * self.across
        bound = math.sqrt(6 / (width + out))
        self.weight = nn.Parameter(torch.empty(relations, width, out).uniform_(-bound, bound))
        self.root = nn.Parameter(torch.empty(width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out))
        order = _sources_first(modalities, modalities * (3 if temporal else 1))
        self._order: Tensor
        self.register_buffer("_order", order, persistent=False)

    def forward(self, x: Tensor, band: Band, presence: Tensor | None = None) -> Tensor:
        """Nodes `(M, N, width)`, zero where not present, to `(M, N, out)`. presence : bool `(M, N)`."""
        modalities = self.modalities
        parts, weights = [], []
        at = 0
        if self.temporal:
            earlier, later = self.weight[:modalities], self.weight[modalities : 2 * modalities]
            at = 2 * modalities
            means = self._means(x, band, presence)
            parts += [means[0], means[1]]
            weights += [earlier, later]
        present = self.weight[at : at + modalities] if band.itself or not self.temporal else 0.0
        parts.append(x)
        weights.append((self.root + present).expand(modalities, -1, -1))
        if self.across:
            # For every receiver the other modalities in turn.
            parts += [x.roll(-shift, 0) for shift in range(1, modalities)]
            weights += list(self.weight[self._order])
        return torch.baddbmm(self.bias, torch.cat(parts, -1), torch.cat(weights, 1))

    def _means(self, x: Tensor, band: Band, presence: Tensor | None) -> Tensor:
        """`(2, M, N, width)`: the means over earlier and over later neighbours."""
        sides = band.sides.to(x.dtype).unsqueeze(1)
        if presence is not None:
            sides = sides * band.around(presence.unsqueeze(-1).to(x.dtype))
        shares = sides / sides.sum(-1, keepdim=True).clamp(min=1)
        means = shares @ band.around(x).transpose(-1, -2)
        return means.flatten(2, 3)[:, :, : band.total]


def _sources_first(modalities: int, first: int) -> Tensor:
    """`(M - 1, M)`: number of the relation from modality m + 1 + row (modulo M) to modality m."""
    out = torch.zeros(max(modalities - 1, 0), modalities, dtype=torch.long)
    for m in range(modalities):
        for row in range(modalities - 1):
            n = (m + 1 + row) % modalities
            out[row, m] = first + n * (modalities - 1) + (m if m < n else m - 1)
    return out
