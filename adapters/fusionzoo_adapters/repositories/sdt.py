"""SDT weighs its three modalities by a gate, whose call is the site.

Source: https://github.com/butterfliesss/SDT at 60af921823 (no licence stated), model.py; none of its code is here. The fusion is given what
the gate `last_gate` is given and acts on what it returns. Real steps are `u_mask`. Without CUDA `forward` needs
`fusionzoo.modernise`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import CUDA
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import mask_of, named


class SDT:
    """`Transformer_Based_Model`."""

    layout = "(B, T, d)"
    repairs = (CUDA,)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, the projections and the gate."""
        return named(model, "Transformer_Based_Model", "textf_input", "features_reduce_t", "last_gate")

    @staticmethod
    def site(model: Any) -> Site:
        """The gate's call."""
        width = model.features_reduce_t.out_features
        streams = [("text", width), ("audio", width), ("visual", width)]
        return declare(
            model, "", [("forward", "self.last_gate(")], streams, kind="product", layout="(B, T, d)", result=width
        )

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Which steps are real."""
        return mask_of(args, kwargs, 3, "u_mask")


fusionzoo_register = fusionzoo.plugin(
    SDT,
    kind="adapter",
    summary="SDT: the gate over three modalities",
    paper="A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in Conversations, https://arxiv.org/abs/2310.20494",
    code="https://github.com/butterfliesss/SDT/tree/60af921823",
    modalities=(3, 3),
)
