"""MAG as thuiar/MMSA@a94e65d07f has it, and its weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionzoo.reference import check_modalities
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


def reference_names(fusion: MAG) -> Mapping[str, str]:
    """Three modalities in the order text, audio, visual."""
    check_modalities(fusion.names, 3, "MAG")
    names = {"LayerNorm.": "norm"}
    for i, letter in enumerate("av"):
        names |= {f"W_h{letter}.": f"gates.{i}", f"W_{letter}.": f"values.{i}"}
    return names
