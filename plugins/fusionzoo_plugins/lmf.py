"""Low-rank tensor fusion: what `tfn` computes, with a weight tensor of low rank and without the outer product."""

from __future__ import annotations

from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import zero_padded
from fusionzoo_plugins._products import Widths, subspace_widths


class Factors(nn.Module):
    """The decomposed weight tensor: one factor `(R, d_m + 1, out)` per modality, R weights, a bias.

    trained : `False` keeps the factors out of the parameters, as constants of the module.
    """

    fusion_weights: Tensor
    fusion_bias: Tensor

    def __init__(self, widths: list[int], out: int, rank: int, trained: bool):
        super().__init__()
        self.count = len(widths)
        for i, w in enumerate(widths):
            factor = torch.empty(rank, w + 1, out)
            if trained:
                for matrix in factor:
                    nn.init.xavier_normal_(matrix)
                factor[:, 0] = 1.0
                setattr(self, f"factor{i}", nn.Parameter(factor))
            else:
                self.register_buffer(f"factor{i}", nn.init.xavier_normal_(factor))
        self.fusion_weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank)))
        self.fusion_bias = nn.Parameter(torch.zeros(1, out))

    def products(self, xs: list[Tensor]) -> Tensor:
        """The product over modalities for every rank, `(..., R, out)`, from one `(..., w)` per modality."""
        factors: list[Tensor] = [getattr(self, f"factor{i}") for i in range(self.count)]
        terms = [torch.einsum("...d,rdo->...ro", x, f[:, 1:]) + f[:, 0] for x, f in zip(xs, factors, strict=True)]
        return reduce(torch.mul, terms)

    def weigh(self, products: Tensor) -> Tensor:
        """`(..., out)`: the ranks added up by their weights, and the bias."""
        return torch.einsum("r,...ro->...o", self.fusion_weights[0], products) + self.fusion_bias[0]


class LowRankFusion(Fusion):
    r"""Low-rank multimodal fusion (LMF).

    .. math::
        y = \sum_{r=1}^{R} w_r \prod_{m=1}^{M} F_m^{(r)\top} [1; x_m] + b, \qquad
        F_m^{(r)} \in \mathbb R^{(d_m + 1) \times d_{out}}

    with the product taken elementwise: a linear map of the outer product of `tfn` whose weight tensor has rank R in every
    output, at a cost linear in the number of modalities. An absent modality contributes its constant row alone. Acts
    within a time step, for any number of modalities from two.

    Departs from the published code in how it starts: every matrix :math:`F_m^{(r)}` Xavier-normal (torch's function takes
    the three axes for a convolution's and starts near zero) with ones in its constant row, so that products of every
    subset of modalities are there from the first step and an absent modality is neutral.

    Options
    -------
    rank : R, default 4.
    width : of a linear map in front of every modality, one for all or a sequence of one each; default None for no map
        (MM-DFN has them).
    softmax : over the features of y (MM-DFN).
    variant : see `variants`.

    Parameters: :math:`R\,d_{out} \sum_m (d_m + 1) + R + d_{out}`, plus the maps if any,
    which then give the d.
    Source: Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018, arXiv 1806.00064,
    section 3; thuiar/MMSA@a94e65d07f, pliang279/MultiBench@49f9be224f, zerohd4869/MM-DFN@da97036606. MMSA's networks in
    front of it are `SubNetworks` in `_mmsa_networks.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> LowRankFusion({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.lmf:OfficialLowRankFusion"}
    reference_table = "fusionzoo_plugins.official.lmf"
    #: Whether the factors learn.
    trained: ClassVar[bool] = True

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        rank: int = 4,
        width: Widths = None,
        softmax: bool = False,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.rank = check_positive(rank, "rank", self)
        self.softmax = softmax
        widths = list(self.dims.values()) if width is None else subspace_widths(width, self.dims, 1, self)
        self.project = nn.ModuleList(
            nn.Identity() if width is None else nn.Linear(d, w) for d, w in zip(self.dims.values(), widths, strict=True)
        )
        self.factors = Factors(widths, self.out_dim, self.rank, self.trained)
        self.set_width(self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        fused = self.factors.weigh(self.factors.products(xs))
        return Fused(fused.softmax(-1) if self.softmax else fused)


fusionzoo_register = fusionzoo.plugin(
    LowRankFusion,
    summary="tensor fusion with low-rank factors, without the outer product",
    paper="Liu et al., Efficient Low-rank Multimodal Fusion with Modality-Specific Factors, ACL 2018",
    code="thuiar/MMSA@a94e65d07f",
    diagram="""
    text["[1; x_text]"] -- "R factors" --> mul(("product"))
    audio["[1; x_audio]"] -- "R factors" --> mul
    visual["[1; x_visual]"] -- "R factors" --> mul
    mul --> sum["weighted sum over R, bias"] --> y["y"]
    """,
)
