"""Factorised bilinear pooling: products of projections, summed in groups and normalised."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout
from fusionzoo_plugins._products import product_of_present, root_and_norm


class MFB(Fusion):
    r"""Multi-modal factorised bilinear pooling (MFB), and its cascade of higher order (MFH), for any number of modalities.

    .. math::
        e_i = e_{i-1} \odot \operatorname{dropout}\Big(\prod_{m \in \mathcal M} (U_{i,m}^\top x_m + c_{i,m})\Big), \qquad
        z_i = \operatorname{norm}\big(\operatorname{root}(\operatorname{SumPool}_k\, e_i)\big), \qquad
        y = W\,[z_1; \dots; z_p] + b

    with :math:`e_0 = 1`, sums over groups of k products, the signed square root and division by the Euclidean norm. A
    missing modality leaves the product. Acts within a time step.

    Departs from the paper in the number of modalities, two there, and in smoothing root and norm at zero, where their
    slope is infinite: :math:`z / \sqrt{|z| + 10^{-6}}` and :math:`z / \sqrt{\lVert z \rVert^2 + 10^{-6}}`.

    Options
    -------
    width : of z, default 256.
    factors : k, default 5.
    order : p, default 1, which is MFB.
    dropout : default 0.1.

    Parameters: with w the width :math:`p \sum_m (d_m + 1)\,k w`, plus the output map from p w.
    Source: Yu et al., "Multi-modal Factorized Bilinear Pooling with Co-attention Learning for Visual Question Answering",
    ICCV 2017, arXiv 1708.01471, section 3; the cascade in Yu et al., "Beyond Bilinear: Generalized Multimodal Factorized
    High-Order Pooling for Visual Question Answering", IEEE TNNLS 2018, arXiv 1708.03619.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> MFB({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int = 256,
        factors: int = 5,
        order: int = 1,
        dropout: float = 0.1,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = check_positive(width, "width", self)
        self.factors = check_positive(factors, "factors", self)
        self.order = check_positive(order, "order", self)
        self.dropout = check_probability(dropout, "dropout", self)
        # All orders of one modality in one map.
        self.project = nn.ModuleList(nn.Linear(d, order * factors * width) for d in self.dims.values())
        self.set_width(order * width)

    def combine(self, streams: Streams) -> Fused:
        projected = [p(x) for p, x in zip(self.project, streams.x, strict=True)]
        expanded = dropout(product_of_present(projected, streams.present), self.dropout, self.training)
        levels: list[Tensor] = []
        for level in expanded.chunk(self.order, -1):
            levels.append(level if not levels else levels[-1] * level)
        pooled = [root_and_norm(reduce(e, "... (w f) -> ... w", "sum", f=self.factors)) for e in levels]
        return Fused(torch.cat(pooled, -1))


fusionzoo_register = fusionzoo.plugin(
    MFB,
    summary="products of projections, summed in groups and normalised",
    paper="Yu et al., Multi-modal Factorized Bilinear Pooling with Co-attention Learning for Visual Question "
    "Answering, ICCV 2017",
    diagram="""
    text["x_text"] --> t["linear, k w wide"] --> mul(("product"))
    audio["x_audio"] --> a["linear, k w wide"] --> mul
    visual["x_visual"] --> v["linear, k w wide"] --> mul
    mul --> pool["sums of k"] --> norm["signed root, norm"]
    norm --> linear["W, b"] --> y["y"]
    """,
)
