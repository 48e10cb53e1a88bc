"""Gated sum: how much of each modality enters is decided per feature by all of them together."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
)
from fusionzoo.numerics import masked_softmax


class Gated(Fusion):
    r"""Softmax-gated sum of the modalities, the gated multimodal unit for any number of them.

    .. math::
        h_m = \tanh(W_m x_m + b_m), \qquad
        z = \operatorname{softmax}_m\big(U\,[x_1; \dots; x_M] + c\big), \qquad
        y = \sum_m z_m \odot h_m

    with one gate per feature and modality; the gates of the present modalities sum to one, a missing one gets none.
    Acts within a time step.

    Deviation: the original unit for more than two modalities has independent sigmoid gates; a softmax keeps the scale of
    the output when a modality is missing (the original's two-modality gate, z and 1 - z, is this softmax).

    Parameters, with S the summed width and w the width: :math:`S w + M w + (S + 1) M w`.
    Source: Arevalo et al., "Gated Multimodal Units for Information Fusion", arXiv 1702.01992, section 3.1.

    Options
    -------
    width : width w of the gated sum; default `out_dim`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["gate"]` is `(B, T, w, M)`.

    >>> Gated({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dims: Dims, out_dim: int | None = None, *, width: int | None = None, missing: str = "zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.width = self.out_dim if width is None else check_positive(width, "width", self)
        self.project = nn.ModuleList(nn.Linear(d, self.width) for d in self.dims.values())
        self.gate = nn.Linear(sum(self.dims.values()), self.width * len(self.dims))
        self.set_width(self.width)

    def combine(self, streams: Streams) -> Fused:
        hidden = torch.stack([torch.tanh(p(x)) for p, x in zip(self.project, streams.x, strict=True)], -1)
        presence = streams.presence()
        gate = masked_softmax(
            rearrange(self.gate(torch.cat(streams.x, -1)), "... (w m) -> ... w m", w=self.width),
            None if presence is None else presence.unsqueeze(-2),
        )
        fused = (gate * hidden).sum(-1)
        per_modality = dict(zip(self.names, hidden.unbind(-1), strict=True)) if streams.attention else {}
        return Fused(fused, per_modality, {"gate": gate} if streams.attention else {})


fusionzoo_register = fusionzoo.plugin(
    Gated,
    summary="sum with one learned gate per feature and modality",
    paper="Arevalo et al., Gated Multimodal Units for Information Fusion, arXiv 1702.01992",
    handles={"attention"},
    diagram="""
    x["x_1 ... x_M"] --> values["W_m x_m"] --> mix(("sum over modalities"))
    x --> gates["softmax over modalities, per feature"] --> mix
    mix --> y["y"]
    """,
)
