"""Flamingo's gated cross-attention: other modalities enter the anchor through tanh gates that start almost closed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.layers import dropout, pick_heads
from fusionzoo.numerics import zero_padded
from fusionzoo.transformer import Attention, FeedForward


class GatedCrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention and feed-forward block, each behind the tanh of one learned number."""

    def __init__(self, width: int, heads: int, hidden: int | None, dropout: float, init_gate: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads, dropout=dropout)
        self.feed_forward = FeedForward(width, hidden, dropout=dropout)
        self.attention_gate = nn.Parameter(torch.tensor(float(init_gate)))
        self.feed_forward_gate = nn.Parameter(torch.tensor(float(init_gate)))

    def forward(
        self, x: Tensor, memory: Tensor, key_mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, T, width)`, and the weights `(B, heads, T, S)` if asked for."""
        read, weights = self.attention(self.norm(x), memory, key_mask, need_weights)
        if key_mask is not None:
            read = torch.where(key_mask.any(-1)[:, None, None], read, 0.0)
        x = x + torch.tanh(self.attention_gate) * dropout(read, self.attention.dropout, self.training)
        update = self.feed_forward.update(self.feed_forward.norm(x))
        return x + torch.tanh(self.feed_forward_gate) * update, weights


class GatedCrossAttention(Fusion):
    r"""Gated cross-attention of the anchor over all other modalities, after Flamingo.

    .. math::
        u &= \operatorname{LN}\big([x_m W_m + e_m]_{m \ne 1}\big) \\
        h &= x + \tanh(\alpha_l)\,\operatorname{MHA}_l\big(\operatorname{LN}(x), u\big) \\
        x' &= h + \tanh(\beta_l)\,W_2 \operatorname{GELU}\big(W_1 \operatorname{LN}(h)\big)

    for each layer l, from the anchor x; u are all real utterances of the other modalities with a learned modality
    embedding :math:`e_m`. The gates :math:`\alpha, \beta` are one number each.

    Departs from the paper, where both gates start at 0, so that at first the anchor alone passes: then nothing behind a
    gate learns before the gate has moved, and the other modalities get no gradient in the first step. The default starts
    at `init_gate=0.1`; `init_gate=0.0` is the paper's. The maps have biases; Flamingo's window (a text token reads the
    image before it) has no counterpart in a dialogue. An anchor without anything to read keeps its features.

    Options
    -------
    width : common width w; default the anchor's.
    layers : number of layers.
    heads : default the largest of 8, 4, 2, 1 that divides w.
    hidden : of the feed-forward blocks; default 4 w.
    dropout : on the weights and on each block's result.
    init_gate : where the gates start, before the tanh.

    Parameters: projections, :math:`(M - 1) w + 2 w` for embeddings and norm, and per layer
    :math:`4 w^2 + 2 w h + 9 w + h + 2`, h the hidden width.
    Source: Alayrac et al., "Flamingo: a Visual Language Model for Few-Shot Learning", NeurIPS 2022, section 2.2, figure 4.

    Shapes: streams `(B, T_m, d_m)`, lengths may differ (unaligned sequences, one mask per modality) -> `(B, T_1, out_dim)`;
    `Fused.attention["text"]`, named by the anchor, is `(B, heads, T_1, S)` of the last layer, with S the utterances of the
    other modalities one after another.

    >>> GatedCrossAttention({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    unaligned = True

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        layers: int = 1,
        heads: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.1,
        init_gate: float = 0.1,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = w = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        heads = pick_heads(w, heads, self)
        dropout = check_probability(dropout, "dropout", self)
        if isinstance(init_gate, bool) or not isinstance(init_gate, (int, float)) or not math.isfinite(init_gate):
            raise OptionError(f"GatedCrossAttention: init_gate must be a finite number such as 0.1, not {init_gate!r}")
        self.project = nn.ModuleList(projection(d, w) for d in self.dims.values())
        self.embedding = nn.Parameter(torch.empty(len(self.dims) - 1, w).normal_(std=0.02))
        self.norm = nn.LayerNorm(w)
        self.layers = nn.ModuleList(
            GatedCrossAttentionLayer(w, heads, hidden, dropout, init_gate)
            for _ in range(check_positive(layers, "layers", self))
        )
        self.set_width(w)

    def combine(self, streams: Streams) -> Fused:
        x, *others = (p(x) for p, x in zip(self.project, streams.x, strict=True))
        x = zero_padded(x, streams.present[0])
        masks = streams.present[1:]
        key_mask = None
        if any(m is not None for m in masks):
            key_mask = torch.cat(
                [
                    u.new_ones(u.shape[:2], dtype=torch.bool) if m is None else m
                    for u, m in zip(others, masks, strict=True)
                ],
                1,
            )
        memory = self.norm(torch.cat([u + e for u, e in zip(others, self.embedding, strict=True)], 1))
        weights = None
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, memory, key_mask, streams.attention and i + 1 == len(self.layers))
        return Fused(x, {self.anchor: x}, {} if weights is None else {self.anchor: weights})


fusionzoo_register = fusionzoo.plugin(
    GatedCrossAttention,
    summary="the anchor reads the others through tanh-gated cross-attention",
    paper="Alayrac et al., Flamingo: a Visual Language Model for Few-Shot Learning, NeurIPS 2022",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_1"] -- queries --> attention["multi-head attention"]
    others["utterances of all other modalities"] -- keys, values --> attention
    attention --> gate["* tanh(alpha)"] --> add(("+"))
    x --> add
    add --> feed["feed-forward * tanh(beta)"] --> sum(("+")) --> y["y"]
    add --> sum
    """,
)
