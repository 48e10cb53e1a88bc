"""The gated multimodal unit, as its paper has it."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_softmax


class GMU(Fusion):
    r"""Gated multimodal unit (GMU).

    Two modalities share one gate; more have one gate each, independent of each other:

    .. math::
        h_m &= \tanh(W_m x_m) \\
        M = 2:\quad z &= \sigma(W_z [x_1; x_2]), \qquad y = z \odot h_1 + (1 - z) \odot h_2 \\
        M > 2:\quad z_m &= \sigma(W_{z_m} [x_1; \dots; x_M]), \qquad y = \textstyle\sum_m z_m \odot h_m

    without biases, as in the paper. Acts within a time step. A missing modality has :math:`h_m = 0`, and of two modalities
    the one that is left passes whole, since z and 1 - z are a softmax that then has one entry. `gated` is the unit with
    that softmax for any number of modalities, and with biases.

    Options
    -------
    width : width w of the unit; default `out_dim`.

    Parameters, with S the summed width: :math:`S w` for the hidden vectors and :math:`S w` for each gate, one for two
    modalities, else M.
    Source: Arevalo et al., "Gated Multimodal Units for Information Fusion", arXiv 1702.01992, section 3.1, figure 2.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams` are the gated vectors :math:`z_m \odot h_m`,
    `(B, T, w)`; for two modalities `Fused.attention["gate"]` is `(B, T, w, 2)`.

    >>> GMU({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dims: Dims, out_dim: int | None = None, *, width: int | None = None, missing: str = "zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.width = self.out_dim if width is None else check_positive(width, "width", self)
        self.hidden = nn.ModuleList(nn.Linear(d, self.width, bias=False) for d in self.dims.values())
        gates = 1 if len(self.dims) == 2 else len(self.dims)
        self.gate = nn.Linear(sum(self.dims.values()), gates * self.width, bias=False)
        self.set_width(self.width)

    def combine(self, streams: Streams) -> Fused:
        hidden = torch.stack([torch.tanh(h(x)) for h, x in zip(self.hidden, streams.x, strict=True)], -1)
        scores = self.gate(torch.cat(streams.x, -1))
        presence = streams.presence()
        present = None if presence is None else presence.unsqueeze(-2)
        if len(self.dims) == 2:
            gate = masked_softmax(torch.stack([scores, torch.zeros_like(scores)], -1), present)
        else:
            gate = torch.sigmoid(rearrange(scores, "... (m w) -> ... w m", w=self.width))
        gated = gate * hidden
        if not streams.attention:
            return Fused(gated.sum(-1))
        # Independent gates do not sum to one: they show in the streams only.
        maps = {"gate": gate} if len(self.dims) == 2 else {}
        return Fused(gated.sum(-1), dict(zip(self.names, gated.unbind(-1), strict=True)), maps)


fusionzoo_register = fusionzoo.plugin(
    GMU,
    summary="gated multimodal unit: sigmoid gates on tanh features",
    paper="Arevalo et al., Gated Multimodal Units for Information Fusion, arXiv 1702.01992",
    diagram="""
    x["x_m"] --> hidden["tanh of W_m x_m"] --> times(("*"))
    all["x_1 ... x_M"] --> gate["sigmoid of W_z_m [x_1; ...; x_M]"] --> times
    times --> sum(("sum over m")) --> y["y"]
    """,
)
