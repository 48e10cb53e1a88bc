"""DialogueGCN, DialogueRNN and bc-LSTM of conv-emotion take one tensor, joined by their training scripts.

Source: https://github.com/declare-lab/conv-emotion at 6128ca20e9 (MIT), DialogueGCN/model.py, DialogueRNN/model.py and
bc-LSTM-pytorch/model.py; none of its code is here. How wide each modality is cannot be read off the models: the repository's
feature files are known by their sum. A model built for text alone has no site. Real steps are `umask`.

With current torch, numpy and torch-geometric DialogueGCN needs `fusionzoo.modernise`: nested index lists, and edge weights
handed to `RGCNConv`, which has not taken them since 1.6 and goes without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import CUDA, EDGE_WEIGHTS, NUMPY_INDEX
from fusionzoo.patching.sites import InputSite
from fusionzoo_adapters.repositories._known import mask_of, named, shares


class ConvEmotion:
    """`DialogueGCNModel`, `BiModel` and `LSTMModel`, called as `model(U, qmask, umask, ...)`."""

    known = (
        {"text": 100, "audio": 100, "visual": 512},  # IEMOCAP
        {"text": 600, "audio": 300},  # MELD
        {"text": 100, "audio": 100},
    )
    repairs = (CUDA, NUMPY_INDEX, EDGE_WEIGHTS)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's names and parts; MMGCN and LMAM have classes of the same names."""
        return (
            (named(model, "DialogueGCNModel", "att_model", "graph_net") and not hasattr(model, "modals"))
            or named(model, "BiModel", "dialog_rnn_f", "dialog_rnn_r", "matchatt")
            or (named(model, "LSTMModel", "lstm", "linear", "smax_fc") and not hasattr(model, "lstm2"))
        )

    @classmethod
    def site(cls, model: Any) -> InputSite:
        """The joined features."""
        return InputSite("U", shares(cls.total(model), cls.known, "U"), "(T, B, d)")

    @staticmethod
    def total(model: Any) -> int:
        """Features of the joined tensor."""
        if hasattr(model, "dialog_rnn_f"):
            return model.dialog_rnn_f.dialogue_cell.D_m
        if hasattr(model, "base_linear"):
            return model.base_linear.in_features
        return (model.lstm if hasattr(model, "lstm") else model.gru).input_size

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Which steps are real."""
        return mask_of(args, kwargs, 2, "umask")


fusionzoo_register = fusionzoo.plugin(
    ConvEmotion,
    kind="adapter",
    summary="conv-emotion: DialogueGCN, DialogueRNN and bc-LSTM, features joined before the model",
    paper="DialogueGCN, https://arxiv.org/abs/1908.11540; DialogueRNN, https://arxiv.org/abs/1811.00405",
    code="https://github.com/declare-lab/conv-emotion/tree/6128ca20e9",
    modalities=(2, 3),
)
