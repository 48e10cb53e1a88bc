"""MAG as thuiar/MMSA@a94e65d07f has it."""

from __future__ import annotations

from torch import Tensor

from fusionzoo_plugins.mag import MAG


class OfficialMAG(MAG):
    """What the published code computes.

    An absent companion's zeros still add their bias to h, and an absent anchor leaves nothing but the bias of the norm.
    Present modalities give the same as in the default.
    """

    variant = "official"

    def contribution(self, part: Tensor, present: Tensor | None) -> Tensor:
        return part

    def share(self, anchor: Tensor, shift: Tensor, present: Tensor | None) -> Tensor:
        return self.ratio(anchor, shift).clamp(max=1)
