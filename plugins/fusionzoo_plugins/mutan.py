"""Tucker fusion: products in small spaces, the core tensor a sum of rank-one slices."""

from __future__ import annotations

import torch
from einops import reduce
from torch import nn

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout
from fusionzoo_plugins._products import product_of_present


class Mutan(Fusion):
    r"""Multimodal Tucker fusion (MUTAN), for any number of modalities.

    .. math::
        h_m = \tanh(W_m x_m + b_m), \qquad
        z = \sum_{r=1}^{R} \prod_{m \in \mathcal M} (M_{m,r} h_m + c_{m,r}), \qquad
        y = W_o z + b_o

    The full interaction of the :math:`x_m` with its weight tensor in Tucker form: factor matrices :math:`W_m` and
    :math:`W_o`, and a core each of whose slices has rank R. A missing modality leaves the product. Acts within a time step.
    Departs from the paper in the number of modalities, two there, and in the biases c.

    Options
    -------
    width : of the h, default 128.
    core : of z, default the width.
    rank : R, default 5.
    dropout : on the h, in training, default 0.1.

    Parameters: with t the width, o the core's: :math:`\sum_m (d_m + 1)\,t + M (t + 1)\,R o + (o + 1)\,d_{out}`.
    Source: Ben-younes et al., "MUTAN: Multimodal Tucker Fusion for Visual Question Answering", ICCV 2017, arXiv 1705.06676,
    section 3.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> Mutan({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int = 128,
        core: int | None = None,
        rank: int = 5,
        dropout: float = 0.1,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        check_positive(width, "width", self)
        core = width if core is None else check_positive(core, "core", self)
        self.rank = check_positive(rank, "rank", self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.project = nn.ModuleList(nn.Linear(d, width) for d in self.dims.values())
        self.slices = nn.ModuleList(nn.Linear(width, rank * core) for _ in self.dims)
        self.head = nn.Linear(core, self.out_dim)
        self.set_width(self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        hidden = [torch.tanh(p(x)) for p, x in zip(self.project, streams.x, strict=True)]
        hidden = [dropout(h, self.dropout, self.training) for h in hidden]
        factors = [s(h) for s, h in zip(self.slices, hidden, strict=True)]
        product = product_of_present(factors, streams.present)
        return Fused(self.head(reduce(product, "... (rank w) -> ... w", "sum", rank=self.rank)))


fusionzoo_register = fusionzoo.plugin(
    Mutan,
    summary="Tucker fusion: products in small spaces, a core of low-rank slices",
    paper="Ben-younes et al., MUTAN: Multimodal Tucker Fusion for Visual Question Answering, ICCV 2017",
    diagram="""
    text["x_text"] --> t["linear, tanh"] --> mt["R slices"] --> mul(("product"))
    audio["x_audio"] --> a["linear, tanh"] --> ma["R slices"] --> mul
    visual["x_visual"] --> v["linear, tanh"] --> mv["R slices"] --> mul
    mul --> sum["sum over R"] --> linear["linear"] --> y["y"]
    """,
)
