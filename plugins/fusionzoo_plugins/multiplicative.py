"""Multiplicative combination: one linear expert per modality, decided by the cost that trains them."""

from __future__ import annotations

from torch import Tensor

import fusionzoo
from fusionzoo.fusion import Dims
from fusionzoo_plugins._late import LateFusion, class_costs
from fusionzoo_plugins._objective_tools import check_number


class Multiplicative(LateFusion):
    r"""The decision rule of the multiplicative combination of modalities.

    .. math:: p_m = \operatorname{softmax}(W_m x_m + b_m), \qquad
              y_c = \sum_{m} \Big[ \prod_{n \ne m} (1 - p_n^c) \Big]^{\beta / (M - 1)} \log p_m^c

    over the M modalities present. The predicted class is the one with the largest :math:`y_c`, the smallest cost: an
    expert is hardly asked about a class of which another one is sure. :math:`\beta = 0` is the product of the
    probabilities. Acts within a time step. Made for the decision level, where `out_dim` is the number of classes; any other
    `out_dim` works, so that every host takes it. Train it with the objective `multiplicative`, which reads the experts'
    logits from the streams.

    Options
    -------
    beta : :math:`\beta`, the same as in the objective.

    Parameters: :math:`\sum_m (d_m + 1)\,d_{out}`.
    Source: Liu et al., "Learn to Combine Modalities in Multimodal Deep Learning", arXiv 1805.11730, 2018.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams["text.logits"]` is `(B, T, out_dim)`.

    >>> import torch
    >>> Multiplicative({"text": 8, "audio": 4}, 6)([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 6])
    """

    def __init__(self, dims: Dims, out_dim: int | None = None, *, beta: float = 0.5, missing: str = "zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.beta = check_number(beta, "beta", self)

    def decide(self, logits: Tensor, presence: Tensor) -> Tensor:
        return -class_costs(logits.log_softmax(-1), presence, self.beta)


fusionzoo_register = fusionzoo.plugin(
    Multiplicative,
    summary="one expert per modality; those that are wrong are hardly asked",
    paper="Liu et al., Learn to Combine Modalities in Multimodal Deep Learning, arXiv 1805.11730",
    diagram="""
    t["x_text"] --> pt["linear, softmax"]
    a["x_audio"] --> pa["linear, softmax"]
    pt --> w(("log p times (1 - p of others)^beta"))
    pa --> w
    w --> y["scores"]
    """,
)
