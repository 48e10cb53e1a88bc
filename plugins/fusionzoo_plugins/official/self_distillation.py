"""SDT's distillation as butterfliesss/SDT@60af921823 has it, `train.py`."""

from __future__ import annotations

from torch import Tensor

from fusionzoo_plugins.self_distillation import SelfDistillation


class OfficialSelfDistillation(SelfDistillation):
    r"""What the published code computes.

    The gradient of the divergence reaches the teacher too, which then learns to please its students, and
    :math:`\tau^2`, which keeps the two terms in proportion when the temperature changes, is left out.
    """

    variant = "official"

    def teacher(self, logits: Tensor) -> Tensor:
        return logits

    def proportion(self) -> float:
        return 1.0
