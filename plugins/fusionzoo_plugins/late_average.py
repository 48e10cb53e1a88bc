"""Late average: one linear expert per modality, and the mean of what they predict."""

from __future__ import annotations

import torch
from torch import Tensor

import fusionzoo
from fusionzoo._options import check_choice
from fusionzoo.fusion import Dims
from fusionzoo.numerics import masked_mean
from fusionzoo_plugins._late import LateFusion

OF = ("probabilities", "logits")


class LateAverage(LateFusion):
    r"""Mean of the modalities' predictions (the sum rule).

    .. math:: l_m = W_m x_m + b_m, \qquad
              y = \log \frac{1}{|\mathcal M|} \sum_{m \in \mathcal M} \operatorname{softmax}(l_m)
              \quad\text{or}\quad y = \frac{1}{|\mathcal M|} \sum_{m \in \mathcal M} l_m

    over the modalities :math:`\mathcal M` that are present. Acts within a time step. Made for the decision level, where
    `out_dim` is the number of classes and the output needs only a softmax, which gives the mean probability back; any
    other `out_dim` works, so that every host takes it, and the output then is scores over `out_dim` latent classes.

    Options
    -------
    average : `"probabilities"`, whose mean's logarithm is returned, or `"logits"`.

    Parameters: :math:`\sum_m (d_m + 1)\,d_{out}`.
    Source: Kittler et al., "On Combining Classifiers", IEEE TPAMI 20(3), 1998, the sum rule; "Averaging" of the tables in
    Su et al., "MSAF", arXiv 2012.07175, and Fu et al., "CFN-SR", arXiv 2111.02172.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams["text.logits"]` is `(B, T, out_dim)`.

    >>> LateAverage({"text": 8, "audio": 4}, 6)([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self, dims: Dims, out_dim: int | None = None, *, average: str = "probabilities", missing: str = "zero"
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.average = check_choice(average, OF, "average", self)

    def decide(self, logits: Tensor, presence: Tensor) -> Tensor:
        if self.average == "logits":
            return masked_mean(logits, presence)
        absent = ~presence.unsqueeze(-1)
        # A finite fill keeps a step without any modality free of NaN; the base class zeroes it.
        log_p = logits.log_softmax(-1).masked_fill(absent, torch.finfo(logits.dtype).min / 2)
        return log_p.logsumexp(-2) - presence.sum(-1, keepdim=True).clamp(min=1).to(logits).log()


fusionzoo_register = fusionzoo.plugin(
    LateAverage,
    summary="mean of the predictions of one linear expert per modality",
    paper="Kittler et al., On Combining Classifiers, IEEE TPAMI 20(3), 1998",
    diagram="""
    t["x_text"] --> et["linear, softmax"]
    a["x_audio"] --> ea["linear, softmax"]
    et --> m(("mean"))
    ea --> m
    m --> y["log-probabilities"]
    """,
)
