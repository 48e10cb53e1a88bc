"""Each modality attends to the others across the dialogue."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
    projection,
)
from fusionzoo.layers import MultiheadAttention, pick_heads
from fusionzoo.numerics import zero_padded
from fusionzoo_plugins._channels import check_aligned

QUERIES = ("all", "anchor")


class CrossAttentionBlock(nn.Module):
    """Multi-head attention of one stream over a memory, with residual and layer norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = MultiheadAttention(width, heads=heads, dropout=dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x, memory, key_mask, need_weights: bool):
        out, weights = self.attention(x, memory, key_mask, need_weights)
        return self.norm(x + nn.functional.dropout(out, self.attention.dropout, self.training)), weights


class CrossAttention(Fusion):
    r"""Scaled-dot-product multi-head attention of every modality over all the others.

    .. math::
        z_m = \operatorname{LN}\big(x_m + W_m^o\,\operatorname{MHA}_m(x_m, x_{\ne m}, x_{\ne m})\big), \qquad
        y = W\,[z_1; \dots; z_M] + b

    The memory of a modality is every real utterance of all other modalities, so that one softmax weighs modalities and
    utterances against each other. Modalities of another width are projected first. A row whose memory is empty (the only
    modality present) keeps its residual.

    Options
    -------
    width : common width w; default the anchor's.
    heads : attention heads, must divide w; default the largest of 8, 4, 2, 1 that does.
    dropout : on the attention weights and the mixed output.
    queries : `"all"`, or `"anchor"`: only the anchor queries, y = W z_1 + b; then the other modalities may have other
        lengths (unaligned sequences, one mask per modality).

    Parameters: projections, then :math:`4 w^2 + 6 w` per querying modality, then the output map.
    Source: Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019, section 3.1,
    reduced to one layer and one softmax over all source modalities; Vaswani et al. 2017, section 3.2.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["text"]` is `(B, heads, T, S)` with S the
    utterances of the other modalities one after another.

    >>> CrossAttention({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    unaligned = True
    for_sequences: ClassVar[dict[str, Any]] = {"queries": "anchor"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        heads: int | None = None,
        dropout: float = 0.1,
        queries: str = "all",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        self.heads = pick_heads(self.width, heads, self)
        self.queries = check_choice(queries, QUERIES, "queries", self)
        dropout = check_probability(dropout, "dropout", self)
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        querying = len(self.dims) if queries == "all" else 1
        self.blocks = nn.ModuleList(CrossAttentionBlock(self.width, self.heads, dropout) for _ in range(querying))
        self.set_width(querying * self.width)

    def combine(self, streams: Streams) -> Fused:
        if self.queries == "all":
            check_aligned(streams.x, self.names, self, "queries='all'", "queries='anchor'")
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        ones = [
            x.new_ones(x.shape[:2], dtype=torch.bool) if m is None else m
            for x, m in zip(xs, streams.present, strict=True)
        ]
        masked = any(m is not None for m in streams.present)
        outputs, maps = [], {}
        for i, block in enumerate(self.blocks):
            memory = torch.cat(xs[:i] + xs[i + 1 :], 1)
            key_mask = torch.cat(ones[:i] + ones[i + 1 :], 1) if masked else None
            z, weights = block(xs[i], memory, key_mask, streams.attention)
            outputs.append(z)
            if weights is not None:
                maps[self.names[i]] = weights
        return Fused(torch.cat(outputs, -1), dict(zip(self.names, outputs, strict=False)), maps)


fusionzoo_register = fusionzoo.plugin(
    CrossAttention,
    summary="every modality attends to all the others across the dialogue",
    paper="Tsai et al., Multimodal Transformer for Unaligned Multimodal Language Sequences, ACL 2019",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_m"] -- queries --> attention["multi-head attention"]
    others["utterances of all other modalities"] -- keys, values --> attention
    attention --> norm["+ residual, layer norm"]
    x --> norm
    norm --> cat(("concat over m")) --> linear["W, b"] --> y["y"]
    """,
)
