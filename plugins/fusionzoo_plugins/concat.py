"""Concatenation followed by a linear map: the baseline of every comparison table in the field."""

from __future__ import annotations

import torch

import fusionzoo
from fusionzoo.fusion import Dims, Fused, Fusion, Streams


class Concat(Fusion):
    r"""Concatenate the modalities, project to `out_dim`.

    .. math:: y = W\,[x_1; \dots; x_M] + b

    No projection is built when `out_dim` equals the summed width. Acts within a time step.

    Parameters: :math:`(\sum_m d_m)\,d_{out} + d_{out}`. Source: "Concat" in Poria et al., "Context-Dependent Sentiment
    Analysis in User-Generated Videos", ACL 2017 (bc-LSTM), and every host since.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> Concat({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dims: Dims, out_dim: int | None = None, *, missing: str = "zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.set_width(sum(self.dims.values()))

    def combine(self, streams: Streams) -> Fused:
        return Fused(torch.cat(streams.x, -1))


fusionzoo_register = fusionzoo.plugin(
    Concat,
    summary="concatenation and a linear map",
    paper="Poria et al., Context-Dependent Sentiment Analysis in User-Generated Videos, ACL 2017",
    diagram="""
    text["x_text"] --> cat(("concat"))
    audio["x_audio"] --> cat
    visual["x_visual"] --> cat
    cat --> linear["W, b"] --> y["y"]
    """,
)
