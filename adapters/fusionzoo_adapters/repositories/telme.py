"""TelME shifts its text by what audio and visual say together; the two meet in a concatenation.

Source: https://github.com/yuntaeyang/TelME at f22fc9fed2 (no licence stated), MELD/model.py and IEMOCAP/model.py, class `ASF`; none of its
code is here. The site joins visual and audio; text comes in afterwards, next to their mixture, which `find_sites` shows. One
vector per utterance: no step is padding. Without CUDA `forward` needs `fusionzoo.modernise`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import CUDA
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import named


class TelME:
    """The fusion stage `ASF`."""

    layout = "(B, d)"
    repairs = (CUDA,)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name and its projections."""
        return named(model, "ASF", "multihead_attn", "W_hav", "W_av", "AV_LayerNorm")

    @staticmethod
    def site(model: Any) -> Site:
        """Visual and audio side by side."""
        streams = [("visual", model.VISUAL_DIM), ("audio", model.ACOUSTIC_DIM)]
        return declare(model, "", [("forward", "torch.cat((visual, acoustic)")], streams, layout="(B, d)")


fusionzoo_register = fusionzoo.plugin(
    TelME,
    kind="adapter",
    summary="TelME: visual and audio side by side, in the shifting fusion",
    paper="TelME: Teacher-leading Multimodal Fusion Network for Emotion Recognition in Conversation, https://arxiv.org/abs/2401.12987",
    code="https://github.com/yuntaeyang/TelME/tree/f22fc9fed2",
    modalities=(2, 2),
)
