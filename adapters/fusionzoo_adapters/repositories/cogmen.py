"""COGMEN joins its modalities in the data set; its context encoder receives them side by side.

Source: https://github.com/Exploration-Lab/COGMEN at 8c00c9bfec (GPL-3.0), cogmen/model/COGMEN.py and SeqContext.py; none of its
code is here. `Dataset.padding` puts audio, text and visual next to each other, so the site is the second argument of the
submodule `rnn`, which `forward` and the trainers' `get_loss` both pass through. Lengths are `data["text_len_tensor"]`.
The repository's `forward` returns labels; train through `get_loss`, and, so that the fusion is told the lengths then, set
`model.forward = model.get_loss` before patching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.sites import InputSite
from fusionzoo_adapters.repositories._known import given, named, shares


class COGMEN:
    """The model of any of the three data sets, with two modalities or three."""

    known = (
        {"audio": 100, "text": 768, "visual": 512},  # IEMOCAP
        {"audio": 80, "text": 768, "visual": 35},  # MOSEI
        {"audio": 100, "text": 768},
        {"text": 768, "visual": 512},
        {"audio": 100, "visual": 512},
    )

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, the context encoder and the graph network."""
        return named(model, "COGMEN", "rnn", "gcn", "clf") and hasattr(model.rnn, "input_size")

    @classmethod
    def site(cls, model: Any) -> InputSite:
        """What the context encoder is given."""
        return InputSite("text_tensor", shares(model.rnn.input_size, cls.known, "text_tensor"), "(B, T, d)", path="rnn")

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The dialogues' lengths."""
        data = given(args, kwargs, 0, "data")
        return {} if data is None else {"lengths": data["text_len_tensor"]}


fusionzoo_register = fusionzoo.plugin(
    COGMEN,
    kind="adapter",
    summary="COGMEN: features joined before the model, split at the context encoder",
    paper="COGMEN: COntextualized GNN based Multimodal Emotion recognitioN, https://arxiv.org/abs/2205.02455",
    code="https://github.com/Exploration-Lab/COGMEN/tree/8c00c9bfec",
    modalities=(2, 3),
)
