"""GCNet takes audio, text and visual as one tensor, the only item of a list.

Source: https://github.com/zeroQiaoba/GCNet at 8cce4a0c9a (no licence stated), gcnet/model.py; none of its code is here. The trainer's
`generate_inputs` joins them. How wide each one is cannot be read off the model: the published features (wav2vec-large,
DeBERTa-large, MA-Net: 512, 1024, 1024) are known by their sum. Real steps are `umask`. On a machine without CUDA build it with
`no_cuda=True`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import CUDA
from fusionzoo.patching.sites import InputSite
from fusionzoo_adapters.repositories._known import mask_of, named, shares


class GCNet:
    """The model with either base model."""

    known = ({"audio": 512, "text": 1024, "visual": 1024},)
    repairs = (CUDA,)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name and its two graph networks."""
        return named(model, "GraphModel", "graph_net_temporal", "graph_net_speaker", "linear_rec")

    @classmethod
    def site(cls, model: Any) -> InputSite:
        """The joined features."""
        return InputSite("inputfeats[0]", shares(model.lstm.input_size, cls.known, "inputfeats[0]"), "(T, B, d)")

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Which steps are real."""
        return mask_of(args, kwargs, 2, "umask")


fusionzoo_register = fusionzoo.plugin(
    GCNet,
    kind="adapter",
    summary="GCNet: features joined before the model, in a list",
    paper="GCNet: Graph Completion Network for Incomplete Multimodal Learning in Conversation, https://arxiv.org/abs/2203.02177",
    code="https://github.com/zeroQiaoba/GCNet/tree/8cce4a0c9a",
    modalities=(3, 3),
)
