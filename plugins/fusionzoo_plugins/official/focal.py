"""The focal loss as zerohd4869/MM-DFN@da97036606 has it, `code/loss.py`."""

from __future__ import annotations

from torch import Tensor

from fusionzoo_plugins.focal import Focal


class OfficialFocal(Focal):
    r"""What the published code computes.

    No gradient passes through :math:`(1 - p)^\gamma`, so that what is minimised is not the value that is reported, and
    the sum is divided by the number of utterances instead of their weights.
    """

    variant = "official"

    def focus(self, log_p: Tensor) -> Tensor:
        return (1 - log_p.detach().exp()) ** self.gamma

    def norm(self, weight: Tensor, labelled: Tensor) -> Tensor:
        return labelled.sum()
