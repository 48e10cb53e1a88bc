"""Late product: one linear expert per modality, and the product of what they predict."""

from __future__ import annotations

import torch
from torch import Tensor

import fusionzoo
from fusionzoo_plugins._late import LateFusion


class LateProduct(LateFusion):
    r"""Product of the modalities' predicted probabilities (the product rule).

    .. math:: l_m = W_m x_m + b_m, \qquad
              y = \log \operatorname{softmax} \sum_{m \in \mathcal M} \log \operatorname{softmax}(l_m)
                = \log \operatorname{softmax} \sum_{m \in \mathcal M} l_m

    over the modalities :math:`\mathcal M` that are present: the normalisers are the same for every class and drop out.
    A modality that is sure overrules those that are not. Acts within a time step. Made for the decision level, where
    `out_dim` is the number of classes; any other `out_dim` works, so that every host takes it, and the output then is
    log-probabilities of `out_dim` latent classes.

    Parameters: :math:`\sum_m (d_m + 1)\,d_{out}`. Options: none.
    Source: Kittler et al., "On Combining Classifiers", IEEE TPAMI 20(3), 1998, the product rule; "Multiplication" of the
    tables in Su et al., "MSAF", arXiv 2012.07175, and Fu et al., "CFN-SR", arXiv 2111.02172.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams["text.logits"]` is `(B, T, out_dim)`.

    >>> LateProduct({"text": 8, "audio": 4}, 6)([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 6])
    """

    def decide(self, logits: Tensor, presence: Tensor) -> Tensor:
        return torch.where(presence.unsqueeze(-1), logits, 0.0).sum(-2).log_softmax(-1)


fusionzoo_register = fusionzoo.plugin(
    LateProduct,
    summary="product of the predictions of one linear expert per modality",
    paper="Kittler et al., On Combining Classifiers, IEEE TPAMI 20(3), 1998",
    diagram="""
    t["x_text"] --> et["linear"]
    a["x_audio"] --> ea["linear"]
    et --> m(("sum"))
    ea --> m
    m --> y["log-softmax"]
    """,
)
