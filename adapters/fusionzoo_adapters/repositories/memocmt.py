"""MemoCMT attends from text to audio and from audio to text, and puts the two lists of tokens one after the other.

Source: https://github.com/tpnam0901/MemoCMT at d3248703e7 (MIT), src/models/networks.py; none of its code is here. The lists have lengths of
their own: a fusion that takes unaligned streams follows the first one, others give each list the fused mean. The first list
has audio's steps and text's content; it is called audio here, after its query. With `fusion_head_output_type="cls"`, the default,
only its first step is read. The official model has no mask.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import named


class MemoCMT:
    """The published model."""

    layout = "(B, T, d)"

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name and the two attentions."""
        return named(model, "MemoCMT", "text_attention", "audio_attention", "text_linear", "audio_linear", "classifer")

    @staticmethod
    def site(model: Any) -> Site:
        """The two lists of tokens."""
        streams = [("audio", model.text_linear.out_features), ("text", model.audio_linear.out_features)]
        code = "torch.cat((text_norm, audio_norm), 1)"
        return declare(
            model, "", [("forward", code)], streams, kind="rows", axis=1, layout="(B, T, d)", result=streams[0][1]
        )


fusionzoo_register = fusionzoo.plugin(
    MemoCMT,
    kind="adapter",
    summary="MemoCMT: two lists of attended tokens, one after the other",
    paper="MemoCMT: Multimodal Emotion Recognition using Cross-Modal Transformer-based Feature Fusion, Scientific Reports 2025",
    code="https://github.com/tpnam0901/MemoCMT/tree/d3248703e7",
    modalities=(2, 2),
)
