"""Sum of projected modalities."""

from __future__ import annotations

import torch
from torch import nn

import fusionzoo
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.numerics import zero_padded


class Sum(Fusion):
    r"""Project every modality to `out_dim` and add.

    .. math:: y = \sum_m W_m x_m + b_m

    A missing modality contributes nothing, not even its bias. No projection is built for a modality that has the output
    width already. Acts within a time step.

    Parameters: :math:`\sum_{m:\,d_m \ne d_{out}} d_m d_{out} + d_{out}`. Source: additive fusion, e.g. the sum over
    modality contexts in Shou et al., "LMAM", arXiv 2306.17799.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> Sum({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dims: Dims, out_dim: int | None = None, *, missing: str = "zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.project = nn.ModuleList(projection(d, self.out_dim) for d in self.dims.values())

    def combine(self, streams: Streams) -> Fused:
        parts = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        return Fused(torch.stack(parts).sum(0), dict(zip(self.names, parts, strict=True)))


fusionzoo_register = fusionzoo.plugin(
    Sum,
    summary="sum of projected modalities",
    paper="additive fusion; Shou et al., arXiv 2306.17799",
    diagram="""
    text["x_text"] --> pt["W_text"] --> add(("+"))
    audio["x_audio"] --> pa["W_audio"] --> add
    visual["x_visual"] --> pv["W_visual"] --> add
    add --> y["y"]
    """,
)
