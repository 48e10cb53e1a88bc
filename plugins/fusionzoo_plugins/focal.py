"""Focal loss: cross-entropy in which utterances that are already right count less."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

import fusionzoo
from fusionzoo.objective import IGNORE
from fusionzoo_plugins._objective_tools import check_number, exact, log_complement
from fusionzoo_plugins.cross_entropy import CrossEntropy


class Focal(CrossEntropy):
    r"""Focal loss over the labelled utterances.

    .. math:: L = -\frac{1}{\sum_i w_{y_i}} \sum_i w_{y_i} (1 - p_i)^\gamma \log p_i, \qquad
              p_i = \operatorname{softmax}(l_i)_{y_i}

    :math:`\gamma = 0` is cross-entropy.

    Options
    -------
    gamma : :math:`\gamma`, how little the easy ones count.
    class_weights : as for `cross-entropy`.
    variant : see `variants`.

    A batch without a labelled utterance gives zero. Parameters: none.
    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017; the field's use of it
    zerohd4869/MM-DFN@da97036606, `code/loss.py`.

    Shapes: logits `(B, T, C)`, labels `(B, T)` -> scalar.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.focal:OfficialFocal"}

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        gamma: float = 2.0,
        class_weights: str | list[float] | None = None,
        variant: str = "default",
    ):
        super().__init__(num_classes, class_counts, class_weights=class_weights)
        self.gamma = check_number(gamma, "gamma", self)

    def forward(self, out, batch) -> Tensor:
        return self.loss(exact(out.logits).flatten(0, 1).log_softmax(-1), batch.labels.flatten())

    def loss(self, log_probabilities: Tensor, labels: Tensor) -> Tensor:
        """The loss of `log_probabilities (N, C)` under `labels (N,)`, -100 where there is none."""
        labelled = labels != IGNORE
        target = labels.clamp(min=0)
        log_p = log_probabilities.gather(1, target.unsqueeze(1)).squeeze(1)
        weight = torch.ones_like(log_p) if self.weight is None else self.weight.to(log_p)[target]
        weight = torch.where(labelled, weight, 0.0)
        each = torch.where(labelled, weight * self.focus(log_p) * log_p, 0.0)
        return -each.sum() / self.norm(weight, labelled).clamp(min=1e-6)

    def focus(self, log_p: Tensor) -> Tensor:
        r""":math:`(1 - p)^\gamma`."""
        return (self.gamma * log_complement(log_p)).exp()

    def norm(self, weight: Tensor, labelled: Tensor) -> Tensor:
        """What the sum is divided by, from the weights `(N,)`, zero at unlabelled utterances."""
        return weight.sum()


fusionzoo_register = fusionzoo.plugin(
    Focal,
    summary="cross-entropy in which utterances that are already right count less",
    paper="Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv 1708.02002",
    code="zerohd4869/MM-DFN@da97036606",
    diagram="""
    l["logits"] --> p["log p of the label"]
    p --> f(("(1 - p)^gamma"))
    p --> L["loss"]
    f --> L
    """,
)
