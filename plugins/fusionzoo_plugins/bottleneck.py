"""Attention bottlenecks: modalities exchange what a few shared tokens can carry."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.layers import pick_heads
from fusionzoo.numerics import masked_mean, zero_padded
from fusionzoo.transformer import TransformerLayer, sinusoidal_positions
from fusionzoo_plugins._channels import check_aligned

READOUTS = ("all", "anchor", "bottleneck")


class Bottleneck(Fusion):
    r"""Multimodal bottleneck transformer (MBT).

    .. math::
        [z_m^{l+1}; b_m^{l+1}] = \operatorname{Transformer}_m^l\big([z_m^l; b^l]\big), \qquad
        b^{l+1} = \tfrac{1}{|\mathcal M|} \sum_{m \in \mathcal M} b_m^{l+1}

    from :math:`z_m^0 = W_m x_m + p`, sinusoidal positions p, and n learned bottleneck tokens :math:`b^0`. A modality
    attends to its own utterances and to the bottleneck, never to another modality's utterances. :math:`\mathcal M` are the
    modalities present in the dialogue. The output is the mean of the modalities' streams (the paper averages what each
    one's CLS token predicts):

    .. math:: y_i = \tfrac{1}{|\mathcal M_i|} \sum_{m \in \mathcal M_i} \operatorname{LN}_m(z_{m,i}^L)

    What one modality writes in layer l another can read in layer l + 1, so that reading out streams takes two layers.

    Options
    -------
    width : common width w; default the anchor's.
    bottlenecks : n, number of tokens.
    layers : L.
    fuse_from : layers before this one attend within their modality only.
    heads : default the largest of 8, 4, 2, 1 that divides w.
    hidden : of the feed-forward blocks; default 4 w.
    dropout : on the weights and on each block's result.
    positions : add p.
    readout : `"all"`; `"anchor"`, :math:`y_i = \operatorname{LN}(z_{1,i}^L)`; `"bottleneck"`, one vector for the
        sequence, the mean of the tokens :math:`b^L`. With the last two, modalities may have other lengths (unaligned
        sequences, one mask per modality).

    Parameters: projections, :math:`n w`, and per layer and modality a transformer layer of
    :math:`4 w^2 + 2 w h + 9 w + h`, h the hidden width; a norm of 2w per modality read out.
    Source: Nagrani et al., "Attention Bottlenecks for Multimodal Fusion", NeurIPS 2021, section 3.2, equations 8 and 9.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`, with `readout="bottleneck"` `(B, out_dim)`;
    `Fused.attention["text"]` is `(B, heads, T + n, T + n)` of the last layer, the bottleneck last.

    >>> Bottleneck({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    unaligned = True
    for_sequences: ClassVar[dict[str, Any]] = {"readout": "anchor"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        bottlenecks: int = 4,
        layers: int = 2,
        fuse_from: int = 0,
        heads: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.1,
        positions: bool = True,
        readout: str = "all",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.readout = check_choice(readout, READOUTS, "readout", self)
        self.width = w = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        heads = pick_heads(w, heads, self)
        depth = check_positive(layers, "layers", self)
        needed = 1 if readout == "bottleneck" else 2
        if isinstance(fuse_from, bool) or not isinstance(fuse_from, int) or not 0 <= fuse_from <= depth - needed:
            raise OptionError(
                f"Bottleneck: layers={layers} and fuse_from={fuse_from!r} leave no way from one modality to another; "
                f"readout={readout!r} needs {needed} or more layers from fuse_from (0 or more) on"
            )
        self.fuse_from, self.positions = fuse_from, positions
        self.project = nn.ModuleList(projection(d, w) for d in self.dims.values())
        self.tokens = nn.Parameter(torch.empty(check_positive(bottlenecks, "bottlenecks", self), w).normal_(std=0.02))
        dropout = check_probability(dropout, "dropout", self)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                TransformerLayer(w, heads=heads, hidden=hidden, dropout=dropout)
                for _ in range(_streams_in_layer(i, depth, len(self.dims), readout))
            )
            for i in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(w) for _ in range(_norms(len(self.dims), readout)))
        self.set_width(w)

    def combine(self, streams: Streams) -> Fused:
        if self.readout == "all":
            check_aligned(streams.x, self.names, self, "readout='all'", "readout='anchor' or 'bottleneck'")
        zs = [p(x) for p, x in zip(self.project, streams.x, strict=True)]
        zs = [z + sinusoidal_positions(z) for z in zs] if self.positions else zs
        zs = [zero_padded(z, m) for z, m in zip(zs, streams.present, strict=True)]
        real = [
            z.new_ones(z.shape[:2], dtype=torch.bool) if m is None else m
            for z, m in zip(zs, streams.present, strict=True)
        ]
        there = torch.stack([m.any(-1) for m in real], -1)
        bottleneck = self.tokens.expand(zs[0].shape[0], -1, -1)
        maps: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleList)
            shared = bottleneck if i >= self.fuse_from else bottleneck[:, :0]
            written = []
            for m, block in enumerate(layer):
                tokens = torch.cat([zs[m], shared], 1)
                key_mask = torch.cat([real[m], real[m].new_ones(shared.shape[:2])], 1)
                tokens, weights = block(tokens, None, key_mask, streams.attention and i + 1 == len(self.layers))
                zs[m], own = tokens.split([zs[m].shape[1], shared.shape[1]], 1)
                written.append(own)
                if weights is not None:
                    maps[self.names[m]] = weights
            if i >= self.fuse_from and len(written) == len(zs):
                bottleneck = masked_mean(torch.stack(written, 2), there.unsqueeze(1))
        if self.readout == "bottleneck":
            return Fused(self.norms[0](bottleneck.mean(1)), attention=maps)
        zs = [norm(z) for norm, z in zip(self.norms, zs, strict=False)]
        if self.readout == "anchor":
            return Fused(zs[0], {self.anchor: zs[0]}, maps)
        return Fused(masked_mean(torch.stack(zs, -2), streams.presence()), dict(zip(self.names, zs, strict=True)), maps)


def _streams_in_layer(layer: int, layers: int, modalities: int, readout: str) -> int:
    """Modalities that a layer works on: nobody reads what the others would do in the last layer before the anchor."""
    return 1 if readout == "anchor" and layer + 1 == layers else modalities


def _norms(modalities: int, readout: str) -> int:
    return modalities if readout == "all" else 1


fusionzoo_register = fusionzoo.plugin(
    Bottleneck,
    summary="modalities exchange information through a few bottleneck tokens",
    paper="Nagrani et al., Attention Bottlenecks for Multimodal Fusion, NeurIPS 2021",
    level="dialogue",
    handles={"attention"},
    diagram="""
    text["x_text"] --> one["transformer layer"]
    audio["x_audio"] --> two["transformer layer"]
    tokens["bottleneck tokens"] --> one
    tokens --> two
    one -- bottleneck --> mean(("mean")) -- next layer --> tokens
    two -- bottleneck --> mean
    one --> y["mean of streams: y"]
    two --> y
    """,
)
