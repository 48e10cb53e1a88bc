"""LMF multiplies three low-rank projections, one per modality.

Source: https://github.com/Justin1904/Low-rank-Multimodal-Fusion at ea4755124d (MIT), model.py; none of its
code is here. The factors are parameters of the model itself, so that no submodule can be replaced: the product's expression in
`forward` is the site. One vector per utterance: no step is padding.
"""

from __future__ import annotations

from torch import nn

import fusionzoo
from fusionzoo_adapters.repositories._known import named, utterance_example


class LMF:
    """The published model, called as `model(audio_x, video_x, text_x)`."""

    layout = "(..., d)"  # ranks in front of the batch

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, the three subnetworks and what follows them."""
        return named(
            model, "LMF", "audio_subnet", "video_subnet", "text_subnet", "audio_factor", "video_factor", "text_factor"
        )

    example = staticmethod(utterance_example)


fusionzoo_register = fusionzoo.plugin(
    LMF,
    kind="adapter",
    summary="LMF: the product of the three projections",
    paper="Efficient Low-rank Multimodal Fusion with Modality-Specific Factors, https://arxiv.org/abs/1806.00064",
    code="https://github.com/Justin1904/Low-rank-Multimodal-Fusion/tree/ea4755124d",
    modalities=(3, 3),
)
