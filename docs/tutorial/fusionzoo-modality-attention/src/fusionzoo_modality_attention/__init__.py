"""Modality attention: how much each modality counts at a step is decided by all of them together."""

from __future__ import annotations

from typing import Any

import fusionzoo
import torch
from fusionzoo import Fused, Fusion
from fusionzoo.fusion import Dims, Streams
from fusionzoo.numerics import masked_softmax
from torch import nn


class ModalityAttention(Fusion):
    r"""One softmax weight per modality and step, computed from the concatenation of all modalities.

    .. math::
        a = \sigma\big(W_a\,[h_1; \dots; h_M] + b_a\big), \qquad \alpha = \operatorname{softmax}(a), \qquad
        y = \sum_m \alpha_m h_m

    with :math:`h_m = W_m x_m + b_m`. Acts within a time step.

    Source: Moon et al., "Multimodal Named Entity Recognition for Short Social Media Posts", NAACL 2018, arXiv 1802.07862.
    No official code is known to us.

    Deviations from the paper: there the modalities are embeddings of one width; here a linear map gives them one. A modality
    that is missing gets no weight, and the weights of the others sum to one. The sigmoid bounds the ratio of two weights at
    e; `squash=False` leaves it out.

    Parameters, with M modalities and w the width: :math:`\sum_m (d_m + 1) w + (M w + 1) M`, and a projection where w
    differs from `out_dim`.

    Options
    -------
    width : width w of the attended modalities; None is `out_dim`.
    squash : the sigmoid before the softmax, as in the paper.
    missing : what stands in for a missing modality, see `fusionzoo.Fusion`.

    Shapes
    ------
    streams : `(B, d_m)` or `(B, T, d_m)`; mask : bool `(B, T)`, True where a step is real.
    returns : `(B, out_dim)` or `(B, T, out_dim)`; `Fused.attention["modality"]` is `(B, T, M)` and sums to one.

    >>> ModalityAttention({"text": 8, "audio": 4})({"text": torch.rand(2, 5, 8), "audio": torch.rand(2, 5, 4)}).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        squash: bool = True,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = self.out_dim if width is None else width
        self.squash = squash
        count = len(self.dims)
        self.project = nn.ModuleList(nn.Linear(d, self.width) for d in self.dims.values())
        self.score = nn.Linear(count * self.width, count)
        self.set_width(self.width)

    def combine(self, streams: Streams) -> Fused:
        hidden = [p(x) for p, x in zip(self.project, streams.x, strict=True)]
        presence = streams.presence()
        if presence is not None:  # the bias of an absent modality's projection is no evidence for the scores
            hidden = [h * p.unsqueeze(-1) for h, p in zip(hidden, presence.unbind(-1), strict=True)]
        scores = self.score(torch.cat(hidden, -1))
        weights = masked_softmax(scores.sigmoid() if self.squash else scores, presence)
        fused = (torch.stack(hidden, -1) * weights.unsqueeze(-2)).sum(-1)
        if not streams.attention:
            return Fused(fused)
        return Fused(fused, dict(zip(self.names, hidden, strict=True)), {"modality": weights})

    @classmethod
    def test_params(cls) -> list[dict[str, Any]]:
        """Options under which the conformance suite builds this fusion."""
        return [{}, {"width": 6, "squash": False}]


fusionzoo_register = fusionzoo.plugin(
    ModalityAttention,
    summary="mean of the modalities, weighted at each step by all of them together",
    paper="Moon et al., Multimodal Named Entity Recognition for Short Social Media Posts, NAACL 2018, arXiv 1802.07862",
    bibtex="@inproceedings{moon2018multimodal, title={Multimodal Named Entity Recognition for Short Social Media "
    "Posts}, author={Moon, Seungwhan and Neves, Leonardo and Carvalho, Vitor}, booktitle={NAACL-HLT}, year={2018}}",
    handles={"attention"},
    api=1,
)
