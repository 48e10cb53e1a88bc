"""TFN takes the outer product of three vectors, each with a one in front.

Source: https://github.com/Justin1904/TensorFusionNetworks at ef0e78b558 (MIT), model.py; none of its code is here. The site is
the second of the two batched products in `forward`, in which the text meets the product of audio and visual. One vector per
utterance: no step is padding.
"""

from __future__ import annotations

from torch import nn

import fusionzoo
from fusionzoo_adapters.repositories._known import named, utterance_example


class TFN:
    """The published model, called as `model(audio_x, video_x, text_x)`."""

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, the three subnetworks and what follows them."""
        return named(model, "TFN", "audio_subnet", "video_subnet", "text_subnet", "post_fusion_layer_1", "output_range")

    example = staticmethod(utterance_example)


fusionzoo_register = fusionzoo.plugin(
    TFN,
    kind="adapter",
    summary="TFN: the outer product",
    paper="Tensor Fusion Network for Multimodal Sentiment Analysis, https://arxiv.org/abs/1707.07250",
    code="https://github.com/Justin1904/TensorFusionNetworks/tree/ef0e78b558",
    modalities=(3, 3),
)
