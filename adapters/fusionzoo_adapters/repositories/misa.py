"""MISA joins six vectors, a private and a shared one of each modality, after a transformer over the six.

Source: https://github.com/declare-lab/MISA at ec42faddde (MIT), src/models.py, method `alignment`; none of its code is here. The streams
that a fusion receives are both vectors of a modality side by side. One vector per utterance: no step is padding.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import named


class MISA:
    """The published model, with BERT or an embedding."""

    layout = "(B, d)"

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, the private and shared encoders and the transformer."""
        return named(model, "MISA", "private_t", "private_v", "private_a", "shared", "transformer_encoder", "fusion")

    @staticmethod
    def site(model: Any) -> Site:
        """The six vectors side by side."""
        width = model.config.hidden_size
        streams = [(m, width) for m in ("text", "visual", "audio") * 2]
        return declare(model, "", [("alignment", "torch.cat((h[0], h[1], h[2]")], streams, layout="(B, d)")


fusionzoo_register = fusionzoo.plugin(
    MISA,
    kind="adapter",
    summary="MISA: private and shared vectors of three modalities, after a transformer",
    paper="MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis, https://arxiv.org/abs/2005.03545",
    code="https://github.com/declare-lab/MISA/tree/ec42faddde",
    modalities=(3, 3),
)
