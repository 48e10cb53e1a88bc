"""MulT joins the last state of each modality's memory, after the cross-modal transformers.

Source: https://github.com/yaohungt/Multimodal-Transformer at a670936824 (MIT), src/models.py; none of its code is here.
One vector per utterance: no step is padding. With current torch the position embedding needs `fusionzoo.modernise` (views).
"""

from __future__ import annotations

from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import VIEW
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import named


class MulT:
    """`MULTModel` with all three targets."""

    layout = "(B, d)"
    repairs = (VIEW,)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name and the three memories."""
        parts = ("trans_l_mem", "trans_a_mem", "trans_v_mem", "proj1")
        return named(model, "MULTModel", *parts) and bool(model.partial_mode == 3)

    @staticmethod
    def site(model: Any) -> Site:
        """The last states side by side."""
        streams = [("text", 2 * model.d_l), ("audio", 2 * model.d_a), ("visual", 2 * model.d_v)]
        return declare(model, "", [("forward", "torch.cat([last_h_l, last_h_a, last_h_v]")], streams, layout="(B, d)")


fusionzoo_register = fusionzoo.plugin(
    MulT,
    kind="adapter",
    summary="MulT: last states of three memories side by side",
    paper="Multimodal Transformer for Unaligned Multimodal Language Sequences, https://arxiv.org/abs/1906.00295",
    code="https://github.com/yaohungt/Multimodal-Transformer/tree/a670936824",
    modalities=(3, 3),
)
