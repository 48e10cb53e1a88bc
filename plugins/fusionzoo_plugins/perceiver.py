"""Perceiver: a fixed number of latent vectors reads every modality; each utterance asks them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.layers import pick_heads
from fusionzoo.numerics import zero_padded
from fusionzoo.transformer import TransformerLayer, sinusoidal_positions


class Perceiver(Fusion):
    r"""Perceiver encoder over all modalities with Perceiver IO's decoder.

    .. math::
        u &= [x_m W_m + e_m + p]_{m} \in \mathbb R^{(T_1 + \dots + T_M) \times w} \\
        h^0 &= \operatorname{Cross}(\ell, u), \qquad h^{l+1} = \operatorname{Self}_l(h^l), \qquad
        y_i = \operatorname{Cross}(u_{1,i}, h^L)

    N learned latents :math:`\ell` read every real utterance of every modality; Cross and Self are pre-norm transformer
    layers of queries over a memory and of a stream over itself; the anchor's utterances ask the latents. The cost grows
    with N times the number of utterances, not with its square. :math:`e_m` is a learned modality embedding, p are
    sinusoidal positions, added where the papers append Fourier features. A missing anchor still asks, by its position.

    Options
    -------
    width : common width w; default the anchor's.
    latents : N.
    layers : L, self-attention layers of the latents.
    heads : default the largest of 8, 4, 2, 1 that divides w.
    hidden : of the feed-forward blocks; default 4 w.
    dropout : on the weights and on each block's result.
    positions : add p.
    pool : return one vector for the sequence, the mean of the latents (Perceiver), instead of asking them (Perceiver IO).

    Parameters: projections, :math:`(N + M) w`, and a transformer layer of :math:`4 w^2 + 2 w h + 9 w + h`, h the hidden
    width, for each self-attention; cross-attention has 2w more, and is built once (pool) or twice.
    Source: Jaegle et al., "Perceiver: General Perception with Iterative Attention", ICML 2021, section 3; Jaegle et al.,
    "Perceiver IO", ICLR 2022, section 3.2.

    Shapes: streams `(B, T_m, d_m)`, lengths may differ (unaligned sequences, one mask per modality) ->
    `(B, T_1, out_dim)`, with `pool=True` `(B, out_dim)`; `Fused.attention["latents"]` is `(B, heads, N, T_1 + ... + T_M)`,
    `Fused.attention["queries"]` `(B, heads, T_1, N)`.

    >>> Perceiver({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    unaligned = True

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        latents: int = 16,
        layers: int = 2,
        heads: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.1,
        positions: bool = True,
        pool: bool = False,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = w = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        self.positions = positions
        options: dict[str, Any] = {
            "heads": pick_heads(w, heads, self),
            "hidden": hidden,
            "dropout": check_probability(dropout, "dropout", self),
        }
        self.project = nn.ModuleList(projection(d, w) for d in self.dims.values())
        self.embedding = nn.Parameter(torch.empty(len(self.dims), w).normal_(std=0.02))
        self.latents = nn.Parameter(torch.empty(check_positive(latents, "latents", self), w).normal_(std=0.02))
        self.read = TransformerLayer(w, norm_memory=True, **options)
        self.layers = nn.ModuleList(
            TransformerLayer(w, **options) for _ in range(check_positive(layers, "layers", self))
        )
        self.answer = None if pool else TransformerLayer(w, norm_memory=True, **options)
        self.set_width(w)

    def combine(self, streams: Streams) -> Fused:
        us = [p(x) + e for p, x, e in zip(self.project, streams.x, self.embedding, strict=True)]
        us = [u + sinusoidal_positions(u) for u in us] if self.positions else us
        key_mask = None
        if any(m is not None for m in streams.present):
            key_mask = torch.cat(
                [
                    u.new_ones(u.shape[:2], dtype=torch.bool) if m is None else m
                    for u, m in zip(us, streams.present, strict=True)
                ],
                1,
            )
        latents = self.latents.expand(us[0].shape[0], -1, -1)
        latents, reading = self.read(latents, zero_padded(torch.cat(us, 1), key_mask), key_mask, streams.attention)
        for layer in self.layers:
            latents, _ = layer(latents)
        maps = {} if reading is None else {"latents": reading}
        if self.answer is None:
            return Fused(latents.mean(1), attention=maps)
        fused, asking = self.answer(us[0], latents, None, streams.attention)
        return Fused(fused, {self.anchor: fused}, maps if asking is None else {**maps, "queries": asking})


fusionzoo_register = fusionzoo.plugin(
    Perceiver,
    summary="latent vectors read all modalities, the anchor's utterances ask them",
    paper="Jaegle et al., Perceiver: General Perception with Iterative Attention, ICML 2021",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_1 ... x_M, all steps"] -- keys, values --> read["cross-attention"]
    latents["N latents"] -- queries --> read
    read --> layers["self-attention layers"]
    layers -- keys, values --> answer["cross-attention"]
    anchor["x_1"] -- queries --> answer --> y["y"]
    """,
)
