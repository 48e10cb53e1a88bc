"""Co-attention: two modalities look at each other's steps at once, for every pair of them."""

from __future__ import annotations

from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.layers import dropout, pick_heads
from fusionzoo.numerics import masked_mean, masked_softmax, zero_padded
from fusionzoo.transformer import Attention, FeedForward, TransformerLayer
from fusionzoo_plugins._channels import check_aligned

FORMS = ("parallel", "transformer")


class ParallelCoAttention(nn.Module):
    """Lu et al.'s parallel co-attention of two streams: every affinity of their steps guides the attention over both."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.affinity = nn.Linear(width, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.score = nn.ModuleList(nn.Linear(hidden, 1, bias=False) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The weights over the steps of x and of y, `(B, T_x)` and `(B, T_y)`.

        x, y : `(B, T, width)`, zero at padded steps, which then have no affinity with anything. Masks: bool `(B, T)`.
        """
        affinity = torch.tanh(y @ self.affinity(x).transpose(-1, -2))
        of_x, of_y = self.hidden[0](x), self.hidden[1](y)
        x_scores = self.score[0](torch.tanh(of_x + affinity.transpose(-1, -2) @ of_y)).squeeze(-1)
        y_scores = self.score[1](torch.tanh(of_y + affinity @ of_x)).squeeze(-1)
        return masked_softmax(x_scores, x_mask), masked_softmax(y_scores, y_mask)


class CoTransformerLayer(nn.Module):
    """ViLBERT's co-attentional layer and the self-attention layer behind it, for every modality."""

    def __init__(self, width: int, modalities: int, heads: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.across = nn.ModuleList(
            Attention(width, heads=heads, dropout=dropout) for _ in range(modalities * (modalities - 1))
        )
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(modalities))
        self.feed_forward = nn.ModuleList(FeedForward(width, norm="post", dropout=dropout) for _ in range(modalities))
        self.within = nn.ModuleList(
            TransformerLayer(width, heads=heads, norm="post", dropout=dropout) for _ in range(modalities)
        )

    def forward(
        self, xs: list[Tensor], masks: list[Tensor | None], guides: list[Tensor], need_weights: bool
    ) -> tuple[list[Tensor], dict[tuple[int, int], Tensor]]:
        """The streams behind the layer, and the weights of stream i over stream j, shared out over all j."""
        out, maps = [], {}
        for i, x in enumerate(xs):
            others = [j for j in range(len(xs)) if j != i]
            share = guides[i].to(x.dtype) / guides[i].sum(-1, keepdim=True)
            read = torch.zeros_like(x)
            for column, j in enumerate(others):
                z, weights = self.across[i * len(others) + column](x, xs[j], masks[j], need_weights)
                part = share[:, column]
                read = read + z * part[:, None, None]
                if weights is not None:
                    maps[i, j] = weights * part[:, None, None, None]
            x = self.norm[i](x + dropout(read, self.dropout, self.training))
            x, _ = self.within[i](self.feed_forward[i](x), key_mask=masks[i])
            out.append(zero_padded(x, masks[i]))
        return out, maps


class CoAttention(Fusion):
    r"""Co-attention of every pair of modalities across the dialogue.

    `form="parallel"` (Lu et al.): for the streams X and Y of a pair, steps as rows,

    .. math::
        C &= \tanh(Y W_b X^\top) \\
        a^x &= \operatorname{softmax}\big(\tanh(X W_x + C^\top Y W_y)\, w_x\big), \qquad
        a^y = \operatorname{softmax}\big(\tanh(Y W_y + C\, X W_x)\, w_y\big) \\
        c_m &= \tfrac{1}{M - 1} \sum_{n \ne m} \textstyle\sum_i a^{m|n}_i x_{m,i}, \qquad
        y_i = W [x_{1,i} + c_1; \dots; x_{M,i} + c_M] + b

    so that each modality is summed up under the guidance of the others, and every utterance gets the summaries.
    `form="transformer"` (ViLBERT): in each layer every modality reads every other with multi-head attention, averaged over
    the others, residual, norm and feed-forward block, and then reads itself in a transformer layer;
    :math:`y_i = W[z_{1,i}; \dots; z_{M,i}] + b`.

    Both papers have two modalities: here every pair has its own weights, and a modality takes the mean over the partners
    that are present in the dialogue; without any it attends to itself (parallel), or to nothing (transformer). The papers
    end in one vector: `pool=True`; the utterances' own features beside the summaries are the default's way to keep one
    output per step.

    Options
    -------
    form : `"parallel"` or `"transformer"`.
    width : common width w; default the anchor's.
    hidden : k, of the parallel attention; default w.
    heads, layers, dropout : of the transformer form; heads default to the largest of 8, 4, 2, 1 that divides w.
    pool : return one vector for the sequence, of the summaries :math:`[c_1; \dots; c_M]`, or of the mean over the steps of
        each z; then modalities may have other lengths (unaligned sequences, one mask per modality).

    Parameters: projections and output map, and :math:`w^2 + 2 w k + 2 k` per pair (parallel), or per layer and modality
    :math:`4(M - 1)(w^2 + w) + 20 w^2 + 22 w` (transformer).
    Source: Lu et al., "Hierarchical Question-Image Co-Attention for Visual Question Answering", NeurIPS 2016, section 3.3,
    equations 3 to 5; Lu et al., "ViLBERT", NeurIPS 2019, section 3.1, figure 2.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`, with `pool=True` `(B, out_dim)`. Parallel: `Fused.attention["text"]`
    is `(B, T)`, over the modality's own steps, averaged over its partners. Transformer: `Fused.attention["text->audio"]` is
    `(B, heads, T, S)` of the last layer; the maps of one modality sum to one together.

    >>> CoAttention({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    unaligned = True
    for_sequences: ClassVar[dict[str, Any]] = {"pool": True}

    without_effect: ClassVar[dict[str, str]] = {
        "layers": "of form='transformer' alone",
        "dropout": "of form='transformer' alone",
    }

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        form: str = "parallel",
        width: int | None = None,
        hidden: int | None = None,
        heads: int | None = None,
        layers: int = 1,
        dropout: float = 0.1,
        pool: bool = False,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.form = check_choice(form, FORMS, "form", self)
        self.width = w = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        hidden = w if hidden is None else check_positive(hidden, "hidden", self)
        heads = pick_heads(w, heads, self)
        dropout = check_probability(dropout, "dropout", self)
        count = len(self.dims)
        self.pool = pool
        self.project = nn.ModuleList(projection(d, w) for d in self.dims.values())
        self.pairs = list(combinations(range(count), 2)) if form == "parallel" else []
        self.co_attention = nn.ModuleList(ParallelCoAttention(w, hidden) for _ in self.pairs)
        depth = check_positive(layers, "layers", self)
        depth = depth if form == "transformer" else 0
        self.layers = nn.ModuleList(CoTransformerLayer(w, count, heads, dropout) for _ in range(depth))
        self.set_width(count * w)

    def combine(self, streams: Streams) -> Fused:
        if not self.pool:
            check_aligned(streams.x, self.names, self, "pool=False", "pool=True, for one vector,")
        masks = streams.present
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, masks, strict=True)]
        guides = _guides(xs, masks)
        if self.form == "parallel":
            summaries, maps = self._parallel(xs, masks, guides)
            if self.pool:
                return Fused(torch.cat(summaries, -1), attention=maps)
            zs = [zero_padded(x + c.unsqueeze(1), m) for x, c, m in zip(xs, summaries, masks, strict=True)]
        else:
            zs, maps = self._transformer(xs, masks, guides, streams.attention)
            if self.pool:
                means = [masked_mean(z, m) for z, m in zip(zs, masks, strict=True)]
                return Fused(torch.cat(means, -1), dict(zip(self.names, zs, strict=True)), maps)
        return Fused(torch.cat(zs, -1), dict(zip(self.names, zs, strict=True)), maps)

    def _parallel(
        self, xs: list[Tensor], masks: list[Tensor | None], guides: list[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        weights: list[list[Tensor]] = [[] for _ in xs]
        # Pairs in lexicographic order fill each modality's list in the order of its partners.
        for (i, j), attention in zip(self.pairs, self.co_attention, strict=True):
            of_i, of_j = attention(xs[i], xs[j], masks[i], masks[j])
            weights[i].append(of_i)
            weights[j].append(of_j)
        means = [masked_mean(torch.stack(w, 1), g) for w, g in zip(weights, guides, strict=True)]
        summaries = [(a.unsqueeze(1) @ x).squeeze(1) for a, x in zip(means, xs, strict=True)]
        return summaries, dict(zip(self.names, means, strict=True))

    def _transformer(
        self, xs: list[Tensor], masks: list[Tensor | None], guides: list[Tensor], attention: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        maps: dict[tuple[int, int], Tensor] = {}
        for i, layer in enumerate(self.layers):
            xs, maps = layer(xs, masks, guides, attention and i + 1 == len(self.layers))
        return xs, {f"{self.names[i]}->{self.names[j]}": w for (i, j), w in maps.items()}


def _guides(xs: list[Tensor], masks: list[Tensor | None]) -> list[Tensor]:
    """Per modality bool `(B, M - 1)`: which partners have any real step; all of them where none has."""
    there = [
        x.new_ones(x.shape[0], dtype=torch.bool) if m is None else m.any(-1) for x, m in zip(xs, masks, strict=True)
    ]
    partners = [torch.stack(there[:i] + there[i + 1 :], -1) for i in range(len(there))]
    return [p | ~p.any(-1, keepdim=True) for p in partners]


fusionzoo_register = fusionzoo.plugin(
    CoAttention,
    summary="modalities guide each other's attention in pairs, parallel or ViLBERT",
    paper="Lu et al., Hierarchical Question-Image Co-Attention for Visual Question Answering, NeurIPS 2016",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_m"] --> affinity["C = tanh(x_n W_b x_m), all steps"]
    others["x_n of every partner"] --> affinity
    affinity --> weights["softmax over the steps of m"]
    weights --> summary["weighted sum of x_m"]
    x --> summary --> add(("+"))
    x --> add
    add --> cat(("concat over m")) --> linear["W, b"] --> y["y"]
    """,
)
