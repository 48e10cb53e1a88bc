"""Low-rank bilinear pooling: the Hadamard product of the modalities' projections."""

from __future__ import annotations

import torch
from torch import nn

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout
from fusionzoo_plugins._products import product_of_present


class MLB(Fusion):
    r"""Multimodal low-rank bilinear pooling (MLB), for any number of modalities.

    .. math:: y = P^\top \Big(\prod_{m \in \mathcal M} \tanh(U_m^\top x_m + c_m)\Big) + b

    with an elementwise product: the rank of the interaction is the width of the projections. A missing modality leaves the
    product. Acts within a time step. Departs from the paper in the number of modalities, two there.

    Options
    -------
    rank : width of the projections, default 256.
    dropout : on the product, in training, default 0.1.

    Parameters: with r the rank :math:`\sum_m (d_m + 1)\,r + (r + 1)\,d_{out}`.
    Source: Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", ICLR 2017, arXiv 1610.04325, sections 3.1 and 3.2.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> MLB({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, dims: Dims, out_dim: int | None = None, *, rank: int = 256, dropout: float = 0.1, missing: str = "zero"
    ):
        super().__init__(dims, out_dim, missing=missing)
        check_positive(rank, "rank", self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.project = nn.ModuleList(nn.Linear(d, rank) for d in self.dims.values())
        self.head = nn.Linear(rank, self.out_dim)
        self.set_width(self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        factors = [torch.tanh(p(x)) for p, x in zip(self.project, streams.x, strict=True)]
        product = product_of_present(factors, streams.present)
        return Fused(self.head(dropout(product, self.dropout, self.training)))


fusionzoo_register = fusionzoo.plugin(
    MLB,
    summary="Hadamard product of projections, low-rank bilinear pooling",
    paper="Kim et al., Hadamard Product for Low-rank Bilinear Pooling, ICLR 2017",
    diagram="""
    text["x_text"] --> t["linear, tanh"] --> mul(("product"))
    audio["x_audio"] --> a["linear, tanh"] --> mul
    visual["x_visual"] --> v["linear, tanh"] --> mul
    mul --> linear["linear"] --> y["y"]
    """,
)
