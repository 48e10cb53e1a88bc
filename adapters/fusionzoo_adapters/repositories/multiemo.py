"""MultiEMO joins what its attentions made of each modality, real utterances only.

Source: https://github.com/TaoShi1998/MultiEMO-ACL2023 at e96458b870 (no licence stated), Model/MultiEMO_Model.py; none of its code is here.
The site comes after the padded steps were dropped, so that the rows are a flat list of dialogues. Lengths are the sums of
`utterance_masks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import mask_of, named


class MultiEMO:
    """The published model, with or without its attention."""

    layout = "(N, d)"

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name and the three encoders."""
        return named(model, "MultiEMO", "text_fc", "audio_dialoguernn", "visual_dialoguernn", "multiattn", "fc", "mlp")

    @staticmethod
    def site(model: Any) -> Site:
        """The three modalities side by side."""
        width = model.fc.in_features // 3
        code = "torch.cat((fused_text_features, fused_audio_features, fused_visual_features)"
        streams = [("text", width), ("audio", width), ("visual", width)]
        return declare(model, "", [("forward", code)], streams, layout="(N, d)")

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Which steps are real."""
        return mask_of(args, kwargs, 4, "utterance_masks")


fusionzoo_register = fusionzoo.plugin(
    MultiEMO,
    kind="adapter",
    summary="MultiEMO: three attended modalities side by side, real utterances only",
    paper="MultiEMO: An Attention-Based Correlation-Aware Multimodal Fusion Framework for Emotion Recognition in Conversations, ACL 2023",
    code="https://github.com/TaoShi1998/MultiEMO-ACL2023/tree/e96458b870",
    modalities=(3, 3),
)
