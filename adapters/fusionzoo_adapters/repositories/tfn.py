"""TFN takes the outer product of three vectors, each with a one in front.

Source: https://github.com/Justin1904/TensorFusionNetworks at ef0e78b558 (MIT), model.py; none of its code is here. The site is
the second of the two batched products in `forward`, in which the text meets the product of audio and visual. One vector per
utterance: no step is padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo_adapters.repositories._known import named


class TFN:
    """The published model, called as `model(audio_x, video_x, text_x)`."""

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, the three subnetworks and what follows them."""
        return named(model, "TFN", "audio_subnet", "video_subnet", "text_subnet", "post_fusion_layer_1", "output_range")

    @staticmethod
    def example(model: Any) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """A small call; the site is the first that it shows."""
        like = next(model.audio_subnet.parameters())
        shapes = (3, model.audio_in), (3, model.video_in), (3, 5, model.text_in)
        with torch.random.fork_rng(devices=[]):
            return tuple(torch.randn(*s, device=like.device, dtype=like.dtype) for s in shapes), {}


fusionzoo_register = fusionzoo.plugin(
    TFN,
    kind="adapter",
    summary="TFN: the outer product",
    paper="Tensor Fusion Network for Multimodal Sentiment Analysis, https://arxiv.org/abs/1707.07250",
    code="https://github.com/Justin1904/TensorFusionNetworks/tree/ef0e78b558",
    modalities=(3, 3),
)
